/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of an Address Space Graphics stream: alone, and with a hostile peer. */
#include <stddef.h>
#include <string.h>

#include "asg_place.h"

static void test_records_are_packed_into_steps(void)
{
    struct place place;
    uint8_t data[STEP];
    void *at;
    lay_out(&place, 0);
    for (int i = 0; i < 10; i++) { /* ten times 384 bytes fit a step */
        CHECK_EQ(sbe_asg_client_alloc(&place.client, 384, &at), SBE_OK);
        CHECK_EQ((uint8_t *)at - place.client.region.buffer, 384 * i);
    }
    CHECK(!sbe_asg_client_doorbell(&place.client));
    CHECK_EQ(sbe_asg_server_available(&place.server), 0);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 384, &at), SBE_OK); /* the next one */
    CHECK_EQ((uint8_t *)at - place.client.region.buffer, STEP);
    CHECK(sbe_asg_client_doorbell(&place.client));
    CHECK(!sbe_asg_client_doorbell(&place.client));
    CHECK_EQ(sbe_asg_server_read(&place.server, data, sizeof(data)), 3840);
    CHECK_EQ(sbe_asg_server_read(&place.server, data, sizeof(data)), SBE_EAGAIN);
    CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
    CHECK_EQ(sbe_asg_server_read(&place.server, data, 100), 100);
    CHECK(!sbe_asg_client_is_idle(&place.client)); /* a part of it is unread */
    CHECK_EQ(sbe_asg_server_read(&place.server, data, sizeof(data)), 284);
    CHECK(sbe_asg_client_is_idle(&place.client));
    CHECK_EQ(sbe_load_relaxed(&storage_of(&place)->to_host.config.host_consumed_pos), 4224);
}

static void test_steps_in_use_are_not_written(void)
{
    struct place place;
    uint8_t data[STEP];
    void *at;
    lay_out(&place, 0xfffffffcu); /* and the positions wrap */
    for (uint32_t i = 0; i < SIZE / STEP - 1u; i++) {
        CHECK_EQ(sbe_asg_client_alloc(&place.client, STEP, &at), SBE_OK);
        fill(at, STEP, (uint64_t)i * STEP, 0);
        CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
    }
    CHECK_EQ(sbe_asg_client_alloc(&place.client, STEP, &at), SBE_OK);
    fill(at, STEP, 3 * STEP, 0);
    CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_EAGAIN);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_EAGAIN);
    CHECK_EQ(sbe_asg_server_read(&place.server, data, STEP), STEP);
    check(data, STEP, 0, 0);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_OK);
    CHECK_EQ((uint8_t *)at - place.client.region.buffer, 0);
    for (uint32_t i = 1; i < 4; i++) {
        CHECK_EQ(sbe_asg_server_read(&place.server, data, STEP), STEP);
        check(data, STEP, (uint64_t)i * STEP, 0);
    }
}

static void test_large_transfers_and_replies(void)
{
    static struct place place;
    static uint8_t sent[3 * SIZE], got[3 * SIZE];
    uint32_t done = 0, taken = 0;
    lay_out(&place, 0xffffff00u);
    fill(sent, sizeof(sent), 0, 1);
    int status;
    while ((status = sbe_asg_client_send(&place.client, sent, sizeof(sent), &done, true)) !=
           SBE_OK) {
        CHECK_EQ(status, SBE_EAGAIN);
        CHECK(sbe_load_relaxed(&storage_of(&place)->to_host.config.transfer_size) != 0);
        int64_t n = sbe_asg_server_read(&place.server, got + taken, 5000);
        CHECK(n > 0);
        taken += (uint32_t)n;
    }
    CHECK_EQ(taken, sizeof(sent));
    CHECK(memcmp(sent, got, sizeof(sent)) == 0);
    struct sbe_asg_config *config = &storage_of(&place)->to_host.config;
    CHECK_EQ(sbe_load_relaxed(&config->transfer_size), 0);
    CHECK_EQ(sbe_load_relaxed(&config->transfer_mode), SBE_ASG_RECORDS);

    CHECK_EQ(sbe_asg_client_read(&place.client, got, 10), SBE_EAGAIN);
    CHECK_EQ(sbe_asg_server_reply(&place.server, sent, sizeof(sent)), SIZE - 1);
    CHECK_EQ(sbe_asg_server_reply(&place.server, sent, sizeof(sent)), SBE_EAGAIN);
    void *at;
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_EBUSY);
    done = 0;
    CHECK_EQ(sbe_asg_client_send(&place.client, sent, 1, &done, true), SBE_EBUSY);
    CHECK_EQ(sbe_asg_client_read(&place.client, got, sizeof(got)), SIZE - 1);
    CHECK(memcmp(sent, got, SIZE - 1) == 0);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_OK);
    check_beyond(&place);
}

