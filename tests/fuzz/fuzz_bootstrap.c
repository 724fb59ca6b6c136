/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of a carve-out link, of either role, over a window that holds anything and changes
 * under the reader; and the tokens of the byte stream beside it.
 */
#include "carveout/bootstrap.h"
#include "carveout/token.h"
#include "input.h"
#include "race.h"

#define WINDOW SBE_CARVEOUT_REGIONS /* blocks and control rings: all that the bootstrap knows */

static struct input input;
static uint8_t *window;
static struct sbe_bootstrap end, peer;

static void receive(void)
{
    uint8_t *message = malloc(SBE_CONTROL_MAX);
    bool ring;
    if (end.state == SBE_BOOTSTRAP_READY)
        race_once(end.receive.slots, (size_t)SBE_CARVEOUT_SLOTS * SBE_CARVEOUT_SLOT_SIZE);
    int size = sbe_bootstrap_receive(&end, message, &ring);
    race_once(NULL, 0);
    HOLDS(size <= (int)SBE_CONTROL_MAX);
    HOLDS(size >= 0 || size == SBE_EBADMSG || size == SBE_EPROTO);
    free(message);
}

static void send(struct sbe_bootstrap *from)
{
    uint8_t message[SBE_CONTROL_MAX + 1];
    uint32_t size = number32(&input, take_u8(&input)) % sizeof message;
    take_bytes(&input, message, size);
    int status = sbe_bootstrap_send(from, message, size);
    HOLDS(status <= 1 && (status < 0 || (size > 0 && size <= SBE_CONTROL_MAX)));
}

/* The peer as it should be, or any word of the window. */
static void peer_moves(enum sbe_role role)
{
    static const uint32_t BLOCKS[] = {SBE_CARVEOUT_HOST, SBE_CARVEOUT_REMOTE,
                                      SBE_CARVEOUT_TO_REMOTE, SBE_CARVEOUT_TO_HOST};
    uint32_t at;
    race_pause(true);
    switch (pick(&input, 6)) {
    case 0:
        (void)sbe_bootstrap_start(&peer, window, role, take_u8(&input));
        break;
    case 1:
    case 2:
        if (peer.own != NULL)
            (void)sbe_bootstrap_look(&peer);
        break;
    case 3:
        if (peer.own != NULL)
            send(&peer);
        break;
    default:
        at = BLOCKS[pick(&input, 4)] + 4 * pick(&input, 6);
        scribble(&input, window, WINDOW, at, end.generation);
    }
    race_pause(false);
}

static void tokens(void)
{
    struct sbe_token_reader reader = {0};
    uint8_t bytes[SBE_TOKEN_MAX];
    uint32_t token, noise = pick(&input, 8), wanted = number32(&input, take_u8(&input));
    while (noise-- > 0) {
        (void)sbe_token_read(&reader, take_u8(&input), &token);
        HOLDS(reader.left < SBE_TOKEN_MAX);
    }
    /* In step again with the next token, whatever came before. */
    uint32_t count = sbe_token_write(wanted, bytes);
    HOLDS(count >= 1 && count <= SBE_TOKEN_MAX);
    for (uint32_t i = 0; i < count; i++)
        HOLDS(sbe_token_read(&reader, bytes[i], &token) == (i + 1 == count));
    HOLDS(token == wanted);
}

static void step(enum sbe_role role)
{
    switch (pick(&input, 10)) {
    case 0:
        (void)sbe_bootstrap_start(&end, window, role, take_u8(&input));
        break;
    case 1: {
        int status = sbe_bootstrap_look(&end);
        HOLDS(status == 0 || status == 1 || status == SBE_ECONNRESET);
        HOLDS(status != 1 || end.state == SBE_BOOTSTRAP_READY);
        break;
    }
    case 2:
        send(&end);
        break;
    case 3:
        HOLDS(sbe_bootstrap_room(&end, 1 + pick(&input, SBE_CARVEOUT_SLOTS)) <= SBE_CARVEOUT_SLOTS);
        break;
    case 4:
        (void)sbe_bootstrap_other_version(&end);
        if (rarely(&input))
            sbe_bootstrap_shut(&end);
        break;
    case 5:
        tokens();
        break;
    case 6:
    case 7:
        receive();
        break;
    default:
        peer_moves(role == SBE_ROLE_HOST ? SBE_ROLE_REMOTE : SBE_ROLE_HOST);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint8_t choice = take_u8(&input);
    enum sbe_role role = (choice & 1u) != 0 ? SBE_ROLE_HOST : SBE_ROLE_REMOTE;
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 64);
    window = aligned_alloc(SBE_CARVEOUT_LINE, WINDOW);
    memset(window, (choice & 2u) != 0 ? 0xff : 0, WINDOW); /* as RAM may be at power-on */
    memset(&peer, 0, sizeof peer);
    race_begin(window, WINDOW, seed, rate);
    HOLDS(sbe_bootstrap_start(&end, window, role, 1) == SBE_OK);
    for (uint32_t steps = 0; input.left > 0 && steps < 200; steps++)
        step(role);
    race_end();
    free(window);
    return 0;
}
