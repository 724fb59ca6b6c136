/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of blocks at the remote: each is used in its order, measured, and touched no more. */
#include <string.h>

#include "stream_host.h"

#define SIZE 40u /* of a block: ten frames, ten milliseconds */
#define MANY 4u  /* that may be queued */

static struct sbe_stream_settings queue_settings(uint8_t direction, uint8_t on_xrun)
{
    struct sbe_stream_settings settings = settings_of(direction, MANY * SIZE, SIZE);
    settings.mode = SBE_STREAM_QUEUE;
    settings.on_xrun = on_xrun;
    return settings;
}

/* Two more areas of the first context, so that blocks lie in several. */
static void begin_with_areas(void)
{
    begin();
    for (uint32_t i = 4; i < AREAS; i++) {
        struct sbe_area *area;
        CHECK_EQ(sbe_area_add(&remote.engine.session.areas, ID(i), 1, 0, AREA_SIZE, &area), SBE_OK);
        area->base = memory[i];
        CHECK_EQ(sbe_area_add(&host.areas, ID(i), 1, 0, AREA_SIZE, &area), SBE_OK);
        area->base = memory[i];
    }
}

static void open_queue(uint8_t direction, uint8_t on_xrun)
{
    begin_with_areas();
    struct sbe_stream_settings settings = queue_settings(direction, on_xrun);
    prepare_with(1, &settings);
}

/* Blocks alternate between areas. */
static uint8_t *place_of(uint32_t index)
{
    return memory[4 + index % 2] + index / 2 * 64;
}

static int queue(uint32_t index, uint8_t direction, uint32_t bytes)
{
    struct sbe_stream_request request = {SBE_STREAM_QUEUE_BLOCK, 1, 0, 0};
    struct sbe_buffer buffer = {.area = ID(4 + index % 2),
                                .direction =
                                    direction == SBE_STREAM_PLAYBACK ? SBE_DIR_IN : SBE_DIR_OUT,
                                .offset = (uint64_t)(place_of(index) - memory[4 + index % 2]),
                                .size = bytes};
    return send(0, &request, sizeof request, &buffer, 1, &host);
}

static void fill(uint32_t index, uint64_t first, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        place_of(index)[i] = (uint8_t)(first + i);
}

static bool counts_from(uint32_t index, uint64_t first, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        if (place_of(index)[i] != (uint8_t)(first + i))
            return false;
    return true;
}

static void check_block(uint32_t which, int32_t result, uint32_t sequence, uint64_t position,
                        uint32_t used)
{
    const struct sbe_stream_block_answer *answer = &host.blocks[which];
    CHECK(which < host.block_count);
    CHECK_EQ(answer->result, result);
    CHECK_EQ(answer->stream, 1);
    CHECK_EQ(answer->generation, 7);
    CHECK_EQ(answer->sequence, sequence);
    CHECK_EQ(answer->position, position);
    CHECK_EQ(answer->used_bytes, used);
}

static uint32_t pins(void)
{
    return remote.areas[4].pins + remote.areas[5].pins;
}

