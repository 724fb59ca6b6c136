/* SPDX-License-Identifier: Apache-2.0 */
/* Streams at the remote, by a clock that the test turns, from a requester that lies. */
#include <pthread.h>
#include <string.h>

#include "stream_host.h"

/* -- tests ------------------------------------------------------------------------------------- */

/* A frame each millisecond, a period each ten; by the clock and neither sooner nor later. */
static void test_time_moves_bytes(void)
{
    begin();
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    CHECK_EQ(sbe_streams_due_ns(), SBE_STREAM_NEVER);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    uint64_t started = now;
    CHECK_EQ(sbe_streams_due_ns(), started + 10 * MS);
    host.event_count = 0;
    pass(10 * MS - 1);
    CHECK_EQ(status_of(0, 1).position, 0); /* nobody looked */
    pass(1);
    CHECK_EQ(status_of(0, 1).position, 40);
    CHECK_EQ(host.event_count, 1);
    CHECK_EQ(host.events[0].position, 40);
    CHECK_EQ(host.events[0].clock_ns, now);
    pass(14 * MS); /* late: a period and some frames */
    CHECK_EQ(status_of(0, 1).position, 96);
    CHECK_EQ(sbe_streams_due_ns(), started + 30 * MS);
    pass(26 * MS); /* three periods at once are one event */
    CHECK_EQ(host.event_count, 3);
    CHECK_EQ(host.events[2].position, 200);
    CHECK_EQ(kind.moved, 200);
    CHECK(kind.longest <= 40);
    now += MS / 2;
    CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1, 0), SBE_OK);
    CHECK_EQ(host.answer.status.position, 200);
    now += MS / 2; /* no fraction is lost by being asked */
    CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1, 0), SBE_OK);
    CHECK_EQ(host.answer.status.position, 204);
}

static void test_pause_and_clock(void)
{
    begin();
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    now += 5 * MS;
    CHECK_EQ(ask(0, SBE_STREAM_PAUSE, 1, 0), SBE_OK);
    CHECK_EQ(host.answer.status.position, 20);
    CHECK_EQ(sbe_streams_due_ns(), SBE_STREAM_NEVER);
    pass(1000 * MS);
    CHECK_EQ(ask(0, SBE_STREAM_RESUME, 1, 0), SBE_OK);
    CHECK_EQ(sbe_streams_due_ns(), now + 5 * MS);
    for (uint32_t i = 0; i < 100; i++) /* a clock that stands still moves nothing */
        pass(0);
    CHECK_EQ(status_of(0, 1).position, 20);
}

static void open_that_pauses(uint32_t stream, uint8_t direction)
{
    struct sbe_stream_settings settings = settings_of(direction, 400, 40);
    settings.on_suspend = SBE_STREAM_SUSPEND_PAUSES;
    prepare_with(stream, &settings);
}

static void test_suspended_and_resumed(void)
{
    begin();
    open_that_pauses(1, SBE_STREAM_CAPTURE);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    host.event_count = 0;
    now += 5 * MS + MS / 2;
    CHECK_EQ(sbe_streams_rest(&remote.engine, false), SBE_OK); /* asked alone */
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_RUNNING);
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK);
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK); /* once for each service */
    CHECK_EQ(kind.rests, 1);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_SUSPENDED);
    CHECK_EQ(status_of(0, 1).position, 20);
    CHECK_EQ(status_of(0, 1).clock_ns, now);
    CHECK_EQ(sbe_streams_due_ns(), SBE_STREAM_NEVER);
    take(0);
    CHECK_EQ(host.event_count, 1); /* it is there before the suspend is answered */
    CHECK_EQ(host.events[0].kind, SBE_STREAM_EVENT_STATE);
    CHECK_EQ(host.events[0].state, SBE_STREAM_SUSPENDED);
    pass(3600000ull * MS);
    CHECK_EQ(kind.moved, 20);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_EPERM);
    CHECK_EQ(ask(0, SBE_STREAM_PAUSE, 1, 0), SBE_EPERM);
    CHECK_EQ(ask(0, SBE_STREAM_DRAIN, 1, 0), SBE_EPERM);
    CHECK_EQ(ask(0, SBE_STREAM_RESUME, 1, 0), SBE_OK);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_RUNNING);
    pass(4 * MS + MS / 2); /* the half of a frame is kept */
    CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1, 0), SBE_OK);
    CHECK_EQ(host.answer.status.position, 40);
    CHECK_EQ(host.answer.status.lost_bytes, 0);
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_PREPARE, 1, 8), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_STOP, 1, 0), SBE_OK);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_SETUP);
}

