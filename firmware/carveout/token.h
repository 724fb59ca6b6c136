/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells on a byte stream: 32-bit tokens. A byte with its top bit set begins a token and says
 * how many bytes follow, so that a reader that lost bytes, or joins late, is in step again with the
 * next token. A token that was lost or made up is a doorbell lost or spurious, which both ends
 * bear.
 *
 *     1nnndddd  n continuation bytes, the token's low 4 bits
 *     0ddddddd  the next 7 bits
 */
#ifndef SBE_CARVEOUT_TOKEN_H
#define SBE_CARVEOUT_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#define SBE_TOKEN_MAX 5u /* bytes */

/* An even token is the doorbell of a channel, an odd one an event: a byte each for small numbers.
 */
#define SBE_TOKEN_CHANNEL(id)   ((uint32_t)(id) << 1)
#define SBE_TOKEN_EVENT(event)  ((uint32_t)(event) << 1 | 1u)
#define SBE_TOKEN_IS_EVENT(tok) (((tok)&1u) != 0)
#define SBE_TOKEN_VALUE(tok)    ((tok) >> 1)
#define SBE_TOKEN_CHANNEL_MAX   0x7fffffffu

enum sbe_token_event {
    SBE_TOKEN_CONTROL = 0, /* look at the control ring */
    SBE_TOKEN_BLOCK = 1,   /* my block has changed: ready, or restarted */
    SBE_TOKEN_CRASHED = 2, /* look at the crash record */
    SBE_TOKEN_GOODBYE = 3, /* this end shuts down */
};

struct sbe_token_reader {
    uint32_t token;
    uint8_t left; /* continuation bytes to come */
    uint8_t shift;
    uint32_t lost; /* bytes that belonged to no token, and tokens cut short */
};

/* Writes the token's bytes; how many. */
uint32_t sbe_token_write(uint32_t token, uint8_t bytes[SBE_TOKEN_MAX]);
/* Takes a byte. True: *token is complete. */
bool sbe_token_read(struct sbe_token_reader *reader, uint8_t byte, uint32_t *token);

#endif
