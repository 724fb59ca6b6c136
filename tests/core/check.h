/* SPDX-License-Identifier: Apache-2.0 */
/* A failed check prints where it stands and ends the program with 1. */
#ifndef SBE_TESTS_CHECK_H
#define SBE_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* The same for integers, printing both. */
#define CHECK_EQ(got, expected)                                                                   \
    do {                                                                                          \
        long long got_ = (long long)(got), expected_ = (long long)(expected);                     \
        if (got_ != expected_) {                                                                  \
            fprintf(stderr, "%s:%d: %s is %lld, not %s (%lld)\n", __FILE__, __LINE__, #got, got_, \
                    #expected, expected_);                                                        \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

#endif