static void test_drains_on_after_a_suspend(void)
{
    begin();
    open_that_pauses(1, SBE_STREAM_PLAYBACK);
    play(1, 0, 80, 400);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_DRAIN, 1, 0), SBE_OK);
    now += 10 * MS;
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_RESUME, 1, 0), SBE_OK);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_DRAINING);
    pass(20 * MS);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_SETUP);
    CHECK_EQ(status_of(0, 1).position, 80);
    CHECK_EQ(kind.moved, 80);
    CHECK_EQ(status_of(0, 1).xruns, 0);
}

/* Only what moves is in the way, only of its own engine, and what was due is measured first. */
static void test_who_keeps_the_remote_awake(void)
{
    begin();
    open_that_pauses(2, SBE_STREAM_CAPTURE);
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    CHECK_EQ(sbe_streams_rest(&remote.engine, false), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_START, 2, 0), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(sbe_streams_rest(&remote.engine, false), SBE_EBUSY);
    CHECK_EQ(status_of(0, 2).state, SBE_STREAM_RUNNING);
    struct sbe_engine other = {.port = &remote.port};
    CHECK_EQ(sbe_streams_rest(&other, true), SBE_OK);
    CHECK_EQ(status_of(0, 2).state, SBE_STREAM_RUNNING);
    pass(10 * MS);
    CHECK_EQ(ask(0, SBE_STREAM_PAUSE, 1, 0), SBE_OK);
    now += 200 * MS; /* too late: it ends in an xrun, and so it stays */
    CHECK_EQ(sbe_streams_rest(&remote.engine, true), SBE_OK);
    CHECK_EQ(status_of(0, 2).state, SBE_STREAM_XRUN);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_PAUSED);
    CHECK_EQ(kind.rests, 0);
    struct sbe_stream_settings settings = settings_of(SBE_STREAM_CAPTURE, 400, 40);
    settings.on_suspend = 2;
    CHECK_EQ(open_with(0, 3, &settings), SBE_EINVAL);
}

/* An hour at once: no more than the buffer, and an end. */
static void test_a_leap_of_the_clock(void)
{
    begin();
    struct sbe_stream_settings settings = settings_of(SBE_STREAM_CAPTURE, 400, 40);
    settings.mode = SBE_STREAM_ENDLESS;
    prepare_with(1, &settings);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    pass(3600000ull * MS);
    CHECK_EQ(status_of(0, 1).position, 400);
    CHECK_EQ(kind.moved, 400);
}

static void test_playback_takes_what_is_there(void)
{
    begin();
    open_stream(1, SBE_STREAM_PLAYBACK, 400, 40);
    play(1, 0, 400, 400);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    for (uint64_t written = 400; written < 4000; written += 40) {
        pass(10 * MS);
        play(1, written, 40, 400);
    }
    CHECK_EQ(kind.wrong, 0);
    CHECK_EQ(kind.moved, 3600);
    CHECK_EQ(ask(0, SBE_STREAM_DRAIN, 1, 0), SBE_OK);
    pass(99 * MS);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_DRAINING);
    pass(10 * MS);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_SETUP);
    CHECK_EQ(status_of(0, 1).position, 4000);
    CHECK_EQ(status_of(0, 1).xruns, 0);
    CHECK_EQ(kind.moved, 4000);
}

