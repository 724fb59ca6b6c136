/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire format, version 1: the only place it is written down in code (docs/spec/wire.md and
 * docs/spec/control.md describe it in words). All integers are little-endian, all reserved fields
 * are zero and checked.
 */
#ifndef SBE_CORE_WIRE_H
#define SBE_CORE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

#define SBE_VERSION_MIN 1u
#define SBE_VERSION_MAX 1u
#define SBE_MAGIC       0x31454253u /* "SBE1" */

#define SBE_CONTROL_MAX   496u /* bytes of a control message: what an rpmsg message carries */
#define SBE_NAME_SIZE     32u  /* a service's name, zero-padded, at most 31 characters */
#define SBE_SLOT_ALIGN    64u  /* slot sizes are multiples of this */
#define SBE_SLOTS_MAX     65536u
#define SBE_SLOT_SIZE_MAX 65536u
#define SBE_LINE_MAX      1024u

/* Ring memory: producer line, consumer line, slots. A line has one writer. */
struct sbe_ring_producer {
    sbe_shared_u32 head;       /* frames published, free-running */
    sbe_shared_u32 space_wake; /* ring me when tail passes this index */
    sbe_shared_u32 doorbells;  /* doorbells rung for new frames, for observers */
};

struct sbe_ring_consumer {
    sbe_shared_u32 tail;      /* frames consumed, free-running */
    sbe_shared_u32 data_wake; /* ring me when head passes this index */
    sbe_shared_u32 doorbells; /* doorbells rung for new space, for observers */
    sbe_shared_u32 at_work;   /* the request whose handler runs, for observers; 0: none */
};

/* at_work: this, a count that moves while there is progress, the transaction's low 16 bits. */
#define SBE_AT_WORK              0x80000000u
#define SBE_AT_WORK_BEATS        0x7fff0000u
#define SBE_AT_WORK_TRANSACTIONS 0x0000ffffu

/* Frames */
enum sbe_frame_type {
    SBE_FRAME_REQUEST = 1, /* expects a response with the same transaction */
    SBE_FRAME_RESPONSE = 2,
    SBE_FRAME_MESSAGE = 3, /* fire and forget, transaction 0 */
    SBE_FRAME_SYNC = 4,    /* buffers only: moves ownership, calls no service; answered */
    SBE_FRAME_EVENT = 5,   /* from responder to requester, transaction 0 */
    SBE_FRAME_CANCEL = 6,  /* names a transaction that the requester no longer wants */
};

enum sbe_direction { /* seen from the responder */
    SBE_DIR_IN = 1,
    SBE_DIR_OUT = 2,
    SBE_DIR_INOUT = 3, /* IN | OUT */
    SBE_DIR_SHARED = 4,
};

#define SBE_BUFFER_INLINE 0x01u /* the bytes ride in the frame, area and offset are zero */

struct sbe_wire_frame {
    uint32_t size; /* of the whole frame, this header included */
    uint8_t type;
    uint8_t flags; /* reserved, zero */
    uint16_t service;
    uint64_t transaction; /* zero: no transaction */
    int32_t status;       /* responses: zero or a negative errno */
    uint16_t buffer_count;
    uint16_t reserved;
    uint32_t payload_size;
    uint32_t deadline_us; /* requests: drop if not begun within this time, 0 never */
    uint32_t waited_ns;   /* responses: from seen in the ring to begun, saturating */
    uint32_t handled_ns;  /* responses: from begun to answered, saturating */
};

struct sbe_wire_buffer {
    uint32_t area;
    uint8_t direction;
    uint8_t flags;
    uint16_t reserved;
    uint64_t offset; /* bytes into the area */
    uint64_t size;   /* bytes; in a response: bytes really written */
};
/*
 * After the header come buffer_count buffers, payload_size bytes, and the bytes of inline buffers
 * one after the other in buffer order: IN and INOUT ones in a request, OUT and INOUT in a response.
 */

