/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a Channel: its arguments, doorbells and rings. */
#include "channel_open.h"

#include <fcntl.h>

#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"
#include "table.h"
#include "wait.h"

bool native_channel_parse(PyObject *arguments, PyObject *keywords, struct channel_settings *to)
{
    static char *names[] = {"table",       "rings",      "id",          "context",        "slots",
                            "slot_size",   "line",       "send_offset", "receive_offset", "ring_fd",
                            "wake_fd",     "control_fd", "on_control",  "max_calls",      "opener",
                            "max_buffers", NULL};
    struct sbe_channel_config *core = &to->core;
    struct sbe_ring_geometry *geometry = &core->geometry;
    *to = (struct channel_settings){
        .core = {.call_count = 4096, .buffers = SBE_BUFFERS_MAX},
        .control_fd = -1,
        .on_control = Py_None,
    };
    return PyArg_ParseTupleAndKeywords(
               arguments, keywords, "O!O!O&O&O&O&O&O&O&ii|iOO&pO&", names, Table_Type, &to->table,
               Memory_Type, &to->rings, native_as_u32, &core->id, native_as_u32, &core->context,
               native_as_u32, &geometry->slots, native_as_u32, &geometry->slot_size, native_as_u32,
               &geometry->line, native_as_u64, &to->send_offset, native_as_u64, &to->receive_offset,
               &to->ring_fd, &to->wake_fd, &to->control_fd, &to->on_control, native_as_u32,
               &core->call_count, &to->opener, native_as_u32, &core->buffers) != 0;
}

/* Raises BadArgument for rings that do not lie in their memory. */
static bool check_rings(const struct channel_settings *given)
{
    const struct sbe_channel_config *core = &given->core;
    int64_t ring_size = sbe_ring_size(&core->geometry);
    uint64_t size = given->rings->size, send = given->send_offset, receive = given->receive_offset;
    if (ring_size < 0 || send > size || receive > size || (uint64_t)ring_size > size - send ||
        (uint64_t)ring_size > size - receive) {
        native_raise(SBE_EINVAL, false, "rings of %u slots of %u bytes do not fit %llu bytes",
                     core->geometry.slots, core->geometry.slot_size, (unsigned long long)size);
        return false;
    }
    if (given->rings->readonly || core->call_count == 0 || core->call_count > UINT16_MAX + 1u ||
        ((send | receive) & (core->geometry.line - 1)) != 0) {
        native_raise(SBE_EINVAL, false,
                     "channel %u: ring memory is writable, rings begin at multiples of %u bytes, "
                     "and 1 to 65536 calls may be open",
                     core->id, core->geometry.line);
        return false;
    }
    return true;
}

static bool open_core(Channel *self, const struct channel_settings *given)
{
    struct sbe_channel_config config = given->core;
    if (!check_rings(given))
        return false;
    config.send = self->rings->base + given->send_offset;
    config.receive = self->rings->base + given->receive_offset;
    if (given->opener != 0) {
        sbe_ring_clear(config.send, &config.geometry, 0);
        sbe_ring_clear(config.receive, &config.geometry, 0);
    }
    self->calls = PyMem_Calloc(config.call_count, sizeof *self->calls);
    self->scratch = PyMem_Malloc(config.geometry.slot_size);
    if (self->calls == NULL || self->scratch == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if (self->table->line < config.geometry.line)
        self->table->line = config.geometry.line;
    config.port = &self->port;
    config.areas = &self->table->areas;
    config.calls = self->calls;
    int status = sbe_channel_open(&self->core, &config);
    if (status < 0)
        native_raise(status, false, "channel %u", config.id);
    if (config.buffers == 0)
        self->core.buffers = 0; /* agreed on none, where 0 would mean the default */
    return status == SBE_OK;
}

static bool open_doorbells(Channel *self, const struct channel_settings *given)
{
    self->ring_fd = fcntl(given->ring_fd, F_DUPFD_CLOEXEC, 3);
    self->wake_fd = fcntl(given->wake_fd, F_DUPFD_CLOEXEC, 3);
    if (self->ring_fd < 0 || self->wake_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    if (given->on_control != Py_None) {
        Py_INCREF(given->on_control);
        self->on_control = given->on_control;
    }
    return native_watch(self, given->control_fd) == 0;
}

bool native_channel_open(Channel *self, const struct channel_settings *given)
{
    return open_doorbells(self, given) && open_core(self, given);
}
