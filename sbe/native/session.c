/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session: the core's control protocol for Python, in either role. Here its life and its
 * properties; session_hooks.c is what the core asks, session_methods.c what Python asks.
 */
#define PY_SSIZE_T_CLEAN
#include "session.h"

#include <stddef.h>
#include <string.h>

#include "convert.h"
#include "core/status.h"
#include "native.h"

static PyTypeObject *Session_Type;

/* -- properties -------------------------------------------------------------------------------- */

/* The closure is the offset of a uint32_t in struct sbe_session. */
static PyObject *get_u32(PyObject *object, void *closure)
{
    const uint8_t *session = (const uint8_t *)&((Session *)object)->session;
    uint32_t value;
    memcpy(&value, session + (uintptr_t)closure, sizeof value);
    return PyLong_FromUnsignedLong(value);
}

static PyObject *get_state(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.state);
}

static PyObject *get_version(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.version);
}

static PyObject *get_coherent(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Session *)object)->session.areas.coherent);
}

static PyObject *get_peer_address_bits(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.peer_address_bits);
}

static PyObject *get_peer_name(PyObject *object, void *unused)
{
    (void)unused;
    return session_wire_name(((Session *)object)->peer_name);
}

static PyObject *limits_dict(const struct sbe_limits *limits)
{
    return Py_BuildValue("{sIsIsIsIsIsI}", "areas", limits->areas, "contexts", limits->contexts,
                         "channels", limits->channels, "slots", limits->slots, "slot_size",
                         limits->slot_size, "buffers", limits->buffers);
}

static PyObject *get_limits(PyObject *object, void *unused)
{
    (void)unused;
    return limits_dict(&((Session *)object)->session.limits);
}

static PyObject *get_peer_limits(PyObject *object, void *unused)
{
    (void)unused;
    return limits_dict(&((Session *)object)->peer_limits);
}

#define AT(field) ((void *)offsetof(struct sbe_session, field))

