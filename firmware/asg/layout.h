/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared region of Address Space Graphics, as that library has it since 2019: three pages of
 * ring storage, then the transfer buffer. Not SBE's wire layout, and nobody's to change.
 */
#ifndef SBE_ASG_LAYOUT_H
#define SBE_ASG_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"

#define SBE_ASG_PAGE        4096u
#define SBE_ASG_STORAGE     (3u * SBE_ASG_PAGE) /* bytes before the transfer buffer */
#define SBE_ASG_SMALL       2048u               /* bytes of the ring for records */
#define SBE_ASG_BUFFER_MAX  0x40000000u         /* bytes: the positions' differences stay apart */
#define SBE_ASG_VERSION     1u /* what who lays a ring out leaves in guest_version */
#define SBE_ASG_RECORD_SIZE 8u

enum sbe_asg_state { /* of the server */
    SBE_ASG_NEED_NOTIFY = 0,
    SBE_ASG_CAN_CONSUME = 1,
    SBE_ASG_EXIT = 2,
    SBE_ASG_ERROR = 3,
    SBE_ASG_RENDERING = 4, /* at work on what it read; it looks again before it sleeps */
};

enum sbe_asg_mode {
    SBE_ASG_RECORDS = 1,   /* type 1: {offset, size} into the transfer buffer */
    SBE_ASG_ADDRESSES = 2, /* type 2: never implemented by anybody */
    SBE_ASG_BYTES = 3,     /* type 3: the transfer buffer is a ring of bytes */
};

struct sbe_asg_record {
    uint32_t offset; /* into the transfer buffer */
    uint32_t size;
};

struct sbe_asg_config {
    sbe_shared_u32 buffer_size;
    sbe_shared_u32 flush_interval; /* bytes from one record's place to the next */
    sbe_shared_u32 host_consumed_pos;
    sbe_shared_u32 guest_write_pos; /* nobody's */
    sbe_shared_u32 transfer_mode;
    sbe_shared_u32 transfer_size; /* of type 3: set by the client, counted down by the server */
    sbe_shared_u32 in_error;
    uint32_t unused[25];
};

struct sbe_asg_page { /* one ring; positions run freely, modulo 2^32 */
    sbe_shared_u32 host_version;
    sbe_shared_u32 guest_version;
    sbe_shared_u32 write_pos;
    uint32_t unused0[13];
    sbe_shared_u32 read_pos;
    sbe_shared_u32 read_live_count;
    sbe_shared_u32 read_yield_count;
    sbe_shared_u32 read_sleep_us_count;
    uint32_t unused1[12];
    uint8_t bytes[SBE_ASG_SMALL];
    sbe_shared_u32 state;
    struct sbe_asg_config config;
    uint8_t rest[SBE_ASG_PAGE - 2308];
};

struct sbe_asg_storage {
    struct sbe_asg_page to_host; /* records; its state and configuration are those in use */
    struct sbe_asg_page to_host_large;
    struct sbe_asg_page from_host_large;
};

_Static_assert(offsetof(struct sbe_asg_page, read_pos) == 64, "as the library has it");
_Static_assert(offsetof(struct sbe_asg_page, bytes) == 128, "as the library has it");
_Static_assert(offsetof(struct sbe_asg_page, state) == 2176, "as the library has it");
_Static_assert(offsetof(struct sbe_asg_page, config) == 2180, "as the library has it");
_Static_assert(sizeof(struct sbe_asg_config) == 128, "as the library has it");
_Static_assert(sizeof(struct sbe_asg_storage) == SBE_ASG_STORAGE, "as the library has it");

#endif
