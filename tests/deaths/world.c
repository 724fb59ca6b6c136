/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two ends share, who runs next, and who dies where.
 *
 * Usage: world HOST.so REMOTE.so mail|resident|carved SEED singles PART PARTS
 *                                                  pairs STRIDE OFFSET
 *                                                  around POINTS
 *                                                  replay VICTIM POINT [VICTIM POINT]
 * Each run is the same until a death: schedule, clock and what becomes of messages under way come
 * from the seed. An end that sleeps runs again only when it is told something, so a doorbell that
 * is lost shows as two ends that sleep.
 */
#include <dlfcn.h>
#include <link.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>

#include "ends.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size)   ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#define POISON  0xa7
#define QUEUE   512u
#define RECORDS 2048u
#define ROUNDS  20000u /* a run takes some hundred: more is a hang */
#define DEATHS  2u

struct death { /* of this end at its so many-th point since the death before */
    enum which victim;
    uint32_t point; /* 0: none */
};

struct plan {
    enum binding binding;
    uint32_t seed;
    struct death deaths[DEATHS];
};

enum item_kind {
    MESSAGE,
    BELL,
    BYTE,
    MEETS,
    LOSES
};

struct item {
    enum item_kind kind;
    uint32_t value; /* size, channel or byte */
    uint64_t bytes[SBE_CONTROL_MAX / sizeof(uint64_t)];
};

struct queue {
    struct item items[QUEUE];
    uint32_t first;
    uint32_t count;
};

struct record {
    enum kind kind;
    bool open;
};

static _Alignas(BLOCK) uint8_t window[WINDOW];
static const char *const END_NAMES[ENDS] = {"host", "remote"};
static const char *const BINDING_NAMES[BINDINGS] = {"mail", "resident", "carved"};

static struct image { /* what a loaded end has in writable memory */
    const struct end *end;
    uint64_t *start;
    uint64_t *fresh;
    size_t words;
} images[ENDS];

static struct plan plan;
static struct { /* of the run at hand */
    struct queue queues[ENDS];
    struct record records[RECORDS];
    uint32_t record_count;
    bool taken[BLOCKS], ring[BLOCKS], orphan[BLOCKS];
    bool awake[ENDS], alive[ENDS];
    uint32_t steps[ENDS]; /* since the last death */
    uint32_t deaths;
    bool reset;
    uint32_t reset_at[ENDS]; /* the points that were passed before it */
    uint32_t epoch;
    uint64_t now_ns;
    uint32_t clock_step_ns;
    uint32_t random;
    int running; /* -1: none */
    const char *step;
} world;
static jmp_buf death;

_Noreturn void world_fail(const char *text, long value)
{
    (void)fprintf(stderr, "%s (%ld)\nreplay: %s %u replay", text, value,
                  BINDING_NAMES[plan.binding], plan.seed);
    for (uint32_t i = 0; i < DEATHS && plan.deaths[i].point != 0; i++)
        (void)fprintf(stderr, " %s %u", END_NAMES[plan.deaths[i].victim], plan.deaths[i].point);
    (void)fprintf(stderr, "\nat the step: %s, of the %s\n",
                  world.step == NULL ? "none" : world.step,
                  world.running < 0 ? "world" : END_NAMES[world.running]);
    abort();
}

uint32_t world_draw(uint32_t below)
{
    world.random = world.random * 1664525u + 1013904223u;
    return (world.random >> 8) % below;
}

/* -- private memory ---------------------------------------------------------------------------- */

/* Sanitizers keep shadows of what is between variables: a plain copy, which they do not see. */
__attribute__((no_sanitize("address", "undefined"))) static void
copy_words(uint64_t *to, const uint64_t *from, size_t words)
{
    volatile uint64_t *at = to;
    for (size_t i = 0; i < words; i++)
        at[i] = from[i];
}

struct wanted {
    const void *inside;
    struct image *image;
};

