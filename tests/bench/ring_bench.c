/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C core against itself, with no Python in between. Usage: ring_bench MODE NEAR FAR ROUNDS
 * places the ends on the CPUs NEAR and FAR (-1: anywhere) and prints one line a round:
 *
 *   packets  51,200 packets of 384 bytes through a ring of 16 KiB, published 4 KiB at a time, the
 *            consumer compares every byte; GB/s, packets/s, packets per doorbell (both directions)
 *   copied   the same, and the consumer copies each packet out first, to a place of its own
 *   stream   the same packets as bytes of an ASG stream, whose reader always copies them out
 *   calls    calls with two buffers, as many in flight as the ring takes; calls/s
 *   call     one empty call, both ends asleep between; ns
 *   trip     a bare eventfd there and back; ns, and ns of the first write alone
 *   crc      the crc32 service over 64 MiB in this process; ms
 *   alone    an empty call with both ends in one thread; ns of the host's part and the remote's
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../core/check.h"
#include "asg/client.h"
#include "asg/server.h"
#include "core_link.h"
#include "patience/patience.h"

#define PACKETS     51200u
#define PACKET_SIZE 384u
#define SLOTS       32u         /* of 512 bytes: 16 KiB, */
#define STEP        8u          /* published every 4 KiB */
#define ROOM        (SLOTS / 2) /* a producer that has slept goes on when so much is free */
#define PATTERNS    61u         /* no divisor of SLOTS: a stale slot is noticed */
#define CALLS       50000u
#define LONGEST_NS  100000u /* an end looks for at most so long before it sleeps */

static int near_cpu, far_cpu;
static uint32_t rounds;

/* -- two processes and their doorbells ------------------------------------------------------ */

struct bell {
    int fd;
    int epoll_fd; /* edge-triggered, so that the counter is never read */
};

static struct bell near_bell, far_bell;

static uint64_t now_ns(void *unused)
{
    struct timespec now;
    (void)unused;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void ring(const struct bell *bell)
{
    const uint64_t one = 1;
    CHECK(write(bell->fd, &one, sizeof one) == sizeof one);
}

static void await(const struct bell *bell)
{
    struct epoll_event event;
    CHECK(epoll_wait(bell->epoll_fd, &event, 1, -1) == 1);
}

static void ring_far(void *self, const struct sbe_channel *channel)
{
    (void)self;
    (void)channel;
    ring(&far_bell);
}

static void ring_near(void *self, const struct sbe_channel *channel)
{
    (void)self;
    (void)channel;
    ring(&near_bell);
}

static void no_bell(void *self, const struct sbe_channel *channel)
{
    (void)self;
    (void)channel;
}

static void make(struct bell *bell)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    bell->fd = eventfd(0, EFD_CLOEXEC);
    bell->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(bell->fd >= 0 && bell->epoll_fd >= 0);
    CHECK(epoll_ctl(bell->epoll_fd, EPOLL_CTL_ADD, bell->fd, &event) == 0);
}

static void place(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
}

/* Runs `far` in a child, which never returns; the child dies with this process. */
static pid_t part(void (*far)(void *what), void *what)
{
    make(&near_bell);
    make(&far_bell);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent);
        place(far_cpu);
        far(what);
        exit(0);
    }
    place(near_cpu);
    return child;
}

static int end(pid_t child)
{
    int status;
    (void)kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child);
    return 0;
}

/* -- packets ------------------------------------------------------------------------------- */

static const struct sbe_ring_geometry GEOMETRY = {SLOTS, 512, 64};
static uint8_t patterns[PATTERNS][PACKET_SIZE];
/* As in the original library's benchmark every packet has its own bytes to be compared with, and
 * its own place when it is copied: they don't come from the first cache. */
static uint8_t expected[PACKETS][PACKET_SIZE], copies[PACKETS][PACKET_SIZE];
static bool copying;
static struct sbe_patience patience = {.longest_ns = LONGEST_NS}; /* each end has its own */

/* An end that waits. */
struct waiter {
    bool (*has_news)(const struct waiter *waiter);
    bool (*may_sleep)(const struct waiter *waiter); /* it has told its peer to ring */
    const struct bell *bell;
    void *end;
    uint32_t wanted;
};

/* wanted 0: frames for the consumer, else free slots for the producer. */
static bool ring_has_news(const struct waiter *waiter)
{
    return waiter->wanted == 0 ? sbe_ring_peer_moved(waiter->end)
                               : sbe_ring_free(waiter->end, waiter->wanted) >= waiter->wanted;
}

