/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control rings of a carve-out link and the tokens of its doorbells: both ends in one process,
 * started, killed and started again in all orders, over any content of the window.
 */
#include <string.h>

#include "carveout/bootstrap.h"
#include "carveout/token.h"
#include "check.h"

static _Alignas(SBE_CARVEOUT_LINE) uint8_t window[SBE_CARVEOUT_WINDOW_MIN];
static struct sbe_bootstrap host, remote;

static uint32_t state = 1;

static uint32_t draw(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static void start(struct sbe_bootstrap *end)
{
    CHECK_EQ(sbe_bootstrap_start(end, window, end == &host ? SBE_ROLE_HOST : SBE_ROLE_REMOTE, 0),
             SBE_OK);
}

/* Both look until nothing changes. */
static void meet(void)
{
    for (uint32_t i = 0; i < 6; i++) {
        (void)sbe_bootstrap_look(&host);
        (void)sbe_bootstrap_look(&remote);
    }
    CHECK_EQ(host.state, SBE_BOOTSTRAP_READY);
    CHECK_EQ(remote.state, SBE_BOOTSTRAP_READY);
}

static void exchange(struct sbe_bootstrap *from, struct sbe_bootstrap *to, uint32_t count)
{
    uint8_t message[SBE_CONTROL_MAX], got[SBE_CONTROL_MAX];
    bool ring;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = 1 + draw(SBE_CONTROL_MAX);
        memset(message, (int)draw(256), size);
        CHECK(sbe_bootstrap_send(from, message, size) >= 0);
        CHECK_EQ(sbe_bootstrap_receive(to, got, &ring), size);
        CHECK(memcmp(message, got, size) == 0);
    }
    CHECK_EQ(sbe_bootstrap_receive(to, got, &ring), 0);
}

static void works(void)
{
    exchange(&host, &remote, 40);
    exchange(&remote, &host, 40);
}

static void any_content(void)
{
    for (uint32_t round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < SBE_CARVEOUT_ARENA; i++)
            window[i] = round == 0 ? 0 : round == 1 ? 0xff : (uint8_t)draw(256);
        start(round % 2 == 0 ? &host : &remote);
        (void)sbe_bootstrap_look(round % 2 == 0 ? &host : &remote);
        start(round % 2 == 0 ? &remote : &host);
        meet();
        works();
    }
}

/* Random steps of two ends that live and die; then both look, and it works. */
static void any_order(void)
{
    uint8_t message[SBE_CONTROL_MAX] = {7};
    uint32_t lost = 0;
    bool ring;
    memset(window, 0, sizeof window);
    start(&host);
    start(&remote);
    for (uint32_t round = 0; round < 20000; round++) {
        for (uint32_t step = draw(12); step > 0; step--) {
            struct sbe_bootstrap *end = draw(2) == 0 ? &host : &remote;
            switch (draw(8)) {
            case 0:
                start(end);
                break;
            case 1:
            case 2:
            case 3:
                if (sbe_bootstrap_look(end) == SBE_ECONNRESET)
                    lost++;
                break;
            case 4:
            case 5:
                (void)sbe_bootstrap_send(end, message, 1 + draw(SBE_CONTROL_MAX));
                break;
            default:
                (void)sbe_bootstrap_receive(end, message, &ring);
            }
        }
        start(&host); /* what a host does when it finds anything odd */
        meet();
        works();
    }
    CHECK(lost > 1000);
}

/* Each end dies after each of its steps; the other must notice or not care. */
static void a_restart_is_noticed(void)
{
    for (uint32_t which = 0; which < 2; which++) {
        struct sbe_bootstrap *end = which == 0 ? &host : &remote;
        struct sbe_bootstrap *other = which == 0 ? &remote : &host;
        memset(window, 0, sizeof window);
        start(&host);
        start(&remote);
        meet();
        works();
        start(end);
        CHECK_EQ(sbe_bootstrap_look(other), SBE_ECONNRESET);
        meet();
        works();
        /* Twice without a look of the other. */
        start(end);
        (void)sbe_bootstrap_look(end);
        start(end);
        CHECK_EQ(sbe_bootstrap_look(other), SBE_ECONNRESET);
        meet();
        works();
        /* With its memory lost. */
        memset(end->own, 0, sizeof *end->own);
        start(end);
        CHECK_EQ(sbe_bootstrap_look(other), SBE_ECONNRESET);
        meet();
        works();
    }
}

