/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of areas: registered once, referenced many times by id, never by address.
 * Not thread-safe; the storage is the caller's.
 */
#ifndef SBE_CORE_AREA_H
#define SBE_CORE_AREA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SBE_AREA_INDEX(id) ((id)&0xffffu)
#define SBE_CONTEXT_GLOBAL 0u
#define SBE_CONTEXT_OWNER  16u /* bits of a context id below the number of its owner */

struct sbe_area {
    uint32_t id; /* 0: free */
    uint32_t context;
    uint32_t flags;
    uint32_t pins;     /* open requests that hold it */
    uint32_t unmap_id; /* control request to answer once pins is 0; valid when dying */
    bool dying;        /* refused to new frames */
    uint16_t segments; /* described so far */
    size_t size;       /* bytes; an area beyond this end's width is refused */
    size_t missing;    /* bytes not described yet: refused to frames until 0 */
    void *base;        /* where this end sees it, NULL if it does not */
    struct sbe_area *next, **before; /* the session's: in the list of its context */
};

struct sbe_area_table {
    struct sbe_area *areas;
    uint16_t count;
    bool coherent; /* both ends see all of them coherently, whatever their flags say */
};

/* A buffer in private form: the snapshot of a descriptor (struct sbe_wire_buffer), resolved. */
struct sbe_buffer {
    uint32_t area;
    uint8_t direction;
    uint8_t flags;
    uint16_t reserved;
    uint64_t offset;
    uint64_t size; /* bytes; in a response: really written */
    void *data;    /* its bytes at this end; NULL in memory that this end does not map */
};

/* Takes the slot the id names. SBE_EINVAL (index outside the table), SBE_EEXIST. */
int sbe_area_add(struct sbe_area_table *table, uint32_t id, uint32_t context, uint32_t flags,
                 size_t size, struct sbe_area **area);
/* The live area of this id, or NULL. */
struct sbe_area *sbe_area_find(const struct sbe_area_table *table, uint32_t id);
void sbe_area_remove(struct sbe_area *area);

/*
 * Checks a buffer on behalf of a context and sets its data pointer. SBE_EFAULT no such area,
 * SBE_EACCES another context's, SBE_ERANGE outside the area, SBE_EINVAL direction,
 * SBE_EPERM writing a read-only area, SBE_ENOTSUP SHARED without coherent memory.
 */
int sbe_area_resolve(const struct sbe_area_table *table, uint32_t context,
                     struct sbe_buffer *buffer);

#endif
