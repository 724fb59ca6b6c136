/* SPDX-License-Identifier: Apache-2.0 */
/* Positions: how bytes move as time passes, and what the requester is told of it. */
#include <string.h>

#include "core/cache.h"
#include "core/engine_base.h"
#include "streams/streams_base.h"

#define SECOND_NS 1000000000u
/* Time that passes at once at most: its product with the rate stays within 64 bits. */
#define STEP_NS (4ull * SECOND_NS)
#define PIECE   65536u /* bytes between two looks at the clock; the largest frame */

/* The port asks in each of its rounds: the streams are looked at only after one has changed. */
static uint64_t first_due_ns = SBE_STREAM_NEVER;
bool sbe_streams_changed;

/* -- what the requester is told ---------------------------------------------------------------- */

static bool send_event(struct sbe_stream *stream, const struct sbe_stream_event *event)
{
    static struct sbe_frame frame; /* too large for a small stack */
    struct sbe_channel *channel = stream->kept.channel;
    /* One place is left, beside those that are promised, for the answer to a request. */
    if (channel == NULL ||
        sbe_ring_free(&channel->tx, channel->promised + 2) < channel->promised + 2)
        return false;
    frame = (struct sbe_frame){
        .type = SBE_FRAME_EVENT,
        .payload = event,
        .payload_size = sizeof *event,
    };
    return sbe_channel_send(channel, &frame) == SBE_OK;
}

static struct sbe_stream_event event_of(struct sbe_stream *stream, enum sbe_stream_event_kind kind)
{
    return (struct sbe_stream_event){
        .stream = stream->id,
        .generation = stream->status.generation,
        .kind = kind,
        .sequence = ++stream->sequence,
        .position = stream->status.position,
        .clock_ns = stream->status.clock_ns,
        .state = stream->status.state,
        .skipped = stream->status.skipped,
        .data = {stream->event_data[0], stream->event_data[1]},
    };
}

/* Those that waited for room go first. True: none waits any more. */
static bool send_waiting(struct sbe_stream *stream)
{
    uint32_t sent = 0;
    while (sent < stream->waiting_count && send_event(stream, &stream->waiting[sent]))
        sent++;
    stream->waiting_count -= sent;
    if (sent != 0)
        memmove(stream->waiting, stream->waiting + sent,
                stream->waiting_count * sizeof *stream->waiting);
    return stream->waiting_count == 0;
}

/* Events other than of a period wait for room, a few of them; nobody waits for the reader. */
static void tell(struct sbe_stream *stream, const struct sbe_stream_event *event)
{
    if (send_waiting(stream) && send_event(stream, event))
        return;
    if (stream->waiting_count < SBE_STREAM_WAITING)
        stream->waiting[stream->waiting_count++] = *event;
    else
        stream->status.skipped++;
}

/* What finds no room is skipped: the next one has a newer position. */
static void tell_period(struct sbe_stream *stream)
{
    struct sbe_stream_event event = event_of(stream, SBE_STREAM_EVENT_PERIOD);
    stream->passed = false;
    if (!send_waiting(stream) || !send_event(stream, &event))
        stream->status.skipped++;
}

static void tell_loss(struct sbe_stream *stream)
{
    struct sbe_stream_event event = event_of(stream, SBE_STREAM_EVENT_XRUN);
    event.from = stream->lost_from;
    event.bytes = stream->status.lost_bytes - stream->lost_before;
    tell(stream, &event);
}

static void show(struct sbe_stream *stream)
{
    sbe_stream_show(&stream->shown, &stream->newest, &stream->status);
    sbe_streams_changed = true;
}

static void flush(struct sbe_stream *stream)
{
    if (stream->kept.channel != NULL)
        (void)sbe_channel_flush(stream->kept.channel);
}

void sbe_stream_enter(struct sbe_stream *stream, enum sbe_stream_state state)
{
    stream->status.state = state;
    show(stream);
    struct sbe_stream_event event = event_of(stream, SBE_STREAM_EVENT_STATE);
    tell(stream, &event);
    flush(stream);
}

/* -- time -------------------------------------------------------------------------------------- */

/*
 * All streams of a context have one turn in each round, beside the one that its calls have: so
 * nobody waits for more than that of what another asks for. What is due beyond it stays due.
 */
static uint32_t streams_round;
static uint64_t charged_ns; /* time before it has been charged to somebody */

