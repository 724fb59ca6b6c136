/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A doorbell without bytes: it says no more than that there is something. Either the interrupt of
 * a UIO device, whose other direction is a register, or a mailbox of the kernel's, whose messages
 * are read for being there.
 */
#ifndef SBE_NATIVE_INTERRUPT_H
#define SBE_NATIVE_INTERRUPT_H

#include "memory.h"

struct interrupt {
    bool used;
    PyObject *place; /* strong: the register, 4 bytes; NULL: a mailbox */
    uint32_t value;  /* what rings it */
};

/* From the constructor's arguments, `place` NULL: a byte stream. False: an exception is set. */
bool native_interrupt_parse(struct interrupt *interrupt, PyObject *place, uint32_t value);
void native_interrupt_free(struct interrupt *interrupt);
/* False: the mailbox takes nothing now. Both without the GIL. */
bool native_interrupt_ring(const struct interrupt *interrupt, int fd);
/* Takes what has come, and has it come again. Positive: it was rung, 0: not, negative: the end. */
int native_interrupt_take(const struct interrupt *interrupt, int fd);

#endif