/* Control messages */
enum sbe_control_type {
    SBE_CONTROL_HELLO = 1,
    SBE_CONTROL_BYE = 2,
    SBE_CONTROL_PING = 3,
    SBE_CONTROL_CONTEXT_CREATE = 4,
    SBE_CONTROL_CONTEXT_DESTROY = 5,
    SBE_CONTROL_AREA_MAP = 6,
    SBE_CONTROL_AREA_UNMAP = 7,
    SBE_CONTROL_CHANNEL_OPEN = 8,
    SBE_CONTROL_CHANNEL_CLOSE = 9,
    SBE_CONTROL_SERVICE_FIND = 10,
    SBE_CONTROL_SERVICE_LIST = 11,
    SBE_CONTROL_EVENT = 12,
};
#define SBE_CONTROL_REPLY 0x8000u /* or-ed to the type */

struct sbe_control {
    uint16_t type;
    uint16_t size;  /* exact, this header included */
    uint32_t epoch; /* of the sender */
    uint32_t id;    /* chosen by the requester, repeated by the reply */
    int32_t status; /* replies: zero or a negative errno */
};

enum sbe_role {
    SBE_ROLE_HOST = 1,
    SBE_ROLE_REMOTE = 2
};

enum sbe_refusal { /* why a HELLO is refused */
    SBE_REFUSED_NOT = 0,
    SBE_REFUSED_MAGIC = 1,
    SBE_REFUSED_VERSION = 2,
    SBE_REFUSED_ROLE = 3,
    SBE_REFUSED_LIMITS = 4,
};

struct sbe_limits { /* what an end can hold at most; the smaller of both ends' counts */
    uint32_t areas;
    uint32_t contexts;
    uint32_t channels;
    uint32_t slots;
    uint32_t slot_size; /* bytes */
    uint32_t buffers;   /* per frame */
};

struct sbe_hello {
    struct sbe_control control;
    uint32_t magic;
    uint16_t version_min;
    uint16_t version_max;
    uint32_t peer_epoch; /* the receiver's epoch as last seen, 0 unknown */
    uint8_t role;
    uint8_t coherent;     /* 1: this end's view of areas is cache-coherent */
    uint8_t address_bits; /* width of this end's device addresses */
    uint8_t reserved;
    uint32_t features;   /* none defined, zero is sent, unknown bits are ignored */
    uint32_t cache_line; /* bytes, a power of two */
    struct sbe_limits limits;
    char name[SBE_NAME_SIZE]; /* of the implementation, for people */
};

struct sbe_hello_reply {
    struct sbe_control control;
    uint32_t magic;
    uint16_t version;     /* agreed, 0 when refused */
    uint16_t refusal;     /* enum sbe_refusal */
    uint16_t version_min; /* what the replying end speaks, so that a person can be told */
    uint16_t version_max;
    uint32_t peer_epoch; /* the epoch of the HELLO answered */
};

struct sbe_ping { /* request and reply */
    struct sbe_control control;
    uint64_t cookie;
};

struct sbe_context_message { /* CONTEXT_CREATE, CONTEXT_DESTROY */
    struct sbe_control control;
    uint32_t context;
    uint32_t reserved;
};

#define SBE_AREA_COHERENT 0x01u /* both ends see it without cache maintenance */
#define SBE_AREA_READONLY 0x02u /* the receiver may not write it */
#define SBE_AREA_RING     0x04u /* holds rings; no buffer may name it */
#define SBE_AREA_FLAGS    0x07u

#define SBE_SEGMENT_MIN 4096u /* bytes on average, the first and the last one aside */

struct sbe_segment { /* a run of an area in the receiver's address space */
    uint64_t address;
    uint64_t size;
};

struct sbe_area_map {
    struct sbe_control control;
    uint32_t area; /* index in the low 16 bits, generation (never 0) above */
    uint32_t context;
    uint32_t flags;
    uint32_t handles;       /* that travel beside the message (file descriptors), 0 or 1 */
    uint64_t size;          /* bytes of the whole area */
    uint32_t segment_first; /* 0, or how many former messages with the same fields have carried */
    uint32_t segment_count; /* that follow in this message, 0 when a handle says all */
    /* struct sbe_segment segments[segment_count] */
};

struct sbe_area_unmap {
    struct sbe_control control;
    uint32_t area;
    uint32_t reserved;
};