/* Positions that can't be are as if nothing was shown. */
static void test_a_requester_that_lies(void)
{
    static const uint64_t LIES[] = {484, UINT64_MAX, 1ull << 32, (1ull << 32) + 40,
                                    0x8000000000000000u};
    for (uint32_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        begin();
        open_stream(1, SBE_STREAM_PLAYBACK, 400, 40);
        play(1, 0, 80, 400);
        CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
        pass(10 * MS);
        show(1, LIES[i]);
        pass(10 * MS);
        show(1, 7); /* backwards */
        pass(10 * MS);
        CHECK_EQ(status_of(0, 1).state, SBE_STREAM_XRUN);
        CHECK_EQ(status_of(0, 1).position, 80);
        CHECK_EQ(kind.moved, 80);
        CHECK_EQ(kind.wrong, 0);
    }
    begin(); /* no whole frame */
    open_stream(1, SBE_STREAM_PLAYBACK, 400, 40);
    play(1, 0, 43, 400);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    pass(20 * MS);
    CHECK_EQ(status_of(0, 1).position, 40);
    begin(); /* read what was never there */
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    show(1, 4000);
    pass(100 * MS);
    pass(10 * MS);
    CHECK_EQ(status_of(0, 1).position, 400);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_XRUN);
}

static void test_an_xrun_goes_on(void)
{
    begin();
    prepare_going_on(SBE_STREAM_PLAYBACK);
    play(1, 0, 60, 400);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    host.event_count = 0;
    pass(30 * MS); /* 120 due, 60 there */
    CHECK_EQ(status_of(0, 1).position, 120);
    CHECK_EQ(status_of(0, 1).lost_bytes, 60);
    pass(10 * MS);
    play(1, 160, 40, 400); /* what comes is played where it is in time */
    pass(10 * MS);
    CHECK_EQ(status_of(0, 1).xruns, 1);
    CHECK_EQ(status_of(0, 1).lost_bytes, 100);
    CHECK_EQ(kind.silent, 100);
    CHECK_EQ(kind.wrong, 0);
    uint32_t told = 0;
    for (uint32_t i = 0; i < host.event_count; i++)
        if (host.events[i].kind == SBE_STREAM_EVENT_XRUN) {
            CHECK_EQ(host.events[i].from, 60);
            CHECK_EQ(host.events[i].bytes, told++ == 0 ? 20 : 100);
        }
    CHECK_EQ(told, 2);
}

static void test_the_oldest_give_way(void)
{
    begin();
    prepare_going_on(SBE_STREAM_CAPTURE);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    for (uint32_t i = 0; i < 15; i++)
        pass(10 * MS);
    CHECK_EQ(status_of(0, 1).position, 600);
    CHECK_EQ(status_of(0, 1).application, 200);
    CHECK_EQ(status_of(0, 1).lost_bytes, 200);
    CHECK_EQ(status_of(0, 1).xruns, 1);
}

/* Nobody reads: nothing waits, and what matters comes first once there is room. */
static void test_events_without_room(void)
{
    begin();
    prepare_going_on(SBE_STREAM_CAPTURE);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    host.event_count = 0;
    for (uint32_t i = 0; i < 100; i++) {
        now += 10 * MS;
        run();
    }
    CHECK_EQ(status_of(0, 1).position, 4000);
    CHECK(status_of(0, 1).skipped >= 80);
    /* A request is answered all the same: a slot was left for it. */
    CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1, 0), SBE_OK);
    CHECK(host.event_count < SLOTS);
    for (uint32_t i = 1; i < host.event_count; i++)
        CHECK_EQ(host.events[i].sequence, host.events[i - 1].sequence + 1);
    uint32_t last = host.events[host.event_count - 1].sequence;
    host.event_count = 0;
    pass(10 * MS);
    CHECK(host.event_count >= 1);
    CHECK_EQ(host.events[0].sequence - last - 1, host.events[0].skipped); /* each gap is counted */
    CHECK_EQ(host.events[host.event_count - 1].position, 4040);
}

/* The states of one that is stopped often and not listened to: four wait, the others are counted.
 */