static PyGetSetDef SESSION_PROPERTIES[] = {
    {"state", get_state, NULL, "One of SESSION_INITIALISING to SESSION_CLOSED.", NULL},
    {"epoch", get_u32, NULL, "This end's epoch, 0 before start().", AT(epoch)},
    {"peer_epoch", get_u32, NULL, "Of the peer whose HELLO was accepted, 0 none.", AT(peer_epoch)},
    {"version", get_version, NULL, "The agreed version of the protocol.", NULL},
    {"line", get_u32, NULL, "The agreed cache line: the larger of both, bytes.", AT(line)},
    {"coherent", get_coherent, NULL, "Both ends see areas cache-coherently.", NULL},
    {"limits", get_limits, NULL, "The agreed limits: the smaller of both ends', by name.", NULL},
    {"dropped", get_u32, NULL, "Messages of dead epochs or in the wrong state.", AT(dropped)},
    {"peer_address_bits", get_peer_address_bits, NULL, "Width of its device addresses.", NULL},
    {"peer_limits", get_peer_limits, NULL, "What the last HELLO offered, by name.", NULL},
    {"peer_name", get_peer_name, NULL, "What the last HELLO called its sender.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* -- life -------------------------------------------------------------------------------------- */

static bool power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* What sbe_session_init() leaves to its caller. Raises BadArgument. */
static bool check_config(const struct sbe_session_config *config)
{
    const struct sbe_limits *limits = &config->limits;
    const char *wrong = NULL;
    if (config->role != SBE_ROLE_HOST && config->role != SBE_ROLE_REMOTE)
        wrong = "role is ROLE_HOST or ROLE_REMOTE";
    else if (config->address_bits < 1 || config->address_bits > 64)
        wrong = "address_bits is between 1 and 64";
    else if (!power_of_two(config->cache_line) || config->cache_line < 16 ||
             config->cache_line > SBE_LINE_MAX)
        wrong = "cache_line is a power of two between 16 and 1024 bytes";
    else if (config->version_min > config->version_max)
        wrong = "version_min is not above version_max";
    else if (limits->areas < 1 || limits->areas > UINT16_MAX || limits->contexts > UINT16_MAX ||
             limits->channels < 1 || limits->channels > UINT16_MAX)
        wrong = "areas and channels are between 1 and 65535, contexts at most 65535";
    else if (limits->slots < 2 || limits->slots > SBE_SLOTS_MAX ||
             limits->slot_size < SBE_SLOT_ALIGN || limits->slot_size > SBE_SLOT_SIZE_MAX)
        wrong = "slots is between 2 and 65536, slot_size between 64 and 65536 bytes";
    else if (limits->buffers > SBE_BUFFERS_MAX)
        wrong = "buffers is at most BUFFERS_MAX";
    else if (config->pending_count < 1 || config->pending_count > UINT16_MAX)
        wrong = "pending is between 1 and 65535";
    if (wrong != NULL)
        (void)native_raise(SBE_EINVAL, false, "Session: %s", wrong);
    return wrong == NULL;
}

/* Hooks, tables and the core's session; config holds what the user chose. */
static bool set_up(Session *self, PyObject *handler)
{
    struct sbe_session_config *config = &self->config;
    session_set_hooks(self);
    config->name = self->name;
    config->areas = PyMem_Calloc(config->limits.areas, sizeof *config->areas);
    config->contexts = PyMem_Calloc(config->limits.contexts, sizeof *config->contexts);
    config->channels = PyMem_Calloc(config->limits.channels, sizeof *config->channels);
    config->pending = PyMem_Calloc(config->pending_count, sizeof *config->pending);
    if (config->areas == NULL || config->contexts == NULL || config->channels == NULL ||
        config->pending == NULL) {
        (void)PyErr_NoMemory();
        return false;
    }
    int status = sbe_session_init(&self->session, config);
    if (status < 0) {
        (void)native_raise(status, false, "Session");
        return false;
    }
    Py_INCREF(handler);
    self->handler = handler;
    return true;
}

static PyObject *session_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"handler",      "role",       "name",        "coherent",
                            "address_bits", "cache_line", "version_min", "version_max",
                            "areas",        "contexts",   "channels",    "slots",
                            "slot_size",    "buffers",    "pending",     NULL};
    PyObject *handler;
    const char *name = "sbe";
    Py_ssize_t name_size = 3;
    int coherent = 1;
    uint16_t role = 0, address_bits = 64;
    struct sbe_session_config config = {
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .cache_line = 64,
        .limits = {64, 64, 64, 4096, SBE_SLOT_SIZE_MAX, SBE_BUFFERS_MAX},
        .pending_count = 64,
    };
    struct sbe_limits *limits = &config.limits;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "O|$O&s#pO&O&O&O&O&O&O&O&O&O&O&:Session", names, &handler,
            native_as_u16, &role, &name, &name_size, &coherent, native_as_u16, &address_bits,
            native_as_u32, &config.cache_line, native_as_u16, &config.version_min, native_as_u16,
            &config.version_max, native_as_u32, &limits->areas, native_as_u32, &limits->contexts,
            native_as_u32, &limits->channels, native_as_u32, &limits->slots, native_as_u32,
            &limits->slot_size, native_as_u32, &limits->buffers, native_as_u32,
            &config.pending_count))
        return NULL;
    config.role = role > UINT8_MAX ? 0 : (uint8_t)role;
    config.coherent = coherent != 0;
    config.address_bits = address_bits > 64 ? 0 : (uint8_t)address_bits;
    if (!check_config(&config))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Session *self = (Session *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->config = config;
    if (!session_set_name(self->name, name, name_size) || !set_up(self, handler)) {
        native_drop(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int session_traverse(PyObject *object, visitproc visit, void *arg)
{
    Session *self = (Session *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->handler);
    Py_VISIT(self->failure);
    for (uint32_t i = 0; self->config.pending != NULL && i < self->config.pending_count; i++)
        if (self->config.pending[i].id != 0)
            Py_VISIT((PyObject *)self->config.pending[i].token);
    return 0;
}

static int session_clear(PyObject *object)
{
    Session *self = (Session *)object;
    Py_CLEAR(self->handler);
    Py_CLEAR(self->failure);
    for (uint32_t i = 0; self->config.pending != NULL && i < self->config.pending_count; i++) {
        struct sbe_session_pending entry = self->config.pending[i];
        self->config.pending[i] = (struct sbe_session_pending){0};
        if (entry.id != 0)
            Py_DECREF((PyObject *)entry.token);
    }
    return 0;
}

static void session_dealloc(PyObject *object)
{
    Session *self = (Session *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)session_clear(object);
    PyMem_Free(self->config.areas);
    PyMem_Free(self->config.contexts);
    PyMem_Free(self->config.channels);
    PyMem_Free(self->config.pending);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static const char SESSION_DOC[] =
    "Session(handler, *, role, name='sbe', coherent=True, address_bits=64, cache_line=64,\n"
    "version_min=VERSION_MIN, version_max=VERSION_MAX, areas=64, contexts=64, channels=64,\n"
    "slots=4096, slot_size=65536, buffers=BUFFERS_MAX, pending=64)\n\n"
    "The control protocol of one link, in either role, over the methods of a handler. Sizes are\n"
    "bytes. What a handler's method raises is raised from the Session method that was running;\n"
    "an sbe.errors.Error from area_attach, channel_open or service answers the peer instead.\n"
    "A token is held until replied() has had it, once. Handlers may call methods; otherwise not\n"
    "thread-safe: the owner serialises.";

static PyType_Slot SESSION_SLOTS[] = {
    {Py_tp_doc, (void *)SESSION_DOC},         {Py_tp_new, (void *)session_new},
    {Py_tp_dealloc, (void *)session_dealloc}, {Py_tp_traverse, (void *)session_traverse},
    {Py_tp_clear, (void *)session_clear},     {Py_tp_methods, SESSION_METHODS},
    {Py_tp_getset, SESSION_PROPERTIES},       {0, NULL},
};

static PyType_Spec SESSION_SPEC = {
    .name = "sbe._native.Session",
    .basicsize = sizeof(Session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = SESSION_SLOTS,
};

static const struct {
    const char *name;
    long value;
} CONSTANTS[] = {
    {"SESSION_INITIALISING", SBE_SESSION_INITIALISING},
    {"SESSION_WAITING", SBE_SESSION_WAITING},
    {"SESSION_INITIALISED", SBE_SESSION_INITIALISED},
    {"SESSION_CONNECTED", SBE_SESSION_CONNECTED},
    {"SESSION_CLOSING", SBE_SESSION_CLOSING},
    {"SESSION_CLOSED", SBE_SESSION_CLOSED},
    {"REFUSED_NOT", SBE_REFUSED_NOT},
    {"REFUSED_MAGIC", SBE_REFUSED_MAGIC},
    {"REFUSED_VERSION", SBE_REFUSED_VERSION},
    {"REFUSED_ROLE", SBE_REFUSED_ROLE},
    {"REFUSED_LIMITS", SBE_REFUSED_LIMITS},
    {"CONTEXT_GLOBAL", SBE_CONTEXT_GLOBAL},
    {"SEGMENTS_MAX", SEGMENTS_MAX},
};

int native_session_init(PyObject *module)
{
    for (size_t i = 0; i < sizeof CONSTANTS / sizeof CONSTANTS[0]; i++)
        if (PyModule_AddIntConstant(module, CONSTANTS[i].name, CONSTANTS[i].value) < 0)
            return -1;
    return native_add_type(module, &SESSION_SPEC, &Session_Type);
}
