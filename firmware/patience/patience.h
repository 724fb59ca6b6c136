/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long an end looks at its ring before it sleeps, by what looking has brought of late. Looking
 * saves two wake-ups where the peer runs on another CPU. On the same CPU it is what keeps the peer
 * from running; and where the peer is, the scheduler decides anew all the time. Nobody says, so it
 * is told by the outcome: what did not come while we looked, but soon after we had let go of the
 * CPU, waited for the CPU.
 *
 *     before a sleep:    look for window_ns, 0 not at all
 *     it was found:      sbe_patience_paid()
 *     else, after the sleep: sbe_patience_slept()
 *
 * No clock of its own, no system call. Not thread-safe: used where the ring is.
 */
#ifndef SBE_PATIENCE_PATIENCE_H
#define SBE_PATIENCE_PATIENCE_H

#include <stdint.h>

#define SBE_PATIENCE_DISTRUST 8u /* a peer on this CPU costs one look in so many waits: 2^8 */

struct sbe_patience {
    uint64_t longest_ns; /* as configured; 0: never look */
    uint64_t window_ns;  /* look for so long before the next sleep: at first not at all */
    uint32_t distrust;   /* grows with each look that only kept the peer waiting */
    uint32_t sit_out;    /* so many short sleeps are still taken as they are */
};

/* A look that was not the first found what it looked for. */
static inline void sbe_patience_paid(struct sbe_patience *patience)
{
    if (patience->distrust > 0)
        patience->distrust--;
}

/* Woken, after looked_ns of looking in vain (0: it slept at once) and slept_ns of sleep. */
static inline void sbe_patience_slept(struct sbe_patience *patience, uint64_t looked_ns,
                                      uint64_t slept_ns)
{
    uint64_t waited_ns = looked_ns + slept_ns;
    if (slept_ns < looked_ns) { /* it needed this CPU, or always comes a little later */
        if (patience->distrust < SBE_PATIENCE_DISTRUST)
            patience->distrust++;
        patience->sit_out = 1u << patience->distrust;
        patience->window_ns = 0;
    } else if (waited_ns >= patience->longest_ns) { /* no work: no window would have been enough */
        patience->window_ns /= 2;
    } else if (patience->sit_out > 0) {
        patience->sit_out--;
    } else { /* twice: a wake-up's time varies, and the peer may have begun late */
        patience->window_ns =
            2 * waited_ns < patience->longest_ns ? 2 * waited_ns : patience->longest_ns;
    }
}

#endif
