/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that the other end exports, by 9P2000.L: what `sbe 9p export` serves. Nothing here waits:
 * what has an answer ends in a callback, on the engine's thread. Memory is the caller's.
 *
 *     sbe_9p_begin(&files, engine, channel, "files");        ... files.ready(&files, status)
 *     sbe_9p_open(&files, &file, "models/a.bin", 12, SBE_9P_READ);  ... file.done(&file, status,
 * ...) sbe_9p_read(&file, 0, sbe_9p_inline(&files), NULL);    ... file.done(&file, 0, data, size)
 *     sbe_9p_close(&file);                                   ... file.done(&file, status, ...)
 *     sbe_9p_end(&files);                                    ... files.ended(&files)
 *
 * A function that returns less than zero has begun nothing, and calls nothing back: SBE_EBUSY
 * another operation of this file is under way or it is not open, SBE_EAGAIN no room in the ring or
 * SBE_ENOMEM too many calls are open: try again after another answer; SBE_ESHUTDOWN the other end
 * or its channel is gone; SBE_EINVAL, SBE_EMSGSIZE. Not thread-safe, as the engine is not.
 */
#ifndef NINEP_CLIENT_H
#define NINEP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/service.h"

#define SBE_9P_READ       0u /* how a file is opened */
#define SBE_9P_WRITE      1u
#define SBE_9P_READ_WRITE 2u
#define SBE_9P_TRUNCATE   01000u

#define SBE_9P_PATH 255u /* bytes of a path; and it has at most 16 names */

/* A session with an exporter; its files are those opened with it. Storage zeroed at first. */
struct sbe_9p {
    /* It can be used, or else why not, and then ended() comes at once. May be NULL. */
    void (*ready)(struct sbe_9p *files, int status);
    /* The storage is the caller's again. */
    void (*ended)(struct sbe_9p *files);

    /* The library's. */
    struct sbe_9p *next; /* of those that end */
    struct sbe_engine *engine;
    struct sbe_channel *channel;
    struct sbe_find find;
    struct sbe_outcall open, ask; /* the call that the session lasts as long as; one of its own */
    uint64_t transaction;         /* of the first */
    uint32_t id;
    uint32_t msize;
    uint32_t fids;   /* in use, a bit each: bit 0 is the root */
    uint32_t unsaid; /* of them, those that are closed and the exporter has not heard of it */
    uint8_t saying;  /* the one that it hears of now, 0: none */
    uint16_t service;
    uint16_t calls;              /* out */
    struct sbe_9p_file *waiting; /* to be opened once it can be used */
    uint8_t state;
    int status; /* what ready() is told */
};

/* A file or directory. Storage zeroed at first; the library's from open until close is done. */
struct sbe_9p_file {
    /*
     * An operation has ended: zero, or less: `refused` says that it is the exporter's errno (-2: no
     * such file, -18: a link out of the folder), else it is SBE's. After a read `data` has so many
     * bytes, valid until this returns; NULL where they are in the buffer. 0 bytes: the end. After a
     * write `size` is how many were written, after a stat `data` is a struct sbe_9p_stat.
     */
    void (*done)(struct sbe_9p_file *file, int status, const void *data, uint32_t size);
    bool refused;

    /* The library's. */
    struct sbe_9p *files;
    struct sbe_9p_file *next; /* of those that wait */
    const char *path;
    uint32_t path_size;
    struct sbe_outcall call;
    uint32_t session; /* its id: a later one knows nothing of this file */
    uint32_t asked;   /* bytes */
    uint32_t flags;
    int failed; /* why it is closed again */
    uint8_t fid;
    uint8_t operation; /* 0: none is under way */
    bool is_open;
    bool by_reference;
};

struct sbe_9p_stat {
    uint64_t size; /* bytes */
    uint64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t mode;   /* as Linux has it: type and permissions */
    uint64_t number; /* no other file has it */
};

struct sbe_9p_entry {
    const char *name; /* without an end of its own; not "." and ".." */
    uint32_t name_size;
    uint64_t next; /* place of the one behind it, for sbe_9p_readdir() */
    uint8_t type;  /* 4 a directory, 8 a file, 10 a link */
};

/* Opens a session with a service of the peer, found on behalf of the channel's context. */
int sbe_9p_begin(struct sbe_9p *files, struct sbe_engine *engine, struct sbe_channel *channel,
                 const char *service);
/*
 * Ends it, with what is under way: done() of its files comes first, then ended(), maybe before this
 * returns. Its files are closed by it.
 */
void sbe_9p_end(struct sbe_9p *files);
/* The most that a read brings in the answer itself, and not in a buffer. */
uint32_t sbe_9p_inline(const struct sbe_9p *files);
/* It can be used, or it begins and is not known not to be. */
bool sbe_9p_is_usable(const struct sbe_9p *files);

/*
 * The path begins at the exported folder, with or without a '/'; empty: the folder itself. It stays
 * until done(). A session that begins need not be ready: the file waits for it.
 */
int sbe_9p_open(struct sbe_9p *files, struct sbe_9p_file *file, const char *path,
                uint32_t path_size, uint32_t flags);
/*
 * Up to `size` bytes from an offset. A buffer (OUT; in an area of the channel's context, as a
 * request brought it) takes them by reference, else they come with the answer: up to
 * sbe_9p_inline() bytes.
 */
int sbe_9p_read(struct sbe_9p_file *file, uint64_t offset, uint32_t size,
                const struct sbe_buffer *buffer);
/* `data`, or what a buffer (IN) has. */
int sbe_9p_write(struct sbe_9p_file *file, uint64_t offset, const void *data, uint32_t size,
                 const struct sbe_buffer *buffer);
/* Entries from a place on, 0 at first, in `data` of done(). 0 bytes: no more. */
int sbe_9p_readdir(struct sbe_9p_file *file, uint64_t place, uint32_t size);
/* Takes the next entry of them. False: there is none, or what follows is none. */
bool sbe_9p_next(const void **data, uint32_t *size, struct sbe_9p_entry *entry);
int sbe_9p_stat(struct sbe_9p_file *file);
/*
 * When done() is called it is closed, whatever the status. Less than zero: it is closed already,
 * and with no room in the ring the exporter is told later; but SBE_EBUSY, as above.
 */
int sbe_9p_close(struct sbe_9p_file *file);

#endif
