/* SPDX-License-Identifier: Apache-2.0 */
/* A real sbe-remote in a process of its own, the core as its host. SBE_REMOTE names the program. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "remote_host.h"

#ifdef __SANITIZE_ADDRESS__ /* its shadow memory would be counted */
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const char *const NO_ARGUMENTS[] = {NULL};

static uint32_t crc_reference(uint32_t crc, const uint8_t *bytes, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

static struct sbe_frame request_frame(uint16_t service, const void *payload, uint32_t size)
{
    return (struct sbe_frame){
        .type = SBE_FRAME_REQUEST, .service = service, .payload = payload, .payload_size = size};
}

static void add_buffer(struct sbe_frame *frame, uint32_t area, uint8_t direction, uint64_t offset,
                       uint64_t size)
{
    frame->buffers[frame->buffer_count++] =
        (struct sbe_buffer){.area = area, .direction = direction, .offset = offset, .size = size};
}

static void start(struct host *host)
{
    spawn_remote(host, NO_ARGUMENTS);
    begin_session(host);
    pump_until_connected(host);
}

/* An epoll descriptor over a doorbell: the remote can wait for it, and do nothing else to it. */
static int listener(int bell)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(fd >= 0 && epoll_ctl(fd, EPOLL_CTL_ADD, bell, &event) == 0);
    return fd;
}

static void test_echo_and_crc32(bool listens)
{
    static struct host host;
    struct sbe_frame response, frame;
    host = (struct host){.listener = listens ? listener : NULL};
    start(&host);
    uint8_t *data = new_area(&host, 0x10001, 70000);
    for (size_t i = 0; i < 70000; i++)
        data[i] = (uint8_t)(i * 37 + i / 251);
    open_channel(&host, 1);
    uint16_t echo = find_service(&host, "echo"), crc32 = find_service(&host, "crc32");
    /* More than a ring full, one by one: each needs its own doorbell, none is ever read there. */
    for (uint32_t i = 0; i < 5 * SLOTS; i++) {
        char text[32];
        uint32_t size = (uint32_t)snprintf(text, sizeof text, "hello %u", i);
        frame = request_frame(echo, text, size);
        CHECK(call(&host, &frame, &response) == SBE_OK);
        CHECK(response.payload_size == size && memcmp(response.payload, text, size) == 0);
    }
    static const size_t SIZES[] = {0, 1, 15, 16, 17, 4096, 69997};
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        uint32_t expected = crc_reference(0, data + 3, SIZES[i]), sum;
        frame = request_frame(crc32, NULL, 0);
        add_buffer(&frame, 0x10001, SBE_DIR_IN, 3, SIZES[i]);
        add_buffer(&frame, 0x10001, SBE_DIR_INOUT, 1, 2);
        CHECK(call(&host, &frame, &response) == SBE_OK && response.payload_size == 4);
        memcpy(&sum, response.payload, 4);
        CHECK(sum == crc_reference(expected, data + 1, 2));
    }
    frame = request_frame(999, NULL, 0);
    CHECK(call(&host, &frame, &response) == SBE_ENOENT);
    CHECK(end_remote(&host) == 0);
}

static void test_areas_that_could_harm_are_refused(void)
{
    static struct host host;
    const unsigned int both = F_SEAL_SHRINK | F_SEAL_GROW;
    int pipes[2];
    start(&host);
    uint32_t before = open_fds(&host);
    CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    close(pipes[1]);
    for (uint32_t round = 0; round < 100; round++) {
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, 0), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, F_SEAL_SHRINK), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, F_SEAL_GROW), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, both), 4097) == SBE_ERANGE);
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, both | F_SEAL_WRITE), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, dup(pipes[0]), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, dup(host.control), 4096) == SBE_EPERM);
        CHECK(map_area(&host, 0x10002, 0, 0, -1, 4096) == SBE_ENOTSUP);
    }
    CHECK(map_area(&host, 0x10002, 0, SBE_AREA_READONLY, memfd(4096, both | F_SEAL_WRITE), 4096) ==
          SBE_OK);
    CHECK(open_fds(&host) == before);
    close(pipes[0]);
    CHECK(end_remote(&host) == 0);
}

static struct reply try_channel(struct host *host, uint32_t handles, int first, int second)
{
    struct sbe_channel_open open = {
        .channel = 9,
        .ring_area = 0x10003,
        .slots = 2,
        .slot_size = 64,
        .line = 64,
        .receive_offset = 4096,
        .handles = handles,
    };
    host->fd_count = handles;
    host->fds[0] = first;
    host->fds[1] = second;
    return request(host, SBE_CONTROL_CHANNEL_OPEN, &open.control, sizeof open);
}