static void test_blocks_are_filled_in_order(void)
{
    open_queue(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
    CHECK_EQ(remote.areas[0].pins, 1); /* the records alone */
    for (uint32_t i = 0; i < MANY; i++)
        CHECK_EQ(queue(i, SBE_STREAM_CAPTURE, SIZE), 1);
    CHECK_EQ(queue(MANY, SBE_STREAM_CAPTURE, SIZE), SBE_EBUSY);
    CHECK_EQ(pins(), MANY);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(host.answer.status.application, MANY * SIZE);
    CHECK_EQ(sbe_streams_due_ns(), now + 10 * MS);
    pass(10 * MS - 1);
    CHECK_EQ(host.block_count, 0);
    pass(1);
    CHECK_EQ(host.block_count, 1);
    check_block(0, SBE_OK, 1, 0, SIZE);
    CHECK_EQ(host.blocks[0].clock_ns, now);
    CHECK_EQ(pins(), MANY - 1);
    CHECK_EQ(queue(MANY, SBE_STREAM_CAPTURE, SIZE), 1);
    pass(25 * MS); /* late: two, and half of one */
    CHECK_EQ(host.block_count, 3);
    check_block(1, SBE_OK, 2, SIZE, SIZE);
    check_block(2, SBE_OK, 3, 2 * SIZE, SIZE);
    CHECK_EQ(sbe_streams_due_ns(), now + 5 * MS);
    pass(15 * MS);
    check_block(4, SBE_OK, 5, 4 * SIZE, SIZE);
    for (uint32_t i = 0; i <= MANY; i++)
        CHECK(counts_from(i, (uint64_t)i * SIZE, SIZE));
    CHECK_EQ(pins(), 0);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_RUNNING);
    pass(MS); /* none is left */
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_XRUN);
    CHECK_EQ(status_of(0, 1).xruns, 1);
    CHECK_EQ(status_of(0, 1).lost_bytes, 4);
    CHECK_EQ(queue(0, SBE_STREAM_CAPTURE, SIZE), 1);
    check_block(5, SBE_EPERM, 0, 5 * SIZE, 0);
    CHECK_EQ(host.blocks[5].state, SBE_STREAM_XRUN);
}

static void test_blocks_are_played_in_order(void)
{
    open_queue(SBE_STREAM_PLAYBACK, SBE_STREAM_XRUN_STOPS);
    static const uint32_t SIZES[MANY] = {40, 4, 8, 36};
    uint64_t first = 0;
    for (uint32_t i = 0; i < MANY; first += SIZES[i++]) {
        fill(i, first, SIZES[i]);
        CHECK_EQ(queue(i, SBE_STREAM_PLAYBACK, SIZES[i]), 1);
    }
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(ask(0, SBE_STREAM_DRAIN, 1, 0), SBE_OK);
    CHECK_EQ(queue(0, SBE_STREAM_PLAYBACK, SIZE), 1); /* nothing more is to come */
    CHECK_EQ(host.blocks[0].state, SBE_STREAM_DRAINING);
    CHECK_EQ(host.blocks[0].result, SBE_EPERM);
    host.block_count = 0;
    pass(22 * MS);
    CHECK_EQ(host.block_count, 4);
    check_block(1, SBE_OK, 2, 40, 4);
    check_block(3, SBE_OK, 4, 52, 36);
    pass(MS);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_SETUP);
    CHECK_EQ(status_of(0, 1).xruns, 0);
    CHECK_EQ(kind.moved, 88);
    CHECK_EQ(kind.wrong, 0);
}

/* Silence, or frames without a block; what comes then is at its position. */
static void test_an_empty_queue_goes_on(void)
{
    open_queue(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_GOES_ON);
    CHECK_EQ(queue(0, SBE_STREAM_CAPTURE, SIZE), 1);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    pass(10 * MS);
    pass(25 * MS);
    CHECK_EQ(status_of(0, 1).state, SBE_STREAM_RUNNING);
    now += 4 * MS; /* measured when the block comes, not when the remote happens to look */
    CHECK_EQ(queue(1, SBE_STREAM_CAPTURE, SIZE), 1);
    CHECK_EQ(kind.skipped, 29 * 4);
    pass(10 * MS);
    check_block(1, SBE_OK, 2, 39 * 4, SIZE);
    CHECK(counts_from(1, 39 * 4, SIZE));
    CHECK_EQ(status_of(0, 1).xruns, 1);
    CHECK_EQ(status_of(0, 1).lost_bytes, 29 * 4);

    open_queue(SBE_STREAM_PLAYBACK, SBE_STREAM_XRUN_GOES_ON);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    pass(15 * MS);
    fill(0, 60, SIZE);
    CHECK_EQ(queue(0, SBE_STREAM_PLAYBACK, SIZE), 1);
    pass(10 * MS);
    check_block(0, SBE_OK, 1, 60, SIZE);
    CHECK_EQ(kind.silent, 60);
    CHECK_EQ(kind.wrong, 0);
    uint32_t told = 0;
    for (uint32_t i = 0; i < host.event_count; i++)
        if (host.events[i].kind == SBE_STREAM_EVENT_XRUN) {
            told++;
            CHECK_EQ(host.events[i].from, 0);
        }
    CHECK_EQ(told, 2); /* that it began, and all of it */
}

