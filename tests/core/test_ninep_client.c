/* SPDX-License-Identifier: Apache-2.0 */
/* The client of exported files: what it does, and an exporter that goes or has no time. */
#include "ninep_exporter.h"

static void test_reading(void)
{
    struct sbe_buffer buffer = {
        .area = AREA, .direction = SBE_DIR_OUT, .size = 30000, .data = memory};
    start();
    make_file(40000);
    CHECK_EQ(open_file("/ram//./file", SBE_9P_READ), SBE_OK);
    CHECK_EQ(sbe_9p_inline(&files), SLOT_SIZE - sizeof(struct sbe_wire_frame) - 11);
    for (uint32_t at = 0; at < 40000; at += got.size) {
        CHECK_EQ(result(sbe_9p_read(&file, at, UINT32_MAX, NULL)), SBE_OK);
        CHECK(!got.by_reference && got.size > 0);
        CHECK(is_content(got.data, at, got.size));
    }
    CHECK_EQ(result(sbe_9p_read(&file, 40000, 100, NULL)), SBE_OK);
    CHECK_EQ(got.size, 0);
    memset(memory, 0, sizeof memory);
    CHECK_EQ(result(sbe_9p_read(&file, 5000, UINT32_MAX, &buffer)), SBE_OK);
    CHECK(got.by_reference);
    CHECK_EQ(got.size, 30000);
    CHECK(is_content(memory, 5000, 30000));
    CHECK_EQ(memory[30000], 0);
    CHECK_EQ(result(sbe_9p_read(&file, 39990, 100, &buffer)), SBE_OK);
    CHECK_EQ(got.size, 10);
    CHECK_EQ(result(sbe_9p_stat(&file)), SBE_OK);
    CHECK_EQ(got.stat.size, 40000);
    CHECK_EQ(got.stat.mode & 0170000u, 0100000u);
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    CHECK_EQ(host.session.used_fids, 1);
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    end();
}

static void test_writing(void)
{
    struct sbe_buffer buffer = {
        .area = AREA, .direction = SBE_DIR_IN, .size = 20000, .data = memory};
    start();
    make_file(10);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ_WRITE | SBE_9P_TRUNCATE), SBE_OK);
    CHECK_EQ(result(sbe_9p_write(&file, 0, "some bytes", 10, NULL)), SBE_OK);
    CHECK_EQ(got.size, 10);
    CHECK_EQ(result(sbe_9p_read(&file, 5, 100, NULL)), SBE_OK);
    CHECK_EQ(got.size, 5);
    CHECK(memcmp(got.data, "bytes", 5) == 0);
    memset(memory, 0x5a, 20000);
    CHECK_EQ(result(sbe_9p_write(&file, 10, NULL, UINT32_MAX, &buffer)), SBE_OK);
    CHECK_EQ(got.size, 20000);
    CHECK_EQ(result(sbe_9p_write(&file, 0, memory, 20000, NULL)), SBE_OK);
    CHECK(got.size > 500 && got.size < SLOT_SIZE); /* what a frame holds */
    CHECK_EQ(result(sbe_9p_stat(&file)), SBE_OK);
    CHECK_EQ(got.stat.size, 20010);
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    end();
}

static void test_listing(void)
{
    struct sbe_9p_entry entry;
    uint32_t count = 0;
    uint64_t place = 0;
    start();
    CHECK_EQ(open_file("", SBE_9P_READ), SBE_OK);
    for (;;) {
        CHECK_EQ(result(sbe_9p_readdir(&file, place, 60)), SBE_OK); /* one or two at a time */
        const void *data = got.data;
        uint32_t size = got.size;
        if (size == 0)
            break;
        uint64_t before = place;
        while (sbe_9p_next(&data, &size, &entry)) {
            place = entry.next;
            CHECK(entry.name_size >= 3 && entry.name_size <= 8);
            count++;
        }
        if (place == before) /* "." and ".." alone */
            place = 2;
    }
    CHECK_EQ(count, 5);
    const void *data = "\0\1\2";
    uint32_t size = 3;
    CHECK(!sbe_9p_next(&data, &size, &entry));
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    end();
}

static void test_refusals(void)
{
    static const char *const long_one = "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a";
    start();
    make_file(10);
    CHECK_EQ(open_file("nothing", SBE_9P_READ), SBE_ENOENT);
    CHECK(file.refused);
    CHECK_EQ(open_file("ram/nothing", SBE_9P_READ), SBE_ENOENT);
    CHECK(file.refused);
    CHECK_EQ(open_file("log", SBE_9P_WRITE), SBE_EACCES);
    CHECK(file.refused);
    CHECK_EQ(host.session.used_fids, 1); /* what was walked to is clunked */
    CHECK_EQ(sbe_9p_open(&files, &file, long_one, (uint32_t)strlen(long_one), 0), SBE_EINVAL);
    CHECK_EQ(sbe_9p_open(&files, &file, long_one, 256, 0), SBE_EINVAL);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_EBUSY);
    CHECK_EQ(sbe_9p_stat(&file), SBE_EBUSY);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "log", 3, 0), SBE_EBUSY);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_OK);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_EBUSY);
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    run();
    CHECK_EQ(got.size, 1);
    end(); /* with the file open */
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_9p_close(&file), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_9p_open(&files, &file, "log", 3, 0), SBE_ESHUTDOWN);
}

