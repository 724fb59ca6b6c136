/* SPDX-License-Identifier: Apache-2.0 */
#include "remote_host.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static void wait_readable(int fd)
{
    struct pollfd wish = {.fd = fd, .events = POLLIN};
    CHECK(poll(&wish, 1, PATIENCE_MS) == 1);
}

/* -- hooks --------------------------------------------------------------------------------- */

static uint64_t now_ns(void *self)
{
    struct timespec now;
    (void)self;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int control_send(void *self, const void *message, uint32_t size)
{
    struct host *host = self;
    struct iovec part = {(void *)(uintptr_t)message, size};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof host->fds)];
    } beside = {.room = {0}};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    if (host->fd_count > 0) {
        packet.msg_control = &beside;
        packet.msg_controllen = CMSG_SPACE(sizeof(int) * host->fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * host->fd_count);
        memcpy(CMSG_DATA(rights), host->fds, sizeof(int) * host->fd_count);
    }
    host->fd_count = 0;
    return sendmsg(host->control, &packet, MSG_NOSIGNAL) < 0 ? SBE_EIO : SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    (void)area;
    (void)message;
    return SBE_ENOTSUP;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    (void)area;
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    const uint64_t one = 1;
    (void)channel;
    CHECK(write(((struct host *)self)->bell_out, &one, sizeof one) == sizeof one);
}

static int channel_open(void *self, const struct sbe_session_channel *place,
                        const struct sbe_channel_open *message, void *send, void *receive)
{
    (void)self;
    (void)place;
    (void)message;
    (void)send;
    (void)receive;
    return SBE_ENOTSUP;
}

static void channel_close(void *self, const struct sbe_session_channel *place)
{
    (void)self;
    (void)place;
}

static int offer_service(void *self, uint32_t context, const char *name, uint32_t index,
                         struct sbe_service_reply *reply)
{
    (void)context;
    (void)index;
    ((struct host *)self)->finds_seen++;
    reply->service = SERVICE_AT_HOST;
    return name != NULL && strcmp(name, "double") == 0 ? SBE_OK : SBE_ENOENT;
}

static void refused(void *self, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                    uint16_t peer_max)
{
    (void)theirs;
    CHECK(peer_min <= peer_max);
    ((struct host *)self)->refusal = why;
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    struct reply *reply = token;
    (void)self;
    if (reply == NULL)
        return;
    *reply = (struct reply){.here = true, .status = status};
    if (message != NULL && message->type == (SBE_CONTROL_SERVICE_FIND | SBE_CONTROL_REPLY))
        reply->service = ((const struct sbe_service_reply *)(const void *)message)->service;
}

/* -- the session --------------------------------------------------------------------------- */

void spawn_remote(struct host *host, const char *const *arguments)
{
    const char *program = getenv("SBE_REMOTE");
    char number[16];
    const char *argv[16] = {program, "--die-with-parent", "--control-fd", number};
    int ends[2];
    for (uint32_t i = 0; arguments[i] != NULL; i++)
        argv[4 + i] = arguments[i];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    (void)snprintf(number, sizeof number, "%d", ends[1]);
    host->pid = fork();
    CHECK(host->pid >= 0);
    if (host->pid == 0) {
        (void)fcntl(ends[1], F_SETFD, 0);
        (void)execv(program, (char **)(uintptr_t)argv);
        _exit(127);
    }
    (void)close(ends[1]);
    host->control = ends[0];
}

pid_t spawn_listener(const char *path)
{
    const char *program = getenv("SBE_REMOTE");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)execl(program, program, "--die-with-parent", "--socket", path, (char *)NULL);
        _exit(127);
    }
    return pid;
}

void connect_to(struct host *host, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    host->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(host->control >= 0);
    const struct timespec pause = {0, 1000000};
    uint64_t end = now_ns(NULL) + PATIENCE_MS * UINT64_C(1000000);
    while (connect(host->control, (const struct sockaddr *)&address, sizeof address) < 0) {
        CHECK(now_ns(NULL) < end);
        (void)nanosleep(&pause, NULL);
    }
}

void begin_session(struct host *host)
{
    static uint32_t epoch = 1000;
    host->port = (struct sbe_port){
        .self = host,
        .now_ns = now_ns,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_detach = area_detach,
        .doorbell = doorbell,
    };
    host->hooks = (struct sbe_session_hooks){
        .self = host,
        .channel_open = channel_open,
        .channel_close = channel_close,
        .service = offer_service,
        .refused = refused,
        .replied = replied,
    };
    host->config = (struct sbe_session_config){
        .port = &host->port,
        .hooks = &host->hooks,
        .name = "test host",
        .role = SBE_ROLE_HOST,
        .coherent = 1,
        .address_bits = 64,
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .cache_line = 64,
        .limits = {AREAS, 4, CHANNELS, SLOTS, SLOT, SBE_BUFFERS_MAX},
        .areas = host->areas,
        .contexts = host->contexts,
        .channels = host->session_channels,
        .pending = host->pending,
        .pending_count = 16,
    };
    CHECK(sbe_session_init(&host->session, &host->config) == SBE_OK);
    CHECK(sbe_session_start(&host->session, ++epoch) == SBE_OK);
}