static uint32_t *time_left(struct sbe_stream *stream)
{
    struct sbe_share *share = sbe_entry_of(stream->kept.channel)->share;
    if (share->streams_round != streams_round) {
        share->streams_round = streams_round;
        share->streams_left_ns = SBE_TURN_NS;
    }
    return &share->streams_left_ns;
}

/* False: its context has had its turn. */
static bool charge(struct sbe_stream *stream)
{
    uint32_t *left_ns = time_left(stream);
    uint64_t now_ns = sbe_engine_now(stream->kept.engine);
    uint32_t used_ns = sbe_between(charged_ns, now_ns);
    charged_ns = now_ns;
    *left_ns -= used_ns < *left_ns ? used_ns : *left_ns;
    return *left_ns > 0;
}

/* -- movement ---------------------------------------------------------------------------------- */

void sbe_stream_begin(struct sbe_stream *stream, uint64_t now_ns)
{
    stream->moved_ns = now_ns;
    stream->owed = 0;
    stream->status.clock_ns = now_ns;
}

void sbe_stream_reset(struct sbe_stream *stream, uint32_t generation)
{
    uint32_t skipped = stream->status.skipped;
    stream->status = (struct sbe_stream_status){.generation = generation, .skipped = skipped};
    stream->queued = 0;
    stream->place = 0;
    stream->to_period = stream->settings.period_bytes;
    stream->fraction = 0;
    stream->lacks = stream->passed = false;
    stream->waiting_count = 0; /* they were of a run that is over */
}

/*
 * Whole frames that are due, in bytes, a buffer at most: who was held up for longer has lost the
 * time. A remainder stays for the next time.
 */
static uint64_t take_due(struct sbe_stream *stream, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns - stream->moved_ns;
    if (elapsed_ns > STEP_NS)
        elapsed_ns = STEP_NS;
    uint64_t parts = elapsed_ns * stream->settings.rate_hz + stream->fraction;
    uint64_t frames = parts / SECOND_NS;
    uint64_t bytes = frames * stream->settings.frame_bytes + stream->owed;
    stream->fraction = (uint32_t)(parts - frames * SECOND_NS);
    stream->moved_ns = now_ns;
    stream->owed = 0;
    return bytes < stream->settings.buffer_bytes ? bytes : stream->settings.buffer_bytes;
}

/*
 * Bytes that may be moved. The requester's position is read once; one that can't be, beyond the
 * buffer or behind what it was, counts as no progress.
 */
static uint32_t room(struct sbe_stream *stream)
{
    struct sbe_stream_status *status = &stream->status;
    uint32_t buffer = (uint32_t)stream->settings.buffer_bytes, count;
    uint64_t application;
    if (stream->settings.mode == SBE_STREAM_ENDLESS)
        return buffer;
    if (sbe_stream_takes_blocks(stream))
        return sbe_stream_blocks_room(stream);
    bool playback = stream->settings.direction == SBE_STREAM_PLAYBACK;
    uint64_t furthest = status->position + (playback ? buffer : 0);
    if (sbe_stream_see(&stream->seen, &application, &count) && application > status->application &&
        application <= furthest)
        status->application = application;
    if (playback)
        return status->application > status->position
                   ? (uint32_t)(status->application - status->position)
                   : 0;
    uint64_t filled = status->position - status->application;
    return filled < buffer ? buffer - (uint32_t)filled : 0;
}

static void maintain(struct sbe_stream *stream, enum sbe_handover step, uint8_t *data,
                     uint32_t bytes)
{
    struct sbe_buffer buffer = {.direction = SBE_DIR_INOUT, .size = bytes, .data = data};
    if (stream->shown.port != NULL)
        (void)sbe_cache_handover(stream->shown.port, step, &buffer);
}

/* Moves bytes that end with the buffer or a period at the latest. */
static void move(struct sbe_stream *stream, uint32_t bytes, bool silence)
{
    if (sbe_stream_takes_blocks(stream)) {
        sbe_stream_blocks_move(stream, bytes);
        return;
    }
    uint8_t *data = stream->data + stream->place;
    bool playback = stream->settings.direction == SBE_STREAM_PLAYBACK;
    if (playback && !silence)
        maintain(stream, SBE_TAKE, data, bytes);
    stream->kind->move(stream, silence ? NULL : data, bytes);
    if (!playback)
        maintain(stream, SBE_GIVE_BACK, data, bytes);
    stream->status.position += bytes;
    stream->place += bytes;
    if (stream->place == stream->settings.buffer_bytes)
        stream->place = 0;
    if (stream->settings.period_bytes == 0)
        return;
    stream->to_period -= bytes;
    if (stream->to_period == 0) {
        stream->to_period = stream->settings.period_bytes;
        stream->passed = true;
    }
}

