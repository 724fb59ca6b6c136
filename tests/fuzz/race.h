/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that changes shared memory between any two looks at it. The code under test is built so
 * that each of its loads, and each memcpy, comes by here first (see CMakeLists.txt): bytes change
 * after the check that let them pass, at the very load that would notice, and a run is repeatable,
 * which two threads are not.
 */
#ifndef SBE_TESTS_FUZZ_RACE_H
#define SBE_TESTS_FUZZ_RACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The memory that a peer shares. seed 0: it is left alone. A peer changes about one word in
 * `one_in` of the loads.
 */
void race_begin(void *memory, size_t size, uint32_t seed, uint32_t one_in);
void race_end(void);
/* The peer's own moves, and the harness's, are no looks. */
void race_pause(bool pause);

/*
 * From here on no byte of this part may be read twice: what was checked in one read and used from
 * another is a double fetch, whatever came of it. NULL ends it.
 */
void race_once(const void *memory, size_t size);

#endif