static int take_segment(struct dl_phdr_info *info, size_t size, void *wanted_)
{
    struct wanted *wanted = wanted_;
    uintptr_t inside = (uintptr_t)wanted->inside;
    bool ours = false;
    (void)size;
    for (uint32_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        ours =
            ours || (part->p_type == PT_LOAD && inside >= begin && inside < begin + part->p_memsz);
    }
    for (uint32_t i = 0; ours && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_W) == 0)
            continue;
        HOLDS(wanted->image->start == NULL); /* linked without a part that turns read-only */
        uintptr_t begin = (info->dlpi_addr + part->p_vaddr + 7) & ~(uintptr_t)7;
        wanted->image->start = (uint64_t *)begin;
        wanted->image->words = (info->dlpi_addr + part->p_vaddr + part->p_memsz - begin) / 8;
    }
    return ours;
}

static void load(struct image *image, const char *path)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL)
        world_fail(dlerror(), 0);
    image->end = dlsym(object, "end");
    HOLDS(image->end != NULL);
    struct wanted wanted = {image->end, image};
    HOLDS(dl_iterate_phdr(take_segment, &wanted) != 0 && image->start != NULL);
    image->fresh = malloc(image->words * 8);
    copy_words(image->fresh, image->start, image->words);
}

/* -- the world, for the ends ------------------------------------------------------------------- */

uint8_t *world_window(void)
{
    return window;
}

uint32_t world_epoch(void)
{
    return ++world.epoch * 2654435761u;
}

uint64_t world_now_ns(void *self)
{
    (void)self;
    return world.now_ns += world.clock_step_ns;
}

static struct item *push(enum which to, enum item_kind kind, uint32_t value)
{
    struct queue *queue = &world.queues[to];
    HOLDS(queue->count < QUEUE);
    struct item *item = &queue->items[(queue->first + queue->count++) % QUEUE];
    item->kind = kind;
    item->value = value;
    return item;
}

void world_send(enum which to, const void *message, uint32_t size)
{
    HOLDS(size <= SBE_CONTROL_MAX);
    if (world.alive[to] || plan.binding == RESIDENT)
        memcpy(push(to, MESSAGE, size)->bytes, message, size);
}

void world_ring(enum which to, uint32_t channel)
{
    if (world.alive[to])
        (void)push(to, BELL, channel);
}

void world_send_byte(enum which to, uint8_t byte)
{
    (void)push(to, BYTE, byte);
}

/* -- stores ------------------------------------------------------------------------------------ */

/* Between two points at most one shared word of control changes, and nothing with it. */
static struct {
    bool on;
    _Alignas(8) uint8_t shadow[WINDOW];
    uint32_t changes;
} survey;

static bool is_control(uint32_t at)
{
    if (at < SBE_CARVEOUT_INFO)
        return true;
    const uint32_t rings[] = {SBE_CARVEOUT_TO_REMOTE, SBE_CARVEOUT_TO_HOST};
    for (uint32_t i = 0; i < 2; i++)
        if (at >= rings[i] && at < rings[i] + 2 * SBE_CARVEOUT_LINE)
            return true;
    if (at < SBE_CARVEOUT_ARENA || !world.ring[(at - SBE_CARVEOUT_ARENA) / BLOCK])
        return false;
    uint32_t inside = (at - SBE_CARVEOUT_ARENA) % BLOCK;
    return inside < 2 * RING && inside % RING < 2 * LINE;
}

__attribute__((no_sanitize("address"))) static void look_for_stores(void)
{
    uint32_t words = 0, others = 0;
    for (uint32_t i = 0; i < WINDOW; i += 8) {
        const volatile uint32_t *now = (const volatile uint32_t *)(const void *)(window + i);
        uint32_t *was = (uint32_t *)(void *)(survey.shadow + i);
        for (uint32_t k = 0; k < 2; k++) {
            if (now[k] == was[k])
                continue;
            was[k] = now[k];
            if (is_control(i))
                words++;
            else
                others++;
        }
    }
    survey.changes += words;
    if (words > 1 || (words == 1 && others > 0))
        world_fail("stores without a point between them, before", (long)(words + others));
}

