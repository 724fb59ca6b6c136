/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 9P2000.L as it is on the wire: numbers of messages, flags and errors, and bounded reading and
 * writing of fields. What a message names is checked by whoever reads it.
 */
#ifndef NINEP_WIRE_H
#define NINEP_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum ninep_type {
    NINEP_RLERROR = 7,
    NINEP_TSTATFS = 8,
    NINEP_TLOPEN = 12,
    NINEP_TLCREATE = 14,
    NINEP_TRENAME = 20,
    NINEP_TGETATTR = 24,
    NINEP_TSETATTR = 26,
    NINEP_TREADDIR = 40,
    NINEP_TFSYNC = 50,
    NINEP_TMKDIR = 72,
    NINEP_TRENAMEAT = 74,
    NINEP_TUNLINKAT = 76,
    NINEP_TVERSION = 100,
    NINEP_TATTACH = 104,
    NINEP_TFLUSH = 108,
    NINEP_TWALK = 110,
    NINEP_TREAD = 116,
    NINEP_TWRITE = 118,
    NINEP_TCLUNK = 120,
    NINEP_TREMOVE = 122,
};

/* Errors of the protocol are Linux's; those that SBE has no status for. */
enum ninep_error {
    NINEP_EBADF = -9,
    NINEP_EXDEV = -18,
    NINEP_ENOTDIR = -20,
    NINEP_EISDIR = -21,
    NINEP_ENFILE = -23,
    NINEP_EFBIG = -27,
    NINEP_EROFS = -30,
    NINEP_ENAMETOOLONG = -36,
    NINEP_ENOTEMPTY = -39,
};

#define NINEP_VERSION    "9P2000.L"
#define NINEP_HEADER     7u  /* size[4] type[1] tag[2] */
#define NINEP_READ_HEAD  11u /* and count[4]: what comes before the data of Rread and Rreaddir */
#define NINEP_QID        13u
#define NINEP_WRITE_HEAD 23u /* what comes before the data of Twrite */
#define NINEP_WALK_MAX   16u
#define NINEP_NOFID      0xffffffffu
#define NINEP_MSIZE_MIN  512u

#define NINEP_ACCESS    3u /* of the flags of Tlopen and Tlcreate */
#define NINEP_WRONLY    1u
#define NINEP_RDWR      2u
#define NINEP_TRUNCATE  01000u
#define NINEP_APPEND    02000u
#define NINEP_DIRECTORY 0200000u
#define NINEP_REMOVEDIR 0x200u /* of Tunlinkat */

#define NINEP_SET_MODE     0x1u /* what a Tsetattr sets */
#define NINEP_SET_UID      0x2u
#define NINEP_SET_GID      0x4u
#define NINEP_SET_SIZE     0x8u
#define NINEP_SET_MTIME    0x20u
#define NINEP_SET_MTIME_TO 0x100u
#define NINEP_ATTRIBUTES   0x7ffu /* all that stat() shows */

#define NINEP_QID_DIR   0x80u
#define NINEP_MODE_DIR  0040000u
#define NINEP_MODE_FILE 0100000u

/* How messages come, as docs/spec/9p.md says: calls whose payload begins so. */
enum ninep_op {
    NINEP_OPEN = 1,    /* kept until it is cancelled */
    NINEP_MESSAGE = 2, /* a T-message behind it */
};

struct ninep_request {
    uint32_t op;
    uint32_t session; /* id, chosen by the requester, one of its context, not 0 */
};

/* Fields are taken from private memory; `bad` once the message is too short for one. */
struct ninep_in {
    const uint8_t *at;
    uint32_t left;
    bool bad;
};

/* A string within a message, without an end of its own. */
struct ninep_text {
    const char *bytes;
    uint16_t size;
};

static inline uint64_t ninep_get(struct ninep_in *in, uint32_t bytes)
{
    uint64_t value = 0;
    if (in->left < bytes) {
        in->bad = true;
        in->left = 0;
        return 0;
    }
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)in->at[i] << (8u * i);
    in->at += bytes;
    in->left -= bytes;
    return value;
}

/* A message that is longer than what it has to say, or shorter. */
static inline bool ninep_is_whole(const struct ninep_in *in)
{
    return !in->bad && in->left == 0;
}

static inline uint32_t ninep_get_u32(struct ninep_in *in)
{
    return (uint32_t)ninep_get(in, 4);
}

static inline struct ninep_text ninep_get_text(struct ninep_in *in)
{
    struct ninep_text text = {.size = (uint16_t)ninep_get(in, 2)};
    if (in->left < text.size) {
        in->bad = true;
        in->left = 0;
        text.size = 0;
    }
    text.bytes = (const char *)in->at;
    in->at += text.size;
    in->left -= text.size;
    return text;
}

static inline bool ninep_text_is(struct ninep_text text, const char *other)
{
    size_t size = strlen(other);
    return text.size == size && (size == 0 || memcmp(text.bytes, other, size) == 0);
}

/* Where an answer is put together; `full` once something did not fit. */
struct ninep_out {
    uint8_t *at;
    uint32_t room;
    uint32_t used;
    bool full;
};

static inline void ninep_put(struct ninep_out *out, uint64_t value, uint32_t bytes)
{
    if (out->room - out->used < bytes) {
        out->full = true;
        return;
    }
    for (uint32_t i = 0; i < bytes; i++)
        out->at[out->used++] = (uint8_t)(value >> (8u * i));
}

static inline void ninep_put_text(struct ninep_out *out, const char *bytes, uint16_t size)
{
    ninep_put(out, size, 2);
    if (out->full || out->room - out->used < size) {
        out->full = true;
        return;
    }
    memcpy(out->at + out->used, bytes, size);
    out->used += size;
}

#endif
