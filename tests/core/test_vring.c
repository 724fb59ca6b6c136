/* SPDX-License-Identifier: Apache-2.0 */
/* The device side of virtqueues, and rpmsg on them, with a driver that writes anything there. */
#include "ports/virtio/vring.h"

#include <string.h>

#include "check.h"
#include "ports/virtio/rpmsg.h"

#define COUNT  8u
#define ALIGN  64u
#define SIZE   512u
#define BEFORE 0xfffcu /* where the 16-bit indices begin: they wrap on the way */

struct descriptor { /* struct vring_desc */
    uint64_t address;
    uint32_t size;
    uint16_t flags;
    uint16_t next;
};

struct queue {
    _Alignas(ALIGN) uint8_t memory[COUNT * sizeof(struct descriptor) + 2 * ALIGN + 8 * COUNT];
    uint8_t buffers[COUNT][SIZE];
    struct vring ring;
};

static struct queue to_host, from_host;
static uint32_t received_count, received_size;

/* Addresses are offsets into the buffers; what leads beyond them is nowhere. */
static void *reach(void *self, uint64_t address, uint32_t size)
{
    struct queue *queue = self;
    if (address > sizeof queue->buffers || size > sizeof queue->buffers - address)
        return NULL;
    return &queue->buffers[0][0] + address;
}

static struct descriptor *descriptor(struct queue *queue, uint32_t index)
{
    return (struct descriptor *)(void *)queue->memory + index;
}

/* Flags, index and entries, which the driver writes. */
static uint16_t *available_of(struct queue *queue)
{
    return (uint16_t *)(void *)(queue->memory + COUNT * sizeof(struct descriptor));
}

static uint16_t *used_of(struct queue *queue)
{
    return (uint16_t *)(void *)queue->ring.used;
}

static void open_queue(struct queue *queue)
{
    memset(queue, 0, sizeof *queue);
    CHECK(vring_size(COUNT, ALIGN) <= sizeof queue->memory);
    CHECK(vring_open(&queue->ring, queue->memory, COUNT, ALIGN));
    queue->ring.reach = reach;
    queue->ring.self = queue;
    queue->ring.taken = queue->ring.given = BEFORE;
    available_of(queue)[1] = used_of(queue)[1] = BEFORE;
    for (uint32_t i = 0; i < COUNT; i++)
        *descriptor(queue, i) = (struct descriptor){i * SIZE, SIZE, 0, 0};
}

/* The driver offers the buffer of this number, which may be none. */
static void offer(struct queue *queue, uint16_t head)
{
    uint16_t *available = available_of(queue);
    available[2 + available[1]++ % COUNT] = head;
}

static void test_open(void)
{
    struct vring ring;
    CHECK(!vring_open(&ring, NULL, COUNT, ALIGN));
    CHECK(!vring_open(&ring, to_host.memory, 0, ALIGN));
    CHECK(!vring_open(&ring, to_host.memory, 6, ALIGN));
    CHECK(!vring_open(&ring, to_host.memory, 65536, ALIGN));
}

static void test_round_trips(void)
{
    struct vring_buffer buffer;
    open_queue(&to_host);
    CHECK(!vring_take(&to_host.ring, &buffer));
    for (uint32_t i = 0; i < 3 * COUNT; i++) {
        offer(&to_host, (uint16_t)(i % COUNT));
        CHECK(vring_take(&to_host.ring, &buffer));
        CHECK(buffer.data == to_host.buffers[i % COUNT]);
        CHECK_EQ(buffer.size, SIZE);
        vring_give(&to_host.ring, &buffer, i);
        uint32_t element[2];
        memcpy(element, to_host.ring.used + 4 + 8 * ((BEFORE + i) % COUNT), sizeof element);
        CHECK_EQ(element[0], i % COUNT);
        CHECK_EQ(element[1], i);
        CHECK_EQ(used_of(&to_host)[1], (uint16_t)(BEFORE + i + 1));
        CHECK(!vring_take(&to_host.ring, &buffer));
    }
}