/* What the ends' owners do with memory is no store to what the other end may see. */
static void forget_stores(void)
{
    if (survey.on)
        copy_words((uint64_t *)(void *)survey.shadow, (const uint64_t *)(const void *)window,
                   WINDOW / 8);
}

static uint8_t *block_at(uint32_t index)
{
    return window + SBE_CARVEOUT_ARENA + index * BLOCK;
}

static void poison(uint32_t index)
{
    if (survey.on)
        look_for_stores();
    memset(block_at(index), POISON, BLOCK);
    forget_stores();
    ASAN_POISON_MEMORY_REGION(block_at(index), BLOCK);
    world.taken[index] = world.orphan[index] = world.ring[index] = false;
}

static void check_poison(uint32_t index)
{
    uint8_t *block = block_at(index);
    ASAN_UNPOISON_MEMORY_REGION(block, BLOCK);
    if (block[0] != POISON || memcmp(block, block + 1, BLOCK - 1) != 0)
        world_fail("free memory was written", index);
}

uint8_t *world_take_block(bool for_rings)
{
    uint32_t index = 0;
    while (index < BLOCKS && world.taken[index])
        index++;
    HOLDS(index < BLOCKS); /* accounted for to the last one */
    check_poison(index);
    if (survey.on)
        look_for_stores();
    memset(block_at(index), 0, BLOCK);
    forget_stores();
    world.taken[index] = true;
    world.ring[index] = for_rings;
    return block_at(index);
}

void world_give_block(uint8_t *block)
{
    uint32_t index = (uint32_t)(block - block_at(0)) / BLOCK;
    HOLDS(index < BLOCKS && world.taken[index]);
    poison(index);
}

void world_take_orphans(void)
{
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (world.orphan[i])
            poison(i);
}

uint32_t world_asked(enum kind kind)
{
    HOLDS(world.record_count < RECORDS);
    world.records[world.record_count] = (struct record){kind, true};
    return world.record_count++;
}

void world_expects(uint32_t record, enum kind kind)
{
    HOLDS(world.records[record].open);
    world.records[record].kind = kind;
}

void world_answered(uint32_t record, int status, bool right)
{
    struct record *entry = &world.records[record];
    HOLDS(entry->open); /* answered once */
    entry->open = false;
    bool lost = world.deaths > 0 || world.reset;
    bool fits = (status == 0 && right) || (status == -104 && lost) ||
                (status == -125 && entry->kind == CANCELLED) ||
                (status == -108 && entry->kind == ABANDONED) ||
                (status == -14 && entry->kind == ROBBED);
    if (!fits)
        world_fail("an answer that is neither right nor an error that fits", status);
}

void world_reset(void)
{
    world.reset = true;
    memcpy(world.reset_at, world.steps, sizeof world.reset_at);
}

void world_met(void)
{
    HOLDS(!world.alive[REMOTE] || images[REMOTE].end->holds() == 0);
}

/* -- points ------------------------------------------------------------------------------------ */

void deaths_step(const char *name);
void deaths_step(const char *name)
{
    if (world.running < 0)
        return;
    world.step = name;
    if (survey.on)
        look_for_stores();
    uint32_t count = ++world.steps[world.running];
    const struct death *next = world.deaths < DEATHS ? &plan.deaths[world.deaths] : NULL;
    if (next != NULL && (int)next->victim == world.running && next->point == count)
        longjmp(death, 1);
}

/* -- a run ------------------------------------------------------------------------------------- */

static void lose_queue(enum which of, bool all)
{
    if (all || world_draw(2) == 0)
        world.queues[of].count = 0;
}

static void die(enum which victim)
{
    enum which other = victim == HOST ? REMOTE : HOST;
    bool mail = plan.binding == MAIL;
    copy_words(images[victim].start, images[victim].fresh, images[victim].words);
    world.alive[victim] = world.awake[victim] = false;
    world.deaths++;
    memset(world.steps, 0, sizeof world.steps);
    lose_queue(victim, mail);
    if (plan.binding != RESIDENT) /* what is under way there is the link's */
        lose_queue(other, false);
    if (mail && world.alive[other])
        (void)push(other, LOSES, 0);
    if (victim != HOST)
        return;
    for (uint32_t i = 0; i < world.record_count; i++)
        world.records[i].open = false; /* nobody waits any more */
    for (uint32_t i = 0; i < BLOCKS; i++)
        world.orphan[i] = world.taken[i];
}

