/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts come and go; each connection is a life of its own, with a new epoch. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ports/host/host.h"

static bool new_epoch(uint32_t previous, uint32_t *epoch)
{
    do {
        if (getrandom(epoch, sizeof *epoch, 0) != sizeof *epoch)
            return false;
    } while (*epoch == 0 || *epoch == previous);
    return true;
}

bool host_start(struct host *host)
{
    uint32_t epoch;
    host->lost = false;
    host->refusal_told = false;
    host->control_events = EPOLLIN;
    if (!host_watch(host, host->control_fd, EPOLLIN, &host->control_fd) ||
        !new_epoch(host->engine.session.epoch, &epoch)) {
        host_log("cannot start a session: %s", strerror(errno));
        return false;
    }
    (void)sbe_session_start(&host->engine.session, epoch); /* a dead socket is told by host->lost */
    return true;
}

/* A socket that nobody listens at is left over from a process that died. Any other file refuses to
 * be connected to as well. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat found;
    if (lstat(address->sun_path, &found) < 0 || !S_ISSOCK(found.st_mode))
        return false;
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return false;
    bool stale = connect(probe, (const struct sockaddr *)address, sizeof *address) < 0 &&
                 errno == ECONNREFUSED;
    (void)close(probe);
    return stale;
}

static bool bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t before = umask(0177); /* the owner's alone; a wider circle is the integrator's word */
    int status = bind(fd, (const struct sockaddr *)address, sizeof *address);
    if (status < 0 && errno == EADDRINUSE && is_stale(address) && unlink(address->sun_path) == 0)
        status = bind(fd, (const struct sockaddr *)address, sizeof *address);
    else if (status < 0)
        errno = EADDRINUSE;
    (void)umask(before);
    return status == 0;
}

bool host_listen(struct host *host)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = host->options.socket_path;
    if (strlen(path) >= sizeof address.sun_path) {
        host_log("--socket: the path is longer than %zu bytes", sizeof address.sun_path - 1);
        return false;
    }
    strcpy(address.sun_path, path);
    host->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (host->listen_fd < 0 || !bind_private(host->listen_fd, &address) ||
        listen(host->listen_fd, 8) < 0 ||
        !host_watch(host, host->listen_fd, EPOLLIN, &host->listen_fd)) {
        host_log("cannot listen at %s: %s", path, strerror(errno));
        return false;
    }
    return true;
}

void host_accept(struct host *host)
{
    host->control_fd = accept4(host->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (host->control_fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            host_log("cannot accept a host: %s", strerror(errno));
        return;
    }
    (void)host_watch(host, host->listen_fd, 0, &host->listen_fd); /* the next one waits */
    if (!host_start(host))
        host->lost = true;
}

void host_disconnect(struct host *host)
{
    host_unwatch(host, host->control_fd);
    (void)close(host->control_fd);
    host->control_fd = -1;
    host->outbox_first = host->outbox_count = 0;
    sbe_session_lost(&host->engine.session);
    host->lost = false;
    if (host->listen_fd >= 0)
        (void)host_watch(host, host->listen_fd, EPOLLIN, &host->listen_fd);
    else
        host->stop = true;
}
