/* SPDX-License-Identifier: Apache-2.0 */
/* The link over rpmsg: doorbells, frames of private rings, a bus without buffers, many channels. */
#include "rpmsg_host.h"

#define host  rpmsg_host
#define SLOTS 8u
#define POOL  64u

static struct sbe_kept pool[POOL];
static uint32_t kept, cancelled;

static int later(struct sbe_request *request)
{
    CHECK(kept < POOL);
    int status = sbe_request_keep(request, &pool[kept], NULL, 0);
    if (status < 0)
        return status;
    kept++;
    return SBE_KEPT;
}

static void later_cancel(struct sbe_kept *request)
{
    (void)request;
    cancelled++;
}

SBE_SERVICE_WITH_CANCEL(later, 1, later, later_cancel);

static uint16_t echo_id, later_id;

static void begin(void)
{
    rpmsg_host_begin();
    kept = cancelled = 0;
    echo_id = rpmsg_host_find("echo");
    later_id = rpmsg_host_find("later");
}

static void open_bound(uint32_t id, bool private)
{
    rpmsg_host_open(id, 0, SLOTS, private);
    rpmsg_host_run(2);
    rpmsg_host_bind(id, HOST_ENDPOINT(id));
    rpmsg_host_run(2);
}

static void expect(uint32_t id, uint64_t transaction)
{
    int status = 1;
    CHECK_EQ(rpmsg_host_take(id, &status), transaction);
    CHECK_EQ(status, SBE_OK);
}

static void expect_nothing(uint32_t id)
{
    int status;
    CHECK_EQ(rpmsg_host_take(id, &status), 0);
}

static uint64_t ask(uint32_t id, uint16_t service)
{
    uint64_t transaction = rpmsg_host_ask(id, service);
    rpmsg_host_flush(id);
    return transaction;
}

/* Sleeps with a doorbell asked for, as an application does. */
static void sleep_on(uint32_t id)
{
    expect_nothing(id);
    host.channels[id].rung = 0;
}

static void test_echo(bool private)
{
    begin();
    open_bound(1, private);
    for (uint32_t i = 0; i < 4 * SLOTS; i++) {
        sleep_on(1);
        uint64_t transaction = ask(1, echo_id);
        rpmsg_host_run(2);
        CHECK(host.channels[1].rung == 1);
        expect(1, transaction);
        expect_nothing(1);
    }
    CHECK(!rpmsg_link_waits(&host.link));
}

/* A ring full of calls, more often than the ring has slots: slots that were returned are told. */
static void test_full_rings(bool private)
{
    begin();
    open_bound(1, private);
    uint64_t transactions[SLOTS];
    for (uint32_t round = 0; round < 8; round++) {
        for (uint32_t i = 0; i < SLOTS; i++)
            transactions[i] = rpmsg_host_ask(1, echo_id);
        rpmsg_host_flush(1);
        rpmsg_host_run(4);
        for (uint32_t i = 0; i < SLOTS; i++)
            expect(1, transactions[i]);
        expect_nothing(1);
        rpmsg_host_run(2);
    }
}

/* Nothing comes from the host: the answer is sent as soon as there is one. */
static void test_answered_later(bool private)
{
    begin();
    open_bound(1, private);
    open_bound(2, private);
    uint64_t first = ask(1, later_id), second = ask(2, later_id);
    rpmsg_host_run(4);
    CHECK_EQ(kept, 2);
    sleep_on(1);
    sleep_on(2);
    rpmsg_host_run(2);
    CHECK_EQ(sbe_kept_answer(&pool[1], SBE_OK, NULL, 0), SBE_OK);
    rpmsg_host_run(2);
    CHECK(host.channels[1].rung == 0);
    CHECK(host.channels[2].rung == 1);
    expect(2, second);
    CHECK_EQ(sbe_kept_answer(&pool[0], SBE_OK, NULL, 0), SBE_OK);
    rpmsg_host_run(2);
    CHECK(host.channels[1].rung == 1);
    expect(1, first);
}