static void test_states_wait_for_room(void)
{
    begin();
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    open_stream(2, SBE_STREAM_CAPTURE, 400, 40);
    host.event_count = 0;
    struct sbe_stream *stream = &sbe_stream_pool[SBE_STREAMS - 1];
    CHECK_EQ(stream->id, 1);
    for (uint32_t i = 0; i < 40; i++)
        sbe_stream_enter(stream, SBE_STREAM_PREPARED);
    CHECK_EQ(stream->waiting_count, SBE_STREAM_WAITING);
    CHECK(stream->status.skipped > 0);
    uint32_t skipped = stream->status.skipped;
    take(0);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(host.events[host.event_count - 1].state, SBE_STREAM_RUNNING);
    CHECK_EQ(host.events[host.event_count - 1].skipped, skipped);
    CHECK_EQ(host.event_count, 40 - skipped + 1);
}

static void test_malformed_requests(void)
{
    uint32_t words[32] = {0};
    begin();
    open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
    for (uint32_t op = 0; op < 13; op++)
        for (uint32_t size = 0; size <= sizeof words; size += 4) {
            words[0] = op;
            words[1] = 9; /* there is none */
            int status = send(0, words, size, NULL, 0, &host);
            CHECK(status == SBE_EINVAL || status == SBE_ENOENT ||
                  (op == SBE_STREAM_NEGOTIATE && size == 56));
        }
    words[0] = SBE_STREAM_START;
    words[1] = 1;
    for (uint32_t count = 0; count < 40; count++) { /* itself, twice the same, too many, none */
        words[3] = count;
        for (uint32_t i = 0; i < count && i < 20; i++)
            words[4 + i] = i == 0 ? 1 : 5;
        int status = send(0, words, 16 + 4 * (count < 20 ? count : 20), NULL, 0, &host);
        if (count == 0) {
            CHECK_EQ(status, SBE_OK);
            CHECK_EQ(ask(0, SBE_STREAM_STOP, 1, 0), SBE_OK);
            CHECK_EQ(ask(0, SBE_STREAM_PREPARE, 1, 8), SBE_OK);
            continue;
        }
        CHECK(status < 0 || host.answer.result < 0);
        CHECK_EQ(status_of(0, 1).state, SBE_STREAM_PREPARED);
    }
    CHECK_EQ(ask(0, SBE_STREAM_PREPARE, 1, 0), SBE_EINVAL);
    CHECK_EQ(ask(0, SBE_STREAM_PREPARE, 1, 8), SBE_EINVAL); /* the last one's */
}

/* Settings near every bound: refused, or proposed so that OPEN takes them. */
static void test_settings(void)
{
    static const uint64_t NUMBERS[] = {
        0,     1,     2,          3,          4,          5,          40,       4096,      65535,
        65536, 65537, 0x3fffffff, 0x40000000, 0x40000001, 0x7fffffff, 1u << 31, UINT32_MAX};
    const uint32_t count = sizeof NUMBERS / sizeof NUMBERS[0];
    begin();
    for (uint32_t i = 0; i < count * count * count * count; i++) {
        struct sbe_stream_settings settings = settings_of(SBE_STREAM_CAPTURE, 0, 0);
        uint32_t k = i;
        settings.frame_bytes = (uint32_t)NUMBERS[k % count];
        k /= count;
        settings.rate_hz = (uint32_t)NUMBERS[k % count];
        k /= count;
        settings.period_bytes = (uint32_t)NUMBERS[k % count];
        k /= count;
        settings.buffer_bytes = NUMBERS[k % count] << (i % 3 == 0 ? 30 : 0);
        struct sbe_stream_proposal proposal = proposal_for(&settings);
        if (proposal.result < 0)
            continue;
        const struct sbe_stream_settings *made = &proposal.settings;
        uint64_t unit = made->period_bytes != 0 ? made->period_bytes : made->frame_bytes;
        CHECK(made->frame_bytes == settings.frame_bytes);
        CHECK(made->buffer_bytes >= unit && made->buffer_bytes <= SBE_STREAM_BUFFER_MAX);
        CHECK_EQ(made->buffer_bytes % unit, 0);
        CHECK_EQ(made->period_bytes % made->frame_bytes, 0);
        CHECK((made->period_bytes == 0) == (settings.period_bytes == 0));
    }
}