static void test_states(void)
{
    static struct place place;
    uint8_t byte = 0;
    void *at;
    lay_out(&place, 0);
    sbe_shared_u32 *state = &storage_of(&place)->to_host.state;
    CHECK_EQ(sbe_asg_server_read(&place.server, &byte, 1), SBE_EAGAIN);
    CHECK_EQ(sbe_load_relaxed(state), SBE_ASG_CAN_CONSUME);
    CHECK(sbe_asg_server_may_sleep(&place.server));
    CHECK_EQ(sbe_load_relaxed(state), SBE_ASG_NEED_NOTIFY);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_OK);
    CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
    CHECK(sbe_asg_client_doorbell(&place.client));
    CHECK(!sbe_asg_server_may_sleep(&place.server));
    CHECK_EQ(sbe_asg_server_reply(&place.server, &byte, 1), SBE_EBUSY);
    sbe_asg_client_remind(&place.client); /* as for one that has overlooked the bytes */
    CHECK(sbe_asg_client_doorbell(&place.client));
    CHECK_EQ(sbe_asg_server_read(&place.server, &byte, 1), 1);
    CHECK_EQ(sbe_load_relaxed(state), SBE_ASG_RENDERING);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 1, &at), SBE_OK);
    CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
    CHECK(!sbe_asg_client_doorbell(&place.client)); /* it looks again by itself */
    sbe_asg_server_close(&place.server, false);
    CHECK_EQ(sbe_asg_server_read(&place.server, &byte, 1), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_asg_client_read(&place.client, &byte, 1), SBE_ENOTCONN);
}

/* Whoever attaches second finds what the first has written: nothing is reset. */
static void test_attaching_resets_nothing(void)
{
    static struct place place;
    uint8_t data[4];
    void *at;
    lay_out(&place, 0);
    CHECK_EQ(sbe_asg_client_alloc(&place.client, 4, &at), SBE_OK);
    memcpy(at, "abcd", 4);
    CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
    CHECK_EQ(sbe_asg_server_attach(&place.server, place.memory, SIZE), SBE_OK);
    CHECK_EQ(sbe_asg_server_read(&place.server, data, 4), 4);
    CHECK(memcmp(data, "abcd", 4) == 0);
    CHECK_EQ(sbe_asg_client_attach(&place.client, place.memory, SIZE), SBE_OK);
    CHECK(sbe_asg_client_is_idle(&place.client));
}

static void test_configurations_that_nobody_can_work_with(void)
{
    static struct place place;
    struct sbe_asg_region region;
    struct sbe_asg_client client;
    CHECK_EQ(sbe_asg_attach(&region, NULL, SIZE), SBE_EINVAL);
    CHECK_EQ(sbe_asg_attach(&region, place.memory + 1, SIZE), SBE_EINVAL);
    CHECK_EQ(sbe_asg_attach(&region, place.memory, 3), SBE_EINVAL);
    CHECK_EQ(sbe_asg_attach(&region, place.memory, SBE_ASG_BUFFER_MAX + 1u), SBE_EINVAL);
    CHECK_EQ(sbe_asg_attach(&region, place.memory, 3 * STEP + 5), SBE_OK);
    CHECK_EQ(region.view_size, 2 * STEP);
    CHECK_EQ(sbe_asg_attach(&region, place.memory, SIZE), SBE_OK);
    CHECK_EQ(region.view_size, SIZE);
    const uint32_t wrong[] = {0, 3, 4095, SIZE / 2, SIZE, 0x80000000u, 0xffffffffu};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_EQ(sbe_asg_lay_out(&region, wrong[i]), SBE_EINVAL);
        lay_out(&place, 0);
        sbe_store_relaxed(&storage_of(&place)->to_host.config.flush_interval, wrong[i]);
        CHECK_EQ(sbe_asg_client_attach(&client, place.memory, SIZE), SBE_EINVAL);
        /* After it has attached, a change of what is shared changes nothing for it. */
        void *at;
        for (uint32_t step = 0; step < 3; step++) {
            CHECK_EQ(sbe_asg_client_alloc(&place.client, STEP, &at), SBE_OK);
            memset(at, 1, STEP);
            CHECK_EQ(sbe_asg_client_flush(&place.client), SBE_OK);
        }
        check_beyond(&place);
    }
    lay_out(&place, 0);
    sbe_store_relaxed(&storage_of(&place)->to_host.config.buffer_size, 2 * SIZE);
    CHECK_EQ(sbe_asg_client_attach(&client, place.memory, SIZE), SBE_EPROTO);
}