/* Doorbells and frames that found no buffer are sent once there is one, each a single time. */
static void test_no_buffers(bool private)
{
    begin();
    uint64_t transactions[5];
    for (uint32_t id = 1; id < 5; id++)
        open_bound(id, private);
    for (uint32_t id = 1; id < 5; id++) {
        sleep_on(id);
        transactions[id] = ask(id, echo_id);
    }
    host.free = 0;
    rpmsg_host_run(2);
    CHECK(rpmsg_link_waits(&host.link));
    CHECK_EQ(host.refused, 4);
    host.free = 3;
    rpmsg_host_run(2);
    CHECK(rpmsg_link_waits(&host.link));
    host.free = 3;
    rpmsg_host_run(2);
    CHECK(!rpmsg_link_waits(&host.link));
    CHECK_EQ(host.free, 2);
    for (uint32_t id = 1; id < 5; id++) {
        CHECK_EQ(host.channels[id].rung, 1);
        expect(id, transactions[id]);
    }
}

/* Answers wait for buffers up to a bound; what is beyond it is not sent, and nothing twice. */
static void test_more_answers_than_wait(void)
{
    begin();
    struct sbe_ping ping = {.control = {.type = SBE_CONTROL_PING, .size = sizeof ping}};
    ping.control.epoch = host.session.epoch;
    host.free = 0;
    for (uint32_t i = 0; i < 2 * RPMSG_LINK_OUTBOX + 1; i++) {
        ping.control.id = 1000 + i; /* the host's session knows none of them */
        rpmsg_host_to_link(host.link.host_address, RPMSG_LINK_CONTROL, &ping, sizeof ping);
        CHECK(host.link.outbox_count <= RPMSG_LINK_OUTBOX);
    }
    host.free = 1000;
    (void)rpmsg_link_run(&host.link);
    CHECK_EQ(1000 - host.free, RPMSG_LINK_OUTBOX);
    CHECK_EQ(host.link.outbox_count, 0);
}

static void test_owed_and_closed(bool private)
{
    begin();
    open_bound(1, private);
    open_bound(2, private);
    sleep_on(1);
    sleep_on(2);
    ask(1, echo_id);
    uint64_t transaction = ask(2, echo_id);
    host.free = 0;
    rpmsg_host_run(2);
    CHECK(rpmsg_link_waits(&host.link));
    host.free = 4; /* for the answers of closing, unmapping, mapping and opening */
    rpmsg_host_close(1);
    rpmsg_host_open(1, 0, SLOTS, private); /* in the same place */
    host.free = UINT32_MAX;
    rpmsg_host_run(4);
    CHECK_EQ(host.channels[1].rung, 0);
    CHECK_EQ(host.channels[2].rung, 1);
    CHECK(!rpmsg_link_waits(&host.link));
    expect(2, transaction);
    rpmsg_host_bind(1, HOST_ENDPOINT(1));
    transaction = ask(1, echo_id);
    rpmsg_host_run(4);
    expect(1, transaction);
}

/* What is there before the endpoint is known goes out when it is. */
static void test_bound_late(bool private)
{
    begin();
    rpmsg_host_open(1, 0, SLOTS, private);
    sleep_on(1);
    if (private) { /* nothing comes in before its endpoint does */
        rpmsg_host_run(2);
    } else {
        ask(1, echo_id);
        rpmsg_host_run(4);
        CHECK_EQ(host.channels[1].rung, 0);
        CHECK(!rpmsg_link_waits(&host.link)); /* for what is no buffer */
    }
    rpmsg_host_bind(1, HOST_ENDPOINT(1));
    if (private)
        ask(1, echo_id);
    rpmsg_host_run(4);
    CHECK_EQ(host.channels[1].rung, 1);
    int status;
    CHECK(rpmsg_host_take(1, &status) != 0);
}

/* The first endpoint keeps its channel; with the channel it is forgotten. */
static void test_endpoints(void)
{
    begin();
    rpmsg_host_open(1, 0, SLOTS, false);
    rpmsg_host_run(4);
    rpmsg_host_bind(1, HOST_ENDPOINT(1));
    rpmsg_host_bind(1, HOST_ENDPOINT(2));
    rpmsg_host_bind(77, HOST_ENDPOINT(3)); /* no such channel */
    sleep_on(1);
    uint64_t transaction = ask(1, echo_id);
    rpmsg_host_run(4);
    CHECK_EQ(host.channels[1].rung, 1);
    CHECK_EQ(host.channels[2].rung, 0);
    expect(1, transaction);
    rpmsg_host_close(1);
    uint32_t served = host.link.engine.served;
    const uint64_t one = 1;
    rpmsg_link_receive(&host.link, HOST_ENDPOINT(1), RPMSG_LINK_DOORBELL, &one, sizeof one);
    rpmsg_host_run(2);
    CHECK_EQ(host.link.engine.served, served);
    rpmsg_host_open(5, 0, SLOTS, false);
    rpmsg_host_bind(5, HOST_ENDPOINT(1)); /* it may speak for another one now */
    sleep_on(5);
    host.channels[1].rung = 0;
    ask(5, echo_id);
    rpmsg_host_run(4);
    CHECK_EQ(host.channels[1].rung, 1); /* that is where it was sent */
}

