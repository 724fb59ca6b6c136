/* SPDX-License-Identifier: Apache-2.0 */
/* The crash record of a window, read by either end: by the remote itself when it begins again. */
#ifndef SBE_CARVEOUT_CRASH_H
#define SBE_CARVEOUT_CRASH_H

#include <stdbool.h>

#include "carveout/layout.h"

/*
 * The record of the remote's life that is in its block, if that has crashed: its present one, and
 * for itself the former one until sbe_bootstrap_start(). False: there is none that counts.
 */
bool sbe_crash_read(const void *window, struct sbe_crash_record *record);

/* A word for what ended it; "fault" for what is unknown. */
const char *sbe_crash_kind_name(const struct sbe_crash_record *record);

#endif
