/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbe-remote-rpmsg: the engine behind a real kernel's rpmsg. Two endpoints: control messages, one
 * per rpmsg message, and doorbells. A channel's doorbell is bound to the host's endpoint that sends
 * struct bind; every further message between the two is a doorbell, or a frame where the rings are
 * not shared. Single-threaded.
 */
#include <errno.h>
#include <poll.h>
#include <sbe_userproc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/engine.h"
#include "mirror/mirror.h"
#include "ports/virtio/core.h"

#define CONTROL_ADDRESS   1024u
#define DOORBELL_ADDRESS  1025u
#define AT_ONCE           64u /* messages before the rings get their turn */
#define OUTBOX            256u
#define CALLS_PER_CHANNEL 32u
#define AREAS             1024u
#define CHANNELS          256u
#define CONTEXTS          256u
#define PENDING           16u
#define SLOT_SIZE         16384u
#define PRIVATE_MAX       (4u << 20)  /* bytes of a channel's rings that are not shared */
#define BIND_MAGIC        0x42454253u /* "SBEB" */

struct bind { /* the first message of a doorbell's endpoint */
    uint32_t magic;
    uint32_t channel;
};

struct waiting {
    uint32_t size;
    uint8_t bytes[SBE_CONTROL_MAX];
};

static struct {
    struct core core;
    struct rpmsg rpmsg;
    bool up;
    bool quiet;            /* announces nothing, as firmware of another kind */
    uint32_t host_address; /* of its control endpoint, 0 not heard of */
    struct waiting outbox[OUTBOX];
    uint32_t outbox_first, outbox_count;
    bool sent;                   /* the host is to be interrupted */
    uint32_t doorbell[CHANNELS]; /* the host's endpoint per channel, 0 unbound */
    bool owed[CHANNELS];         /* a doorbell that found no buffer or no endpoint */
    struct sbe_mirror mirror[CHANNELS];
    bool mirrored[CHANNELS];
    struct sbe_port port;
    struct sbe_engine_config config;
    struct sbe_engine engine;
} remote;