/* Whatever a place that is unused may be taken for: no address, the former one, no channel. */
static void send_strange(uint32_t channel)
{
    static const uint32_t SOURCES[] = {0, HOST_ENDPOINT(1), HOST_ENDPOINT(2), UINT32_MAX};
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)] = {0};
    for (uint32_t i = 0; i < sizeof SOURCES / sizeof *SOURCES; i++) {
        for (uint32_t size = 0; size <= sizeof message; size += 4)
            rpmsg_host_to_link(SOURCES[i], RPMSG_LINK_DOORBELL, message, size);
        if (SOURCES[i] == 0 || channel == 0) {
            rpmsg_host_bind(channel, SOURCES[i]);
            rpmsg_host_to_link(SOURCES[i], RPMSG_LINK_DOORBELL, message, 4);
        }
    }
    rpmsg_host_run(4);
}

static void test_unused_places(bool private)
{
    begin();
    send_strange(0); /* all places are unused */
    rpmsg_host_open(1, 0, SLOTS, private);
    rpmsg_host_run(4);
    uint32_t served = host.link.engine.served;
    send_strange(1); /* open and unbound: not even its first message may come from nowhere */
    CHECK_EQ(host.link.engine.served, served);
    rpmsg_host_bind(1, HOST_ENDPOINT(1));
    uint64_t transaction = ask(1, echo_id);
    rpmsg_host_run(4);
    expect(1, transaction);
    rpmsg_host_close(1);
    CHECK_EQ(host.gone != NULL, private);
    send_strange(1); /* closed in good order */
    send_strange(0);
    CHECK(rpmsg_host_untouched());
    for (uint32_t i = 0; i < RPMSG_LINK_CHANNELS; i++) {
        CHECK(!host.link.channels[i].private);
        CHECK(host.link.channels[i].mirror.in.producer == NULL);
    }
}

static void test_lost(bool private)
{
    begin();
    open_bound(1, private);
    sleep_on(1);
    ask(1, echo_id);
    host.free = 0;
    rpmsg_host_run(2);
    host.free = UINT32_MAX;
    rpmsg_link_down(&host.link);
    CHECK(!rpmsg_link_waits(&host.link));
    CHECK(!rpmsg_link_run(&host.link));
    rpmsg_link_up(&host.link, 7);
    rpmsg_host_run(2);
    CHECK_EQ(host.channels[1].rung, 0);
}

/* As many as the link can hold, whose endpoints are alike in many bits. */
static void test_many(bool private)
{
    begin();
    uint64_t transactions[RPMSG_LINK_CHANNELS + 1];
    for (uint32_t id = 1; id <= RPMSG_LINK_CHANNELS; id++) {
        rpmsg_host_open(id, 0, 2, private);
        rpmsg_host_bind(id, HOST_ENDPOINT(id));
    }
    rpmsg_host_run(4);
    for (uint32_t id = 1; id <= RPMSG_LINK_CHANNELS; id++)
        sleep_on(id);
    rpmsg_host_run(4);
    for (uint32_t id = RPMSG_LINK_CHANNELS; id > 0; id--)
        transactions[id] = ask(id, echo_id);
    rpmsg_host_run(4);
    for (uint32_t id = 1; id <= RPMSG_LINK_CHANNELS; id++) {
        CHECK_EQ(host.channels[id].rung, 1);
        expect(id, transactions[id]);
    }
    for (uint32_t id = 1; id <= RPMSG_LINK_CHANNELS; id += 3)
        rpmsg_host_close(id);
    for (uint32_t id = 1; id <= RPMSG_LINK_CHANNELS; id++) {
        if (id % 3 == 1)
            continue;
        uint64_t transaction = ask(id, echo_id);
        rpmsg_host_run(4);
        expect(id, transaction);
    }
}

int main(void)
{
    for (uint32_t i = 0; i < 2; i++) {
        bool private = i == 1;
        test_echo(private);
        test_full_rings(private);
        test_answered_later(private);
        test_no_buffers(private);
        test_owed_and_closed(private);
        test_bound_late(private);
        test_lost(private);
        test_unused_places(private);
        test_many(private);
    }
    test_endpoints();
    test_more_answers_than_wait();
    return 0;
}
