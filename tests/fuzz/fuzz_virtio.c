/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's end of virtio-rpmsg: both virtqueues and all buffers belong to a driver that writes
 * what it likes, also between any two looks. Nothing is reached but what the driver has shared.
 */
#include "input.h"
#include "ports/virtio/rpmsg.h"
#include "race.h"

#define COUNT_MAX 16u
#define ALIGN     64u
#define BUS       0x10000u /* the pool's bus address */
#define POOL      4096u
#define BUFFER    528u
#define MESSAGE   512u

static struct input input;
static struct rpmsg rpmsg;
static uint8_t *pool, *rings[2];
static uint32_t count;

/* Exactly what the driver has shared, so that ASan sees the byte after it. */
static void *reach(void *self, uint64_t address, uint32_t size)
{
    (void)self;
    if (address < BUS || address - BUS > POOL || size > POOL - (address - BUS))
        return NULL;
    return pool + (address - BUS);
}

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    uint8_t copy[MESSAGE];
    (void)self, (void)destination;
    HOLDS(size <= sizeof copy);
    memcpy(copy, data, size);
    if (source == 7) /* as an answer within the message does */
        (void)rpmsg_send(&rpmsg, 1, source, copy, size);
}

/* The driver offers buffer `id` of a queue, and publishes so many. */
static void offer(uint8_t *ring)
{
    struct {
        uint64_t address;
        uint32_t size;
        uint16_t flags, next;
    } descriptor;
    uint8_t *available = ring + count * sizeof descriptor;
    uint16_t index, id = (uint16_t)number(&input, pick(&input, count));
    uint32_t place = (id & (count - 1u));
    descriptor.address = number(&input, BUS + (place % 7u) * BUFFER);
    descriptor.size = number32(&input, BUFFER);
    descriptor.flags = take_u8(&input);
    descriptor.next = (uint16_t)number(&input, 0);
    memcpy(ring + place * sizeof descriptor, &descriptor, sizeof descriptor);
    memcpy(&index, available + 2, sizeof index);
    memcpy(available + 4 + 2 * (index & (count - 1u)), &id, sizeof id);
    index = (uint16_t)number(&input, index + 1u);
    memcpy(available + 2, &index, sizeof index);
}

static void write_message(void)
{
    uint32_t header[3] = {take_u8(&input) & 7u, 1024u + pick(&input, 2), 0};
    uint16_t size = (uint16_t)number(&input, take_u8(&input));
    uint8_t *at = pool + pick(&input, 7) * BUFFER;
    memcpy(at, header, sizeof header);
    memcpy(at + sizeof header, &size, sizeof size);
    take_bytes(&input, at + 16, take_u8(&input) & 31u);
}

static void driver(void)
{
    race_pause(true);
    uint8_t choice = take_u8(&input);
    if (choice < 80)
        write_message();
    else if (choice < 220)
        offer(rings[choice & 1u]);
    else
        rings[choice & 1u][take_u16(&input) % vring_size(count, ALIGN)] = take_u8(&input);
    race_pause(false);
}

static void send(void)
{
    uint8_t message[MESSAGE];
    uint32_t size = take_u8(&input) * 2u;
    take_bytes(&input, message, pick(&input, 16));
    (void)rpmsg_send(&rpmsg, 1024, 5, message, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 32);
    count = number32(&input, 1u << pick(&input, 5));
    uint32_t legal = count != 0 && count <= COUNT_MAX ? count : COUNT_MAX;
    size_t ring = (vring_size(legal, ALIGN) + 7u) & ~7u, whole = 2 * ring + POOL;
    uint8_t *memory = aligned_alloc(8, whole); /* one region: a race may strike anywhere */
    memset(memory, 0, whole);
    rings[0] = memory;
    rings[1] = memory + ring;
    pool = memory + 2 * ring;
    rpmsg = (struct rpmsg){.received = received};
    bool is_power = count != 0 && (count & (count - 1u)) == 0;
    HOLDS(is_power || !vring_open(&rpmsg.to_host, rings[0], count, ALIGN));
    if (is_power && count <= COUNT_MAX) {
        rpmsg.to_host.reach = rpmsg.from_host.reach = reach;
        HOLDS(vring_open(&rpmsg.to_host, rings[0], count, ALIGN));
        HOLDS(vring_open(&rpmsg.from_host, rings[1], count, ALIGN));
        race_begin(memory, whole, seed, rate);
        for (uint32_t steps = 0; input.left > 0 && steps < 200; steps++) {
            uint8_t choice = take_u8(&input);
            if (choice < 120)
                driver();
            else if (choice < 190)
                HOLDS(rpmsg_receive(&rpmsg, 1 + (choice & 15u)) <= 16);
            else if (choice < 240)
                send();
            else if (choice < 250)
                (void)vring_wants_interrupt(&rpmsg.from_host);
            else
                (void)rpmsg_announce(&rpmsg, "sbe-control", 1024);
        }
        race_end();
    }
    free(memory);
    return 0;
}