static void test_doorbells_are_eventfds(void)
{
    static struct host host;
    start(&host);
    int ring = memfd(8192, F_SEAL_SHRINK | F_SEAL_GROW);
    CHECK(map_area(&host, 0x10003, 0, SBE_AREA_RING, ring, 8192) == SBE_OK);
    uint32_t before = open_fds(&host);
    int bell = eventfd(0, EFD_CLOEXEC), other = memfd(4096, 0);
    CHECK(try_channel(&host, 2, bell, other).status == SBE_EINVAL);
    CHECK(try_channel(&host, 2, other, bell).status == SBE_EINVAL);
    CHECK(try_channel(&host, 0, -1, -1).status == SBE_EINVAL);
    int hears = listener(bell);
    CHECK(try_channel(&host, 2, bell, hears).status == SBE_EINVAL); /* it can't be rung */
    CHECK(open_fds(&host) == before);
    for (uint32_t round = 0; round < 100; round++) {
        struct sbe_channel_close close = {.channel = 9};
        CHECK(try_channel(&host, 2, round % 2 == 0 ? bell : hears, bell).status == SBE_OK);
        CHECK(open_fds(&host) == before + 2);
        CHECK(request(&host, SBE_CONTROL_CHANNEL_CLOSE, &close.control, sizeof close).status ==
              SBE_OK);
        CHECK(open_fds(&host) == before);
    }
    close(bell);
    close(other);
    close(hears);
    CHECK(end_remote(&host) == 0);
}

static void test_surplus_descriptors_are_closed(void)
{
    static struct host host;
    start(&host);
    uint32_t before = open_fds(&host);
    for (uint32_t round = 0; round < 200; round++) {
        struct sbe_ping ping = {.cookie = round};
        host.fd_count = 1 + round % 16;
        for (uint32_t i = 0; i < host.fd_count; i++)
            host.fds[i] = host.control;
        /* Dropped without an answer; the one after it is answered. */
        CHECK(sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                  NULL) == SBE_OK);
        host.pending[0] = (struct sbe_session_pending){0};
        CHECK(request(&host, SBE_CONTROL_PING, &ping.control, sizeof ping).status == SBE_OK);
    }
    CHECK(open_fds(&host) == before);
    CHECK(end_remote(&host) == 0);
}

/* Where the kernel drops what was sent along, the request is answered all the same. */
static void test_no_descriptors_left(void)
{
    static struct host host;
    const unsigned int sealed = F_SEAL_SHRINK | F_SEAL_GROW;
    struct rlimit usual, none;
    start(&host);
    uint32_t before = open_fds(&host);
    CHECK(prlimit(host.pid, RLIMIT_NOFILE, NULL, &usual) == 0);
    none = usual;
    none.rlim_cur = 0; /* what is open stays open */
    CHECK(prlimit(host.pid, RLIMIT_NOFILE, &none, NULL) == 0);
    for (uint32_t round = 0; round < 20; round++)
        CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, sealed), 4096) == SBE_ENOMEM);
    CHECK(prlimit(host.pid, RLIMIT_NOFILE, &usual, NULL) == 0);
    CHECK(map_area(&host, 0x10002, 0, 0, memfd(4096, sealed), 4096) == SBE_OK);
    CHECK(open_fds(&host) == before);
    CHECK(end_remote(&host) == 0);
}

static void answer_remote(struct host *host, const struct sbe_frame *asked)
{
    uint8_t payload[SLOT];
    const uint8_t *from = asked->payload;
    CHECK(asked->type == SBE_FRAME_REQUEST && asked->service == SERVICE_AT_HOST);
    for (uint32_t i = 0; i < asked->payload_size; i++)
        payload[i] = (uint8_t)(2 * from[i]);
    struct sbe_frame answer = {
        .type = SBE_FRAME_RESPONSE,
        .transaction = asked->transaction,
        .status = asked->payload_size == 0 ? SBE_EACCES : SBE_OK,
        .payload = payload,
        .payload_size = asked->payload_size,
    };
    CHECK(sbe_channel_send(&host->channel, &answer) == SBE_OK);
    sbe_channel_flush(&host->channel);
}

static void send_relay(struct host *host, uint16_t relay, const char *text, uint32_t size,
                       struct sbe_frame *frame)
{
    *frame = request_frame(relay, text, size);
    CHECK(sbe_channel_request(&host->channel, frame, host) == SBE_OK);
    sbe_channel_flush(&host->channel);
}

static void wait_finds(struct host *host, uint32_t wanted)
{
    while (host->finds_seen < wanted)
        pump(host);
}