static uint32_t contiguous(const struct sbe_stream *stream, uint64_t due)
{
    bool blocks = sbe_stream_takes_blocks(stream);
    uint32_t most = blocks ? sbe_stream_blocks_step(stream)
                           : (uint32_t)stream->settings.buffer_bytes - stream->place;
    if (!blocks && stream->to_period != 0 && stream->to_period < most)
        most = stream->to_period;
    if (most > PIECE)
        most = PIECE - PIECE % stream->settings.frame_bytes;
    return due < most ? (uint32_t)due : most;
}

/* The requester was late. False: nothing moves any more. */
static bool lose(struct sbe_stream *stream, uint32_t bytes, uint64_t due)
{
    struct sbe_stream_status *status = &stream->status;
    bool begins = !stream->lacks;
    if (stream->passed)
        tell_period(stream);                    /* it was whole */
    if (status->state == SBE_STREAM_DRAINING) { /* all is consumed: the end, no loss */
        sbe_stream_enter(stream, SBE_STREAM_SETUP);
        return false;
    }
    if (begins) {
        status->xruns++;
        stream->lacks = true;
        stream->lost_before = status->lost_bytes;
        stream->lost_from = stream->settings.direction == SBE_STREAM_PLAYBACK ? status->position
                                                                              : status->application;
    }
    if (stream->settings.on_xrun == SBE_STREAM_XRUN_STOPS) {
        status->lost_bytes += due;
        stream->lost_from = status->position; /* capture: what had come is still there */
        tell_loss(stream);
        stream->lacks = false;
        sbe_stream_enter(stream, SBE_STREAM_XRUN);
        return false;
    }
    status->lost_bytes += bytes;
    if (begins)
        tell_loss(stream);
    return true;
}

static void advance(struct sbe_stream *stream, uint64_t now_ns)
{
    struct sbe_stream_status *status = &stream->status;
    uint64_t due = take_due(stream, now_ns);
    uint32_t frame = stream->settings.frame_bytes, free = due > 0 ? room(stream) : 0;
    free -= free % frame; /* whole frames, whatever the requester says */
    status->clock_ns = now_ns;
    while (due > 0) {
        bool late = free == 0;
        uint32_t bytes = contiguous(stream, late || due < free ? due : free);
        if (late && !lose(stream, bytes, due))
            return;
        if (!late && stream->lacks) {
            tell_loss(stream); /* all of it, now that it has ended */
            stream->lacks = false;
        }
        if (late && stream->settings.direction == SBE_STREAM_CAPTURE) {
            status->application += bytes; /* the oldest bytes are gone, */
            show(stream);                 /* as who is just reading them hears before they change */
        }
        move(stream, bytes, late && stream->settings.direction == SBE_STREAM_PLAYBACK);
        if (!late)
            free -= bytes;
        due -= bytes;
        if (due > 0 && !charge(stream)) {
            stream->owed = (uint32_t)due; /* a buffer at most */
            break;
        }
    }
    if (stream->passed)
        tell_period(stream);
    else if (stream->waiting_count != 0)
        (void)send_waiting(stream);
    show(stream);
    flush(stream);
}

/* What it took is its context's. False: not all was moved, for that has had its turn. */
static bool advance_in_turn(struct sbe_stream *stream, uint64_t now_ns)
{
    if (*time_left(stream) == 0)
        return false;
    advance(stream, now_ns);
    (void)charge(stream);
    return stream->owed == 0;
}

static bool is_behind(const struct sbe_stream *stream, uint64_t at_ns)
{
    return sbe_stream_moves(stream) && (stream->owed != 0 || stream->moved_ns < at_ns);
}

static uint64_t step_ns(const struct sbe_stream *stream)
{
    const struct sbe_stream_settings *settings = &stream->settings;
    uint64_t bytes = settings->frame_bytes;
    if (bytes < stream->kind->together)
        bytes = stream->kind->together;
    return bytes * SECOND_NS / ((uint64_t)settings->rate_hz * settings->frame_bytes);
}

