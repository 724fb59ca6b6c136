/* SPDX-License-Identifier: Apache-2.0 */
#include "interrupt.h"

#include <errno.h>
#include <unistd.h>

#include "core/atomic.h"
#include "core/status.h"

#define ENABLE      1u  /* UIO: a driver disables the interrupt when it comes */
#define MESSAGE_MAX 512 /* bytes: mailbox-test shows a message of 128 as text */

bool native_interrupt_parse(struct interrupt *interrupt, PyObject *place, uint32_t value)
{
    if (place == NULL)
        return true;
    if (place != Py_None) {
        const Slice *slice = (const Slice *)place;
        if (!Py_IS_TYPE(place, Slice_Type) || slice->size != sizeof value ||
            slice->offset % sizeof value != 0 || slice->memory->readonly) {
            native_raise(SBE_EINVAL, false, "a register is 4 aligned bytes that can be written");
            return false;
        }
        Py_INCREF(place);
        interrupt->place = place;
    }
    interrupt->used = true;
    interrupt->value = value;
    return true;
}

void native_interrupt_free(struct interrupt *interrupt)
{
    Py_CLEAR(interrupt->place);
}

bool native_interrupt_ring(const struct interrupt *interrupt, int fd)
{
    const char message = 1;
    ssize_t written;
    if (interrupt->place != NULL) {
        const Slice *slice = (const Slice *)interrupt->place;
        sbe_shared_u32 *place = (void *)(slice->memory->base + slice->offset);
        sbe_full_barrier(); /* what it speaks of is out before */
        sbe_store_relaxed(place, interrupt->value);
        return true;
    }
    do
        written = pwrite(fd, &message, sizeof message, 0);
    while (written < 0 && errno == EINTR);
    return written >= 0;
}

int native_interrupt_take(const struct interrupt *interrupt, int fd)
{
    char message[MESSAGE_MAX];
    uint32_t count;
    const uint32_t enable = ENABLE;
    ssize_t got = interrupt->place != NULL ? read(fd, &count, sizeof count)
                                           : pread(fd, message, sizeof message, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        return -1;
    if (interrupt->place != NULL) /* before the look: what comes meanwhile comes again */
        got = write(fd, &enable, sizeof enable); /* ENOSYS: it is never disabled */
    return 1;
}
