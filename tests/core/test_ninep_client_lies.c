/* SPDX-License-Identifier: Apache-2.0 */
/* The client of exported files, whose exporter lies. */
#include "ninep_exporter.h"

static uint32_t seed;

static uint32_t random_number(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void lie(uint8_t *answer, uint32_t *size, int *status)
{
    if (random_number(4) != 0)
        return;
    switch (random_number(4)) {
    case 0:
        *status = random_number(2) == 0 ? SBE_EIO : SBE_OK;
        *size = random_number(*size + 1u);
        break;
    case 1:
        *size = *size < 900u ? *size + random_number(64) : *size;
        break;
    default:
        for (uint32_t i = random_number(3) + 1u; i > 0 && *size > 0; i--)
            answer[random_number(*size < 30u ? *size : 30u)] = (uint8_t)random_number(256);
    }
}

static int any_operation(void)
{
    static const char *const paths[] = {"ram/file", "", "log", "nothing"};
    struct sbe_buffer buffer = {.area = AREA, .size = 500, .data = memory};
    const char *path = paths[random_number(4)];
    switch (random_number(7)) {
    case 0:
        return sbe_9p_read(&file, random_number(12), 5000, NULL);
    case 1:
        return sbe_9p_read(&file, random_number(12), 400, &buffer);
    case 2:
        return sbe_9p_write(&file, 0, "0123456789", 10, NULL);
    case 3:
        return sbe_9p_stat(&file);
    case 4:
        return sbe_9p_readdir(&file, 0, 300);
    case 5:
        return sbe_9p_close(&file);
    default:
        return sbe_9p_open(&files, &file, path, (uint32_t)strlen(path), SBE_9P_READ);
    }
}

static void other_tag(uint8_t *answer, uint32_t *size, int *status)
{
    (void)size, (void)status;
    answer[5] ^= 1u;
}

static void other_type(uint8_t *answer, uint32_t *size, int *status)
{
    (void)size, (void)status;
    answer[4] ^= 2u;
}

static void cut(uint8_t *answer, uint32_t *size, int *status)
{
    (void)answer, (void)status;
    *size -= 1u;
}

static void grow(uint8_t *answer, uint32_t *size, int *status)
{
    (void)status;
    *size += 1u;
    answer[0] = (uint8_t)(answer[0] + 1u);
}

/* More data than were asked for, and all sizes say so. */
static void more(uint8_t *answer, uint32_t *size, int *status)
{
    grow(answer, size, status);
    answer[NINEP_HEADER] = (uint8_t)(answer[NINEP_HEADER] + 1u);
}

static void error_0(uint8_t *answer, uint32_t *size, int *status)
{
    (void)status;
    memset(answer, 0, 5);
    memset(answer + NINEP_HEADER, 0, 4);
    answer[0] = 11;
    answer[4] = NINEP_RLERROR;
    *size = 11;
}

static void error_4096(uint8_t *answer, uint32_t *size, int *status)
{
    error_0(answer, size, status);
    answer[NINEP_HEADER + 1u] = 16;
}

static void fewer_names(uint8_t *answer, uint32_t *size, int *status)
{
    (void)size, (void)status;
    if (answer[4] == NINEP_TWALK + 1u)
        answer[NINEP_HEADER] = 1; /* of two, whose qids follow */
}

typedef void lie_of(uint8_t *answer, uint32_t *size, int *status);

static void test_one_lie(void)
{
    static lie_of *const lies[] = {other_tag, other_type, cut, grow, more, error_0, error_4096};
    start();
    make_file(10);
    for (uint32_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
        host.mangle = lies[i];
        CHECK_EQ(result(sbe_9p_read(&file, 0, 5, NULL)), SBE_EBADMSG);
        CHECK(!file.refused);
        host.mangle = NULL;
        CHECK_EQ(result(sbe_9p_read(&file, 0, 5, NULL)), SBE_OK);
        CHECK(got.size == 5 && is_content(got.data, 0, 5));
        CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    }
    host.mangle = fewer_names;
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_EBADMSG);
    host.mangle = NULL;
    end();
    for (uint32_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        begin();
        host.mangle = lies[i];
        CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
        found(SBE_OK);
        run();
        CHECK(got.ready == SBE_EBADMSG || got.ready == SBE_ENOTSUP);
        CHECK_EQ(got.ends, 1);
    }
}

/* Whatever it says, each operation ends once, with what was asked for at most; and so does all. */
static void test_lies(void)
{
    for (seed = 1; seed < 300; seed++) {
        uint32_t first = seed;
        begin();
        make_file(10);
        host.mangle = lie;
        CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
        found(SBE_OK);
        run();
        CHECK_EQ(got.readies, 1);
        for (uint32_t i = 0; i < 60 && got.ready == SBE_OK; i++) {
            uint32_t dones = got.dones;
            int begun = any_operation();
            run();
            CHECK_EQ(got.dones, dones + (begun == SBE_OK));
            CHECK(got.size <= 5000);
        }
        if (got.ready == SBE_OK) {
            CHECK_EQ(got.ends, 0);
            sbe_9p_end(&files);
            run();
        }
        CHECK_EQ(got.ends, 1);
        seed = first;
    }
}

int main(void)
{
    test_one_lie();
    test_lies();
    return 0;
}
