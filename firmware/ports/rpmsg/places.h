/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which place in a table has a key, at a cost that does not depend on the table's size: chains of
 * the places whose keys are alike modulo it. Keys that are counted up fill the chains evenly; who
 * chooses others on purpose gets long ones, at most the table. All zero at first, key 0 is none.
 */
#ifndef SBE_PORTS_RPMSG_PLACES_H
#define SBE_PORTS_RPMSG_PLACES_H

#include <stdint.h>
#include <string.h>

#define PLACES_NONE UINT32_MAX

struct places {
    uint32_t *keys;  /* count of each, of static storage */
    uint16_t *first; /* one more than the place, 0 none */
    uint16_t *next;
    uint32_t count; /* below 2^16 */
};

/* A static table of them, which is count places large. */
#define PLACES(name, size)                                 \
    static uint32_t name##_keys[size];                     \
    static uint16_t name##_first[size], name##_next[size]; \
    static const struct places name = {name##_keys, name##_first, name##_next, size}

static inline void places_clear(const struct places *places)
{
    memset(places->keys, 0, places->count * sizeof *places->keys);
    memset(places->first, 0, places->count * sizeof *places->first);
}

static inline uint32_t places_find(const struct places *places, uint32_t key)
{
    uint32_t at = places->first[key % places->count];
    while (at != 0 && places->keys[at - 1] != key)
        at = places->next[at - 1];
    return at - 1; /* PLACES_NONE */
}

static inline void places_forget(const struct places *places, uint32_t place)
{
    uint32_t key = places->keys[place];
    if (key == 0)
        return;
    uint16_t *link = &places->first[key % places->count];
    while (*link != place + 1)
        link = &places->next[*link - 1];
    *link = places->next[place];
    places->keys[place] = 0;
}

/* The place had no key. */
static inline void places_note(const struct places *places, uint32_t place, uint32_t key)
{
    uint16_t *first = &places->first[key % places->count];
    places->keys[place] = key;
    places->next[place] = *first;
    *first = (uint16_t)(place + 1);
}

#endif