static void expect_refusal(struct place *place)
{
    static uint8_t data[2 * SIZE];
    struct sbe_asg_storage *storage = storage_of(place);
    CHECK_EQ(sbe_asg_server_read(&place->server, data, sizeof(data)), SBE_EPROTO);
    CHECK_EQ(sbe_asg_server_reply(&place->server, data, 1), SBE_EPROTO);
    CHECK_EQ(sbe_load_relaxed(&storage->to_host.state), SBE_ASG_ERROR);
    CHECK_EQ(sbe_load_relaxed(&storage->to_host.config.in_error), 1);
    CHECK_EQ(sbe_asg_client_read(&place->client, data, 1), SBE_EPROTO);
    check_beyond(place);
}

static void test_a_hostile_client(void)
{
    static struct place place;
    const struct sbe_asg_record wrong[] = {
        {SIZE, 1}, {0, SIZE + 1}, {1, SIZE}, {0xffffffffu, 2}, {0, 0x40000000u}, {2, 0xffffffffu},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        lay_out(&place, 0x7fcu); /* the record lies across the ring's end */
        sbe_asg_put(&place.client.records, &wrong[i], sizeof(wrong[i]));
        expect_refusal(&place);
    }
    struct sbe_asg_record right = {0, 1};
    for (uint32_t mode = 0; mode < 5; mode++) {
        if (mode == SBE_ASG_RECORDS)
            continue;
        lay_out(&place, 0);
        sbe_store_relaxed(&storage_of(&place)->to_host.config.transfer_mode, mode);
        sbe_asg_put(&place.client.records, &right, sizeof(right));
        expect_refusal(&place);
    }
    lay_out(&place, 0); /* bytes that were not announced */
    sbe_asg_put(&place.client.large, "abc", 3);
    sbe_store_relaxed(&storage_of(&place)->to_host.config.transfer_size, 2);
    expect_refusal(&place);

    uint8_t data[16];
    lay_out(&place, 0); /* records of nothing are no loop and no data */
    struct sbe_asg_record empty = {SIZE, 0};
    for (int i = 0; i < 255; i++)
        sbe_asg_put(&place.client.records, &empty, sizeof(empty));
    CHECK_EQ(sbe_asg_server_read(&place.server, data, sizeof(data)), SBE_EAGAIN);
    lay_out(&place, 0); /* positions that leap stay in the ring */
    sbe_store_relaxed(&storage_of(&place)->to_host.write_pos, 0x12345677u);
    CHECK(sbe_asg_readable(&place.server.records) < SBE_ASG_SMALL);
    sbe_store_relaxed(&storage_of(&place)->from_host_large.read_pos, 0xdeadbeefu);
    CHECK(sbe_asg_room(&place.server.replies) < SIZE);
    check_beyond(&place);
}

int main(void)
{
    test_records_are_packed_into_steps();
    test_steps_in_use_are_not_written();
    test_large_transfers_and_replies();
    test_states();
    test_attaching_resets_nothing();
    test_configurations_that_nobody_can_work_with();
    test_a_hostile_client();
    return 0;
}