static void test_memory_that_does_not_fit(void)
{
    begin();
    struct sbe_stream_settings settings = settings_of(SBE_STREAM_CAPTURE, 400, 40);
    struct {
        struct sbe_stream_request request;
        struct sbe_stream_settings settings;
    } message = {{SBE_STREAM_OPEN, 1, 0, 0}, settings};
    const struct sbe_buffer block = {
        .area = ID(0), .direction = SBE_DIR_INOUT, .offset = 0, .size = BLOCK};
    const struct sbe_buffer data = {
        .area = ID(0), .direction = SBE_DIR_OUT, .offset = BLOCK, .size = 400};
    struct {
        struct sbe_buffer buffers[2];
        uint32_t count;
        int status;
    } cases[] = {
        {{block, data}, 1, SBE_EINVAL}, {{block, data}, 0, SBE_EINVAL},
        {{data, block}, 2, SBE_EINVAL}, {{block, data}, 2, SBE_EINVAL},
        {{block, data}, 2, SBE_EINVAL}, {{block, data}, 2, SBE_EINVAL},
        {{block, data}, 2, SBE_EINVAL}, {{block, data}, 2, SBE_EACCES},
        {{block, data}, 2, SBE_EINVAL},
    };
    cases[3].buffers[0].size = BLOCK / 2;
    cases[4].buffers[0].offset = 32;
    cases[5].buffers[1].size = 404;
    cases[6].buffers[1].offset = BLOCK - 4; /* over the block */
    cases[7].buffers[1].area = ID(1);       /* another context's */
    cases[8].buffers[1].direction = SBE_DIR_IN;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(send(0, &message, sizeof message, cases[i].buffers, cases[i].count, &message),
                 cases[i].status);
        CHECK_EQ(remote.areas[0].pins, 0);
    }
    settings.period_bytes = 404; /* larger than the buffer */
    CHECK_EQ(open_with(0, 1, &settings), SBE_EINVAL);
    settings.period_bytes = 40;
    CHECK_EQ(open_with(0, 1, &settings), 1);
    CHECK_EQ(open_with(0, 1, &settings), SBE_EEXIST);
}

/* A share for each context, and each knows its own alone. */
static void test_contexts_are_apart(void)
{
    begin();
    struct sbe_stream_settings settings = settings_of(SBE_STREAM_CAPTURE, 400, 40);
    uint32_t most = SBE_STREAMS_SHARE < 6 ? SBE_STREAMS_SHARE : 6;
    for (uint32_t i = 1; i <= most; i++)
        CHECK_EQ(open_with(0, i, &settings), 1);
    if (most == SBE_STREAMS_SHARE)
        CHECK_EQ(open_with(0, most + 1, &settings), SBE_EBUSY);
    CHECK_EQ(ask(1, SBE_STREAM_QUERY, 1, 0), SBE_ENOENT);
    CHECK_EQ(ask(1, SBE_STREAM_CLOSE, 1, 0), SBE_ENOENT);
    CHECK_EQ(open_with(1, 1, &settings), 1);
    CHECK_EQ(ask(1, SBE_STREAM_PREPARE, 1, 3), SBE_OK);
    uint32_t words[] = {SBE_STREAM_START, 1, 0, 1, 2}; /* stream 2 is the other context's */
    CHECK_EQ(send(1, words, sizeof words, NULL, 0, &host), SBE_OK);
    CHECK_EQ(host.answer.result, SBE_ENOENT);
    CHECK_EQ(host.answer.status.state, SBE_STREAM_PREPARED);
}

