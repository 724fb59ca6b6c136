/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of an Address Space Graphics stream over words that a hostile peer writes, also between
 * any two looks at them: the region is all that is touched, and what has ended stays so.
 */
#include "asg/client.h"
#include "asg/server.h"
#include "core/status.h"
#include "input.h"
#include "race.h"

static struct input input;
static uint8_t data[4096];

static void check_status(int64_t status, uint32_t size)
{
    HOLDS(status <= (int64_t)size);
    HOLDS(status >= 0 || status == SBE_EAGAIN || status == SBE_EBUSY || status == SBE_EPROTO ||
          status == SBE_ENOTCONN || status == SBE_ESHUTDOWN || status == SBE_EINVAL);
}

static void use_client(struct sbe_asg_client *client, uint32_t *sent)
{
    uint32_t size = number32(&input, 1 + pick(&input, 100)) % sizeof(data);
    void *place;
    switch (client->sending ? 3 : pick(&input, 6)) {
    case 0:
    case 1: {
        int status = sbe_asg_client_alloc(client, size, &place);
        check_status(status, 0);
        if (status == SBE_OK)
            memset(place, 1, size);
        break;
    }
    case 2:
        check_status(sbe_asg_client_flush(client), 0);
        break;
    case 3:
        if (!client->sending)
            *sent = 0;
        /* The same transfer until it is over: as many bytes as could be one's. */
        check_status(sbe_asg_client_send(client, data, sizeof(data), sent, pick(&input, 2) != 0),
                     0);
        HOLDS(*sent <= sizeof(data));
        break;
    case 4:
        check_status(sbe_asg_client_read(client, data, size), size);
        break;
    default:
        check_status(sbe_asg_client_give_back(client, size), 0);
        sbe_asg_client_remind(client);
    }
    HOLDS(client->filled <= client->step);
    HOLDS(client->at <= client->region.buffer_size - client->step);
}

static void use_server(struct sbe_asg_server *server)
{
    uint32_t size = number32(&input, 1 + pick(&input, 100)) % sizeof(data);
    int ended = server->ended;
    switch (pick(&input, 4)) {
    case 0:
    case 1:
        check_status(sbe_asg_server_read(server, data, size), size);
        break;
    case 2:
        (void)sbe_asg_server_may_sleep(server);
        break;
    default:
        check_status(sbe_asg_server_reply(server, data, size), size);
    }
    HOLDS(ended == SBE_OK || server->ended == ended);
    HOLDS(server->taken <= server->record.size);
    HOLDS(server->record.size <= server->region.buffer_size);
}

static void scribble_words(uint8_t *memory, const struct sbe_asg_client *client)
{
    static const uint32_t places[] = {8, 64, 128, 132, 2176, 2180, 2184, 2196, 2200, 2204};
    uint32_t at = pick(&input, 3) * SBE_ASG_PAGE + places[pick(&input, 10)];
    uint32_t word = number32(&input, pick(&input, 2) ? client->records.mine : client->step);
    memcpy(memory + at, &word, sizeof word);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sbe_asg_region region;
    struct sbe_asg_client client;
    struct sbe_asg_server server;
    input = (struct input){bytes, size};
    uint32_t buffer = number32(&input, 64u << pick(&input, 4)), step = 4u << pick(&input, 6);
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 16), sent = 0;
    if (buffer > 4096)
        return 0;
    uint8_t *memory = aligned_alloc(64, SBE_ASG_STORAGE + ((buffer + 63u) & ~63u));
    memset(memory, 0, SBE_ASG_STORAGE + buffer);
    if (sbe_asg_attach(&region, memory, buffer) == SBE_OK &&
        sbe_asg_lay_out(&region, number32(&input, step)) == SBE_OK) {
        uint32_t start = number32(&input, 0);
        memcpy(memory + 8, &start, sizeof start);
        memcpy(memory + 64, &start, sizeof start);
        HOLDS(sbe_asg_client_attach(&client, memory, buffer) == SBE_OK);
        HOLDS(sbe_asg_server_attach(&server, memory, buffer) == SBE_OK);
        race_begin(memory, SBE_ASG_STORAGE, seed, rate);
        for (uint32_t steps = 0; input.left > 0 && steps < 400; steps++) {
            uint8_t choice = take_u8(&input);
            if (choice < 100)
                use_client(&client, &sent);
            else if (choice < 220)
                use_server(&server);
            else
                scribble_words(memory, &client);
        }
        race_end();
    }
    free(memory);
    return 0;
}
