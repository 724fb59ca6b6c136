/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells between two threads of a test. Sleepers have no time limit: a lost wake-up hangs, and
 * the alarm ends the test.
 */
#ifndef SBE_TESTS_BELL_H
#define SBE_TESTS_BELL_H

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"

/* The cases where both ends sleep often find a missing barrier; ThreadSanitizer makes them slow. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer) && !defined(SLOW)
#define SLOW
#endif
#endif
#if defined(SLOW) || defined(__SANITIZE_THREAD__) /* SLOW: or an emulator */
#define OFTEN 25000u
#else
#define OFTEN 100000u
#endif

#define ALARM_S 100

static inline void ring_bell(int bell)
{
    CHECK_EQ(eventfd_write(bell, 1), 0);
}

static inline void wait_bell(int bell)
{
    eventfd_t value;
    while (eventfd_read(bell, &value) != 0)
        CHECK_EQ(errno, EINTR);
}

#endif
