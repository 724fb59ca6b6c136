/* SPDX-License-Identifier: Apache-2.0 */
/* The sum of the service crc32, for others that want one. */
#ifndef SBE_SERVICES_CRC32_H
#define SBE_SERVICES_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Goes on with a sum, 0 at first; as zlib's crc32() does. */
uint32_t sbe_crc32(uint32_t sum, const void *bytes, size_t size);

#endif
