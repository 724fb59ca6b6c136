/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bells that cost the ringer, on Linux. It walks, in the time of whoever rings, all who poll what
 * they are rung through, and a client may poll its own a million times: 40 ms for each ring, in
 * which nobody else is served. Such bells are told by what they cost, and wait: all of them
 * together have one part in SBE_BELL_SHARE of the time. The others never wait.
 *
 *     sbe_bell_may_ring()  no: owe it, and ask again at next_ns
 *     sbe_bell_ring()
 *
 * Only a second look, by CPU time, makes a bell dear: the first may have been interrupted.
 */
#ifndef SBE_PATIENCE_BELL_H
#define SBE_PATIENCE_BELL_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define SBE_BELL_DEAR_NS 500000u /* a turn of the engine; a usual one takes a microsecond */
#define SBE_BELL_SHARE   256u

struct sbe_bell {
    bool suspect; /* took long the last time */
    bool dear;    /* and not because of others */
};

struct sbe_bells {
    uint64_t next_ns; /* until then no dear one is rung */
};

static inline bool sbe_bell_may_ring(const struct sbe_bells *bells, const struct sbe_bell *bell,
                                     uint64_t now_ns)
{
    return !bell->dear || now_ns >= bells->next_ns;
}

/* took_ns: of CPU time if it was suspect. */
static inline void sbe_bell_rang(struct sbe_bells *bells, struct sbe_bell *bell, uint64_t now_ns,
                                 uint64_t took_ns)
{
    bool slow = took_ns > SBE_BELL_DEAR_NS;
    bell->dear = slow && bell->suspect;
    bell->suspect = slow;
    if (bell->dear)
        bells->next_ns = now_ns + took_ns * SBE_BELL_SHARE;
}

static inline uint64_t sbe_bell_clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail with these clocks */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* An eventfd that does not block. */
static inline void sbe_bell_ring(struct sbe_bells *bells, struct sbe_bell *bell, int eventfd,
                                 uint64_t now_ns)
{
    const uint64_t one = 1;
    clockid_t clock = bell->suspect ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    uint64_t begun_ns = bell->suspect ? sbe_bell_clock_ns(clock) : now_ns;
    /* It fails only when the counter is full: then who waits has been rung and has not looked. */
    ssize_t rung = write(eventfd, &one, sizeof one);
    (void)rung;
    sbe_bell_rang(bells, bell, now_ns, sbe_bell_clock_ns(clock) - begun_ns);
}

#endif
