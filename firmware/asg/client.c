/* SPDX-License-Identifier: Apache-2.0 */
#include "asg/client.h"

#include "core/status.h"

static struct sbe_asg_config *config_of(const struct sbe_asg_client *client)
{
    return &client->region.storage->to_host.config;
}

static uint32_t state_of(const struct sbe_asg_client *client)
{
    return sbe_load_acquire(&client->region.storage->to_host.state);
}

/* The bytes are shown: does the server look by itself, or has it to be told? */
static void notify(struct sbe_asg_client *client)
{
    /* Our position before its state: one that is about to sleep shows that and then looks again. */
    sbe_full_barrier();
    /* Also when it can consume: the original's server sleeps in that state. */
    if (state_of(client) != SBE_ASG_RENDERING)
        client->owes = true;
}

/* What a wait comes to. */
static int not_yet(const struct sbe_asg_client *client)
{
    uint32_t state = state_of(client);
    if (state == SBE_ASG_ERROR || sbe_load_relaxed(&config_of(client)->in_error) == 1)
        return SBE_EPROTO;
    return state == SBE_ASG_EXIT ? SBE_ENOTCONN : SBE_EAGAIN;
}

int sbe_asg_client_attach(struct sbe_asg_client *client, void *memory, uint32_t size)
{
    struct sbe_asg_client fresh = {.filled = 0};
    int status = sbe_asg_attach(&fresh.region, memory, size);
    if (status != SBE_OK)
        return status;
    struct sbe_asg_storage *storage = fresh.region.storage;
    fresh.step = sbe_load_acquire(&storage->to_host.config.flush_interval);
    if (sbe_load_relaxed(&storage->to_host.config.buffer_size) != size)
        return SBE_EPROTO;
    status = sbe_asg_check_step(size, fresh.step);
    if (status != SBE_OK)
        return status;
    /* One step less than there are: the one that is being filled is never outstanding. */
    uint32_t records = size / fresh.step - 1u, most = (SBE_ASG_SMALL - 1u) / SBE_ASG_RECORD_SIZE;
    fresh.outstanding = (records < most ? records : most) * SBE_ASG_RECORD_SIZE;
    fresh.records = sbe_asg_flow_write(&storage->to_host, storage->to_host.bytes, SBE_ASG_SMALL);
    fresh.large =
        sbe_asg_flow_write(&storage->to_host_large, fresh.region.buffer, fresh.region.view_size);
    fresh.replies =
        sbe_asg_flow_read(&storage->from_host_large, fresh.region.buffer, fresh.region.view_size);
    *client = fresh;
    return SBE_OK;
}

bool sbe_asg_client_is_idle(const struct sbe_asg_client *client)
{
    return sbe_asg_unread(&client->large) == 0 && sbe_asg_unread(&client->records) == 0;
}

int sbe_asg_client_flush(struct sbe_asg_client *client)
{
    if (client->filled == 0)
        return SBE_OK;
    if (sbe_asg_unread(&client->large) != 0 ||
        sbe_asg_unread(&client->records) >= client->outstanding)
        return not_yet(client);
    struct sbe_asg_record record = {client->at, client->filled};
    sbe_asg_put(&client->records, &record, sizeof(record));
    notify(client);
    client->filled = 0;
    client->at += client->step;
    if (client->at == client->region.buffer_size)
        client->at = 0;
    return SBE_OK;
}

int sbe_asg_client_alloc(struct sbe_asg_client *client, uint32_t size, void **place)
{
    if (size > client->step)
        return SBE_EINVAL;
    if (size > client->step - client->filled) {
        int status = sbe_asg_client_flush(client);
        if (status != SBE_OK)
            return status;
    }
    if (client->filled == 0) { /* from here on bytes are written into the buffer */
        if (sbe_asg_unread(&client->large) != 0)
            return not_yet(client);
        if (sbe_asg_client_unread(client) != 0)
            return SBE_EBUSY;
    }
    *place = client->region.buffer + client->at + client->filled;
    client->filled += size;
    return SBE_OK;
}

int sbe_asg_client_give_back(struct sbe_asg_client *client, uint32_t size)
{
    if (size > client->filled)
        return SBE_EINVAL;
    client->filled -= size;
    return SBE_OK;
}

uint32_t sbe_asg_client_unread(const struct sbe_asg_client *client)
{
    return sbe_asg_readable(&client->replies);
}

static int begin(struct sbe_asg_client *client, uint32_t size)
{
    int status = sbe_asg_client_flush(client);
    if (status != SBE_OK)
        return status;
    if (!sbe_asg_client_is_idle(client)) /* a change of mode needs empty rings */
        return not_yet(client);
    if (sbe_asg_client_unread(client) != 0)
        return SBE_EBUSY;
    sbe_store_relaxed(&config_of(client)->transfer_size, size);
    /* The bytes are shown after it, with release. */
    sbe_store_release(&config_of(client)->transfer_mode, SBE_ASG_BYTES);
    client->sending = true;
    return SBE_OK;
}

int sbe_asg_client_send(struct sbe_asg_client *client, const void *data, uint32_t size,
                        uint32_t *sent, bool wait)
{
    uint32_t chunk = client->region.view_size / (wait ? 4u : 2u);
    if (size == 0)
        return SBE_OK;
    if (!client->sending) {
        int status = begin(client, size);
        if (status != SBE_OK)
            return status;
    }
    while (*sent < size) {
        uint32_t now = size - *sent < chunk ? size - *sent : chunk;
        if (sbe_asg_room(&client->large) < now)
            return not_yet(client);
        sbe_asg_put(&client->large, (const uint8_t *)data + *sent, now);
        *sent += now;
        notify(client);
    }
    if (wait && sbe_asg_unread(&client->large) != 0)
        return not_yet(client);
    sbe_store_release(&config_of(client)->transfer_mode, SBE_ASG_RECORDS);
    client->sending = false;
    return SBE_OK;
}

int64_t sbe_asg_client_read(struct sbe_asg_client *client, void *data, uint32_t size)
{
    int status = sbe_asg_client_flush(client);
    if (status != SBE_OK)
        return status;
    uint32_t now = sbe_asg_client_unread(client);
    if (now == 0 || !sbe_asg_client_is_idle(client))
        return not_yet(client);
    if (now > size)
        now = size;
    sbe_asg_peek(&client->replies, data, now);
    sbe_asg_release(&client->replies, now);
    return now;
}

bool sbe_asg_client_doorbell(struct sbe_asg_client *client)
{
    bool owes = client->owes;
    client->owes = false;
    return owes;
}

void sbe_asg_client_remind(struct sbe_asg_client *client)
{
    if (!sbe_asg_client_is_idle(client))
        notify(client);
}
