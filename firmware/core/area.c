/* SPDX-License-Identifier: Apache-2.0 */
#include "core/area.h"

#include <stddef.h>

#include "core/status.h"
#include "core/wire.h"

int sbe_area_add(struct sbe_area_table *table, uint32_t id, uint32_t context, uint32_t flags,
                 size_t size, struct sbe_area **area)
{
    uint32_t index = SBE_AREA_INDEX(id);
    if (id >> 16 == 0 || index >= table->count || size == 0 || (flags & ~SBE_AREA_FLAGS) != 0)
        return SBE_EINVAL;
    if (table->areas[index].id != 0)
        return SBE_EEXIST;
    table->areas[index] =
        (struct sbe_area){.id = id, .context = context, .flags = flags, .size = size};
    *area = &table->areas[index];
    return SBE_OK;
}

struct sbe_area *sbe_area_find(const struct sbe_area_table *table, uint32_t id)
{
    uint32_t index = SBE_AREA_INDEX(id);
    if (id == 0 || index >= table->count || table->areas[index].id != id)
        return NULL;
    return &table->areas[index];
}

void sbe_area_remove(struct sbe_area *area)
{
    *area = (struct sbe_area){0};
}

int sbe_area_resolve(const struct sbe_area_table *table, uint32_t context,
                     struct sbe_buffer *buffer)
{
    const struct sbe_area *area = sbe_area_find(table, buffer->area);
    if (area == NULL || area->dying || area->missing != 0)
        return SBE_EFAULT;
    if (area->context != context && area->context != SBE_CONTEXT_GLOBAL)
        return SBE_EACCES;
    if ((area->flags & SBE_AREA_RING) != 0)
        return SBE_EACCES; /* ring words written as data would bypass every check */
    if (buffer->offset > area->size || buffer->size > area->size - buffer->offset)
        return SBE_ERANGE;
    if (buffer->direction < SBE_DIR_IN || buffer->direction > SBE_DIR_SHARED)
        return SBE_EINVAL;
    if (buffer->direction != SBE_DIR_IN && (area->flags & SBE_AREA_READONLY) != 0)
        return SBE_EPERM;
    if (buffer->direction == SBE_DIR_SHARED && (area->flags & SBE_AREA_COHERENT) == 0)
        return SBE_ENOTSUP;
    buffer->data = area->base == NULL ? NULL : (uint8_t *)area->base + (size_t)buffer->offset;
    return SBE_OK;
}
