/* SPDX-License-Identifier: Apache-2.0 */
/* What Channel() is given, and how it is opened with that. */
#ifndef SBE_NATIVE_CHANNEL_OPEN_H
#define SBE_NATIVE_CHANNEL_OPEN_H

#include "channel.h"

/* References are borrowed. */
struct channel_settings {
    Table *table;
    Memory *rings;
    struct sbe_channel_config core; /* port, areas, calls and memory are found when it is opened */
    uint64_t send_offset, receive_offset;
    int ring_fd, wake_fd; /* to be duplicated */
    int control_fd;       /* -1 none */
    PyObject *on_control; /* None: none */
    int opener;           /* clears the rings */
};

/* False: an exception is set. */
bool native_channel_parse(PyObject *arguments, PyObject *keywords, struct channel_settings *to);
/* Doorbells and rings of a channel that has its table, memory and port. False: one is set. */
bool native_channel_open(Channel *self, const struct channel_settings *given);

#endif
