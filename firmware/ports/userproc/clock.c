/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/userproc/clock.h"

#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CALIBRATION_NS 10000000 /* a reading of the kernel's clock errs by 20 us in a guest */
#define READINGS       16
#define SHIFT          20 /* fixed point of the scale */

static uint64_t first_ns, first_count, scale; /* scale 0: the kernel's clock is asked */

static uint64_t kernel_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__x86_64__)
static bool counter_is_steady(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007u, &a, &b, &c, &d) != 0 && (d & 1u << 8) != 0;
}

static uint64_t counter(void)
{
    return __builtin_ia32_rdtsc();
}
#elif defined(__aarch64__)
static bool counter_is_steady(void)
{
    return true;
}

static uint64_t counter(void)
{
    uint64_t count;
    __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(count)::"memory");
    return count;
}
#else
static bool counter_is_steady(void)
{
    return false;
}

static uint64_t counter(void)
{
    return 0;
}
#endif

/* Both clocks at one moment: of some pairs, the one that nothing came between. */
static void read_both(uint64_t *ns, uint64_t *count)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < READINGS; i++) {
        uint64_t before = counter(), now = kernel_ns(), after = counter();
        if (after - before >= least)
            continue;
        least = after - before;
        *ns = now;
        *count = before + least / 2;
    }
}

void clock_open(void)
{
    uint64_t last_ns = 0, last_count = 0;
    if (!counter_is_steady())
        return;
    read_both(&first_ns, &first_count);
    (void)nanosleep(&(struct timespec){.tv_nsec = CALIBRATION_NS}, NULL);
    read_both(&last_ns, &last_count);
    uint64_t passed_ns = last_ns - first_ns, passed = last_count - first_count;
    if (passed != 0 && passed_ns < UINT64_MAX >> SHIFT)
        scale = (passed_ns << SHIFT) / passed;
}

uint64_t clock_now_ns(void)
{
    static uint64_t latest_ns;
    if (scale == 0)
        return kernel_ns();
    uint64_t passed = counter() - first_count; /* in two parts: their product has 84 bits a day */
    uint64_t low = passed & ((1u << SHIFT) - 1u), high = passed >> SHIFT;
    uint64_t now_ns = first_ns + high * scale + (low * scale >> SHIFT);
    if (now_ns > latest_ns) /* counters of several cores may differ by some ticks */
        latest_ns = now_ns;
    return latest_ns;
}
