/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/version.h"
#include "ports/host/host.h"

static const char HELP[] =
    "Usage: sbe-remote (--control-fd N | --socket PATH) [OPTION]...\n"
    "The embedded remote: serves one host at a time from a process of its own.\n"
    "\n"
    "  --control-fd N        an inherited AF_UNIX SOCK_SEQPACKET socket; ends when it is closed\n"
    "  --socket PATH         listens here; after a host has gone, waits for the next\n"
    "  --areas N             memory areas at most (16384)\n"
    "  --contexts N          contexts at most (2048)\n"
    "  --channels N          channels at most (2048)\n"
    "  --slots N             slots of a ring at most (1024)\n"
    "  --slot-size N         bytes of a slot at most (16384)\n"
    "  --cache-line N        bytes between words of different writers (64)\n"
    "  --protocol MIN-MAX    versions of the protocol to speak\n"
    "  --huge-pages          takes areas of huge pages; who holds one can end this process\n"
    "  --spin-us N           look at the rings for up to so long before sleeping (0)\n"
    "  --die-with-parent[=PID]\n"
    "                        be killed when the thread that started this process ends; with\n"
    "                        PID, end at once if that is not the parent any more\n"
    "  --version, --help\n";

enum option_id {
    OPTION_CONTROL_FD = 256,
    OPTION_SOCKET,
    OPTION_AREAS,
    OPTION_CONTEXTS,
    OPTION_CHANNELS,
    OPTION_SLOTS,
    OPTION_SLOT_SIZE,
    OPTION_CACHE_LINE,
    OPTION_PROTOCOL,
    OPTION_HUGE_PAGES,
    OPTION_SPIN_US,
    OPTION_DIE_WITH_PARENT,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option OPTIONS[] = {
    {"control-fd", required_argument, NULL, OPTION_CONTROL_FD},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"areas", required_argument, NULL, OPTION_AREAS},
    {"contexts", required_argument, NULL, OPTION_CONTEXTS},
    {"channels", required_argument, NULL, OPTION_CHANNELS},
    {"slots", required_argument, NULL, OPTION_SLOTS},
    {"slot-size", required_argument, NULL, OPTION_SLOT_SIZE},
    {"cache-line", required_argument, NULL, OPTION_CACHE_LINE},
    {"protocol", required_argument, NULL, OPTION_PROTOCOL},
    {"huge-pages", no_argument, NULL, OPTION_HUGE_PAGES},
    {"spin-us", required_argument, NULL, OPTION_SPIN_US},
    {"die-with-parent", optional_argument, NULL, OPTION_DIE_WITH_PARENT},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

/* Reads a decimal number that `end` follows. */
static bool number(const char *text, char end, uint32_t min, uint32_t max, uint32_t *value,
                   const char **rest)
{
    char *stop;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long parsed = strtoull(text, &stop, 10);
    if (errno != 0 || *stop != end || parsed < min || parsed > max)
        return false;
    *value = (uint32_t)parsed;
    if (rest != NULL)
        *rest = stop + 1;
    return true;
}

static bool power_of_two(uint32_t value)
{
    return (value & (value - 1)) == 0;
}

static bool take_versions(struct host_options *options, const char *text)
{
    uint32_t min, max;
    const char *rest;
    if (!number(text, '-', 1, UINT16_MAX, &min, &rest) ||
        !number(rest, '\0', min, UINT16_MAX, &max, NULL))
        return false;
    options->version_min = (uint16_t)min;
    options->version_max = (uint16_t)max;
    return true;
}

/* False: the argument is not legal. */
static bool take_option(struct host_options *options, int id, const char *text)
{
    struct sbe_limits *limits = &options->limits;
    uint32_t value;
    switch (id) {
    case OPTION_CONTROL_FD:
        if (!number(text, '\0', 0, INT32_MAX, &value, NULL))
            return false;
        options->control_fd = (int)value;
        return true;
    case OPTION_SOCKET:
        options->socket_path = text;
        return text[0] != '\0';
    case OPTION_AREAS:
        return number(text, '\0', 1, UINT16_MAX, &limits->areas, NULL);
    case OPTION_CONTEXTS:
        return number(text, '\0', 1, UINT16_MAX, &limits->contexts, NULL);
    case OPTION_CHANNELS:
        return number(text, '\0', 1, UINT16_MAX, &limits->channels, NULL);
    case OPTION_SLOTS:
        return number(text, '\0', 2, SBE_SLOTS_MAX, &limits->slots, NULL) &&
               power_of_two(limits->slots);
    case OPTION_SLOT_SIZE:
        return number(text, '\0', SBE_SLOT_ALIGN, SBE_SLOT_SIZE_MAX, &limits->slot_size, NULL) &&
               limits->slot_size % SBE_SLOT_ALIGN == 0;
    case OPTION_CACHE_LINE:
        return number(text, '\0', 16, SBE_LINE_MAX, &options->cache_line, NULL) &&
               power_of_two(options->cache_line);
    case OPTION_PROTOCOL:
        return take_versions(options, text);
    case OPTION_HUGE_PAGES:
        options->huge_pages = true;
        return true;
    case OPTION_SPIN_US:
        return number(text, '\0', 0, 1000000, &options->spin_us, NULL);
    case OPTION_DIE_WITH_PARENT:
        options->die_with_parent = true;
        if (text != NULL && !number(text, '\0', 1, INT32_MAX, &value, NULL))
            return false;
        options->parent = text == NULL ? 0 : (pid_t)value;
        return true;
    default:
        return false;
    }
}

bool host_parse_options(struct host_options *options, int argc, char **argv, int *exit_status)
{
    int id, index = 0;
    *exit_status = 0;
    while ((id = getopt_long(argc, argv, "", OPTIONS, &index)) != -1) {
        if (id == OPTION_HELP) {
            (void)fputs(HELP, stdout);
            return false;
        }
        if (id == OPTION_VERSION) {
            (void)printf("sbe-remote " SBE_RELEASE ", protocol %u to %u\n", SBE_VERSION_MIN,
                         SBE_VERSION_MAX);
            return false;
        }
        *exit_status = 2;
        if (id == '?')
            return false; /* getopt has said why */
        if (!take_option(options, id, optarg)) {
            host_log("--%s: %s is not a legal value", OPTIONS[index].name,
                     optarg == NULL ? "" : optarg);
            return false;
        }
    }
    *exit_status = 2;
    if (optind != argc) {
        host_log("unexpected argument %s (--help tells)", argv[optind]);
        return false;
    }
    if ((options->control_fd < 0) == (options->socket_path == NULL)) {
        host_log("exactly one of --control-fd and --socket is needed (--help tells)");
        return false;
    }
    return true;
}