static void cancel(uint64_t transaction)
{
    struct sbe_frame frame = {.type = SBE_FRAME_CANCEL, .transaction = transaction};
    CHECK_EQ(sbe_channel_send(&host.channels[0], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[0]);
    run();
    take(0);
}

/* One alone, whichever: the others move up, and its memory is touched no more. */
static void test_one_block_is_taken_back(void)
{
    for (uint32_t which = 0; which < 3; which++) {
        open_queue(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
        uint64_t transactions[3];
        for (uint32_t i = 0; i < 3; i++) {
            CHECK_EQ(queue(i, SBE_STREAM_CAPTURE, SIZE), 1);
            transactions[i] = host.transaction;
        }
        CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
        now += 5 * MS;
        CHECK_EQ(ask(0, SBE_STREAM_QUERY, 1, 0), SBE_OK);
        cancel(transactions[which]);
        check_block(0, SBE_ECANCELED, which + 1, which == 0 ? 0 : 20, which == 0 ? 20 : 0);
        CHECK_EQ(pins(), 2);
        pass((which == 0 ? 20 : 15) * MS);
        CHECK_EQ(host.block_count, 3);
        CHECK_EQ(pins(), 0);
        CHECK(counts_from(which, 0, which == 0 ? 20 : 0));
        for (uint32_t i = which == 0 ? 20 : 0; i < SIZE; i++)
            CHECK_EQ(place_of(which)[i], 0);
        check_block(2, SBE_OK, which == 2 ? 2 : 3, which == 0 ? 60 : 40, SIZE);
    }
}

/* All of them, in their order, with what was used, before what has ended them is answered. */
static void test_what_returns_blocks(void)
{
    for (uint32_t how = 0; how < 5; how++) {
        open_queue(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
        for (uint32_t i = 0; i < 3; i++)
            CHECK_EQ(queue(i, SBE_STREAM_CAPTURE, SIZE), 1);
        bool runs = how != 1;
        if (runs)
            CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
        now += 5 * MS;
        if (how == 0)
            CHECK_EQ(ask(0, SBE_STREAM_STOP, 1, 0), SBE_OK);
        else if (how == 1)
            CHECK_EQ(ask(0, SBE_STREAM_PREPARE, 1, 8), SBE_OK);
        else if (how == 2)
            CHECK_EQ(ask(0, SBE_STREAM_CLOSE, 1, 0), SBE_OK);
        else if (how == 3) /* OPEN is given up */
            cancel(sbe_stream_pool[SBE_STREAMS - 1].kept.transaction);
        else
            remote.engine.hooks.channel_close(&remote.engine, &remote.session_channels[0]);
        if (how < 4) {
            CHECK_EQ(host.block_count, 3);
            uint32_t used = how == 0 ? 20 : 0; /* what is due is moved before a STOP */
            for (uint32_t i = 0; i < 3; i++)
                check_block(i, SBE_ECANCELED, i + 1, i == 0 ? 0 : used, i == 0 ? used : 0);
        }
        CHECK_EQ(pins(), 0);
        static uint8_t before[2][AREA_SIZE];
        memcpy(before, memory[4], sizeof before);
        now += 1000 * MS;
        run();
        CHECK(memcmp(before, memory[4], sizeof before) == 0);
        if (how != 1)
            continue;
        CHECK_EQ(queue(0, SBE_STREAM_CAPTURE, SIZE), 1); /* the new run begins at 1 */
        CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
        pass(10 * MS);
        CHECK_EQ(host.blocks[3].sequence, 1);
        CHECK_EQ(host.blocks[3].generation, 8);
    }
}

static void test_what_is_no_block(void)
{
    static const uint32_t SIZES[] = {0, 2, 41, 44, 1u << 31};
    open_queue(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
    for (uint32_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++)
        CHECK(queue(0, SBE_STREAM_CAPTURE, SIZES[i]) < 0);
    CHECK_EQ(queue(0, SBE_STREAM_PLAYBACK, SIZE), SBE_EINVAL);
    struct sbe_stream_request request = {SBE_STREAM_QUEUE_BLOCK, 1, 0, 0};
    CHECK_EQ(send(0, &request, sizeof request, NULL, 0, &host), SBE_EINVAL);
    struct sbe_buffer buffers[2] = {
        {.area = ID(4), .direction = SBE_DIR_OUT, .size = SIZE},
        {.area = ID(5), .direction = SBE_DIR_OUT, .size = SIZE},
    };
    CHECK_EQ(send(0, &request, sizeof request, buffers, 2, &host), SBE_EINVAL);
    buffers[0].area = ID(0); /* over the records */
    CHECK_EQ(send(0, &request, sizeof request, buffers, 1, &host), SBE_EINVAL);
    buffers[0].area = ID(1); /* another context's */
    CHECK_EQ(send(0, &request, sizeof request, buffers, 1, &host), SBE_EACCES);
    CHECK_EQ(pins(), 0);
    CHECK_EQ(host.block_count, 0);
    open_stream(2, SBE_STREAM_CAPTURE, 400, 40);
    request.stream = 2;
    buffers[0].area = ID(4);
    CHECK_EQ(send(0, &request, sizeof request, buffers, 1, &host), SBE_ENOTSUP);
}

/* The bounds of a queue: a size of blocks, and how many the remote has. */
static void test_settings(void)
{
    begin_with_areas();
    struct sbe_stream_settings settings = queue_settings(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
    settings.period_bytes = 0;
    CHECK_EQ(open_with(0, 1, &settings), SBE_ERANGE);
    settings.period_bytes = SIZE;
    settings.buffer_bytes = (SBE_STREAM_BLOCKS + 1) * SIZE;
    CHECK_EQ(open_with(0, 1, &settings), SBE_ERANGE);
    struct sbe_stream_proposal proposal = proposal_for(&settings);
    CHECK_EQ(proposal.result, SBE_OK);
    CHECK_EQ(proposal.settings.buffer_bytes, SBE_STREAM_BLOCKS * SIZE);
    CHECK_EQ(open_with(0, 1, &proposal.settings), 1);
}

/* Blocks of one frame wake the remote no more often than the shortest periods do. */
static void test_short_blocks(void)
{
    begin_with_areas();
    struct sbe_stream_settings settings = queue_settings(SBE_STREAM_CAPTURE, SBE_STREAM_XRUN_STOPS);
    settings.rate_hz = 48000;
    settings.period_bytes = 96;
    settings.buffer_bytes = (uint64_t)MANY * 96;
    prepare_with(1, &settings);
    for (uint32_t i = 0; i < MANY; i++)
        CHECK_EQ(queue(i, SBE_STREAM_CAPTURE, 4), 1);
    CHECK_EQ(ask(0, SBE_STREAM_START, 1, 0), SBE_OK);
    CHECK_EQ(sbe_streams_due_ns(), now + MS / 2);
    pass(MS / 2);
    CHECK_EQ(host.block_count, MANY);
}

int main(void)
{
    test_blocks_are_filled_in_order();
    test_blocks_are_played_in_order();
    test_an_empty_queue_goes_on();
    test_one_block_is_taken_back();
    test_what_returns_blocks();
    test_what_is_no_block();
    test_settings();
    test_short_blocks();
    return 0;
}
