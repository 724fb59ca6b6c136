/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suspend, resume and frequency, asked by either end (docs/spec/control.md, 5.1). A port runs the
 * engine through sbe_power_run(), which does nothing while the host has suspended this end: frames
 * wait in the rings, the port sleeps as it does when there is no work, and control messages are
 * answered as ever. Not thread-safe: used where the engine is.
 *
 *     after sbe_engine_init():    sbe_power_init(&power, &engine, hooks)
 *                                 engine.hooks.event = a function that calls sbe_power_event()
 *     for sbe_engine_run():       sbe_power_run(&power)
 */
#ifndef SBE_POWER_POWER_H
#define SBE_POWER_POWER_H

#include "core/engine.h"

/* What a board does about it; any may be NULL. Zero or a status, which is the host's answer. */
struct sbe_power_hooks {
    void *self;
    /*
     * No handler runs after this. It may refuse, say with SBE_EBUSY while a DMA writes an area.
     * Streams that pause are stopped next, by their kinds' triggers: what those need is still on.
     */
    int (*suspend)(void *self);
    /* Also when the host that suspended is gone: then nobody hears a refusal, and work goes on. */
    int (*resume)(void *self);
    int (*frequency)(void *self, uint32_t khz); /* 0: as this end likes. NULL: SBE_ENOTSUP */
};

struct sbe_power {
    struct sbe_engine *engine;
    const struct sbe_power_hooks *hooks;
    uint32_t suspended_by; /* epoch of the host that did, 0 nobody */
    uint32_t asked;        /* the event whose answer is awaited, 0 none */
    uint32_t asked_of;     /* epoch of the host */
    void (*done)(void *self, int status);
    void *done_self;
};

/* hooks may be NULL; else they must outlive the engine. */
void sbe_power_init(struct sbe_power *power, struct sbe_engine *engine,
                    const struct sbe_power_hooks *hooks);

/* The host has sent an event; others than those about power are ignored. */
void sbe_power_event(struct sbe_power *power, uint32_t event, uint32_t value);

/* Instead of sbe_engine_run(), with the same meaning. */
bool sbe_power_run(struct sbe_power *power);

/*
 * No handler runs, and firmware must leave areas and rings alone: requests that it keeps are none,
 * or streams that rest.
 */
bool sbe_power_suspended(const struct sbe_power *power);

/*
 * Asks the host: SBE_EVENT_SUSPEND, _RESUME or _FREQUENCY (value: kHz). `done` comes with its
 * answer, or with SBE_ECONNRESET when the host is gone, from within sbe_power_run() or when a
 * control message is taken. One at a time: SBE_EBUSY. SBE_ENOTCONN, or what control_send said.
 */
int sbe_power_ask(struct sbe_power *power, enum sbe_event event, uint32_t value,
                  void (*done)(void *self, int status), void *self);

#endif