static uint64_t now_ns(void *self)
{
    struct timespec now;
    (void)self;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void say(const char *line)
{
    (void)fprintf(stderr, "sbe-remote-rpmsg: %s\n", line);
    core_trace(&remote.core, line);
}

/* -- control messages ---------------------------------------------------------------------- */

static bool send_now(const void *message, uint32_t size)
{
    if (!rpmsg_send(&remote.rpmsg, CONTROL_ADDRESS, remote.host_address, message, size))
        return false;
    remote.sent = true;
    return true;
}

static int control_send(void *self, const void *message, uint32_t size)
{
    (void)self;
    if (remote.host_address == 0)
        return SBE_OK; /* nobody has spoken yet: the first HELLO is the host's */
    if (remote.outbox_count == 0 && send_now(message, size))
        return SBE_OK;
    if (remote.outbox_count == OUTBOX)
        return SBE_EAGAIN;
    struct waiting *slot = &remote.outbox[(remote.outbox_first + remote.outbox_count++) % OUTBOX];
    slot->size = size;
    memcpy(slot->bytes, message, size);
    return SBE_OK;
}

static void flush_outbox(void)
{
    while (remote.outbox_count > 0) {
        const struct waiting *slot = &remote.outbox[remote.outbox_first];
        if (!send_now(slot->bytes, slot->size))
            return;
        remote.outbox_first = (remote.outbox_first + 1u) % OUTBOX;
        remote.outbox_count--;
    }
}

/* -- areas --------------------------------------------------------------------------------- */

static int map_segments(struct sbe_area *area, const struct sbe_area_map *message, uint64_t offset)
{
    const struct sbe_segment *segments = (const void *)(message + 1);
    for (uint32_t i = 0; i < message->segment_count; i++) {
        uint8_t *place = (uint8_t *)area->base + offset;
        int status = core_map(&remote.core, place, segments[i].address, segments[i].size);
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
    if (message->handles != 0 || (private && area->flags != (SBE_AREA_RING | SBE_AREA_COHERENT)))
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

/* -- doorbells ----------------------------------------------------------------------------- */

static uint32_t index_of(const struct sbe_channel *channel)
{
    const struct sbe_engine_channel *entry = (const void *)channel;
    return (uint32_t)(entry - remote.config.channels);
}

/* Frames of rings that are not shared. `all`: nothing else is to be done. */
static void send_frames(uint32_t index, bool all)
{
    struct sbe_mirror *mirror = &remote.mirror[index];
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    uint32_t size;
    while (remote.doorbell[index] != 0 && (size = sbe_mirror_next(mirror, message, all)) != 0) {
        if (!rpmsg_send(&remote.rpmsg, DOORBELL_ADDRESS, remote.doorbell[index], message, size))
            return;
        sbe_mirror_sent(mirror);
        remote.sent = true;
    }
}

static void ring(uint32_t index)
{
    if (remote.mirrored[index])
        return;             /* work() looks */
    const uint64_t one = 1; /* what an eventfd would take: the host's code is the same for both */
    remote.owed[index] =
        remote.doorbell[index] == 0 ||
        !rpmsg_send(&remote.rpmsg, DOORBELL_ADDRESS, remote.doorbell[index], &one, sizeof one);
    remote.sent = remote.sent || !remote.owed[index];
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    (void)self;
    ring(index_of(channel));
}

static int channel_opened(void *self, struct sbe_channel *channel,
                          const struct sbe_channel_open *message)
{
    (void)self;
    uint32_t index = index_of(channel);
    if (message->handles != 0)
        return SBE_EINVAL;
    remote.doorbell[index] = 0;
    remote.owed[index] = false;
    struct sbe_area *area = sbe_area_find(&remote.engine.session.areas, message->ring_area);
    remote.mirrored[index] = area->segments == 0;
    if (!remote.mirrored[index])
        return SBE_OK;
    struct sbe_ring_geometry geometry = {message->slots, message->slot_size, message->line};
    return sbe_mirror_open(&remote.mirror[index], channel->tx.producer, channel->rx.producer,
                           &geometry);
}

static void channel_closed(void *self, struct sbe_channel *channel)
{
    (void)self;
    remote.doorbell[index_of(channel)] = 0;
    remote.mirrored[index_of(channel)] = false;
}

/* The first endpoint to name a channel keeps it: a client can't take another one's doorbell. */
static void take_bind(uint32_t source, const void *data, uint32_t size)
{
    struct bind bind;
    if (size != sizeof bind)
        return;
    memcpy(&bind, data, sizeof bind);
    if (bind.magic != BIND_MAGIC || bind.channel == 0)
        return;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        struct sbe_channel *channel = &remote.config.channels[i].channel;
        if (channel->id != bind.channel || remote.doorbell[i] != 0)
            continue;
        remote.doorbell[i] = source;
        sbe_engine_doorbell(&remote.engine, channel);
        if (remote.owed[i])
            ring(i);
    }
}

static void take_doorbell(uint32_t source, const void *data, uint32_t size)
{
    for (uint32_t i = 0; i < CHANNELS; i++) {
        if (remote.doorbell[i] == source) {
            if (remote.mirrored[i])
                (void)sbe_mirror_receive(&remote.mirror[i], data, size);
            sbe_engine_doorbell(&remote.engine, &remote.config.channels[i].channel);
            return;
        }
    }
    take_bind(source, data, size);
}

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    (void)self;
    if (destination == DOORBELL_ADDRESS)
        take_doorbell(source, data, size);
    if (destination != CONTROL_ADDRESS)
        return;
    if (source != remote.host_address) { /* another process, or a new one, speaks for the host */
        remote.host_address = source;
        remote.outbox_count = 0;
    }
    (void)sbe_session_receive(&remote.engine.session, data, size, 0);
}

/* -- life ---------------------------------------------------------------------------------- */

static void start_session(void)
{
    uint32_t epoch = 0;
    while (epoch == 0 || epoch == remote.engine.session.epoch)
        if (getrandom(&epoch, sizeof epoch, 0) != sizeof epoch)
            epoch = (uint32_t)now_ns(NULL);
    (void)sbe_session_start(&remote.engine.session, epoch);
}

static void bring_up(void)
{
    if (remote.up || !core_bring_up(&remote.core, &remote.rpmsg))
        return;
    remote.up = true;
    start_session();
    if (!remote.quiet && (!rpmsg_announce(&remote.rpmsg, "sbe-control", CONTROL_ADDRESS) ||
                          !rpmsg_announce(&remote.rpmsg, "sbe-doorbell", DOORBELL_ADDRESS)))
        say("the host has no buffers for an announcement");
    remote.sent = true;
    say("up");
}

static void bring_down(void)
{
    sbe_session_lost(&remote.engine.session);
    core_let_go(&remote.core, &remote.rpmsg);
    remote.up = false;
    remote.host_address = 0;
    remote.outbox_count = 0;
}

static bool take_events(void)
{
    struct sbe_userproc_event event;
    ssize_t size = read(remote.core.fd, &event, sizeof event);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR;
    if ((event.events & SBE_USERPROC_STOP) != 0) {
        bring_down();
        core_stopped(&remote.core);
    }
    if (event.kicks != 0) /* of the time after a stop in the same event */
        bring_up();
    return true;
}

/* Everything there is to do. True: there is more. */
static bool work(void)
{
    if (!remote.up)
        return false;
    flush_outbox();
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (remote.owed[i] && remote.doorbell[i] != 0)
            ring(i);
    uint32_t count = rpmsg_receive(&remote.rpmsg, AT_ONCE);
    bool more = sbe_engine_run(&remote.engine);
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (remote.mirrored[i])
            send_frames(i, !more && count == 0);
    if (remote.sent && vring_wants_interrupt(&remote.rpmsg.to_host))
        core_notify(&remote.core, remote.core.notify_to_host);
    if (count > 0 && vring_wants_interrupt(&remote.rpmsg.from_host))
        core_notify(&remote.core, remote.core.notify_from_host);
    remote.sent = false;
    return more || count > 0;
}

static bool configure(void)
{
    remote.rpmsg.received = received;
    remote.port = (struct sbe_port){
        .now_ns = now_ns,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_extend = area_extend,
        .area_detach = area_detach,
        .doorbell = doorbell,
    };
    remote.config = (struct sbe_engine_config){
        .services = __start_sbe_services,
        .service_count = (uint32_t)(__stop_sbe_services - __start_sbe_services),
        .channels = calloc(CHANNELS, sizeof(struct sbe_engine_channel)),
        .calls = calloc((size_t)CHANNELS * CALLS_PER_CHANNEL, sizeof(struct sbe_call)),
        .calls_per_channel = CALLS_PER_CHANNEL,
        .scratch_in = malloc(SLOT_SIZE),
        .scratch_out = malloc(SLOT_SIZE),
        .port = &remote.port,
        .opened = channel_opened,
        .closed = channel_closed,
        .session =
            {
                .name = "sbe-remote-rpmsg",
                .role = SBE_ROLE_REMOTE,
                .coherent = 1,
                .address_bits = 32,
                .version_min = SBE_VERSION_MIN,
                .version_max = SBE_VERSION_MAX,
                .cache_line = 64,
                .limits = {AREAS, CONTEXTS, CHANNELS, 1024, SLOT_SIZE, SBE_BUFFERS_MAX},
                .areas = calloc(AREAS, sizeof(struct sbe_area)),
                .contexts = calloc(CONTEXTS, sizeof(struct sbe_session_context)),
                .channels = calloc(CHANNELS, sizeof(struct sbe_session_channel)),
                .pending = calloc(PENDING, sizeof(struct sbe_session_pending)),
                .pending_count = PENDING,
            },
    };
    const struct sbe_session_config *session = &remote.config.session;
    return remote.config.channels != NULL && remote.config.calls != NULL &&
           remote.config.scratch_in != NULL && remote.config.scratch_out != NULL &&
           session->areas != NULL && session->contexts != NULL && session->channels != NULL &&
           session->pending != NULL;
}

/* DEVICE, --quiet, --protocol MIN-MAX in any order. NULL: something else. */
static const char *take_arguments(int argc, char **argv)
{
    struct sbe_session_config *session = &remote.config.session;
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        unsigned min, max;
        if (strcmp(argv[i], "--quiet") == 0) {
            remote.quiet = true;
        } else if (strcmp(argv[i], "--protocol") == 0 && i + 1 < argc &&
                   sscanf(argv[i + 1], "%5u-%5u", &min, &max) == 2 && max <= UINT16_MAX) {
            session->version_min = (uint16_t)min;
            session->version_max = (uint16_t)max;
            i++;
        } else if (path == NULL && argv[i][0] != '-') {
            path = argv[i];
        } else {
            return NULL;
        }
    }
    return path != NULL ? path : "/dev/sbe-userproc0";
}

int main(int argc, char **argv)
{
    if (!configure())
        return 1;
    const char *path = take_arguments(argc, argv);
    if (path == NULL) {
        (void)fprintf(stderr, "Usage: sbe-remote-rpmsg [--quiet] [--protocol MIN-MAX] [DEVICE]\n"
                              "The remote as the core of a remote processor of the kernel module\n"
                              "sbe_userproc, by default /dev/sbe-userproc0. For tests: --quiet\n"
                              "announces nothing, --protocol speaks other versions.\n");
        return 2;
    }
    if (sbe_engine_init(&remote.engine, &remote.config) != SBE_OK)
        return 1;
    if (!core_open(&remote.core, path)) {
        (void)fprintf(stderr, "sbe-remote-rpmsg: %s: %s\n", path, strerror(errno));
        return 1;
    }
    for (;;) {
        bool more = work();
        struct pollfd fd = {.fd = remote.core.fd, .events = POLLIN};
        if (poll(&fd, 1, more ? 0 : -1) < 0 && errno != EINTR)
            return 1;
        if ((fd.revents & POLLIN) != 0 && !take_events())
            return 1;
    }
}
