/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of an Address Space Graphics stream in a thread each: the original's random traffic. */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

#include "asg_place.h"
#include "bell.h"

struct run {
    struct place place;
    uint32_t rounds, step;
    int bell;
    uint32_t rung;
};

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

enum traffic {
    WRITE,
    SEND,
    SEND_ASYNC,
    READ
};

static enum traffic next_traffic(uint64_t *seed, uint32_t *size)
{
    uint32_t kind = next_random(seed) % 100;
    *size = 1 + next_random(seed) % 8190;
    if (kind < 2)
        return READ;
    if (*size <= STEP)
        return WRITE;
    return kind % 2 ? SEND : SEND_ASYNC;
}

static void ring(struct run *run)
{
    if (sbe_asg_client_doorbell(&run->place.client)) {
        run->rung++;
        ring_bell(run->bell);
    }
}

static void *be_client(void *argument)
{
    struct run *run = argument;
    struct sbe_asg_client *client = &run->place.client;
    uint64_t seed = 7, out = 0, in = 0;
    static uint8_t data[8192];
    for (uint32_t i = 0; i < run->rounds; i++) {
        uint32_t size, done = 0;
        enum traffic what = next_traffic(&seed, &size);
        void *at;
        int64_t status;
        if (what == SEND || what == SEND_ASYNC)
            fill(data, size, out, 0);
        do {
            if (what == WRITE) {
                status = sbe_asg_client_alloc(client, size, &at);
                if (status == SBE_OK)
                    fill(at, size, out, 0);
            } else if (what == READ) {
                status = sbe_asg_client_read(client, data + done, size - done);
                done += status > 0 ? (uint32_t)status : 0;
                if (status > 0)
                    status = done == size ? SBE_OK : SBE_EAGAIN;
            } else {
                status = sbe_asg_client_send(client, data, size, &done, what == SEND);
            }
            ring(run);
            CHECK(status == SBE_OK || status == SBE_EAGAIN);
            if (status == SBE_EAGAIN)
                sched_yield();
        } while (status != SBE_OK);
        if (what == READ) {
            check(data, size, in, 1);
            in += size;
        } else {
            out += size;
        }
    }
    while (sbe_asg_client_flush(client) != SBE_OK)
        sched_yield();
    ring(run);
    return NULL;
}

static void be_server(struct run *run)
{
    struct sbe_asg_server *server = &run->place.server;
    uint64_t seed = 7, in = 0, out = 0;
    static uint8_t data[8192];
    for (uint32_t i = 0; i < run->rounds; i++) {
        uint32_t size, done = 0;
        bool reads = next_traffic(&seed, &size) != READ;
        if (!reads)
            fill(data, size, out, 1);
        while (done < size) {
            int64_t status = reads ? sbe_asg_server_read(server, data + done, size - done)
                                   : sbe_asg_server_reply(server, data + done, size - done);
            CHECK(status > 0 || status == SBE_EAGAIN);
            if (status > 0)
                done += (uint32_t)status;
            else if (!reads)
                sched_yield();
            else if (sbe_asg_server_may_sleep(server))
                wait_bell(run->bell);
        }
        if (reads)
            check(data, size, in, 0);
        (reads ? (in += size) : (out += size));
    }
}

static void test_random_traffic_between_threads(void)
{
    static struct run run;
    pthread_t client;
    run.rounds = OFTEN / 5;
    lay_out(&run.place, 0xfffff000u);
    run.bell = eventfd(0, 0);
    CHECK(run.bell >= 0);
    CHECK_EQ(pthread_create(&client, NULL, be_client, &run), 0);
    be_server(&run);
    CHECK_EQ(pthread_join(client, NULL), 0);
    check_beyond(&run.place);
    close(run.bell);
    printf("%u packets, %u doorbells\n", run.rounds, run.rung);
}

int main(void)
{
    alarm(ALARM_S);
    test_random_traffic_between_threads();
    return 0;
}
