/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is served: files of the firmware, and below /ram a file system in RAM, all in tables of a
 * fixed size. One tree for all sessions. Not thread-safe, as the engine is not.
 *
 * Results: zero or more, or a negative errno.
 */
#ifndef NINEP_TREE_H
#define NINEP_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "ninep/wire.h"

#ifdef SBE_SMALL
#define NINEP_DEFAULT(small, usual) small
#else
#define NINEP_DEFAULT(small, usual) usual
#endif
#ifndef NINEP_NODES /* files and directories */
#define NINEP_NODES NINEP_DEFAULT(24u, 256u)
#endif
#ifndef NINEP_NAME /* bytes of a name */
#define NINEP_NAME NINEP_DEFAULT(24u, 64u)
#endif
#ifndef NINEP_BLOCK /* bytes that a file grows by */
#define NINEP_BLOCK NINEP_DEFAULT(128u, 1024u)
#endif
#ifndef NINEP_BLOCKS
#define NINEP_BLOCKS NINEP_DEFAULT(16u, 512u)
#endif

enum ninep_kind {
    NINEP_FREE,
    NINEP_DIR,     /* whose entries the firmware made, and nobody changes */
    NINEP_RAM_DIR, /* of the file system in RAM */
    NINEP_RAM_FILE,
    NINEP_SPECIAL, /* its content is made as it is read */
};

struct ninep_node;

/* A file of the firmware. Reading copies what lies at an offset and returns how much. */
struct ninep_special {
    const char *name;
    uint32_t (*size)(const struct ninep_special *file);
    uint32_t (*read)(const struct ninep_special *file, uint32_t offset, uint8_t *to, uint32_t size);
    /* All of its new content at once, in private memory, or a negative errno. NULL: read-only. */
    int (*write)(const struct ninep_special *file, const uint8_t *from, uint32_t size);
};

struct ninep_node {
    uint8_t kind;
    uint8_t name_size;
    bool removed; /* no name leads to it; it ends with its last fid */
    uint16_t parent;
    uint16_t fids;
    uint32_t children;
    uint32_t mode, uid, gid;
    uint32_t version; /* of the content */
    uint64_t path;    /* never used again */
    uint64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t first, last;        /* blocks, NINEP_NONE: none */
    uint32_t at_index, at_block; /* where it was last read or written */
    uint64_t size;
    const struct ninep_special *special;
    char name[NINEP_NAME];
};

#define NINEP_NONE 0xffffffffu
#define NINEP_ROOT 0u

_Static_assert(NINEP_NODES >= 16u && NINEP_NODES < 0xffffu && NINEP_NAME <= 255u,
               "they fit their fields");

extern bool ninep_read_only; /* nothing below /ram may change */

struct ninep_usage {
    uint32_t free_blocks, free_nodes;
};

/* Makes what there is at first; once. */
void ninep_tree_init(void);
/* What changes from now on was changed then. */
void ninep_tree_at(uint64_t now_ns);
struct ninep_node *ninep_node(uint32_t index);
uint32_t ninep_index(const struct ninep_node *node);
struct ninep_usage ninep_tree_usage(void);
uint32_t ninep_tree_free_nodes(void);

static inline bool ninep_is_dir(const struct ninep_node *node)
{
    return node->kind == NINEP_DIR || node->kind == NINEP_RAM_DIR;
}

uint64_t ninep_size(const struct ninep_node *node);

/* A child by name, or NULL. */
struct ninep_node *ninep_find(const struct ninep_node *dir, struct ninep_text name);
/* The child that comes at this place or after it, in an order that removal does not change; its
 * place is its index. NULL: none. */
struct ninep_node *ninep_next(const struct ninep_node *dir, uint64_t place);
/* A file or a directory. */
int ninep_create(struct ninep_node *dir, struct ninep_text name, enum ninep_kind kind,
                 struct ninep_node **made);
int ninep_add_special(struct ninep_node *dir, const struct ninep_special *file);
struct ninep_node *ninep_add_dir(struct ninep_node *dir, const char *name, enum ninep_kind kind);
int ninep_remove(struct ninep_node *node);
int ninep_rename(struct ninep_node *node, struct ninep_node *dir, struct ninep_text name);
/* It may end now, if it is removed. */
void ninep_let_go(struct ninep_node *node);

/* Content of files in RAM. */
uint32_t ninep_ram_read(struct ninep_node *file, uint64_t offset, uint8_t *to, uint32_t size);
/* Within the file's size. */
void ninep_ram_write(struct ninep_node *file, uint64_t offset, const uint8_t *from, uint32_t size);
/*
 * Makes it larger, with zeros: by no more than `most` bytes at a time. SBE_MORE: it is not yet so
 * large. SBE_ENOSPC: there is no room for all of it, and nothing was done.
 */
int ninep_ram_grow(struct ninep_node *file, uint64_t size, uint32_t most);
/* How large it may become. */
uint64_t ninep_ram_room(const struct ninep_node *file);
void ninep_ram_cut(struct ninep_node *file, uint64_t size);
/* Its content was changed, now. */
void ninep_touch(struct ninep_node *node);

#endif