static void deliver(enum which to, const struct item *item)
{
    const struct end *told = images[to].end;
    switch (item->kind) {
    case MESSAGE:
        told->take_message(item->bytes, item->value);
        break;
    case BELL:
        told->take_bell(item->value);
        break;
    case BYTE:
        told->take_byte((uint8_t)item->value);
        break;
    case MEETS:
        told->connected();
        break;
    case LOSES:
        told->lost();
        break;
    }
}

static void begin_life(enum which which)
{
    enum which other = which == HOST ? REMOTE : HOST;
    world.alive[which] = true;
    images[which].end->begin(plan.binding);
    if (plan.binding == RESIDENT)
        (void)push(which, MEETS, 0);
    if (plan.binding == MAIL && world.alive[other]) {
        (void)push(HOST, MEETS, 0);
        (void)push(REMOTE, MEETS, 0);
    }
}

/* One turn of an end: some of what was sent to it, then what it does about it. */
static void take_turn(enum which which)
{
    struct queue *queue = &world.queues[which];
    if (!world.alive[which])
        begin_life(which);
    for (uint32_t left = 1 + world_draw(4); left > 0 && queue->count > 0; left--) {
        static struct item items[ENDS];
        items[which] = queue->items[queue->first];
        queue->first = (queue->first + 1) % QUEUE;
        queue->count--;
        deliver(which, &items[which]);
    }
    /* Now and then it is held up before it goes on. */
    world.awake[which] = world_draw(3) == 0 || images[which].end->run();
}

static void run_end(enum which which)
{
    forget_stores();
    world.running = which;
    if (setjmp(death) == 0)
        take_turn(which);
    else
        die((enum which)world.running);
    world.running = -1;
}

static bool may_run(enum which which)
{
    return !world.alive[which] || world.awake[which] || world.queues[which].count > 0;
}

static void begin_run(void)
{
    for (uint32_t i = 0; i < ENDS; i++)
        copy_words(images[i].start, images[i].fresh, images[i].words);
    ASAN_UNPOISON_MEMORY_REGION(window, WINDOW);
    memset(window, 0, SBE_CARVEOUT_ARENA);
    for (uint32_t i = 0; i < ENDS; i++)
        world.queues[i].first = world.queues[i].count = 0;
    world.record_count = 0;
    memset(world.alive, 0, sizeof world.alive);
    memset(world.awake, 0, sizeof world.awake);
    memset(world.steps, 0, sizeof world.steps);
    world.deaths = 0;
    world.reset = false;
    world.epoch = 0;
    world.now_ns = 0;
    world.random = plan.seed * 7919u + plan.binding;
    world.clock_step_ns = world_draw(2) == 0 ? 1000u : 300000u; /* with the latter handlers pause */
    world.running = -1;
    world.step = NULL;
    for (uint32_t i = 0; i < BLOCKS; i++)
        poison(i);
}

static void check_end(void)
{
    for (uint32_t i = 0; i < DEATHS; i++)
        HOLDS(plan.deaths[i].point == 0 || world.deaths > i); /* it did die there */
    HOLDS(images[HOST].end->holds() == 0 && images[REMOTE].end->holds() == 0);
    for (uint32_t i = 0; i < world.record_count; i++)
        HOLDS(!world.records[i].open);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        HOLDS(!world.taken[i]);
        check_poison(i);
    }
}