static void start_endless(uint32_t channel, uint32_t stream, uint8_t direction)
{
    struct sbe_stream_settings settings = settings_of(direction, 400, 40);
    settings.mode = SBE_STREAM_ENDLESS;
    CHECK_EQ(open_with(channel, stream, &settings), 1);
    CHECK_EQ(ask(channel, SBE_STREAM_PREPARE, stream, 1), SBE_OK);
    CHECK_EQ(ask(channel, SBE_STREAM_START, stream, 0), SBE_OK);
}

/* What one context's streams take beyond a turn waits, whoever's calls and streams are behind it.
 */
static void test_a_turn_for_each_context(void)
{
    begin();
    uint32_t most = SBE_STREAMS_SHARE < 6 ? SBE_STREAMS_SHARE : 6, rounds = 0, asked = 0;
    for (uint32_t i = 1; i <= most; i++)
        start_endless(0, i, SBE_STREAM_CAPTURE);
    start_endless(1, 1, SBE_STREAM_CAPTURE);
    kind.takes_ns = MS / 5;
    now += 100 * MS; /* each has a buffer of ten periods to move */
    uint64_t until = now, longest = 0, positions = 0;
    while (positions < (most + 1) * 400) {
        uint64_t begun = now;
        sbe_streams_run(until);
        longest = now - begun > longest ? now - begun : longest;
        CHECK(++rounds < 100);
        if (rounds == 1) /* nobody waits for all of another context's */
            CHECK(status_of(1, 1).position > 0);
        positions = status_of(1, 1).position;
        for (uint32_t i = 1; i <= most; i++)
            positions += status_of(0, i).position;
    }
    CHECK(rounds > most);
    CHECK(longest <= CONTEXTS * (SBE_TURN_NS + 2 * kind.takes_ns));
    uint64_t before = now += 100 * MS;
    while (asked++ < 5) /* nor is a request a way around it */
        CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1 + asked % most, 0), SBE_OK);
    CHECK(now - before <= 5 * (CONTEXTS + 1) * (SBE_TURN_NS + 2 * kind.takes_ns));
}

/* A turn that ends in the middle: what one of them owes is moved before the other goes on. */
static void test_together_however_short_the_turns(void)
{
    begin();
    counter.together = 200;
    start_endless(0, 1, SBE_STREAM_PLAYBACK);
    start_endless(0, 2, SBE_STREAM_CAPTURE);
    for (uint32_t piece_ns = SBE_TURN_NS / 7; piece_ns <= SBE_TURN_NS;
         piece_ns += SBE_TURN_NS / 7) {
        now += 95 * MS;
        kind.takes_ns = piece_ns;
        for (uint64_t until = now, rounds = 0; rounds < 100; rounds++)
            sbe_streams_run(until);
        kind.takes_ns = 0;
        pass(0);
        CHECK_EQ(status_of(0, 1).position, status_of(0, 2).position);
    }
    CHECK(kind.ahead != 0);
    CHECK(kind.ahead <= counter.together);
}

static void test_nothing_is_touched_after_the_end(void)
{
    for (uint32_t how = 0; how < 3; how++) {
        begin();
        open_stream(1, SBE_STREAM_CAPTURE, 400, 40);
        CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
        pass(50 * MS);
        CHECK_EQ(remote.areas[0].pins, 2);
        CHECK(sbe_streams_due_ns() != SBE_STREAM_NEVER); /* remembered until something changes */
        if (how == 0) {
            CHECK_EQ(ask(0, SBE_STREAM_CLOSE, 1, 0), SBE_OK);
            CHECK_EQ(host.opens_ended, 1);
            CHECK_EQ(host.answer.status.state, SBE_STREAM_DISCONNECTED);
        } else if (how == 1) { /* the requester gives it up: the first transaction */
            struct sbe_frame frame = {.type = SBE_FRAME_CANCEL,
                                      .transaction =
                                          sbe_stream_pool[SBE_STREAMS - 1].kept.transaction};
            CHECK_EQ(sbe_channel_send(&host.channels[0], &frame), SBE_OK);
            sbe_channel_flush(&host.channels[0]);
            run();
            take(0);
            CHECK_EQ(host.opens_ended, 1);
            CHECK_EQ(host.status, SBE_ECANCELED);
        } else {
            remote.engine.hooks.channel_close(&remote.engine, &remote.session_channels[0]);
        }
        CHECK_EQ(remote.areas[0].pins, 0);
        CHECK_EQ(sbe_streams_due_ns(), SBE_STREAM_NEVER);
        static uint8_t before[AREA_SIZE];
        memcpy(before, memory[0], sizeof before);
        now += 1000 * MS;
        run();
        CHECK(memcmp(before, memory[0], sizeof before) == 0);
    }
}

