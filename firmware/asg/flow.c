/* SPDX-License-Identifier: Apache-2.0 */
#include "asg/flow.h"

#include <stdbool.h>
#include <string.h>

#include "core/status.h"

static bool is_power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1u)) == 0;
}

int sbe_asg_check_step(uint32_t buffer_size, uint32_t step)
{
    if (!is_power_of_two(step) || step >= buffer_size / 2u || buffer_size % step != 0)
        return SBE_EINVAL;
    return SBE_OK;
}

int sbe_asg_attach(struct sbe_asg_region *region, void *memory, uint32_t size)
{
    if (!memory || (uintptr_t)memory % sizeof(uint32_t) != 0)
        return SBE_EINVAL;
    if (size < 4 || size > SBE_ASG_BUFFER_MAX)
        return SBE_EINVAL;
    region->storage = memory;
    region->buffer = (uint8_t *)memory + SBE_ASG_STORAGE;
    region->buffer_size = size;
    region->view_size = 1;
    while (region->view_size <= size / 2u)
        region->view_size *= 2u;
    return SBE_OK;
}

static void lay_out_ring(struct sbe_asg_page *page)
{
    sbe_store_relaxed(&page->guest_version, SBE_ASG_VERSION);
    sbe_store_relaxed(&page->write_pos, 0);
    sbe_store_relaxed(&page->read_pos, 0);
    sbe_store_relaxed(&page->read_live_count, 0);
    sbe_store_relaxed(&page->read_yield_count, 0);
    sbe_store_relaxed(&page->read_sleep_us_count, 0);
    sbe_store_relaxed(&page->state, SBE_ASG_NEED_NOTIFY);
}

int sbe_asg_lay_out(const struct sbe_asg_region *region, uint32_t step)
{
    struct sbe_asg_config *config = &region->storage->to_host.config;
    int status = sbe_asg_check_step(region->buffer_size, step);
    if (status != SBE_OK)
        return status;
    lay_out_ring(&region->storage->to_host);
    lay_out_ring(&region->storage->to_host_large);
    lay_out_ring(&region->storage->from_host_large);
    sbe_store_relaxed(&config->buffer_size, region->buffer_size);
    sbe_store_relaxed(&config->flush_interval, step);
    sbe_store_relaxed(&config->host_consumed_pos, 0);
    sbe_store_relaxed(&config->guest_write_pos, 0);
    sbe_store_relaxed(&config->transfer_size, 0);
    sbe_store_relaxed(&config->in_error, 0);
    /* Last, and in order: a server that polls a region of zeroes takes no record before this. */
    sbe_store_release(&config->transfer_mode, SBE_ASG_RECORDS);
    return SBE_OK;
}

struct sbe_asg_flow sbe_asg_flow_write(struct sbe_asg_page *page, uint8_t *bytes, uint32_t size)
{
    struct sbe_asg_flow flow = {page, bytes, size - 1u, sbe_load_acquire(&page->write_pos)};
    return flow;
}

struct sbe_asg_flow sbe_asg_flow_read(struct sbe_asg_page *page, uint8_t *bytes, uint32_t size)
{
    struct sbe_asg_flow flow = {page, bytes, size - 1u, sbe_load_acquire(&page->read_pos)};
    return flow;
}

uint32_t sbe_asg_room(const struct sbe_asg_flow *flow)
{
    /* Acquire: the reader's copies are over before we write over them. */
    return (sbe_load_acquire(&flow->page->read_pos) - flow->mine - 1u) & flow->mask;
}

uint32_t sbe_asg_unread(const struct sbe_asg_flow *flow)
{
    return (flow->mine - sbe_load_acquire(&flow->page->read_pos)) & flow->mask;
}

void sbe_asg_put(struct sbe_asg_flow *flow, const void *data, uint32_t size)
{
    uint32_t at = flow->mine & flow->mask, first = flow->mask + 1u - at;
    if (first > size)
        first = size;
    memcpy(flow->bytes + at, data, first);
    memcpy(flow->bytes, (const uint8_t *)data + first, size - first);
    flow->mine += size;
    sbe_store_release(&flow->page->write_pos, flow->mine);
}

uint32_t sbe_asg_readable(const struct sbe_asg_flow *flow)
{
    return (sbe_load_acquire(&flow->page->write_pos) - flow->mine) & flow->mask;
}

void sbe_asg_peek(const struct sbe_asg_flow *flow, void *data, uint32_t size)
{
    uint32_t at = flow->mine & flow->mask, first = flow->mask + 1u - at;
    if (first > size)
        first = size;
    sbe_snapshot(data, flow->bytes + at, first);
    sbe_snapshot((uint8_t *)data + first, flow->bytes, size - first);
}

void sbe_asg_release(struct sbe_asg_flow *flow, uint32_t size)
{
    flow->mine += size;
    /* Release: our copy is over before the writer may write there. */
    sbe_store_release(&flow->page->read_pos, flow->mine);
}
