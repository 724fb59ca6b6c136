/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of 9P that says anything: messages of each type with fields that are usually right, cut
 * short and made longer, and data in memory that changes as it is looked at. What is held by
 * sessions and files adds up whatever came, and data lie within their buffer.
 */
#include "core/service.h"
#include "core/status.h"
#include "input.h"
#include "ninep/files.h"
#include "ninep/server.h"
#include "race.h"

#define DATA     1024u
#define MESSAGES 100u

static struct input input;
static struct ninep_session sessions[2];
static uint8_t *data;

static struct ninep_out *message(void)
{
    static uint8_t bytes[1024];
    static struct ninep_out out = {.at = bytes, .room = sizeof bytes};
    return &out;
}

static void put_name(struct ninep_out *out)
{
    static const char *const NAMES[] = {"ram", "config", "read_only", "log", "..", "a", "b", "/"};
    const char *name = NAMES[pick(&input, 8)];
    if (rarely(&input)) { /* of a length that is not its own */
        ninep_put(out, number32(&input, 1), 2);
        return;
    }
    ninep_put_text(out, name, (uint16_t)strlen(name));
}

/* A letter for each field: f a fid, n a name, digits a number of so many bytes. */
static const struct {
    uint8_t type;
    const char *fields;
} SHAPES[] = {
    {NINEP_TWALK, "ff2n"},     {NINEP_TWALK, "ff2nn"}, {NINEP_TLOPEN, "f4"},
    {NINEP_TLCREATE, "fn444"}, {NINEP_TMKDIR, "fn44"}, {NINEP_TUNLINKAT, "fn4"},
    {NINEP_TRENAMEAT, "fnfn"}, {NINEP_TRENAME, "ffn"}, {NINEP_TREMOVE, "f"},
    {NINEP_TCLUNK, "f"},       {NINEP_TREAD, "f84"},   {NINEP_TWRITE, "f84"},
    {NINEP_TREADDIR, "f84"},   {NINEP_TGETATTR, "f8"}, {NINEP_TSETATTR, "f444488888"},
    {NINEP_TSTATFS, "f"},      {NINEP_TFSYNC, "f4"},   {NINEP_TFLUSH, "2"},
    {NINEP_TATTACH, "f4nn4"},  {NINEP_TVERSION, "4n"},
};

static uint64_t usual(char field, uint8_t type)
{
    if (type == NINEP_TWALK)
        return 1;
    if (type == NINEP_TSETATTR && field == '4')
        return NINEP_SET_SIZE;
    if (field == '4' && (type == NINEP_TREAD || type == NINEP_TWRITE || type == NINEP_TREADDIR))
        return DATA;
    return field == '4' ? pick(&input, 3) : pick(&input, 200) * 64u;
}

static void put_message(struct ninep_out *out)
{
    uint32_t shape = pick(&input, sizeof SHAPES / sizeof *SHAPES);
    uint8_t type = rarely(&input) ? take_u8(&input) : SHAPES[shape].type;
    out->used = 4;
    ninep_put(out, type, 1);
    ninep_put(out, 1, 2);
    for (const char *field = SHAPES[shape].fields; *field != '\0'; field++) {
        if (*field == 'f')
            ninep_put(out, number32(&input, pick(&input, 6)), 4);
        else if (*field == 'n')
            put_name(out);
        else
            ninep_put(out, number(&input, usual(*field, type)), (uint32_t)(*field - '0'));
    }
    if (rarely(&input))
        out->used = 7 + (uint32_t)pick(&input, 64);
    HOLDS(!out->full);
}

static void check_held(void)
{
    uint32_t fids = 0, held = 0;
    for (uint32_t i = 0; i < 2; i++)
        fids += sessions[i].used_fids;
    for (uint32_t i = 0; i < NINEP_NODES; i++) {
        const struct ninep_node *node = ninep_node(i);
        held += node->kind == NINEP_FREE ? 0 : node->fids;
        HOLDS(node->kind == NINEP_FREE || !node->removed || node->fids != 0);
        HOLDS(node->kind == NINEP_FREE || node->size <= (uint64_t)NINEP_BLOCKS * NINEP_BLOCK);
    }
    HOLDS(fids == held);
}

static void serve(void)
{
    struct ninep_out *out = message();
    uint8_t reply[512], which = (uint8_t)pick(&input, 3);
    put_message(out);
    uint32_t used = out->used, size = which == 0 ? DATA : 0;
    out->used = 0;
    ninep_put(out, number32(&input, used + size), 4);
    uint8_t *exact = malloc(used);
    memcpy(exact, out->at, used);
    struct ninep_call call = {
        .session = &sessions[pick(&input, 2)],
        .message = exact,
        .message_size = used,
        .from = which == 0 ? data : NULL,
        .to = which == 1 ? data : NULL,
        .data_size = which == 2 ? 0 : DATA,
        .reply = reply,
        .reply_room = sizeof reply,
        .piece = 256,
    };
    uint32_t pieces = 0;
    int status;
    while ((status = ninep_serve(&call)) == SBE_MORE)
        HOLDS(pieces++ < 2u + NINEP_BLOCKS * NINEP_BLOCK / 64u);
    HOLDS(status == SBE_OK || status == SBE_EBADMSG);
    HOLDS(call.written <= (which == 1 ? DATA : 0));
    HOLDS(status != SBE_OK || (call.reply_size >= NINEP_HEADER && call.reply_size <= sizeof reply));
    free(exact);
}

/* Nothing is left of a case for the next. */
static void clear(void)
{
    for (uint32_t i = 0; i < 2; i++)
        ninep_session_reset(&sessions[i]);
    ninep_read_only = false;
    for (uint32_t again = 0; again < NINEP_NODES; again++)
        for (uint32_t i = 0; i < NINEP_NODES; i++)
            if (ninep_node(i)->kind == NINEP_RAM_FILE ||
                (ninep_node(i)->kind == NINEP_RAM_DIR && ninep_node(i)->children == 0))
                (void)ninep_remove(ninep_node(i));
    HOLDS(ninep_tree_usage().free_blocks == NINEP_BLOCKS);
    HOLDS(ninep_tree_usage().free_nodes == NINEP_NODES - 7u);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 16);
    data = malloc(DATA);
    memset(data, '1', DATA);
    ninep_files_init();
    for (uint32_t i = 0; i < 2; i++) {
        sessions[i].msize = 4096;
        struct ninep_out *out = message();
        out->used = 0;
        static const uint8_t ATTACH[] = {23, 0,   0,   0,   NINEP_TATTACH, 1, 0, 0, 0, 0,
                                         0,  255, 255, 255, 255,           0, 0, 0, 0, 0,
                                         0,  0,   0};
        uint8_t reply[256];
        struct ninep_call call = {
            .session = &sessions[i],
            .message = ATTACH,
            .message_size = sizeof ATTACH,
            .reply = reply,
            .reply_room = sizeof reply,
            .piece = 256,
        };
        HOLDS(ninep_serve(&call) == SBE_OK && call.reply_size == 20);
    }
    race_begin(data, DATA, seed, rate);
    for (uint32_t steps = 0; input.left > 0 && steps < MESSAGES; steps++)
        serve();
    race_end();
    check_held();
    clear();
    free(data);
    return 0;
}
