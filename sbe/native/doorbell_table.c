/* SPDX-License-Identifier: Apache-2.0 */
/* The channels of a carrier of doorbells, by number, and those with something to do. */
#include "doorbell_table.h"

#include <stdlib.h>

struct doorbell **native_doorbell_find(struct doorbell_table *table, unsigned long channel)
{
    struct doorbell **link = &table->all[channel % DOORBELL_BUCKETS];
    while (*link != NULL && (*link)->channel != channel)
        link = &(*link)->next;
    return link;
}

void native_doorbell_note(struct doorbell_table *table, struct doorbell *doorbell)
{
    struct doorbell **first = &table->all[doorbell->channel % DOORBELL_BUCKETS];
    doorbell->next = *first;
    *first = doorbell;
}

void native_doorbell_busy(struct doorbell_table *table, struct doorbell *doorbell)
{
    if (doorbell->busy)
        return;
    doorbell->busy = true;
    doorbell->busy_next = NULL;
    *table->busy_end = doorbell;
    table->busy_end = &doorbell->busy_next;
}

void native_doorbell_owe(struct doorbell_table *table, struct doorbell *doorbell)
{
    doorbell->owed = true;
    native_doorbell_busy(table, doorbell);
}

bool native_doorbell_wake(struct doorbell_table *table, struct doorbell *doorbell)
{
    if (!doorbell->wake_owed)
        return false;
    uint64_t now_ns = sbe_bell_clock_ns(CLOCK_MONOTONIC);
    doorbell->wake_owed = !sbe_bell_may_ring(&table->bells, &doorbell->bell, now_ns);
    if (doorbell->wake_owed)
        native_doorbell_busy(table, doorbell);
    else
        sbe_bell_ring(&table->bells, &doorbell->bell, doorbell->wake_fd, now_ns);
    return doorbell->wake_owed;
}

struct doorbell *native_doorbell_take_busy(struct doorbell_table *table)
{
    struct doorbell *first = table->busy;
    table->busy = NULL;
    table->busy_end = &table->busy;
    return first;
}

void native_doorbell_free_dead(struct doorbell_table *table)
{
    for (struct doorbell **link = &table->dead, *each; (each = *link) != NULL;) {
        if (each->busy) {
            link = &each->next;
            continue;
        }
        *link = each->next;
        free(each);
    }
}
