/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbe-remote-rpmsg, sbe-remote-openamp: the engine behind a real kernel's rpmsg, as the core of a
 * remote processor of the kernel module sbe_userproc. Single-threaded.
 */
#include <errno.h>
#include <poll.h>
#include <sbe_userproc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/version.h"
#include "ports/userproc/bus.h"
#include "ports/userproc/clock.h"

#define PRIVATE_MAX (4u << 20) /* bytes of a channel's rings that are not shared */

static struct core core;
static struct rpmsg_link remote_link;
static bool tried; /* to open the bus, since the host's last start */
static bool quiet; /* announces nothing, as firmware of another kind */

static uint64_t now_ns(void *self)
{
    (void)self;
    return clock_now_ns();
}

static void say(const char *line)
{
    (void)fprintf(stderr, "%s: %s\n", SBE_PROGRAM, line);
    core_trace(&core, line);
}

/* -- areas --------------------------------------------------------------------------------- */

static int map_segments(struct sbe_area *area, const struct sbe_area_map *message, uint64_t offset)
{
    const struct sbe_segment *segments = (const void *)(message + 1);
    for (uint32_t i = 0; i < message->segment_count; i++) {
        uint8_t *place = (uint8_t *)area->base + offset;
        int status = core_map(&core, place, segments[i].address, segments[i].size);
        if (status < 0)
            return status;
        offset += segments[i].size;
    }
    return SBE_OK;
}

/*
 * Scattered segments become one range here: this core has an MMU, its process's. Rings without any
 * are not shared: each end has its own.
 */
static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    bool private = message->segment_count == 0;
    (void)self;
    if (message->handles != 0 || (private && area->flags != RPMSG_LINK_PRIVATE))
        return SBE_ENOTSUP; /* no descriptor crosses rpmsg */
    if (private && area->size > PRIVATE_MAX)
        return SBE_ENOMEM;
    area->base = mmap(NULL, (size_t)area->size, private ? PROT_READ | PROT_WRITE : PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area->base == MAP_FAILED) {
        area->base = NULL;
        return SBE_ENOMEM;
    }
    int status = map_segments(area, message, 0);
    if (status < 0)
        (void)munmap(area->base, (size_t)area->size);
    return status;
}

static int area_extend(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    return map_segments(area, message, area->size - area->missing);
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    if (area->base != NULL)
        (void)munmap(area->base, (size_t)area->size);
}

/* -- life ---------------------------------------------------------------------------------- */

static void bring_up(void)
{
    struct core_queue queues[2];
    uint32_t epoch;
    if (tried || !core_bring_up(&core, queues))
        return;
    tried = true;
    if (!bus_open(&core, queues, &remote_link, quiet)) {
        say("the host's virtqueues can't be used");
        return;
    }
    if (getrandom(&epoch, sizeof epoch, 0) != sizeof epoch)
        epoch = (uint32_t)now_ns(NULL);
    rpmsg_link_up(&remote_link, epoch);
    say("up");
}

static void bring_down(void)
{
    if (remote_link.up) {
        rpmsg_link_down(&remote_link);
        bus_close();
    }
    core_let_go(&core);
    tried = false;
}

static bool take_events(void)
{
    struct sbe_userproc_event event;
    ssize_t size = read(core.fd, &event, sizeof event);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR;
    if ((event.events & SBE_USERPROC_STOP) != 0) {
        bring_down();
        core_stopped(&core);
    }
    if (event.kicks != 0) /* of the time after a stop in the same event */
        bring_up();
    return true;
}

/* Everything there is to do. True: there is more. */
static bool work(void)
{
    if (!remote_link.up)
        return false;
    bool more = bus_receive();
    more = rpmsg_link_run(&remote_link) || more;
    bus_notify();
    return more;
}

static struct rpmsg_link_config config = {
    .name = SBE_PROGRAM,
    .coherent = true,
    .port =
        {
            .now_ns = now_ns,
            .area_attach = area_attach,
            .area_extend = area_extend,
            .area_detach = area_detach,
        },
    .send = bus_send,
};

/* DEVICE, --quiet, --protocol MIN-MAX in any order. NULL: something else. */
static const char *take_arguments(int argc, char **argv)
{
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        unsigned min, max;
        if (strcmp(argv[i], "--quiet") == 0) {
            quiet = true;
        } else if (strcmp(argv[i], "--protocol") == 0 && i + 1 < argc &&
                   sscanf(argv[i + 1], "%5u-%5u", &min, &max) == 2 && min <= max &&
                   max <= UINT16_MAX) {
            config.version_min = (uint16_t)min;
            config.version_max = (uint16_t)max;
            i++;
        } else if (path == NULL && argv[i][0] != '-') {
            path = argv[i];
        } else {
            return NULL;
        }
    }
    return path != NULL ? path : "/dev/sbe-userproc0";
}

/* How long to sleep. NULL: until something comes. */
static struct timespec *until_next(bool more, struct timespec *wait)
{
    uint64_t due_ns = rpmsg_link_due_ns(), left_ns = UINT64_MAX;
    if (due_ns != UINT64_MAX) {
        uint64_t now = now_ns(NULL);
        left_ns = due_ns > now ? due_ns - now : 0;
    }
    /* OpenAMP asks for no interrupt when buffers come back. */
    if (rpmsg_link_waits(&remote_link) && left_ns > 1000000u)
        left_ns = 1000000u;
    if (more)
        left_ns = 0;
    wait->tv_sec = (time_t)(left_ns / 1000000000u);
    wait->tv_nsec = (long)(left_ns % 1000000000u);
    return left_ns == UINT64_MAX ? NULL : wait;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf(SBE_PROGRAM " " SBE_RELEASE ", protocol %u to %u\n", SBE_VERSION_MIN,
                     SBE_VERSION_MAX);
        return 0;
    }
    const char *path = take_arguments(argc, argv);
    if (path == NULL) {
        (void)fprintf(stderr, "Usage: " SBE_PROGRAM " [--quiet] [--protocol MIN-MAX] [DEVICE]\n"
                              "       " SBE_PROGRAM " --version\n"
                              "The remote as the core of a remote processor of the kernel module\n"
                              "sbe_userproc, by default /dev/sbe-userproc0. For tests: --quiet\n"
                              "announces nothing, --protocol speaks other versions.\n");
        return 2;
    }
    if (!core_open(&core, path)) {
        (void)fprintf(stderr, SBE_PROGRAM ": %s: %s\n", path, strerror(errno));
        return 1;
    }
    clock_open();
    if (rpmsg_link_init(&remote_link, &config) != SBE_OK)
        return 1;
    for (;;) {
        bool more = work();
        struct pollfd fd = {.fd = core.fd, .events = POLLIN};
        struct timespec wait;
        if (ppoll(&fd, 1, until_next(more, &wait), NULL) < 0 && errno != EINTR)
            return 1;
        if ((fd.revents & POLLIN) != 0 && !take_events())
            return 1;
    }
}