/* -- records are read whole -------------------------------------------------------------------- */

#define RECORDS 200000u

static _Alignas(64) uint8_t shared_block[BLOCK];

static void *write_records(void *unused)
{
    struct sbe_stream_place place = sbe_stream_remote_place(shared_block, STRIDE, NULL);
    uint32_t newest = 0;
    for (uint64_t i = 1; i <= RECORDS; i++) {
        struct sbe_stream_status status = {
            .generation = (uint32_t)i,
            .position = i << 32 | i,
            .clock_ns = i * 3,
            .application = ~i,
            .lost_bytes = i << 20,
            .skipped = (uint32_t)(i * 7),
        };
        sbe_stream_show(&place, &newest, &status);
    }
    return unused;
}

static void test_records_are_whole(void)
{
    struct sbe_stream_place place = sbe_stream_remote_place(shared_block, STRIDE, NULL);
    struct sbe_stream_status status = {0};
    uint32_t newest = 0, looks = 0;
    pthread_t writer;
    CHECK_EQ(pthread_create(&writer, NULL, write_records, NULL), 0);
    while (status.generation != RECORDS) {
        uint32_t before = status.generation;
        if (!sbe_stream_see(&place, &status, &newest)) {
            status.generation = before;
            continue;
        }
        uint64_t i = status.generation;
        looks++;
        if (i == 0)
            continue;
        CHECK(i >= before);
        CHECK_EQ(newest, i);
        CHECK_EQ(status.position, i << 32 | i);
        CHECK_EQ(status.clock_ns, i * 3);
        CHECK_EQ(status.application, ~i);
        CHECK_EQ(status.lost_bytes, i << 20);
        CHECK_EQ(status.skipped, (uint32_t)(i * 7));
    }
    CHECK(looks > 0);
    CHECK_EQ(pthread_join(writer, NULL), 0);
}

/* A writer without rest is told from an honest one, in a bounded number of looks. */
static const struct sbe_stream_place *restless;

static void change(void *self, void *start, uint64_t size)
{
    (void)self, (void)size;
    if (start == (void *)restless->newest)
        sbe_store_relaxed(restless->newest, sbe_load_relaxed(restless->newest) + 1);
}

static void test_a_restless_writer(void)
{
    struct sbe_port port = {.cache_invalidate = change};
    struct sbe_stream_place place = sbe_stream_remote_place(shared_block, STRIDE, &port);
    struct sbe_stream_status status;
    uint32_t newest;
    restless = &place;
    CHECK(!sbe_stream_see(&place, &status, &newest));
}

int main(void)
{
    test_time_moves_bytes();
    test_pause_and_clock();
    test_suspended_and_resumed();
    test_drains_on_after_a_suspend();
    test_who_keeps_the_remote_awake();
    test_a_leap_of_the_clock();
    test_playback_takes_what_is_there();
    test_a_requester_that_lies();
    test_an_xrun_goes_on();
    test_the_oldest_give_way();
    test_events_without_room();
    test_states_wait_for_room();
    test_malformed_requests();
    test_settings();
    test_memory_that_does_not_fit();
    test_contexts_are_apart();
    test_a_turn_for_each_context();
    test_together_however_short_the_turns();
    test_nothing_is_touched_after_the_end();
    test_records_are_whole();
    test_a_restless_writer();
    return 0;
}
