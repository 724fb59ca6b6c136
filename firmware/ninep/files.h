/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the firmware: /log, /counters, /crash and /config. What firmware has to say and to
 * be set comes here, before or while it is served.
 */
#ifndef NINEP_FILES_H
#define NINEP_FILES_H

#include <stdint.h>

#include "ninep/tree.h"

#ifndef NINEP_LOG
#define NINEP_LOG NINEP_DEFAULT(256u, 4096u) /* bytes kept, the newest */
#endif

/* A number below /config. `changed` is called with one that is within its limits, before it is
 * kept; a negative errno refuses it. */
struct ninep_setting {
    struct ninep_special file; /* first; made by ninep_add_setting() */
    int32_t value, least, most;
    int (*changed)(struct ninep_setting *setting, int32_t value);
};

/* The storage is the caller's, for ever. SBE_ENOMEM, SBE_EEXIST, SBE_EINVAL a name that can't be.
 */
int ninep_add_setting(struct ninep_setting *setting, const char *name);
/* More of /log, of which the newest is kept. */
void ninep_log_text(const char *text);
/* A line of it. */
void ninep_log(const char *line);
/* What /crash shows: text that lasts. NULL: nothing. */
void ninep_set_crash(const char *text);
/* Makes all of this; once, again does nothing. */
void ninep_files_init(void);

#endif