/* Who sleeps wants more at once. */
static bool ring_may_sleep(const struct waiter *waiter)
{
    uint32_t wanted = waiter->wanted;
    return wanted == 0 ? sbe_ring_wait_data(waiter->end)
                       : sbe_ring_wait_space(waiter->end, wanted > ROOM ? wanted : ROOM);
}

/* True: that was in vain, for so long. */
static bool look(const struct waiter *waiter, uint64_t *looked_ns)
{
    uint64_t begin_ns = now_ns(NULL);
    for (*looked_ns = 0; *looked_ns < patience.window_ns; *looked_ns = now_ns(NULL) - begin_ns)
        for (int i = 0; i < 64; i++) {
            if (waiter->has_news(waiter)) {
                sbe_patience_paid(&patience);
                return false;
            }
            sbe_relax();
        }
    return true;
}

static void await_news(const struct waiter *waiter)
{
    uint64_t looked_ns;
    if (!look(waiter, &looked_ns) || !waiter->may_sleep(waiter))
        return;
    uint64_t asleep_ns = now_ns(NULL);
    await(waiter->bell);
    sbe_patience_slept(&patience, looked_ns, now_ns(NULL) - asleep_ns);
}

static void await_peer(struct sbe_ring *ring_end, uint32_t wanted, const struct bell *bell)
{
    await_news(&(struct waiter){ring_has_news, ring_may_sleep, bell, ring_end, wanted});
}

static void take_packets(struct sbe_ring *rx)
{
    const void *slot;
    for (uint32_t taken = 0; taken < PACKETS;) {
        int status = sbe_ring_peek(rx, &slot);
        CHECK(status >= 0);
        if (status == 0) {
            await_peer(rx, 0, &far_bell);
            continue;
        }
        if (copying)
            slot = memcpy(copies[taken], slot, PACKET_SIZE);
        CHECK(memcmp(slot, expected[taken], PACKET_SIZE) == 0);
        sbe_ring_release(rx);
        if (++taken % STEP == 0 && sbe_ring_return(rx))
            ring(&near_bell);
    }
}

static void consume(void *memory)
{
    struct sbe_ring rx;
    CHECK(sbe_ring_attach(&rx, memory, &GEOMETRY) == SBE_OK);
    for (uint32_t round = 0; round < rounds; round++)
        take_packets(&rx);
}

static void give_packets(struct sbe_ring *tx)
{
    void *slot;
    for (uint32_t given = 0; given < PACKETS; given++) {
        while (sbe_ring_reserve(tx, &slot) == SBE_EAGAIN)
            await_peer(tx, STEP, &near_bell);
        CHECK(!tx->broken);
        memcpy(slot, patterns[given % PATTERNS], PACKET_SIZE);
        sbe_ring_commit(tx);
        if ((given + 1) % STEP == 0 && sbe_ring_publish(tx))
            ring(&far_bell);
    }
    while (sbe_ring_free(tx, SLOTS) < SLOTS) /* all of them have been compared */
        await_peer(tx, SLOTS, &near_bell);
}

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static void make_packets(void)
{
    for (uint32_t i = 0; i < PATTERNS; i++)
        for (uint32_t k = 0; k < PACKET_SIZE; k++)
            patterns[i][k] = (uint8_t)(i * 7 + k * 31 + (k >> 8));
    for (uint32_t i = 0; i < PACKETS; i++)
        memcpy(expected[i], patterns[i % PATTERNS], PACKET_SIZE);
}

static void print_packets(uint64_t begin_ns, uint32_t bells)
{
    double duration_ns = (double)(now_ns(NULL) - begin_ns);
    (void)printf("%.4f %.0f %.1f\n", PACKETS * (double)PACKET_SIZE / duration_ns,
                 PACKETS * 1e9 / duration_ns, (double)PACKETS / (bells == 0 ? 1 : bells));
}

static int wait_for(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status == 0 ? 0 : 1;
}

static int packets(void)
{
    void *memory = shared((size_t)sbe_ring_size(&GEOMETRY));
    struct sbe_ring tx;
    make_packets();
    sbe_ring_clear(memory, &GEOMETRY, 0);
    CHECK(sbe_ring_attach(&tx, memory, &GEOMETRY) == SBE_OK);
    pid_t child = part(consume, memory);
    uint32_t rung = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin_ns = now_ns(NULL);
        give_packets(&tx);
        uint32_t bells = sbe_load_relaxed(&tx.producer->doorbells) +
                         sbe_load_relaxed(&tx.consumer->doorbells) - rung;
        rung += bells;
        print_packets(begin_ns, bells);
    }
    return wait_for(child);
}

