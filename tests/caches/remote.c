/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sbe-remote, the port of firmware/ports/host, with a cache of its own before each area. Linked
 * with --wrap=sbe_engine_init, which is where it comes between. Lines are as long as --cache-line
 * says; SBE_CACHE_SEED in the environment varies what moves by chance, and 0 lets nothing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/engine.h"
#include "core/status.h"
#include "lines.h"

#define NOT_CACHED (SBE_AREA_RING | SBE_AREA_COHERENT)

struct cached {
    struct cached *next;
    struct lines lines;
};

static struct sbe_port port;
static struct cached *all;
static int (*attach_uncached)(void *self, struct sbe_area *area,
                              const struct sbe_area_map *message);
static void (*detach_uncached)(void *self, struct sbe_area *area);
static uint32_t line;
static uint64_t seed = 1 << 16;

static void discard(struct cached *cached)
{
    if (cached->lines.copy != NULL)
        (void)munmap(cached->lines.copy, (size_t)cached->lines.size);
    if (cached->lines.known != NULL)
        (void)munmap(cached->lines.known, (size_t)cached->lines.size);
    free(cached);
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    int status = attach_uncached(self, area, message);
    if (status < 0 || (area->flags & (NOT_CACHED | SBE_AREA_READONLY)) != 0)
        return status;
    struct cached *cached = calloc(1, sizeof *cached);
    if (cached != NULL) {
        uint64_t size = (area->size + 4095u) & ~(uint64_t)4095u; /* what was mapped is pages */
        cached->lines = (struct lines){
            .memory = area->base,
            .copy = lines_memory(size),
            .known = lines_memory(size),
            .size = size,
            .line = line,
            .state = seed == 0 ? 0 : seed++,
        };
        if (cached->lines.copy != NULL && cached->lines.known != NULL) {
            lines_begin(&cached->lines);
            cached->next = all;
            all = cached;
            area->base = cached->lines.copy;
            return SBE_OK;
        }
        discard(cached);
    }
    detach_uncached(self, area);
    return SBE_ENOMEM;
}

static struct cached **find(const void *start)
{
    struct cached **place = &all;
    for (; *place != NULL; place = &(*place)->next) {
        uintptr_t from = (uintptr_t)start - (uintptr_t)(*place)->lines.copy;
        if (from < (*place)->lines.size)
            break;
    }
    return place;
}

static void detach(void *self, struct sbe_area *area)
{
    struct cached **place = find(area->base), *cached = area->base == NULL ? NULL : *place;
    if (cached != NULL) {
        *place = cached->next;
        area->base = cached->lines.memory;
        discard(cached);
    }
    detach_uncached(self, area);
}

static void maintain(const void *start, uint64_t size,
                     void (*how)(struct lines *lines, uint64_t offset, uint64_t size))
{
    struct cached *cached = *find(start);
    if (cached == NULL)
        abort(); /* asked for memory that has no cache */
    uint64_t offset = (uint64_t)((const uint8_t *)start - cached->lines.copy);
    lines_disturb(&cached->lines, offset, size);
    how(&cached->lines, offset, size);
    lines_disturb(&cached->lines, offset, size);
}

static void clean(void *self, const void *start, uint64_t size)
{
    (void)self;
    maintain(start, size, lines_clean);
}

static void invalidate(void *self, void *start, uint64_t size)
{
    (void)self;
    maintain(start, size, lines_invalidate);
}

int __real_sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config);
int __wrap_sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config);

int __wrap_sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config)
{
    const char *text = getenv("SBE_CACHE_SEED");
    if (text != NULL)
        seed = strtoull(text, NULL, 10) << 20;
    port = *config->port;
    attach_uncached = port.area_attach;
    detach_uncached = port.area_detach;
    port.area_attach = attach;
    port.area_detach = detach;
    port.cache_clean = clean;
    port.cache_invalidate = invalidate;
    config->port = &port;
    config->session.coherent = 0;
    line = config->session.cache_line;
    return __real_sbe_engine_init(engine, config);
}
