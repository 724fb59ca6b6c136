/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Python runs the handlers of signals, which may raise (Ctrl-C), between any two steps of the main
 * thread: also after the kernel has made a descriptor and before anybody has it. While signals are
 * held they are noted, and come when they are let: where somebody waits, and at the end.
 *
 * What Python has said to do about a signal stays as it is, only who is called by the kernel is
 * changed for a while. Other threads never run handlers: there nothing is done.
 */
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"

#define SIGNALS 65 /* Linux has 64 on most machines, from 1 */

static struct {
    unsigned depth; /* how often held; 0: not */
    bool taken[SIGNALS];
    struct sigaction former[SIGNALS];
} held; /* the main thread's */

static volatile sig_atomic_t noted[SIGNALS];

static PyObject *getsignal; /* of the module signal */

static bool is_main_thread(void)
{
    return syscall(SYS_gettid) == getpid();
}

static void note(int number)
{
    noted[number] = 1;
}

/* The signals that Python has a function for. -1: something raised. */
static int take_signals(void)
{
    for (int number = 1; number < SIGNALS; number++) {
        if (number == SIGKILL || number == SIGSTOP || (number > 31 && number < SIGRTMIN))
            continue;
        PyObject *handler = PyObject_CallFunction(getsignal, "i", number);
        if (handler == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear(); /* this machine has fewer */
            break;
        }
        if (handler == NULL)
            return -1;
        bool callable = PyCallable_Check(handler) && !PyLong_Check(handler);
        Py_DECREF(handler);
        struct sigaction now;
        if (!callable || sigaction(number, NULL, &now) < 0)
            continue;
        held.former[number] = now;
        now.sa_flags &= ~SA_SIGINFO;
        now.sa_handler = note;
        held.taken[number] = sigaction(number, &now, NULL) == 0;
    }
    return 0;
}

static void give_signals(void)
{
    for (int number = 1; number < SIGNALS; number++)
        if (held.taken[number])
            (void)sigaction(number, &held.former[number], NULL);
    for (int number = 1; number < SIGNALS; number++) {
        held.taken[number] = false;
        if (noted[number] != 0) {
            noted[number] = 0;
            (void)raise(number); /* to this thread, before raise() returns */
        }
    }
}

/* In a forked child nobody is in a block, if it was another thread's; and dispositions are kept. */
static void forked(void)
{
    for (int number = 1; number < SIGNALS; number++) {
        if (held.taken[number])
            (void)sigaction(number, &held.former[number], NULL);
        held.taken[number] = false;
        noted[number] = 0;
    }
    held.depth = 0;
}

static int hold(void)
{
    if (held.depth == 0 && take_signals() < 0) {
        give_signals();
        return -1;
    }
    held.depth++;
    return 0;
}

/* -- SignalsHeld --------------------------------------------------------------------------- */

/* One block: how deep it was held before, -1 when it does nothing. */
typedef struct {
    PyObject ob_base;
    int before;
} Block;

static PyObject *block_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "", names))
        return NULL;
    Block *self = (Block *)PyType_GenericAlloc(type, 0);
    if (self != NULL)
        self->before = -1;
    return (PyObject *)self;
}

static void block_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *held_enter(PyObject *object, PyObject *unused)
{
    Block *self = (Block *)object;
    (void)unused;
    self->before = is_main_thread() ? (int)held.depth : -1;
    if (self->before < 0)
        Py_RETURN_NONE;
    if (hold() < 0) {
        self->before = -1;
        return NULL;
    }
    /* What has come before is not to wait, nor to run in the block: from here on nothing comes. */
    if (held.depth > 1 || PyErr_CheckSignals() == 0)
        Py_RETURN_NONE;
    held.depth = 0;
    give_signals();
    self->before = -1;
    return NULL;
}

static PyObject *held_exit(PyObject *object, PyObject *unused)
{
    Block *self = (Block *)object;
    (void)unused;
    int before = self->before;
    self->before = -1;
    if (before >= 0 && is_main_thread()) { /* not after a fork in another thread */
        held.depth = (unsigned)before;
        if (before == 0)
            give_signals(); /* handlers run once this has returned */
    }
    Py_RETURN_NONE;
}

/* -- SignalsLet ---------------------------------------------------------------------------- */

static PyObject *let_exit(PyObject *object, PyObject *unused)
{
    Block *self = (Block *)object;
    (void)unused;
    int before = self->before;
    self->before = -1;
    if (before > 0 && is_main_thread()) {
        if (held.depth == 0 && take_signals() < 0)
            return NULL;
        held.depth = (unsigned)before;
        if (PyErr_CheckSignals() < 0) /* what came before they were taken */
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *let_enter(PyObject *object, PyObject *unused)
{
    Block *self = (Block *)object;
    self->before = is_main_thread() && held.depth > 0 ? (int)held.depth : -1;
    if (self->before > 0) {
        held.depth = 0;
        give_signals();
    }
    if (PyErr_CheckSignals() == 0)
        Py_RETURN_NONE;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    Py_XDECREF(let_exit(object, unused)); /* nobody leaves a block that was not entered */
    PyErr_Clear();
    PyErr_Restore(type, error, trace);
    return NULL;
}

static PyMethodDef HELD_METHODS[] = {
    {"__enter__", held_enter, METH_NOARGS, "Signals are noted from now on."},
    {"__exit__", held_exit, METH_VARARGS, "Those that came are delivered."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot HELD_SLOTS[] = {
    {Py_tp_doc, "SignalsHeld()\n--\n\n"
                "A block in which the main thread runs no handlers of signals, except where it "
                "says SignalsLet(). Those that came run after it. May be nested. In other threads "
                "it does nothing."},
    {Py_tp_new, block_new},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_methods, HELD_METHODS},
    {0, NULL},
};

static PyType_Spec HELD_SPEC = {
    .name = "sbe._native.SignalsHeld",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = HELD_SLOTS,
};

static PyMethodDef LET_METHODS[] = {
    {"__enter__", let_enter, METH_NOARGS, "Handlers run, those that were due first."},
    {"__exit__", let_exit, METH_VARARGS, "Signals are held again."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot LET_SLOTS[] = {
    {Py_tp_doc, "SignalsLet()\n--\n\n"
                "A block inside SignalsHeld() in which handlers run, and may raise: nothing may "
                "be lost by that. Elsewhere it does nothing."},
    {Py_tp_new, block_new},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_methods, LET_METHODS},
    {0, NULL},
};

static PyType_Spec LET_SPEC = {
    .name = "sbe._native.SignalsLet",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = LET_SLOTS,
};

static PyTypeObject *Held_Type, *Let_Type;

int native_signals_init(PyObject *module)
{
    PyObject *signals = PyImport_ImportModule("_signal");
    if (signals == NULL)
        return -1;
    if (getsignal == NULL)
        (void)pthread_atfork(NULL, NULL, forked);
    getsignal = PyObject_GetAttrString(signals, "getsignal");
    Py_DECREF(signals);
    if (getsignal == NULL || native_add_type(module, &HELD_SPEC, &Held_Type) < 0)
        return -1;
    return native_add_type(module, &LET_SPEC, &Let_Type);
}
