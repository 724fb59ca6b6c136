/* SPDX-License-Identifier: Apache-2.0 */
#include "patience/bell.h"

#include "check.h"

#define MS 1000000u

static void test_usual_bells_never_wait(void)
{
    struct sbe_bells bells = {0};
    struct sbe_bell bell = {0}, other = {0};
    for (uint64_t now_ns = 0; now_ns < 100 * MS; now_ns += MS) {
        CHECK(sbe_bell_may_ring(&bells, &bell, now_ns));
        sbe_bell_rang(&bells, &bell, now_ns, now_ns % (7 * MS) == 0 ? 5 * MS : 1000);
        CHECK(!bell.dear); /* it was interrupted now and then */
        sbe_bell_rang(&bells, &other, now_ns, SBE_BELL_DEAR_NS);
    }
    CHECK_EQ(bells.next_ns, 0);
}

/* However many there are, and though they are cheap for a while. */
static void test_dear_bells_share_their_part(void)
{
    enum {
        EVIL = 48
    };
    struct sbe_bells bells = {0};
    struct sbe_bell evil[EVIL] = {{0}}, honest = {0};
    uint64_t now_ns = 0, spent_ns = 0, end_ns = 3600u * 1000u * (uint64_t)MS;
    while (now_ns < end_ns) {
        for (uint32_t i = 0; i < EVIL; i++) {
            if (!sbe_bell_may_ring(&bells, &evil[i], now_ns))
                continue;
            sbe_bell_rang(&bells, &evil[i], now_ns, 40 * MS);
            spent_ns += 40 * MS;
            now_ns += 40 * MS;
        }
        CHECK(sbe_bell_may_ring(&bells, &honest, now_ns));
        sbe_bell_rang(&bells, &honest, now_ns, 1000);
        now_ns += 10 * MS;
    }
    CHECK(spent_ns < end_ns / SBE_BELL_SHARE + 2 * EVIL * 40ull * MS);
    CHECK(spent_ns > end_ns / SBE_BELL_SHARE / 2);
    /* one that is cheap again is as any */
    for (uint32_t i = 0; i < EVIL; i++)
        CHECK(evil[i].dear);
    sbe_bell_rang(&bells, &evil[0], now_ns, 1000);
    CHECK(sbe_bell_may_ring(&bells, &evil[0], now_ns));
    CHECK(!sbe_bell_may_ring(&bells, &evil[1], now_ns));
}

int main(void)
{
    test_usual_bells_never_wait();
    test_dear_bells_share_their_part();
    return 0;
}