/* -- an ASG stream ------------------------------------------------------------------------- */

static bool stream_has_news(const struct waiter *waiter)
{
    return sbe_asg_server_available(waiter->end) != 0;
}

static bool stream_may_sleep(const struct waiter *waiter)
{
    return sbe_asg_server_may_sleep(waiter->end);
}

/* All packets are one run of bytes; a read takes what one record has of them. */
static void read_stream(void *memory)
{
    static struct sbe_asg_server server;
    const struct waiter waiter = {stream_has_news, stream_may_sleep, &far_bell, &server, 0};
    uint8_t *to = copies[0];
    CHECK(sbe_asg_server_attach(&server, memory, SLOTS * 512) == SBE_OK);
    for (uint32_t round = 0; round < rounds; round++)
        for (uint32_t taken = 0; taken < sizeof copies;) {
            int64_t size = sbe_asg_server_read(&server, to + taken, sizeof copies - taken);
            if (size == SBE_EAGAIN) {
                await_news(&waiter);
                continue;
            }
            CHECK(size > 0);
            CHECK(memcmp(to + taken, expected[0] + taken, (size_t)size) == 0);
            taken += (uint32_t)size;
        }
}

/* Until the server has read some: nobody rings the client, so it lends the server its CPU. */
static void await_server(uint32_t *looks)
{
    if (++*looks % 64 == 0)
        (void)sched_yield();
    sbe_relax();
}

static void write_stream(struct sbe_asg_client *client, uint32_t *bells)
{
    uint32_t looks = 0;
    int status = SBE_OK;
    for (uint32_t given = 0; given < PACKETS; given++) {
        void *place;
        while ((status = sbe_asg_client_alloc(client, PACKET_SIZE, &place)) == SBE_EAGAIN)
            await_server(&looks);
        CHECK(status == SBE_OK);
        memcpy(place, patterns[given % PATTERNS], PACKET_SIZE);
        while (sbe_asg_client_doorbell(client)) {
            ++*bells;
            ring(&far_bell);
        }
    }
    while ((status = sbe_asg_client_flush(client)) == SBE_EAGAIN)
        await_server(&looks);
    CHECK(status == SBE_OK);
    while (!sbe_asg_client_is_idle(client)) { /* all of them have been read */
        while (sbe_asg_client_doorbell(client)) {
            ++*bells;
            ring(&far_bell);
        }
        await_server(&looks);
    }
}

static int stream(void)
{
    void *memory = shared(SBE_ASG_STORAGE + SLOTS * 512);
    struct sbe_asg_region region;
    struct sbe_asg_client client;
    make_packets();
    CHECK(sbe_asg_attach(&region, memory, SLOTS * 512) == SBE_OK);
    CHECK(sbe_asg_lay_out(&region, STEP * 512) == SBE_OK);
    CHECK(sbe_asg_client_attach(&client, memory, SLOTS * 512) == SBE_OK);
    pid_t child = part(read_stream, memory);
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin_ns = now_ns(NULL);
        uint32_t bells = 0;
        write_stream(&client, &bells);
        print_packets(begin_ns, bells);
    }
    return wait_for(child);
}

/* -- calls --------------------------------------------------------------------------------- */

static void serve(void *engine)
{
    for (;;) {
        while (sbe_engine_run(engine))
            ;
        await(&far_bell);
        struct sbe_engine *served = engine;
        sbe_engine_doorbell(served, &served->config->channels[0].channel);
    }
}

/* Sends until the ring is full or `left` are sent; how many. */
static uint32_t fill(const struct core_link *link, struct sbe_frame *frame, uint32_t left)
{
    uint32_t sent = 0;
    while (sent < left && sbe_channel_room(link->channel) > 0) {
        CHECK(sbe_channel_request(link->channel, frame, &near_bell) == SBE_OK);
        sent++;
    }
    (void)sbe_channel_flush(link->channel);
    return sent;
}

static uint32_t collect(const struct core_link *link)
{
    struct sbe_frame response;
    uint32_t count = 0;
    int status;
    while ((status = sbe_channel_receive(link->channel, &response, link->scratch)) == 1) {
        CHECK(response.status == SBE_OK);
        count++;
    }
    CHECK(status == 0);
    return count;
}

static void exchange(const struct core_link *link, struct sbe_frame *frame, uint32_t calls)
{
    for (uint32_t sent = 0, done = 0; done < calls;) {
        sent += fill(link, frame, calls - sent);
        uint32_t got = collect(link);
        done += got;
        if (got == 0 && sbe_channel_idle(link->channel))
            await(&near_bell);
    }
}