static void run(void)
{
    begin_run();
    for (uint32_t rounds = 0; rounds < ROUNDS; rounds++) {
        bool host = may_run(HOST), remote = may_run(REMOTE);
        if (!host && !remote) {
            if (!images[HOST].end->finished())
                world_fail("both sleep and the host is not done", rounds);
            check_end();
            return;
        }
        run_end(!remote || (host && world_draw(2) == 0) ? HOST : REMOTE);
    }
    world_fail("no end in so many rounds", ROUNDS);
}

/* -- which runs -------------------------------------------------------------------------------- */

static uint32_t points_of[ENDS];

static void count_points(void)
{
    plan.deaths[0].point = plan.deaths[1].point = 0;
    run();
    memcpy(points_of, world.steps, sizeof points_of);
}

/* Each point, or each that is `part` of so many parts. Returns how many. */
static uint32_t singles(uint32_t part, uint32_t parts)
{
    uint32_t count = 0;
    for (uint32_t victim = 0; victim < ENDS; victim++)
        for (uint32_t point = 1 + part; point <= points_of[victim]; point += parts, count++) {
            plan.deaths[0] = (struct death){(enum which)victim, point};
            run();
        }
    return count;
}

/* After each stride-th point, of what both ends do until they are well again, each stride-th. */
static uint32_t pairs(uint32_t stride, uint32_t offset)
{
    uint32_t count = 0, second = 1 + offset % stride;
    for (uint32_t victim = 0; victim < ENDS; victim++)
        for (uint32_t point = 1 + offset; point <= points_of[victim]; point += stride) {
            plan.deaths[0] = (struct death){(enum which)victim, point};
            plan.deaths[1].point = 0;
            run();
            uint32_t after[ENDS];
            memcpy(after, world.steps, sizeof after);
            for (uint32_t next = 0; next < ENDS; next++, second = 1 + second % stride)
                for (uint32_t at = second; at <= after[next]; at += stride, count++) {
                    plan.deaths[1] = (struct death){(enum which)next, at};
                    run();
                }
        }
    plan.deaths[1].point = 0;
    return count;
}

/* All pairs of so many points: from the start, or from the host's new epoch on, and of what
 * follows. */
static uint32_t around(uint32_t points)
{
    uint32_t count = 0, resets[ENDS];
    memcpy(resets, world.reset_at, sizeof resets);
    for (uint32_t i = 0; i < 4 * points; i++) {
        enum which victim = i % 2 == 0 ? HOST : REMOTE;
        uint32_t from = i / 2 % 2 == 0 ? 1 : resets[victim] - points / 4;
        plan.deaths[0] = (struct death){victim, from + i / 4};
        for (uint32_t k = 0; k < 2 * points; k++, count++) {
            plan.deaths[1] = (struct death){k % 2 == 0 ? HOST : REMOTE, 1 + k / 2};
            run();
        }
    }
    return count;
}

static enum which which_end(const char *name)
{
    return strcmp(name, "host") == 0 ? HOST : REMOTE;
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    struct timespec begin, now;
    uint32_t count = 1;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    world.running = -1;
    HOLDS(argc >= 7);
    load(&images[HOST], argv[1]);
    load(&images[REMOTE], argv[2]);
    while (strcmp(argv[3], BINDING_NAMES[plan.binding]) != 0)
        HOLDS(++plan.binding < BINDINGS);
    plan.seed = number(argv[4]);
    if (strcmp(argv[5], "replay") == 0) {
        for (uint32_t i = 0; i < DEATHS && 7 + 2 * i < (uint32_t)argc; i++)
            plan.deaths[i] = (struct death){which_end(argv[6 + 2 * i]), number(argv[7 + 2 * i])};
        run();
        return 0;
    }
    survey.on = true;
    count_points();
    survey.on = false;
    if (strcmp(argv[5], "singles") == 0)
        count = singles(number(argv[6]), number(argv[7]));
    else if (strcmp(argv[5], "around") == 0)
        count = around(number(argv[6]));
    else
        count = pairs(number(argv[6]), number(argv[7]));
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)printf("%u deaths; host %u and remote %u points, %u control words stored, %.1f s\n",
                 count, points_of[HOST], points_of[REMOTE], survey.changes,
                 (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9);
    return 0;
}