/*
 * What goes through the remote is played before it is captured, and no more than `together` bytes
 * before, however late both are: the service holds no more.
 */
static bool advance_together(struct sbe_stream *source, struct sbe_stream *stream, uint64_t now_ns)
{
    struct sbe_stream *pair[] = {source, stream};
    uint64_t at_ns = now_ns, step = step_ns(source);
    for (int i = 0; i < 2; i++) {
        /* What a turn that ended left of a step comes before the next one. */
        if (is_behind(pair[i], pair[i]->moved_ns) && !advance_in_turn(pair[i], pair[i]->moved_ns))
            return false;
        if (now_ns > pair[i]->moved_ns + STEP_NS)
            pair[i]->moved_ns = now_ns - STEP_NS; /* as advance() takes no more at once */
        if (pair[i]->moved_ns < at_ns)
            at_ns = pair[i]->moved_ns;
    }
    if (step_ns(stream) < step)
        step = step_ns(stream);
    do {
        at_ns = now_ns - at_ns > step ? at_ns + step : now_ns;
        for (int i = 0; i < 2; i++)
            if (is_behind(pair[i], at_ns) && !advance_in_turn(pair[i], at_ns))
                return false;
    } while (at_ns < now_ns && (sbe_stream_moves(source) || sbe_stream_moves(stream)));
    return true;
}

/* With the other end of what goes through the remote. */
static bool advance_all(struct sbe_stream *stream, uint64_t now_ns)
{
    bool captures = stream->settings.direction == SBE_STREAM_CAPTURE;
    uint8_t others = captures ? SBE_STREAM_PLAYBACK : SBE_STREAM_CAPTURE;
    struct sbe_stream *other =
        stream->kind->together != 0 ? sbe_stream_other(stream, others) : NULL;
    if (other == NULL || !sbe_stream_moves(other))
        return advance_in_turn(stream, now_ns);
    return captures ? advance_together(other, stream, now_ns)
                    : advance_together(stream, other, now_ns);
}

void sbe_stream_advance(struct sbe_stream *stream, uint64_t now_ns)
{
    charged_ns = now_ns;
    (void)advance_all(stream, now_ns);
}

/* -- when -------------------------------------------------------------------------------------- */

/* The next end of a period; without periods the position is measured each hundredth of a second. */
static uint64_t due_ns(const struct sbe_stream *stream)
{
    if (stream->owed != 0)
        return stream->moved_ns;
    if (stream->settings.period_bytes == 0)
        return stream->moved_ns + SECOND_NS / 100;
    uint32_t rate = stream->settings.rate_hz;
    bool blocks = sbe_stream_takes_blocks(stream);
    uint64_t frames = (blocks ? sbe_stream_blocks_step(stream) : stream->to_period) /
                      stream->settings.frame_bytes;
    if (blocks && frames < rate / SBE_STREAM_PERIODS_A_SECOND)
        frames = rate / SBE_STREAM_PERIODS_A_SECOND; /* short blocks wake nobody more often */
    uint64_t parts = frames * SECOND_NS - stream->fraction;
    return stream->moved_ns + (parts + rate - 1) / rate;
}

uint64_t sbe_streams_due_ns(void)
{
    if (!sbe_streams_changed)
        return first_due_ns;
    uint64_t first = SBE_STREAM_NEVER;
    for (uint32_t i = 0; i < SBE_STREAMS; i++) {
        struct sbe_stream *stream = &sbe_stream_pool[i];
        if (!sbe_stream_moves(stream))
            continue;
        uint64_t due = due_ns(stream);
        if (due < first)
            first = due;
    }
    sbe_streams_changed = false;
    first_due_ns = first;
    return first;
}

void sbe_streams_run(uint64_t now_ns)
{
    static uint32_t first; /* who goes first: one that had no turn in the last round */
    uint32_t at = first;
    bool all = true;
    streams_round++;
    if (sbe_streams_due_ns() > now_ns)
        return;
    charged_ns = now_ns;
    for (uint32_t left = SBE_STREAMS; left > 0; left--, at = at + 1 < SBE_STREAMS ? at + 1 : 0) {
        struct sbe_stream *stream = &sbe_stream_pool[at];
        if (!sbe_stream_moves(stream) || due_ns(stream) > now_ns)
            continue;
        if (!advance_all(stream, now_ns) && all) {
            all = false;
            first = at;
        }
    }
}