void pump(struct host *host)
{
    uint64_t message[64];
    wait_readable(host->control);
    ssize_t size = recv(host->control, message, sizeof message, 0);
    CHECK(size > 0);
    (void)sbe_session_receive(&host->session, message, (uint32_t)size, 0);
}

void pump_until_connected(struct host *host)
{
    while (host->session.state != SBE_SESSION_CONNECTED)
        pump(host);
}

int end_remote(struct host *host)
{
    int status;
    (void)close(host->control);
    CHECK(waitpid(host->pid, &status, 0) == host->pid);
    if (host->ring_memory != NULL) {
        (void)close(host->bell_in);
        (void)close(host->bell_out);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct reply request(struct host *host, enum sbe_control_type type, struct sbe_control *message,
                     size_t size)
{
    struct reply reply = {.here = false};
    CHECK(sbe_session_request(&host->session, type, message, (uint32_t)size, &reply) == SBE_OK);
    while (!reply.here)
        pump(host);
    return reply;
}

/* -- areas and the channel ----------------------------------------------------------------- */

int memfd(size_t size, unsigned int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

int map_area(struct host *host, uint32_t id, uint32_t context, uint32_t flags, int fd,
             uint64_t size)
{
    struct sbe_area_map map = {
        .area = id, .context = context, .flags = flags, .handles = fd >= 0, .size = size};
    host->fds[0] = fd;
    host->fd_count = fd >= 0;
    int status = request(host, SBE_CONTROL_AREA_MAP, &map.control, sizeof map).status;
    if (fd >= 0)
        (void)close(fd);
    return status;
}

static void *shared_memory(struct host *host, uint32_t id, uint32_t flags, size_t size)
{
    int fd = memfd(size, F_SEAL_SHRINK | F_SEAL_GROW);
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    CHECK(map_area(host, id, 0, flags, fd, size) == SBE_OK);
    return base;
}

void *new_area(struct host *host, uint32_t id, size_t size)
{
    return shared_memory(host, id, 0, size);
}

void open_channel(struct host *host, uint32_t id)
{
    const uint32_t slots = host->slots == 0 ? SLOTS : host->slots;
    const struct sbe_ring_geometry geometry = {slots, SLOT, host->session.line};
    uint64_t ring_size = (uint64_t)sbe_ring_size(&geometry);
    uint32_t ring_area = 0x1003f;
    host->ring_memory = shared_memory(host, ring_area, SBE_AREA_RING, 2 * ring_size);
    sbe_ring_clear(host->ring_memory, &geometry, UINT32_MAX - 2); /* wraps soon */
    sbe_ring_clear(host->ring_memory + ring_size, &geometry, UINT32_MAX - 2);
    host->bell_in = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    host->bell_out = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(host->bell_in >= 0 && host->bell_out >= 0);
    const struct sbe_channel_config config = {
        .id = id,
        .geometry = geometry,
        .send = host->ring_memory,
        .receive = host->ring_memory + ring_size,
        .port = &host->port,
        .areas = &host->session.areas,
        .calls = host->calls,
        .call_count = CALLS,
    };
    CHECK(sbe_channel_open(&host->channel, &config) == SBE_OK);
    struct sbe_channel_open open = {
        .channel = id,
        .ring_area = ring_area,
        .slots = slots,
        .slot_size = SLOT,
        .line = geometry.line,
        .receive_offset = ring_size,
        .handles = 2,
    };
    int hears = host->listener == NULL ? -1 : host->listener(host->bell_out);
    host->fds[0] = hears < 0 ? host->bell_out : hears;
    host->fds[1] = host->bell_in;
    host->fd_count = 2;
    CHECK(request(host, SBE_CONTROL_CHANNEL_OPEN, &open.control, sizeof open).status == SBE_OK);
    if (hears >= 0)
        (void)close(hears);
}

uint16_t find_service(struct host *host, const char *name)
{
    struct sbe_service_find find = {.context = 0};
    (void)snprintf(find.name, sizeof find.name, "%s", name);
    struct reply reply = request(host, SBE_CONTROL_SERVICE_FIND, &find.control, sizeof find);
    CHECK(reply.status == SBE_OK && reply.service != 0);
    return reply.service;
}

void next_frame(struct host *host, struct sbe_frame *frame)
{
    for (;;) {
        uint64_t rings;
        int status = sbe_channel_receive(&host->channel, frame, host->scratch);
        CHECK(status == 0 || status == 1);
        if (status == 1)
            return;
        if (!sbe_channel_idle(&host->channel))
            continue;
        wait_readable(host->bell_in);
        CHECK(read(host->bell_in, &rings, sizeof rings) == sizeof rings);
    }
}

int call(struct host *host, struct sbe_frame *frame, struct sbe_frame *response)
{
    CHECK(sbe_channel_request(&host->channel, frame, host) == SBE_OK);
    sbe_channel_flush(&host->channel);
    next_frame(host, response);
    CHECK(response->type == SBE_FRAME_RESPONSE && response->transaction == frame->transaction);
    return response->status;
}

uint32_t open_fds(struct host *host)
{
    char path[64];
    uint32_t count = 0;
    struct sbe_ping ping = {.cookie = 1};
    CHECK(request(host, SBE_CONTROL_PING, &ping.control, sizeof ping).status == SBE_OK);
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)host->pid);
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    (void)closedir(folder);
    return count;
}
