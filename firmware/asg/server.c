/* SPDX-License-Identifier: Apache-2.0 */
#include "asg/server.h"

#include "core/status.h"

static struct sbe_asg_config *config_of(const struct sbe_asg_server *server)
{
    return &server->region.storage->to_host.config;
}

static void show(struct sbe_asg_server *server, enum sbe_asg_state state)
{
    server->sleeping = state == SBE_ASG_NEED_NOTIFY;
    sbe_store_release(&server->region.storage->to_host.state, state);
}

int sbe_asg_server_attach(struct sbe_asg_server *server, void *memory, uint32_t size)
{
    struct sbe_asg_server fresh = {.ended = SBE_OK, .sleeping = true};
    int status = sbe_asg_attach(&fresh.region, memory, size);
    if (status != SBE_OK)
        return status;
    struct sbe_asg_storage *storage = fresh.region.storage;
    fresh.records = sbe_asg_flow_read(&storage->to_host, storage->to_host.bytes, SBE_ASG_SMALL);
    fresh.large =
        sbe_asg_flow_read(&storage->to_host_large, fresh.region.buffer, fresh.region.view_size);
    fresh.replies =
        sbe_asg_flow_write(&storage->from_host_large, fresh.region.buffer, fresh.region.view_size);
    *server = fresh;
    return SBE_OK;
}

static int refuse(struct sbe_asg_server *server)
{
    server->ended = SBE_EPROTO;
    sbe_asg_server_close(server, true);
    return server->ended;
}

void sbe_asg_server_close(struct sbe_asg_server *server, bool failed)
{
    if (server->ended == SBE_OK)
        server->ended = SBE_ESHUTDOWN;
    if (failed)
        sbe_store_relaxed(&config_of(server)->in_error, 1);
    show(server, failed ? SBE_ASG_ERROR : SBE_ASG_EXIT);
}

static void retire(struct sbe_asg_server *server)
{
    struct sbe_asg_config *config = config_of(server);
    uint32_t consumed = sbe_load_relaxed(&config->host_consumed_pos);
    sbe_store_relaxed(&config->host_consumed_pos, consumed + server->record.size);
    server->record.size = server->taken = 0;
    sbe_asg_release(&server->records, SBE_ASG_RECORD_SIZE);
}

/* The record that is next, if there is one with bytes: these, 0, or a status. */
static int64_t find_record(struct sbe_asg_server *server)
{
    while (server->record.size == 0) {
        if (sbe_asg_readable(&server->records) < SBE_ASG_RECORD_SIZE)
            return 0;
        if (sbe_load_relaxed(&config_of(server)->transfer_mode) != SBE_ASG_RECORDS)
            return refuse(server);
        struct sbe_asg_record record;
        sbe_asg_peek(&server->records, &record, sizeof(record));
        if (record.offset > server->region.buffer_size ||
            record.size > server->region.buffer_size - record.offset)
            return refuse(server);
        server->record = record;
        if (record.size == 0)
            retire(server);
    }
    return server->record.size - server->taken;
}

static uint32_t bytes_announced(const struct sbe_asg_server *server)
{
    return sbe_load_acquire(&config_of(server)->transfer_size);
}

int64_t sbe_asg_server_available(struct sbe_asg_server *server)
{
    if (server->ended != SBE_OK)
        return server->ended;
    int64_t bytes = find_record(server);
    if (bytes != 0)
        return bytes;
    uint32_t large = sbe_asg_readable(&server->large);
    if (large == 0)
        return 0;
    /* Set before the first byte was shown, and by nobody but us while there are some. */
    uint32_t announced = bytes_announced(server);
    if (announced < large)
        return refuse(server);
    return large;
}

static void take_record(struct sbe_asg_server *server, void *data, uint32_t size)
{
    sbe_snapshot(data, server->region.buffer + server->record.offset + server->taken, size);
    server->taken += size;
    if (server->taken == server->record.size)
        retire(server);
}

static void take_large(struct sbe_asg_server *server, uint8_t *data, uint32_t size)
{
    struct sbe_asg_page *page = server->large.page;
    uint32_t half = server->region.view_size / 2u;
    /* Before the last byte is given back: the client may announce its next transfer then. */
    sbe_store_release(&config_of(server)->transfer_size, bytes_announced(server) - size);
    while (size != 0) {
        uint32_t now = size < half ? size : half;
        sbe_asg_peek(&server->large, data, now);
        sbe_store_relaxed(&page->read_live_count, sbe_load_relaxed(&page->read_live_count) + 1u);
        sbe_asg_release(&server->large, now);
        data += now;
        size -= now;
    }
}

int64_t sbe_asg_server_read(struct sbe_asg_server *server, void *data, uint32_t size)
{
    if (server->ended != SBE_OK)
        return server->ended;
    if (server->sleeping)
        show(server, SBE_ASG_CAN_CONSUME);
    int64_t bytes = sbe_asg_server_available(server);
    if (bytes <= 0)
        return bytes == 0 ? SBE_EAGAIN : bytes;
    uint32_t now = bytes < size ? (uint32_t)bytes : size;
    if (server->record.size != 0)
        take_record(server, data, now);
    else
        take_large(server, data, now);
    show(server, SBE_ASG_RENDERING);
    return now;
}

bool sbe_asg_server_may_sleep(struct sbe_asg_server *server)
{
    show(server, SBE_ASG_NEED_NOTIFY);
    /* Our state before the client's positions: it shows these and then looks at our state. */
    sbe_full_barrier();
    if (sbe_asg_server_available(server) == 0)
        return true;
    if (server->ended == SBE_OK)
        show(server, SBE_ASG_CAN_CONSUME);
    return false;
}

int64_t sbe_asg_server_reply(struct sbe_asg_server *server, const void *data, uint32_t size)
{
    int64_t waiting = sbe_asg_server_available(server);
    if (waiting != 0)
        return waiting < 0 ? waiting : SBE_EBUSY;
    uint32_t room = sbe_asg_room(&server->replies), now = room < size ? room : size;
    if (now == 0)
        return size == 0 ? 0 : SBE_EAGAIN;
    sbe_asg_put(&server->replies, data, now);
    return now;
}
