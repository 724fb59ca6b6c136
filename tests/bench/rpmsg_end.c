/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far end of bare rpmsg, as anybody would write one without SBE: the core of a remote processor
 * of linux/kernel/sbe_userproc.c. A message of full size is a fragment of a block and is put in its
 * place; any shorter one ends a block, which starts anew, and is sent back.
 */
#include "dumb.h"

#define FRAGMENT 496u
#define BLOCK    (1u << 20)

static uint8_t block[BLOCK];
static uint32_t filled;

static void received(const struct dumb_endpoint *self, uint32_t source, const void *data,
                     uint32_t size)
{
    if (size <= BLOCK - filled) {
        memcpy(block + filled, data, size);
        filled += size;
    }
    if (size == FRAGMENT)
        return;
    filled = 0;
    dumb_send(self, source, data, size);
}

static const struct dumb_endpoint end = {"sbe-bench", 1024, received};
const struct dumb_endpoint *const dumb_endpoints[] = {&end, NULL};