static void test_a_file_waits_for_its_session(void)
{
    begin();
    make_file(10);
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    found(SBE_OK);
    run();
    CHECK_EQ(got.dones, 1);
    CHECK_EQ(got.done, SBE_OK);
    end();
    begin();
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    found(SBE_ENOENT);
    CHECK_EQ(got.dones, 1);
    CHECK_EQ(got.done, SBE_ENOENT);
    CHECK(!file.refused);
    CHECK_EQ(got.ready, SBE_ENOENT);
    CHECK_EQ(got.ends, 1);
    begin();
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 0); /* the question is still out */
    found(SBE_OK);
    CHECK_EQ(got.done, SBE_ESHUTDOWN);
    CHECK_EQ(got.readies, 0);
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.messages, 0);
}

static void test_a_file_of_a_former_session(void)
{
    start();
    make_file(10);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    end();
    ninep_session_reset(&host.session);
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    found(SBE_OK);
    run();
    CHECK_EQ(got.readies, 2);
    uint32_t messages = host.messages;
    CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_9p_close(&file), SBE_ESHUTDOWN);
    CHECK_EQ(host.messages, messages);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    sbe_9p_end(&files);
    run();
    CHECK_EQ(got.ends, 2);
}

/* -- an exporter that goes, or has no time ------------------------------------------------------
 */

static void test_the_channel_closes(void)
{
    for (uint32_t step = 0; step < 6; step++) {
        begin();
        make_file(10);
        host.silent = step == 0;
        CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
        CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
        found(SBE_OK);
        if (step > 1)
            run();
        host.silent = true;
        if (step > 2)
            CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_OK);
        if (step > 3)
            sbe_9p_end(&files);
        remote.engine.hooks.channel_close(&remote.engine, &remote.session_channels[0]);
        CHECK_EQ(got.dones, step > 2 ? 2 : 1);
        CHECK_EQ(got.done, step == 2 ? SBE_OK : SBE_ESHUTDOWN);
        if (step > 1 && step < 4) {
            CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_ESHUTDOWN);
            CHECK_EQ(got.ends, 0);
            sbe_9p_end(&files);
        }
        CHECK_EQ(got.ends, 1);
    }
}

static void test_the_exporter_ends_the_session(void)
{
    start();
    make_file(10);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    host.frame.buffer_count = 0;
    respond(host.open, SBE_ESHUTDOWN, NULL, 0, 0);
    sbe_channel_flush(&host.channel);
    run();
    CHECK(!sbe_9p_is_usable(&files));
    CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_ESHUTDOWN);
    CHECK_EQ(got.ends, 0);
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.cancels, 0);
}

static void fill(void)
{
    struct sbe_frame frame = {.type = SBE_FRAME_EVENT};
    while (sbe_channel_room(channel()) > 0)
        CHECK_EQ(sbe_channel_send(channel(), &frame), SBE_OK);
}

/* Slots that were filled are let go of. */
static void drain(void)
{
    sbe_channel_flush(channel());
    while (sbe_channel_receive(&host.channel, &host.frame, host.scratch) == 1)
        CHECK_EQ(host.frame.type, SBE_FRAME_EVENT);
    (void)sbe_channel_idle(&host.channel);
}

static void test_a_full_ring(void)
{
    static struct sbe_9p_file other;
    start();
    make_file(10);
    memset(&other, 0, sizeof other);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    fill();
    CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_EAGAIN);
    CHECK_EQ(sbe_9p_close(&file), SBE_EAGAIN); /* it is closed, and that is said later */
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    CHECK_EQ(sbe_9p_open(&files, &other, "log", 3, 0), SBE_EAGAIN);
    drain();
    CHECK_EQ(host.session.used_fids, 2);
    CHECK_EQ(open_file("log", SBE_9P_READ), SBE_OK);
    run();
    CHECK_EQ(host.session.used_fids, 2); /* the root and this one */
    fill();
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 0);
    drain();
    static struct sbe_9p another; /* whatever is done next says it */
    memset(&another, 0, sizeof another);
    another.ended = ended;
    CHECK_EQ(sbe_9p_begin(&another, &remote.engine, channel(), "files"), SBE_OK);
    run();
    CHECK_EQ(host.cancels, 1);
    CHECK_EQ(got.ends, 1);
}

int main(void)
{
    test_reading();
    test_writing();
    test_listing();
    test_refusals();
    test_a_file_waits_for_its_session();
    test_a_file_of_a_former_session();
    test_the_channel_closes();
    test_the_exporter_ends_the_session();
    test_a_full_ring();
    return 0;
}