static void test_relay_calls_back(void)
{
    static struct host host;
    struct sbe_frame frame, got;
    start(&host);
    open_channel(&host, 1);
    uint16_t relay = find_service(&host, "relay");
    send_relay(&host, relay, "double\0\1\2\3", 10, &frame);
    wait_finds(&host, 1);
    next_frame(&host, &got);
    CHECK(got.payload_size == 3);
    answer_remote(&host, &got);
    next_frame(&host, &got);
    CHECK(got.type == SBE_FRAME_RESPONSE && got.status == SBE_OK && got.payload_size == 3);
    CHECK(memcmp(got.payload, "\2\4\6", 3) == 0);
    send_relay(&host, relay, "double", 7, &frame); /* the service's error comes through */
    wait_finds(&host, 2);
    next_frame(&host, &got);
    answer_remote(&host, &got);
    next_frame(&host, &got);
    CHECK(got.status == SBE_EACCES && got.payload_size == 0);
    send_relay(&host, relay, "absent", 7, &frame);
    wait_finds(&host, 3);
    next_frame(&host, &got);
    CHECK(got.status == SBE_ENOENT);
    frame = request_frame(relay, "double", 6); /* no zero byte */
    CHECK(call(&host, &frame, &got) == SBE_EINVAL);
    frame = request_frame(relay, "\0", 1);
    CHECK(call(&host, &frame, &got) == SBE_EINVAL);
    CHECK(end_remote(&host) == 0);
}

/* A cancelled relay answers at once, but its place is free only after our end has answered it. */
static void test_relay_pool_and_cancel(void)
{
    static struct host host;
    struct sbe_frame frame[8], calls[8], got;
    start(&host);
    open_channel(&host, 1);
    uint16_t relay = find_service(&host, "relay");
    for (uint32_t i = 0; i < 8; i++) {
        send_relay(&host, relay, "double\0\1", 8, &frame[i]);
        wait_finds(&host, i + 1);
        next_frame(&host, &calls[i]);
        calls[i].payload_size = 0;
    }
    struct sbe_frame ninth = request_frame(relay, "double", 7);
    CHECK(call(&host, &ninth, &got) == SBE_EBUSY);
    struct sbe_frame cancel = {.type = SBE_FRAME_CANCEL, .transaction = frame[3].transaction};
    CHECK(sbe_channel_send(&host.channel, &cancel) == SBE_OK);
    sbe_channel_flush(&host.channel);
    next_frame(&host, &got);
    CHECK(got.type == SBE_FRAME_CANCEL && got.transaction == calls[3].transaction);
    next_frame(&host, &got);
    CHECK(got.type == SBE_FRAME_RESPONSE && got.status == SBE_ECANCELED);
    ninth = request_frame(relay, "double", 7);
    CHECK(call(&host, &ninth, &got) == SBE_EBUSY);
    answer_remote(&host, &calls[3]);
    send_relay(&host, relay, "double\0\1", 8, &frame[3]);
    wait_finds(&host, 9);
    next_frame(&host, &calls[3]);
    CHECK(calls[3].type == SBE_FRAME_REQUEST);
    CHECK(end_remote(&host) == 0); /* with eight open */
}

/* Kept requests may not fill a ring: the remote still has to take what their answers wait for. */
static void test_relay_on_a_tiny_ring(void)
{
    static struct host host;
    struct sbe_frame first, second, asked, got;
    start(&host);
    host.slots = 2;
    open_channel(&host, 1);
    uint16_t relay = find_service(&host, "relay");
    send_relay(&host, relay, "double\0\1", 8, &first);
    wait_finds(&host, 1);
    next_frame(&host, &asked);
    asked.payload_size = 0;
    second = request_frame(relay, "double", 7);
    CHECK(call(&host, &second, &got) == SBE_EBUSY);
    answer_remote(&host, &asked);
    next_frame(&host, &got);
    CHECK(got.transaction == first.transaction && got.status == SBE_EACCES);
    CHECK(end_remote(&host) == 0);
}

static void test_version_refusal(void)
{
    static struct host host;
    static const char *const ARGUMENTS[] = {"--protocol", "7-9", NULL};
    spawn_remote(&host, ARGUMENTS);
    begin_session(&host);
    while (host.refusal == SBE_REFUSED_NOT)
        pump(&host);
    CHECK(host.refusal == SBE_REFUSED_VERSION);
    CHECK(end_remote(&host) == 0);
}

static long process_figure(pid_t pid, const char *name)
{
    char path[64], line[128];
    long value = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (value < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name) + 1, NULL, 10);
    (void)fclose(file);
    CHECK(value >= 0);
    return value;
}