struct sbe_channel_open {
    struct sbe_control control;
    uint32_t channel;
    uint32_t context;
    uint32_t ring_area;      /* of the same context, flagged SBE_AREA_RING */
    uint32_t slots;          /* power of two */
    uint32_t slot_size;      /* bytes, multiple of SBE_SLOT_ALIGN */
    uint32_t line;           /* bytes between words of different writers */
    uint64_t send_offset;    /* of the ring that the opener produces */
    uint64_t receive_offset; /* of the ring that the opener consumes */
    uint32_t priority;       /* 0 lowest to 3 */
    uint32_t handles;        /* 0, or 2: receiver's doorbell, opener's doorbell */
};

struct sbe_channel_close {
    struct sbe_control control;
    uint32_t channel;
    uint32_t reserved;
};

struct sbe_service_find {
    struct sbe_control control;
    uint32_t context; /* on whose behalf */
    uint16_t version; /* the least that will do, 0 any; -ENOTSUP when there is only an older one */
    uint16_t reserved;
    char name[SBE_NAME_SIZE];
};

struct sbe_service_list {
    struct sbe_control control;
    uint32_t index; /* 0, 1, ... until -ENOENT */
    uint32_t reserved;
};

struct sbe_service_reply { /* to FIND and LIST */
    struct sbe_control control;
    uint16_t service;
    uint16_t version;
    uint32_t reserved;
    char name[SBE_NAME_SIZE];
};

enum sbe_event {
    SBE_EVENT_CHANNEL_BROKEN = 1,
    SBE_EVENT_SUSPEND = 2, /* this and the next two ask for something, and get ANSWERED */
    SBE_EVENT_RESUME = 3,
    SBE_EVENT_FREQUENCY = 4, /* value: kHz, 0 as the receiver likes */
    SBE_EVENT_ANSWERED = 5   /* value: the event it answers, or-ed to an errno, 0 done */
};

#define SBE_ANSWERED_SHIFT 16u /* of the event in ANSWERED's value */

struct sbe_event_message { /* has no reply */
    struct sbe_control control;
    uint32_t event;
    uint32_t value;
};

struct sbe_plain_reply { /* to everything without a reply of its own */
    struct sbe_control control;
};

#define SBE_AT(type, field, at) \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field)
#define SBE_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

