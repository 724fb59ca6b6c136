/* SPDX-License-Identifier: Apache-2.0 */
#include "carveout/token.h"

uint32_t sbe_token_write(uint32_t token, uint8_t bytes[SBE_TOKEN_MAX])
{
    uint32_t count = 0, low = token & 0xfu;
    for (token >>= 4; token != 0; token >>= 7)
        bytes[++count] = token & 0x7fu;
    bytes[0] = (uint8_t)(0x80u | count << 4 | low);
    return count + 1;
}

bool sbe_token_read(struct sbe_token_reader *reader, uint8_t byte, uint32_t *token)
{
    if ((byte & 0x80u) != 0) {
        if (reader->left != 0)
            reader->lost++;
        reader->left = (byte >> 4) & 7u;
        reader->token = byte & 0xfu;
        reader->shift = 4;
        if (reader->left >= SBE_TOKEN_MAX) {
            reader->left = 0;
            reader->lost++;
            return false;
        }
    } else if (reader->left == 0) {
        reader->lost++;
        return false;
    } else {
        reader->token |= (uint32_t)byte << reader->shift;
        reader->shift += 7;
        reader->left--;
    }
    *token = reader->token;
    return reader->left == 0;
}