static int calls(uint16_t buffers, uint32_t count, bool per_call)
{
    struct core_link link;
    core_link_open(&link, &(struct core_link_hooks){now_ns, ring_far, ring_near});
    struct sbe_frame frame = core_link_request(&link, buffers);
    pid_t child = part(serve, link.engine);
    exchange(&link, &frame, count); /* to warm up */
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin_ns = now_ns(NULL);
        exchange(&link, &frame, count);
        double duration_ns = (double)(now_ns(NULL) - begin_ns);
        (void)printf("%.0f\n", per_call ? duration_ns / count : count * 1e9 / duration_ns);
    }
    return end(child);
}

/* The same frames with nobody to wait for: what the core itself costs. */
static int alone(void)
{
    enum {
        BATCH = 64
    };
    struct core_link link;
    core_link_open(&link, &(struct core_link_hooks){now_ns, no_bell, no_bell});
    struct sbe_frame frame = core_link_request(&link, 0);
    place(near_cpu);
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t host_ns = 0, remote_ns = 0;
        for (uint32_t batch = 0; batch < 100; batch++) {
            uint64_t begin_ns = now_ns(NULL);
            (void)fill(&link, &frame, BATCH);
            uint64_t sent_ns = now_ns(NULL);
            sbe_engine_doorbell(link.engine, link.remote_channel);
            while (sbe_engine_run(link.engine))
                ;
            uint64_t served_ns = now_ns(NULL);
            CHECK(collect(&link) == BATCH);
            host_ns += sent_ns - begin_ns + now_ns(NULL) - served_ns;
            remote_ns += served_ns - sent_ns;
        }
        (void)printf("%.2f %.2f\n", (double)host_ns / (100 * BATCH),
                     (double)remote_ns / (100 * BATCH));
    }
    return 0;
}

static int crc(void)
{
    const size_t size = 64u << 20;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct sbe_service *const *service = __start_sbe_services;
    while (service != __stop_sbe_services && strcmp((*service)->name, "crc32") != 0)
        service++;
    CHECK(memory != MAP_FAILED && service != __stop_sbe_services);
    place(near_cpu);
    uint64_t random = 88172645463325252u; /* the routine's tables are cached or not by the data */
    for (size_t i = 0; i < size / sizeof random; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memcpy((uint8_t *)memory + i * sizeof random, &random, sizeof random);
    }
    for (uint32_t round = 0; round < rounds + 1; round++) {
        uint32_t sum = 0;
        struct sbe_buffer buffer = {.direction = SBE_DIR_IN, .size = size, .data = memory};
        struct sbe_request request = {.service = *service,
                                      .buffer_count = 1,
                                      .buffers = &buffer,
                                      .reply = &sum,
                                      .reply_room = sizeof sum};
        uint64_t begin_ns = now_ns(NULL);
        CHECK((*service)->handle(&request) == SBE_OK);
        if (round > 0) /* the first one warms up */
            (void)printf("%.4f\n", (double)(now_ns(NULL) - begin_ns) / 1e6);
    }
    return 0;
}

/* -- trip ---------------------------------------------------------------------------------- */

static void answer(void *unused)
{
    (void)unused;
    for (;;) {
        await(&far_bell);
        ring(&near_bell);
    }
}

static int trip(void)
{
    pid_t child = part(answer, NULL);
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin_ns = now_ns(NULL);
        ring(&far_bell);
        uint64_t rung_ns = now_ns(NULL);
        await(&near_bell);
        (void)printf("%.0f %.0f\n", (double)(now_ns(NULL) - begin_ns),
                     (double)(rung_ns - begin_ns));
    }
    return end(child);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        (void)fprintf(
            stderr,
            "usage: ring_bench packets|copied|stream|calls|call|trip|crc|alone NEAR FAR ROUNDS\n");
        return 2;
    }
    near_cpu = atoi(argv[2]);
    far_cpu = atoi(argv[3]);
    rounds = (uint32_t)atoi(argv[4]);
    copying = strcmp(argv[1], "copied") == 0;
    if (copying || strcmp(argv[1], "packets") == 0)
        return packets();
    if (strcmp(argv[1], "stream") == 0)
        return stream();
    if (strcmp(argv[1], "calls") == 0)
        return calls(2, CALLS, false);
    if (strcmp(argv[1], "call") == 0)
        return calls(0, 1, true);
    if (strcmp(argv[1], "trip") == 0)
        return trip();
    if (strcmp(argv[1], "crc") == 0)
        return crc();
    if (strcmp(argv[1], "alone") == 0)
        return alone();
    return 2;
}