/* An idle remote sleeps in one call: no switch to or from it while this end waits a while. */
static void test_idle_remote_sleeps(bool listens)
{
    static struct host host;
    struct sbe_frame frame, response;
    host = (struct host){.listener = listens ? listener : NULL};
    start(&host);
    open_channel(&host, 1);
    uint16_t echo = find_service(&host, "echo");
    frame = request_frame(echo, "x", 1);
    CHECK(call(&host, &frame, &response) == SBE_OK);
    const struct timespec pause = {0, 50 * 1000000};
    long before = -1, after = -1;
    for (uint32_t tries = 0; tries < 200; tries++) { /* on a busy machine it may get there late */
        before = after;
        after = process_figure(host.pid, "voluntary_ctxt_switches:");
        if (tries > 0 && before == after)
            break;
        (void)nanosleep(&pause, NULL);
    }
    CHECK(before == after);
    bool emulated = getenv("QEMU_LD_PREFIX") != NULL; /* the emulator's memory would be counted */
    CHECK(process_figure(host.pid, "VmRSS:") < 8192 || SANITIZED || emulated);
    CHECK(end_remote(&host) == 0);
}

static void test_hosts_come_and_go(void)
{
    static struct host host;
    char folder[] = "/tmp/sbe-test-XXXXXX", path[64];
    int status;
    uint32_t epoch = 0, fds = 0;
    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/remote", folder);
    pid_t pid = spawn_listener(path);
    for (uint32_t round = 0; round < 20; round++) {
        struct sbe_frame frame, response;
        host = (struct host){.pid = pid};
        connect_to(&host, path);
        begin_session(&host);
        pump_until_connected(&host);
        CHECK(host.session.peer_epoch != epoch); /* of a new life */
        epoch = host.session.peer_epoch;
        open_channel(&host, 1);
        uint16_t relay = find_service(&host, "relay");
        send_relay(&host, relay, "double\0\1", 8, &frame); /* left open */
        wait_finds(&host, 1);
        next_frame(&host, &response);
        uint32_t now = open_fds(&host);
        CHECK(round == 0 || now == fds);
        fds = now;
        (void)close(host.control);
        (void)close(host.bell_in);
        (void)close(host.bell_out);
    }
    CHECK(kill(pid, SIGTERM) == 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(rmdir(folder) == 0); /* the socket is gone */
}

/* A host that asks much faster than it reads is made to wait, and gets every answer. */
static void test_a_flood_of_requests(void)
{
    static struct host host;
    const uint32_t count = 3000;
    start(&host);
    for (uint32_t sent = 0, taken = 0; taken < count;) {
        struct sbe_ping ping = {.control = {.type = SBE_CONTROL_PING,
                                            .size = sizeof ping,
                                            .epoch = host.session.epoch,
                                            .id = sent + 1},
                                .cookie = sent};
        if (sent < count && send(host.control, &ping, sizeof ping, MSG_DONTWAIT | MSG_NOSIGNAL) ==
                                (ssize_t)sizeof ping) {
            sent++;
            continue;
        }
        CHECK(sent == count || errno == EAGAIN); /* it has not hung up */
        struct pollfd wish = {.fd = host.control, .events = POLLIN};
        CHECK(poll(&wish, 1, 20000) == 1);
        CHECK(recv(host.control, &ping, sizeof ping, 0) > 0);
        if ((ping.control.type & ~SBE_CONTROL_REPLY) == SBE_CONTROL_HELLO)
            continue; /* of the negotiation: HELLOs that crossed are answered twice */
        CHECK(ping.control.type == (SBE_CONTROL_PING | SBE_CONTROL_REPLY));
        CHECK(ping.cookie == taken);
        taken++;
    }
    CHECK(end_remote(&host) == 0);
}

int main(void)
{
    if (getenv("SBE_REMOTE") == NULL) {
        (void)puts("skipped: SBE_REMOTE does not name the sbe-remote to test");
        return 77;
    }
    test_echo_and_crc32(false);
    test_echo_and_crc32(true);
    test_areas_that_could_harm_are_refused();
    test_doorbells_are_eventfds();
    test_surplus_descriptors_are_closed();
    test_no_descriptors_left();
    test_relay_calls_back();
    test_relay_pool_and_cancel();
    test_relay_on_a_tiny_ring();
    test_version_refusal();
    test_idle_remote_sleeps(false);
    test_idle_remote_sleeps(true);
    test_hosts_come_and_go();
    test_a_flood_of_requests();
    return 0;
}
