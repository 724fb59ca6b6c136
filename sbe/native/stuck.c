/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote shows in the ring which request it works on. It is asked only where a deadline has
 * come, so it costs nothing else; and it is the remote's word: it explains, nothing relies on it.
 */
#include "stuck.h"

#include "call.h"
#include "channel.h"

#define RECENT_NS 1000000000u

/* What runs: the transaction's low bits are the place in the core's table of open calls. */
static const struct open_call *running(const Channel *channel, uint32_t at_work)
{
    uint32_t place = at_work & SBE_AT_WORK_TRANSACTIONS;
    if ((at_work & SBE_AT_WORK) == 0 || place >= channel->core.call_count)
        return NULL;
    return channel->core.calls[place].owner;
}

void native_stuck_look(Channel *channel)
{
    uint32_t at_work = sbe_load_relaxed(&channel->core.tx.consumer->at_work);
    uint32_t moved = at_work ^ channel->work_seen;
    channel->work_seen = at_work;
    if ((moved & ~SBE_AT_WORK_BEATS) != 0) /* another one, or none */
        channel->moved_ns = 0;
    else if (moved != 0)
        channel->moved_ns = native_now_ns(NULL);
}

void native_stuck_find(struct stuck *stuck, const Call *call)
{
    Channel *channel = call->channel;
    const struct sbe_ring *ring = &channel->core.tx;
    if (!native_channel_usable(channel))
        return;
    uint32_t at_work = sbe_load_relaxed(&ring->consumer->at_work);
    uint32_t tail = sbe_load_relaxed(&ring->consumer->tail);
    const struct open_call *open = running(channel, at_work);
    uint64_t now_ns = native_now_ns(NULL);
    stuck->runs = open != NULL;
    stuck->untaken = open == NULL && tail != ring->published;
    if (open == NULL)
        return;
    stuck->mine = open == &call->open;
    stuck->service = open->service;
    native_stuck_look(channel);
    stuck->moves = channel->moved_ns != 0 && now_ns < channel->moved_ns + RECENT_NS;
    stuck->behind = channel->in_flight - 1;
    uint64_t since_ns = channel->turn_ns;
    if (stuck->mine && call->started_ns > since_ns)
        since_ns = call->started_ns;
    stuck->runs_ns = now_ns > since_ns ? now_ns - since_ns : 0;
}

PyObject *native_stuck_say(const struct stuck *stuck, const Call *call, PyObject *name)
{
    if (stuck->untaken)
        return PyUnicode_FromFormat(
            "no answer from service %R in time: the remote has not looked at it, for it is busy "
            "with others, or hangs",
            name);
    if (!stuck->runs)
        return PyUnicode_FromFormat("no answer from service %R in time", name);
    unsigned tenths = (unsigned)(stuck->runs_ns / 100000000u);
    const char *life = stuck->moves ? "and is at work" : "without a sign of life";
    PyObject *behind = PyUnicode_FromString("");
    if (stuck->behind > 0 && behind != NULL) {
        Py_DECREF(behind);
        behind = PyUnicode_FromFormat(stuck->behind == 1 ? "; %u call waits behind it"
                                                         : "; %u calls wait behind it",
                                      stuck->behind);
    }
    PyObject *message = NULL, *other = NULL;
    if (behind != NULL && stuck->mine)
        message =
            PyUnicode_FromFormat("no answer from service %R in time: it has run for %u.%u s %s%U",
                                 name, tenths / 10, tenths % 10, life, behind);
    else if (behind != NULL &&
             (other = native_channel_service(call->channel, stuck->service)) != NULL)
        message = PyUnicode_FromFormat(
            "no answer from service %R in time: service %R has run for %u.%u s %s%U", name, other,
            tenths / 10, tenths % 10, life, behind);
    Py_XDECREF(behind);
    Py_XDECREF(other);
    return message;
}
