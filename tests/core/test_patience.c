/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends' patience in small worlds whose times are given: what looking costs and what it saves.
 */
#include "patience/patience.h"

#include <stdbool.h>

#include "check.h"

#define LONGEST_NS 100000u

/* What a wait for the peer takes, in one place of the peer. */
struct world {
    uint64_t answer_ns; /* until the answer is there, once the peer runs */
    uint64_t wake_ns;   /* what it takes on top to be woken */
    bool shared_cpu;    /* it runs only while we sleep */
};

static const struct world ELSEWHERE = {1000, 9000, false};
static const struct world HERE = {1300, 1400, true};
static const struct world GONE = {500000, 9000, false};

/* One wait; what it took. */
static uint64_t wait_once(struct sbe_patience *patience, const struct world *world)
{
    uint64_t window_ns = patience->window_ns;
    if (!world->shared_cpu && world->answer_ns < window_ns) {
        sbe_patience_paid(patience);
        return world->answer_ns;
    }
    uint64_t left_ns = world->shared_cpu ? world->answer_ns : world->answer_ns - window_ns;
    sbe_patience_slept(patience, window_ns, left_ns + world->wake_ns);
    return window_ns + left_ns + world->wake_ns;
}

static uint64_t wait_often(struct sbe_patience *patience, const struct world *world, uint32_t times)
{
    uint64_t total_ns = 0;
    for (uint32_t i = 0; i < times; i++)
        total_ns += wait_once(patience, world);
    return total_ns;
}

static uint64_t asleep_ns(const struct world *world)
{
    return world->answer_ns + world->wake_ns;
}

static void test_a_peer_elsewhere_is_looked_for_after_one_sleep(void)
{
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    CHECK_EQ(wait_once(&patience, &ELSEWHERE), asleep_ns(&ELSEWHERE));
    CHECK_EQ(wait_often(&patience, &ELSEWHERE, 1000), 1000 * ELSEWHERE.answer_ns);
}

static void test_any_answer_within_the_longest_window_is_caught(void)
{
    for (uint64_t answer_ns = 100; answer_ns < LONGEST_NS - 9000; answer_ns += 97) {
        struct world world = {answer_ns, 9000, false};
        struct sbe_patience patience = {.longest_ns = LONGEST_NS};
        (void)wait_often(&patience, &ELSEWHERE, 3); /* the window is right for another service */
        (void)wait_often(&patience, &world, 8);
        CHECK_EQ(wait_often(&patience, &world, 1000), 1000 * answer_ns);
    }
}

static void test_a_peer_on_this_cpu_costs_next_to_nothing(void)
{
    for (uint64_t longest_ns = 1000; longest_ns <= 1000000000; longest_ns *= 10) {
        struct sbe_patience patience = {.longest_ns = longest_ns};
        uint64_t asleep = 10000 * asleep_ns(&HERE);
        uint64_t spent = wait_often(&patience, &HERE, 10000);
        CHECK(spent >= asleep && spent - asleep < asleep / 20);
    }
}

/* Whoever serves long needs this CPU for long. */
static void test_nor_does_one_that_works_long(void)
{
    struct world slow = {40000, 1400, true};
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    uint64_t asleep = 10000 * asleep_ns(&slow);
    CHECK(wait_often(&patience, &slow, 10000) - asleep < asleep / 20);
}

static void test_a_peer_that_moves_away_is_found_again(void)
{
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    (void)wait_often(&patience, &HERE, 100000);
    (void)wait_often(&patience, &ELSEWHERE, (1u << SBE_PATIENCE_DISTRUST) + 1);
    CHECK_EQ(wait_often(&patience, &ELSEWHERE, 1000), 1000 * ELSEWHERE.answer_ns);
}

static void test_a_peer_that_moves_here_is_noticed_at_once(void)
{
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    (void)wait_often(&patience, &ELSEWHERE, 100000);
    uint64_t spent = wait_often(&patience, &HERE, 1000), asleep = 1000 * asleep_ns(&HERE);
    CHECK(spent - asleep < asleep / 10);
}

/* Each move costs what was not known yet, and no more. */
static void test_a_peer_that_moves_all_the_time_is_no_worse_than_asleep(void)
{
    for (uint32_t each = 1; each <= 4096; each *= 2) {
        struct sbe_patience patience = {.longest_ns = LONGEST_NS};
        uint64_t spent = 0, asleep = 0;
        for (uint32_t i = 0; i < 65536 / each; i++) {
            const struct world *world = i % 2 == 0 ? &ELSEWHERE : &HERE;
            spent += wait_often(&patience, world, each);
            asleep += each * asleep_ns(world);
        }
        CHECK(spent < asleep + asleep / 10);
    }
}

static void test_nobody_looks_for_one_that_has_gone(void)
{
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    (void)wait_often(&patience, &ELSEWHERE, 1000);
    uint64_t looked_ns = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        looked_ns += patience.window_ns;
        (void)wait_once(&patience, &GONE);
    }
    CHECK(looked_ns < 2u * LONGEST_NS);
    (void)wait_often(&patience, &ELSEWHERE, 2); /* and back at work it looks again */
    CHECK_EQ(wait_often(&patience, &ELSEWHERE, 1000), 1000 * ELSEWHERE.answer_ns);
}

/* Rests between bursts are no reason to distrust the bursts. */
static void test_bursts_are_looked_for_from_their_second_wait_on(void)
{
    struct sbe_patience patience = {.longest_ns = LONGEST_NS};
    for (uint32_t i = 0; i < 100; i++) {
        (void)wait_often(&patience, &ELSEWHERE, 3); /* one too short a look, one sleep */
        CHECK_EQ(wait_often(&patience, &ELSEWHERE, 10), 10 * ELSEWHERE.answer_ns);
        (void)wait_once(&patience, &GONE);
    }
}

static void test_who_is_not_told_to_look_never_does(void)
{
    struct sbe_patience patience = {.longest_ns = 0};
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK_EQ(patience.window_ns, 0);
        (void)wait_once(&patience, i % 3 == 0 ? &GONE : &ELSEWHERE);
    }
}

int main(void)
{
    test_a_peer_elsewhere_is_looked_for_after_one_sleep();
    test_any_answer_within_the_longest_window_is_caught();
    test_a_peer_on_this_cpu_costs_next_to_nothing();
    test_nor_does_one_that_works_long();
    test_a_peer_that_moves_away_is_found_again();
    test_a_peer_that_moves_here_is_noticed_at_once();
    test_a_peer_that_moves_all_the_time_is_no_worse_than_asleep();
    test_nobody_looks_for_one_that_has_gone();
    test_bursts_are_looked_for_from_their_second_wait_on();
    test_who_is_not_told_to_look_never_does();
    return 0;
}