static void scribbles(void)
{
    for (uint32_t round = 0; round < 20000; round++) {
        if (round % 100 == 0) {
            memset(window, 0, sizeof window);
            start(&host);
            start(&remote);
            meet();
        }
        uint8_t message[SBE_CONTROL_MAX];
        bool ring;
        uint32_t at = draw(4) == 0 ? draw(0x200) : draw(SBE_CARVEOUT_ARENA);
        for (uint32_t size = 1 + draw(64); size > 0; size--)
            window[(at + size) % SBE_CARVEOUT_ARENA] = (uint8_t)draw(256);
        for (uint32_t i = 0; i < 20; i++) {
            (void)sbe_bootstrap_look(&host);
            (void)sbe_bootstrap_look(&remote);
            (void)sbe_bootstrap_send(&host, message, 1);
            (void)sbe_bootstrap_send(&remote, message, 1);
            (void)sbe_bootstrap_receive(&host, message, &ring);
            (void)sbe_bootstrap_receive(&remote, message, &ring);
        }
        start(&host);
        meet();
        works();
    }
}

static void other_layout(void)
{
    memset(window, 0, sizeof window);
    start(&host);
    start(&remote);
    CHECK_EQ(sbe_bootstrap_other_version(&host), 0);
    sbe_store_relaxed(&remote.own->version, 7);
    CHECK_EQ(sbe_bootstrap_other_version(&host), 7);
    CHECK_EQ(sbe_bootstrap_look(&host), SBE_OK);
    CHECK_EQ(host.state, SBE_BOOTSTRAP_WAITING);
}

static void full(void)
{
    uint8_t message[SBE_CONTROL_MAX] = {1};
    bool ring;
    start(&host);
    start(&remote);
    meet();
    CHECK_EQ(sbe_bootstrap_send(&host, message, 0), SBE_EMSGSIZE);
    CHECK_EQ(sbe_bootstrap_send(&host, message, SBE_CONTROL_MAX + 1), SBE_EMSGSIZE);
    for (uint32_t i = 0; i < SBE_CARVEOUT_SLOTS; i++)
        CHECK(sbe_bootstrap_send(&host, message, 1) >= 0);
    CHECK_EQ(sbe_bootstrap_send(&host, message, 1), SBE_EAGAIN);
    CHECK_EQ(sbe_bootstrap_room(&host, 3), 0);
    for (uint32_t i = 1; i <= 3; i++) { /* it is rung when there is room for three */
        CHECK_EQ(sbe_bootstrap_receive(&remote, message, &ring), 1);
        CHECK_EQ(ring, i == 3);
    }
    CHECK_EQ(sbe_bootstrap_room(&host, 3), 3);
}

static void tokens(void)
{
    struct sbe_token_reader reader = {0};
    uint8_t bytes[SBE_TOKEN_MAX];
    uint32_t got = 0;
    for (uint32_t i = 0; i < 300000; i++) {
        uint32_t token = i < 70000 ? i : draw(1u << 24) << draw(9);
        uint32_t count = sbe_token_write(token, bytes);
        CHECK(count >= 1 && count <= SBE_TOKEN_MAX);
        if (i % 7 == 0) { /* cut short: the next one is whole all the same */
            (void)sbe_token_read(&reader, (uint8_t)(0x90u + draw(0x30)), &got);
        }
        for (uint32_t at = 0; at < count; at++)
            CHECK_EQ(sbe_token_read(&reader, bytes[at], &got), at + 1 == count);
        CHECK_EQ(got, token);
    }
    CHECK_EQ(sbe_token_write(UINT32_MAX, bytes), SBE_TOKEN_MAX);
    CHECK_EQ(sbe_token_write(SBE_TOKEN_CHANNEL(7), bytes), 1);
    for (uint32_t i = 0; i < 100000; i++)
        (void)sbe_token_read(&reader, (uint8_t)draw(256), &got);
    CHECK(reader.lost > 0);
}

/* Only one end can see the breakage: what was scribbled over, the other has written again. */
static void a_broken_ring_is_told(void)
{
    uint8_t message[SBE_CONTROL_MAX] = {7};
    bool ring;
    memset(window, 0, sizeof window);
    start(&host);
    start(&remote);
    meet();
    struct sbe_ring_producer *sent = (void *)host.send_memory;
    sbe_store_relaxed(&sent->head, 1000);
    CHECK_EQ(sbe_bootstrap_receive(&remote, message, &ring), SBE_EPROTO);
    sbe_bootstrap_shut(&remote);
    CHECK(remote.changed);
    for (uint32_t i = 0; i < 4; i++) /* no more of that host, though it is still there */
        CHECK_EQ(sbe_bootstrap_look(&remote), SBE_OK);
    CHECK_EQ(remote.state, SBE_BOOTSTRAP_WAITING);
    CHECK_EQ(sbe_bootstrap_receive(&remote, message, &ring), 0);
    CHECK_EQ(sbe_bootstrap_look(&host), SBE_ECONNRESET);
    start(&host);
    meet();
    works();
}

int main(void)
{
    any_content();
    a_restart_is_noticed();
    any_order();
    scribbles();
    a_broken_ring_is_told();
    other_layout();
    full();
    tokens();
    return 0;
}