SBE_AT(sbe_ring_producer, head, 0);
SBE_AT(sbe_ring_producer, space_wake, 4);
SBE_AT(sbe_ring_producer, doorbells, 8);
SBE_AT(sbe_ring_consumer, tail, 0);
SBE_AT(sbe_ring_consumer, data_wake, 4);
SBE_AT(sbe_ring_consumer, doorbells, 8);
SBE_AT(sbe_ring_consumer, at_work, 12);
SBE_AT(sbe_wire_frame, size, 0);
SBE_AT(sbe_wire_frame, type, 4);
SBE_AT(sbe_wire_frame, flags, 5);
SBE_AT(sbe_wire_frame, service, 6);
SBE_AT(sbe_wire_frame, transaction, 8);
SBE_AT(sbe_wire_frame, status, 16);
SBE_AT(sbe_wire_frame, buffer_count, 20);
SBE_AT(sbe_wire_frame, reserved, 22);
SBE_AT(sbe_wire_frame, payload_size, 24);
SBE_AT(sbe_wire_frame, deadline_us, 28);
SBE_AT(sbe_wire_frame, waited_ns, 32);
SBE_AT(sbe_wire_frame, handled_ns, 36);
SBE_SIZE(sbe_wire_frame, 40);
SBE_AT(sbe_wire_buffer, area, 0);
SBE_AT(sbe_wire_buffer, direction, 4);
SBE_AT(sbe_wire_buffer, flags, 5);
SBE_AT(sbe_wire_buffer, reserved, 6);
SBE_AT(sbe_wire_buffer, offset, 8);
SBE_AT(sbe_wire_buffer, size, 16);
SBE_SIZE(sbe_wire_buffer, 24);
SBE_AT(sbe_control, type, 0);
SBE_AT(sbe_control, size, 2);
SBE_AT(sbe_control, epoch, 4);
SBE_AT(sbe_control, id, 8);
SBE_AT(sbe_control, status, 12);
SBE_SIZE(sbe_control, 16);
SBE_AT(sbe_limits, areas, 0);
SBE_AT(sbe_limits, contexts, 4);
SBE_AT(sbe_limits, channels, 8);
SBE_AT(sbe_limits, slots, 12);
SBE_AT(sbe_limits, slot_size, 16);
SBE_AT(sbe_limits, buffers, 20);
SBE_SIZE(sbe_limits, 24);
SBE_AT(sbe_hello, magic, 16);
SBE_AT(sbe_hello, version_min, 20);
SBE_AT(sbe_hello, version_max, 22);
SBE_AT(sbe_hello, peer_epoch, 24);
SBE_AT(sbe_hello, role, 28);
SBE_AT(sbe_hello, coherent, 29);
SBE_AT(sbe_hello, address_bits, 30);
SBE_AT(sbe_hello, reserved, 31);
SBE_AT(sbe_hello, features, 32);
SBE_AT(sbe_hello, cache_line, 36);
SBE_AT(sbe_hello, limits, 40);
SBE_AT(sbe_hello, name, 64);
SBE_SIZE(sbe_hello, 96);
SBE_AT(sbe_hello_reply, magic, 16);
SBE_AT(sbe_hello_reply, version, 20);
SBE_AT(sbe_hello_reply, refusal, 22);
SBE_AT(sbe_hello_reply, version_min, 24);
SBE_AT(sbe_hello_reply, version_max, 26);
SBE_AT(sbe_hello_reply, peer_epoch, 28);
SBE_SIZE(sbe_hello_reply, 32);
SBE_AT(sbe_ping, cookie, 16);
SBE_SIZE(sbe_ping, 24);
SBE_AT(sbe_context_message, context, 16);
SBE_AT(sbe_context_message, reserved, 20);
SBE_SIZE(sbe_context_message, 24);
SBE_AT(sbe_segment, address, 0);
SBE_AT(sbe_segment, size, 8);
SBE_SIZE(sbe_segment, 16);
SBE_AT(sbe_area_map, area, 16);
SBE_AT(sbe_area_map, context, 20);
SBE_AT(sbe_area_map, flags, 24);
SBE_AT(sbe_area_map, handles, 28);
SBE_AT(sbe_area_map, size, 32);
SBE_AT(sbe_area_map, segment_first, 40);
SBE_AT(sbe_area_map, segment_count, 44);
SBE_SIZE(sbe_area_map, 48);
SBE_AT(sbe_area_unmap, area, 16);
SBE_AT(sbe_area_unmap, reserved, 20);
SBE_SIZE(sbe_area_unmap, 24);
SBE_AT(sbe_channel_open, channel, 16);
SBE_AT(sbe_channel_open, context, 20);
SBE_AT(sbe_channel_open, ring_area, 24);
SBE_AT(sbe_channel_open, slots, 28);
SBE_AT(sbe_channel_open, slot_size, 32);
SBE_AT(sbe_channel_open, line, 36);
SBE_AT(sbe_channel_open, send_offset, 40);
SBE_AT(sbe_channel_open, receive_offset, 48);
SBE_AT(sbe_channel_open, priority, 56);
SBE_AT(sbe_channel_open, handles, 60);
SBE_SIZE(sbe_channel_open, 64);
SBE_AT(sbe_channel_close, channel, 16);
SBE_AT(sbe_channel_close, reserved, 20);
SBE_SIZE(sbe_channel_close, 24);
SBE_AT(sbe_service_find, context, 16);
SBE_AT(sbe_service_find, version, 20);
SBE_AT(sbe_service_find, reserved, 22);
SBE_AT(sbe_service_find, name, 24);
SBE_SIZE(sbe_service_find, 56);
SBE_AT(sbe_service_list, index, 16);
SBE_AT(sbe_service_list, reserved, 20);
SBE_SIZE(sbe_service_list, 24);
SBE_AT(sbe_service_reply, service, 16);
SBE_AT(sbe_service_reply, version, 18);
SBE_AT(sbe_service_reply, reserved, 20);
SBE_AT(sbe_service_reply, name, 24);
SBE_SIZE(sbe_service_reply, 56);
_Static_assert(offsetof(struct sbe_service_find, name) == offsetof(struct sbe_service_reply, name),
               "one check does for both names");
SBE_AT(sbe_event_message, event, 16);
SBE_AT(sbe_event_message, value, 20);
SBE_SIZE(sbe_event_message, 24);
SBE_SIZE(sbe_plain_reply, 16);

#endif
