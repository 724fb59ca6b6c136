/* SPDX-License-Identifier: Apache-2.0 */
#include "power/power.h"

#include "core/status.h"

#define ERRNO_MASK ((1u << SBE_ANSWERED_SHIFT) - 1u)

bool sbe_power_suspended(const struct sbe_power *power)
{
    return power->suspended_by != 0 && power->suspended_by == power->engine->session.peer_epoch;
}

/* What lasts is no matter here: its service says whether it can rest. */
static bool keeps_requests(const struct sbe_engine *engine)
{
    const struct sbe_engine_channel *entry = engine->config->channels;
    for (uint32_t left = engine->config->session.limits.channels; left > 0; left--, entry++)
        if (entry->kept != NULL && entry->share->kept != 0)
            return true;
    return false;
}

/* Whether what lasts can rest, or `now` it does. Services may share the function: twice is once. */
static int rest(const struct sbe_engine *engine, bool now)
{
    const struct sbe_engine_config *config = engine->config;
    int status = SBE_OK;
    for (uint32_t i = 0; i < config->service_count && status == SBE_OK; i++)
        if (config->services[i]->rest != NULL)
            status = config->services[i]->rest(engine, now);
    return status;
}

static int suspend(struct sbe_power *power)
{
    const struct sbe_power_hooks *hooks = power->hooks;
    if (sbe_power_suspended(power))
        return SBE_OK;
    if (keeps_requests(power->engine))
        return SBE_EBUSY; /* who keeps a request may be writing its buffers */
    int status = rest(power->engine, false);
    if (status == SBE_OK && hooks != NULL && hooks->suspend != NULL)
        status = hooks->suspend(hooks->self);
    if (status < 0)
        return status; /* and nothing has changed */
    (void)rest(power->engine, true);
    power->suspended_by = power->engine->session.peer_epoch;
    return SBE_OK;
}

static int resume(struct sbe_power *power)
{
    const struct sbe_power_hooks *hooks = power->hooks;
    if (power->suspended_by == 0)
        return SBE_OK;
    int status = hooks != NULL && hooks->resume != NULL ? hooks->resume(hooks->self) : SBE_OK;
    if (status == SBE_OK)
        power->suspended_by = 0;
    return status;
}

static int frequency(const struct sbe_power *power, uint32_t khz)
{
    const struct sbe_power_hooks *hooks = power->hooks;
    if (hooks == NULL || hooks->frequency == NULL)
        return SBE_ENOTSUP;
    return hooks->frequency(hooks->self, khz);
}

static void finish(struct sbe_power *power, int status)
{
    power->asked = 0; /* first: `done` may ask again */
    if (power->done != NULL)
        power->done(power->done_self, status);
}

/* The host has gone, or another one is there: what belonged to it ends. */
static void settle(struct sbe_power *power)
{
    uint32_t peer = power->engine->session.peer_epoch;
    if (power->suspended_by != 0 && power->suspended_by != peer) {
        (void)resume(power);
        power->suspended_by = 0;
    }
    if (power->asked != 0 && power->asked_of != peer)
        finish(power, SBE_ECONNRESET);
}

void sbe_power_event(struct sbe_power *power, uint32_t event, uint32_t value)
{
    int status;
    settle(power);
    switch (event) {
    case SBE_EVENT_SUSPEND:
        status = suspend(power);
        break;
    case SBE_EVENT_RESUME:
        status = resume(power);
        break;
    case SBE_EVENT_FREQUENCY:
        status = frequency(power, value);
        break;
    case SBE_EVENT_ANSWERED: /* one to nothing is dropped */
        if (power->asked != 0 && value >> SBE_ANSWERED_SHIFT == power->asked)
            finish(power, -(int)(value & ERRNO_MASK));
        return;
    default:
        return;
    }
    /* An answer that can't be sent is lost, as a reply is; who asked has a bound of its own. */
    (void)sbe_session_event(&power->engine->session, SBE_EVENT_ANSWERED,
                            event << SBE_ANSWERED_SHIFT | ((uint32_t)-status & ERRNO_MASK));
}

void sbe_power_init(struct sbe_power *power, struct sbe_engine *engine,
                    const struct sbe_power_hooks *hooks)
{
    *power = (struct sbe_power){.engine = engine, .hooks = hooks};
}

bool sbe_power_run(struct sbe_power *power)
{
    settle(power);
    return !sbe_power_suspended(power) && sbe_engine_run(power->engine);
}

int sbe_power_ask(struct sbe_power *power, enum sbe_event event, uint32_t value,
                  void (*done)(void *self, int status), void *self)
{
    if (event < SBE_EVENT_SUSPEND || event > SBE_EVENT_FREQUENCY)
        return SBE_EINVAL;
    settle(power);
    if (power->asked != 0)
        return SBE_EBUSY;
    /* Noted before it is sent: the answer may come within the hook. */
    power->asked = event;
    power->asked_of = power->engine->session.peer_epoch;
    power->done = done;
    power->done_self = self;
    int status = sbe_session_event(&power->engine->session, event, value);
    if (status < 0)
        power->asked = 0;
    return status;
}
