/* SPDX-License-Identifier: Apache-2.0 */
/* The table of areas: ids with a generation, and who may name which bytes of what. */
#include "core/area.h"

#include <string.h>

#include "check.h"
#include "core/status.h"
#include "core/wire.h"

#define COUNT                 4u
#define SIZE                  4096u
#define CONTEXT               5u
#define ID(generation, index) ((uint32_t)(generation) << 16 | (index))

static struct sbe_area areas[COUNT];
static const struct sbe_area_table TABLE = {.areas = areas, .count = COUNT};
static uint8_t bytes[SIZE];

static struct sbe_area *add(uint32_t id, uint32_t context, uint32_t flags)
{
    struct sbe_area_table table = TABLE;
    struct sbe_area *area;
    CHECK_EQ(sbe_area_add(&table, id, context, flags, SIZE, &area), SBE_OK);
    area->base = bytes;
    return area;
}

static int try_add(uint32_t id, uint32_t flags, uint64_t size)
{
    struct sbe_area_table table = TABLE;
    struct sbe_area *area;
    return sbe_area_add(&table, id, CONTEXT, flags, size, &area);
}

static void clear(void)
{
    memset(areas, 0, sizeof areas);
}

static void test_add(void)
{
    clear();
    CHECK_EQ(try_add(0, 0, SIZE), SBE_EINVAL);
    CHECK_EQ(try_add(ID(0, 1), 0, SIZE), SBE_EINVAL); /* generation 0 */
    CHECK_EQ(try_add(ID(1, COUNT), 0, SIZE), SBE_EINVAL);
    CHECK_EQ(try_add(UINT32_MAX, 0, SIZE), SBE_EINVAL);
    CHECK_EQ(try_add(ID(1, 0), 0, 0), SBE_EINVAL);
    CHECK_EQ(try_add(ID(1, 0), SBE_AREA_FLAGS + 1, SIZE), SBE_EINVAL);
    CHECK_EQ(try_add(ID(1, 0), SBE_AREA_FLAGS, UINT64_MAX), SBE_OK);
    CHECK_EQ(try_add(ID(1, 0), 0, SIZE), SBE_EEXIST);
    CHECK_EQ(try_add(ID(2, 0), 0, SIZE), SBE_EEXIST); /* another generation, the same place */
    CHECK_EQ(try_add(ID(0xffff, COUNT - 1), 0, 1), SBE_OK);
}

static void test_find(void)
{
    clear();
    struct sbe_area *area = add(ID(1, 2), CONTEXT, 0);
    CHECK(sbe_area_find(&TABLE, ID(1, 2)) == area);
    CHECK(sbe_area_find(&TABLE, 0) == NULL); /* free places have id 0 */
    CHECK(sbe_area_find(&TABLE, ID(2, 2)) == NULL);
    CHECK(sbe_area_find(&TABLE, ID(1, 1)) == NULL);
    CHECK(sbe_area_find(&TABLE, ID(1, 2 + COUNT)) == NULL);
    CHECK(sbe_area_find(&TABLE, UINT32_MAX) == NULL);
    sbe_area_remove(area);
    CHECK(sbe_area_find(&TABLE, ID(1, 2)) == NULL);
    CHECK(add(ID(2, 2), CONTEXT, 0) == area);
    CHECK(sbe_area_find(&TABLE, ID(1, 2)) == NULL);
}

static int resolve(uint32_t context, uint32_t id, uint8_t direction, uint64_t offset, uint64_t size)
{
    struct sbe_buffer buffer = {.area = id, .direction = direction, .offset = offset, .size = size};
    int status = sbe_area_resolve(&TABLE, context, &buffer);
    if (status == SBE_OK) {
        const struct sbe_area *area = sbe_area_find(&TABLE, id);
        CHECK(buffer.data == (area->base == NULL ? NULL : bytes + offset));
    } else {
        CHECK(buffer.data == NULL);
    }
    return status;
}

static void test_resolve(void)
{
    enum {
        PLAIN = ID(1, 0),
        CONST = ID(1, 1),
        RING = ID(1, 2),
        GLOBAL = ID(1, 3)
    };
    clear();
    struct sbe_area *plain = add(PLAIN, CONTEXT, 0);
    add(CONST, CONTEXT, SBE_AREA_READONLY | SBE_AREA_COHERENT);
    add(RING, CONTEXT, SBE_AREA_RING);
    add(GLOBAL, SBE_CONTEXT_GLOBAL, SBE_AREA_COHERENT);

    for (uint8_t direction = SBE_DIR_IN; direction <= SBE_DIR_INOUT; direction++)
        CHECK_EQ(resolve(CONTEXT, PLAIN, direction, 0, SIZE), SBE_OK);
    CHECK_EQ(resolve(CONTEXT, PLAIN, 0, 0, SIZE), SBE_EINVAL);
    CHECK_EQ(resolve(CONTEXT, PLAIN, 5, 0, SIZE), SBE_EINVAL);
    CHECK_EQ(resolve(CONTEXT, PLAIN, 255, 0, SIZE), SBE_EINVAL);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_SHARED, 0, SIZE), SBE_ENOTSUP); /* not coherent */
    CHECK_EQ(resolve(CONTEXT, GLOBAL, SBE_DIR_SHARED, 0, SIZE), SBE_OK);

    /* the range, at its edges and past the width of its sum */
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, SIZE, 0), SBE_OK);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, SIZE - 1, 1), SBE_OK);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, SIZE - 1, 2), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, SIZE + 1, 0), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 0, SIZE + 1), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 1, UINT64_MAX), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, UINT64_MAX, 1), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, UINT64_MAX - 7, 16), SBE_ERANGE);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 0x100000000u, 0), SBE_ERANGE);

    /* whose it is */
    CHECK_EQ(resolve(CONTEXT + 1, PLAIN, SBE_DIR_IN, 0, 1), SBE_EACCES);
    CHECK_EQ(resolve(SBE_CONTEXT_GLOBAL, PLAIN, SBE_DIR_IN, 0, 1), SBE_EACCES);
    CHECK_EQ(resolve(CONTEXT + 1, GLOBAL, SBE_DIR_IN, 0, 1), SBE_OK);
    CHECK_EQ(resolve(SBE_CONTEXT_GLOBAL, GLOBAL, SBE_DIR_OUT, 0, 1), SBE_OK);
    CHECK_EQ(resolve(CONTEXT, RING, SBE_DIR_IN, 0, 1), SBE_EACCES);

    /* what may be done to it */
    CHECK_EQ(resolve(CONTEXT, CONST, SBE_DIR_IN, 0, 1), SBE_OK);
    CHECK_EQ(resolve(CONTEXT, CONST, SBE_DIR_OUT, 0, 1), SBE_EPERM);
    CHECK_EQ(resolve(CONTEXT, CONST, SBE_DIR_INOUT, 0, 1), SBE_EPERM);
    CHECK_EQ(resolve(CONTEXT, CONST, SBE_DIR_SHARED, 0, 1), SBE_EPERM);

    /* memory that this end does not map is named all the same */
    plain->base = NULL;
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 8, 1), SBE_OK);
    plain->dying = true;
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 0, 1), SBE_EFAULT);
    sbe_area_remove(plain);
    CHECK_EQ(resolve(CONTEXT, PLAIN, SBE_DIR_IN, 0, 1), SBE_EFAULT);
    CHECK_EQ(resolve(CONTEXT, 0, SBE_DIR_IN, 0, 0), SBE_EFAULT);
}

int main(void)
{
    test_add();
    test_find();
    test_resolve();
    return 0;
}