/* No head leads out of the descriptors, and no descriptor out of what is shared. */
static void test_hostile_heads(void)
{
    for (uint32_t head = COUNT; head < 0x10000u; head = head * 2 + 3) {
        struct vring_buffer buffer;
        open_queue(&to_host);
        offer(&to_host, (uint16_t)head);
        CHECK(vring_take(&to_host.ring, &buffer));
        CHECK(buffer.id < COUNT);
    }
}

static void test_hostile_descriptors(void)
{
    static const struct descriptor BAD[] = {
        {UINT64_MAX, 1, 0, 0}, {UINT64_MAX - 7, SIZE, 0, 0}, {COUNT * SIZE, 1, 0, 0},
        {0, UINT32_MAX, 0, 0}, {COUNT * SIZE - 1, 2, 0, 0},
    };
    for (uint32_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct vring_buffer buffer;
        open_queue(&to_host);
        *descriptor(&to_host, 3) = BAD[i];
        offer(&to_host, 3);
        CHECK(!vring_take(&to_host.ring, &buffer));
        CHECK_EQ(used_of(&to_host)[1], (uint16_t)(BEFORE + 1)); /* given back, unused */
        offer(&to_host, 4);
        CHECK(vring_take(&to_host.ring, &buffer)); /* the next one is served */
    }
}

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    (void)self, (void)source, (void)destination, (void)data;
    received_count++;
    received_size = size;
}

/* Sizes in the message's header and in the descriptor contradict each other. */
static void test_hostile_messages(void)
{
    static const uint32_t SIZES[][3] = {
        /* descriptor, header, received */
        {16, 0, 0}, {16, 65535, 0}, {SIZE, 65535, SIZE - 16}, {SIZE, 5, 5}, {15, 5, 0},
        {0, 5, 0},  {20, 100, 4},
    };
    for (uint32_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        struct rpmsg rpmsg = {.received = received};
        uint16_t size = (uint16_t)SIZES[i][1];
        open_queue(&from_host);
        memset(from_host.buffers[2], 0xff, SIZE);
        memcpy(from_host.buffers[2] + 12, &size, sizeof size);
        descriptor(&from_host, 2)->size = SIZES[i][0];
        rpmsg.from_host = from_host.ring;
        offer(&from_host, 2);
        received_count = 0;
        CHECK_EQ(rpmsg_receive(&rpmsg, 4), 1);
        CHECK_EQ(received_count, 1);
        CHECK_EQ(received_size, SIZES[i][2]);
    }
}

/* An index far ahead is one that counts on: each turn ends, and so does each message. */
static void test_endless_index(void)
{
    struct rpmsg rpmsg = {.received = received};
    open_queue(&from_host);
    available_of(&from_host)[1] = (uint16_t)(BEFORE - 1);
    rpmsg.from_host = from_host.ring;
    received_count = 0;
    for (uint32_t turn = 1; turn <= 100; turn++) {
        CHECK_EQ(rpmsg_receive(&rpmsg, 16), 16);
        CHECK_EQ(received_count, turn * 16);
    }
}

/* No message goes into a buffer that does not hold it. */
static void test_short_buffers(void)
{
    struct rpmsg rpmsg = {.received = received};
    static const uint8_t bytes[100];
    for (uint32_t room = 0; room < 130; room++) {
        open_queue(&to_host);
        memset(to_host.buffers[1], 0xee, SIZE);
        descriptor(&to_host, 1)->size = room;
        rpmsg.to_host = to_host.ring;
        offer(&to_host, 1);
        CHECK_EQ(rpmsg_send(&rpmsg, 1, 2, bytes, sizeof bytes), room >= sizeof bytes + 16);
        CHECK_EQ(to_host.buffers[1][room < sizeof bytes + 16 ? 0 : room], 0xee);
        CHECK(!rpmsg_send(&rpmsg, 1, 2, bytes, sizeof bytes)); /* there was but one */
    }
}

int main(void)
{
    test_open();
    test_round_trips();
    test_hostile_heads();
    test_hostile_descriptors();
    test_hostile_messages();
    test_endless_index();
    test_short_buffers();
    return 0;
}
