/* SPDX-License-Identifier: Apache-2.0 */
/* A region of an Address Space Graphics stream, both its ends, and what flows through it. */
#ifndef SBE_TESTS_ASG_PLACE_H
#define SBE_TESTS_ASG_PLACE_H

#include <stdint.h>
#include <string.h>

#include "asg/client.h"
#include "asg/server.h"
#include "check.h"
#include "core/status.h"

#define SIZE   16384u
#define STEP   4096u
#define BEYOND 64u /* bytes behind the region that nobody may write */

struct place {
    _Alignas(64) uint8_t memory[SBE_ASG_STORAGE + SIZE + BEYOND];
    struct sbe_asg_client client;
    struct sbe_asg_server server;
};

static inline struct sbe_asg_storage *storage_of(struct place *place)
{
    return (struct sbe_asg_storage *)(void *)place->memory;
}

static inline void lay_out(struct place *place, uint32_t start)
{
    struct sbe_asg_region region;
    memset(place->memory, 0x5a, sizeof(place->memory));
    CHECK_EQ(sbe_asg_attach(&region, place->memory, SIZE), SBE_OK);
    CHECK_EQ(sbe_asg_lay_out(&region, STEP), SBE_OK);
    struct sbe_asg_page *pages[] = {&region.storage->to_host, &region.storage->to_host_large,
                                    &region.storage->from_host_large};
    for (int i = 0; i < 3; i++) {
        sbe_store_relaxed(&pages[i]->write_pos, start);
        sbe_store_relaxed(&pages[i]->read_pos, start);
    }
    CHECK_EQ(sbe_asg_client_attach(&place->client, place->memory, SIZE), SBE_OK);
    CHECK_EQ(sbe_asg_server_attach(&place->server, place->memory, SIZE), SBE_OK);
}

static inline void check_beyond(const struct place *place)
{
    for (uint32_t i = 0; i < BEYOND; i++)
        CHECK_EQ(place->memory[SBE_ASG_STORAGE + SIZE + i], 0x5a);
}

/* The byte at a place of one direction's stream. */
static inline uint8_t byte_of(uint64_t at, uint32_t direction)
{
    return (uint8_t)((at * 0x9e3779b97f4a7c15u + direction) >> 32);
}

static inline void fill(uint8_t *data, uint32_t size, uint64_t at, uint32_t direction)
{
    for (uint32_t i = 0; i < size; i++)
        data[i] = byte_of(at + i, direction);
}

static inline void check(const uint8_t *data, uint32_t size, uint64_t at, uint32_t direction)
{
    for (uint32_t i = 0; i < size; i++)
        CHECK_EQ(data[i], byte_of(at + i, direction));
}

#endif
