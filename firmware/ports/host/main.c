/* SPDX-License-Identifier: Apache-2.0 */
/* sbe-remote: sets everything up, then host_run(). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "ninep/files.h"
#include "ports/host/host.h"

#define CALLS_PER_CHANNEL 32u /* of the remote to its host */
#define KEPT_PER_CONTEXT  8u  /* an eighth of what each of our services has room for */
#define PENDING           64u /* control requests of the remote */
#define SPARE_FDS         64u

static struct host host; /* large, and there is one */

static void tell_refusal(void *self, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                         uint16_t peer_max)
{
    static const char *const WORDS[] = {
        [SBE_REFUSED_NOT] = "nothing",     [SBE_REFUSED_MAGIC] = "magic",
        [SBE_REFUSED_VERSION] = "version", [SBE_REFUSED_ROLE] = "role",
        [SBE_REFUSED_LIMITS] = "limits",
    };
    (void)self;
    if (host.refusal_told)
        return; /* both ends refuse for the same reason */
    host.refusal_told = true;
    host_log("%s: %s; the host speaks protocol %u to %u, this remote %u to %u",
             theirs ? "the host refuses" : "host refused", WORDS[why], peer_min, peer_max,
             host.options.version_min, host.options.version_max);
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    (void)self;
    sbe_power_event(&host.power, event, value);
}

/* Large tables come untouched from the kernel: a page costs memory only once it is used. */
static bool allocate(void)
{
    const struct sbe_limits *limits = &host.options.limits;
    struct sbe_engine_config *config = &host.config;
    struct sbe_session_config *session = &config->session;
    config->channels = calloc(limits->channels, sizeof *config->channels);
    config->calls = calloc((size_t)limits->channels * CALLS_PER_CHANNEL, sizeof *config->calls);
    config->scratch_in = malloc(limits->slot_size);
    config->scratch_out = malloc(limits->slot_size);
    session->areas = calloc(limits->areas, sizeof *session->areas);
    session->contexts = calloc(limits->contexts, sizeof *session->contexts);
    session->channels = calloc(limits->channels, sizeof *session->channels);
    session->pending = calloc(PENDING, sizeof *session->pending);
    host.channels = calloc(limits->channels, sizeof *host.channels);
    void *paused = calloc(limits->channels, SBE_PAUSED_SIZE(limits->slot_size));
    sbe_pieces_use(config, paused);
    return paused != NULL && config->channels != NULL && config->calls != NULL &&
           config->scratch_in != NULL && config->scratch_out != NULL && session->areas != NULL &&
           session->contexts != NULL && session->channels != NULL && session->pending != NULL &&
           host.channels != NULL;
}

static bool start_engine(void)
{
    host.port = (struct sbe_port){
        .self = &host,
        .now_ns = host_now_ns,
        .control_send = host_control_send,
        .area_attach = host_area_attach,
        .area_detach = host_area_detach,
        .doorbell = host_doorbell,
    };
    struct sbe_engine_config *config = &host.config;
    struct sbe_session_config *session = &config->session;
    *config = sbe_engine_defaults(&host.port);
    config->calls_per_channel = CALLS_PER_CHANNEL;
    config->kept_per_context = KEPT_PER_CONTEXT;
    config->opened = host_channel_opened;
    config->closed = host_channel_closed;
    session->name = "sbe-remote";
    session->version_min = host.options.version_min;
    session->version_max = host.options.version_max;
    session->cache_line = host.options.cache_line;
    session->limits = host.options.limits;
    session->pending_count = PENDING;
    if (!allocate()) {
        host_log("out of memory");
        return false;
    }
    int status = sbe_engine_init(&host.engine, config);
    if (status < 0)
        host_log("the engine refuses these limits (%d)", status);
    sbe_power_init(&host.power, &host.engine, NULL);
    host.engine.hooks.event = take_event;
    host.engine.hooks.refused = tell_refusal;
    return status == SBE_OK;
}

static bool stay_with_parent(void)
{
    pid_t parent = host.options.parent != 0 ? host.options.parent : getppid();
    if (!host.options.die_with_parent)
        return true;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        host_log("--die-with-parent: %s", strerror(errno));
        return false;
    }
    return getppid() == parent; /* else it died before the kernel knew our wish */
}

/* Room for two doorbells per channel; where the limit is too low, opening one will say so. */
static void raise_fd_limit(void)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)host.options.limits.channels * 2 + SPARE_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * With --control-fd the host ends us by closing the socket, and a Ctrl-C in its terminal is the
 * host's to handle. With --socket we are our own master and remove the socket.
 */
static bool settle_signals(void)
{
    sigset_t signals;
    (void)signal(SIGPIPE, SIG_IGN);
    if (host.options.socket_path == NULL) {
        (void)signal(SIGINT, SIG_IGN);
        return true;
    }
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return false;
    host.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return host.signal_fd >= 0 && host_watch(&host, host.signal_fd, EPOLLIN, &host.signal_fd);
}

static bool is_control_socket(int fd)
{
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

static bool connect_or_listen(void)
{
    if (host.options.socket_path != NULL)
        return host_listen(&host);
    if (!is_control_socket(host.options.control_fd)) {
        host_log("--control-fd: %d is not an AF_UNIX SOCK_SEQPACKET socket",
                 host.options.control_fd);
        return false;
    }
    host.control_fd = host.options.control_fd;
    return host_start(&host);
}

int main(int argc, char **argv)
{
    int exit_status;
    host.options = (struct host_options){
        .control_fd = -1,
        .limits = {16384, 2048, 2048, 1024, 16384, SBE_BUFFERS_MAX},
        .cache_line = 64,
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
    };
    if (!host_parse_options(&host.options, argc, argv, &exit_status))
        return exit_status;
    ninep_set_crash(getenv("SBE_LAST_CRASH")); /* by whoever starts us again after one */
    host.patience.longest_ns = (uint64_t)host.options.spin_us * 1000u;
    host.listen_fd = host.control_fd = host.signal_fd = -1;
    if (!stay_with_parent())
        return 1;
    raise_fd_limit();
    host.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    host.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    host.due_ns = SBE_STREAM_NEVER;
    if (host.epoll_fd < 0 || host.timer_fd < 0 ||
        !host_watch(&host, host.timer_fd, EPOLLIN, &host.timer_fd) || !settle_signals()) {
        host_log("cannot start: %s", strerror(errno));
        return 1;
    }
    if (!start_engine() || !connect_or_listen())
        return 1;
    exit_status = host_run(&host);
    if (host.options.socket_path != NULL)
        (void)unlink(host.options.socket_path);
    return exit_status;
}
