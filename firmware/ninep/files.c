/* SPDX-License-Identifier: Apache-2.0 */
#include "ninep/files.h"

#include <string.h>

#include "core/status.h"
#include "ninep/server.h"

#define NUMBER_MAX 12u /* characters: -2147483648 and a line's end */
#define LINE_NAME  16u /* of a counter's line; its number takes 20 */
#define LINE       (LINE_NAME + 21u)

bool ninep_read_only;

/* What of a text lies at an offset. */
static uint32_t part_of(const char *text, uint32_t length, uint32_t offset, uint8_t *to,
                        uint32_t size)
{
    if (offset >= length)
        return 0;
    size = size < length - offset ? size : length - offset;
    memcpy(to, text + offset, size);
    return size;
}

/* Decimal, right-aligned in so many characters; what does not fit is not there. */
static void put_number(char *to, uint32_t width, uint64_t value)
{
    memset(to, ' ', width);
    do {
        to[--width] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0 && width != 0);
}

/* -- /log ------------------------------------------------------------------------------------ */

static struct {
    uint32_t used; /* bytes written so far, up to what is kept */
    uint32_t at;   /* where the next one goes */
    char bytes[NINEP_LOG];
} log_kept;

static uint32_t log_size(const struct ninep_special *file)
{
    (void)file;
    return log_kept.used;
}

static uint32_t log_read(const struct ninep_special *file, uint32_t offset, uint8_t *to,
                         uint32_t size)
{
    (void)file;
    uint32_t done = 0;
    uint32_t first = log_kept.used < NINEP_LOG ? 0 : log_kept.at;
    for (; done < size && offset < log_kept.used; done++, offset++)
        to[done] = (uint8_t)log_kept.bytes[(first + offset) % NINEP_LOG];
    return done;
}

static void log_bytes(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        log_kept.bytes[log_kept.at] = bytes[i];
        log_kept.at = (log_kept.at + 1u) % NINEP_LOG;
        log_kept.used += log_kept.used < NINEP_LOG;
    }
}

void ninep_log_text(const char *text)
{
    size_t size = strlen(text);
    log_bytes(text, size < NINEP_LOG / 2u ? size : NINEP_LOG / 2u);
}

void ninep_log(const char *line)
{
    ninep_log_text(line);
    ninep_log_text("\n");
}

static const struct ninep_special LOG = {.name = "log", .size = log_size, .read = log_read};

/* -- /counters ------------------------------------------------------------------------------- */

/* Each line has its length whatever the number is, so that parts read one after the other fit. */
static uint32_t put_counters(char *text)
{
    struct ninep_usage usage = ninep_tree_usage();
    const struct {
        const char *name;
        uint64_t value;
    } lines[] = {
        {"messages", ninep_counters.messages},     {"errors", ninep_counters.errors},
        {"read_bytes", ninep_counters.read_bytes}, {"written_bytes", ninep_counters.written_bytes},
        {"free_blocks", usage.free_blocks},        {"free_files", usage.free_nodes},
    };
    for (uint32_t i = 0; i < sizeof lines / sizeof *lines; i++, text += LINE) {
        memset(text, ' ', LINE_NAME);
        memcpy(text, lines[i].name, strlen(lines[i].name));
        put_number(text + LINE_NAME, 20, lines[i].value);
        text[LINE - 1u] = '\n';
    }
    return (uint32_t)(sizeof lines / sizeof *lines) * LINE;
}

#define COUNTERS_MAX (6u * LINE)

static uint32_t counters_size(const struct ninep_special *file)
{
    (void)file;
    return COUNTERS_MAX;
}

static uint32_t counters_read(const struct ninep_special *file, uint32_t offset, uint8_t *to,
                              uint32_t size)
{
    (void)file;
    char text[COUNTERS_MAX];
    return part_of(text, put_counters(text), offset, to, size);
}

static const struct ninep_special COUNTERS = {
    .name = "counters", .size = counters_size, .read = counters_read};

/* -- /crash ---------------------------------------------------------------------------------- */

static const char *crash_text = "";

void ninep_set_crash(const char *text)
{
    crash_text = text == NULL ? "" : text;
}

static uint32_t crash_size(const struct ninep_special *file)
{
    (void)file;
    return (uint32_t)strlen(crash_text);
}

static uint32_t crash_read(const struct ninep_special *file, uint32_t offset, uint8_t *to,
                           uint32_t size)
{
    return part_of(crash_text, crash_size(file), offset, to, size);
}

static const struct ninep_special CRASH = {.name = "crash", .size = crash_size, .read = crash_read};

/* -- /config --------------------------------------------------------------------------------- */

static struct ninep_node *config;

static uint32_t put_setting(const struct ninep_special *file, char *text)
{
    const struct ninep_setting *setting = (const struct ninep_setting *)file;
    char digits[NUMBER_MAX];
    bool negative = setting->value < 0;
    uint32_t size = 0, first = 0;
    put_number(digits, NUMBER_MAX,
               negative ? (uint64_t)(-(int64_t)setting->value) : (uint64_t)setting->value);
    while (digits[first] == ' ')
        first++;
    if (negative)
        text[size++] = '-';
    memcpy(text + size, digits + first, NUMBER_MAX - first);
    size += NUMBER_MAX - first;
    text[size++] = '\n';
    return size;
}

static uint32_t setting_size(const struct ninep_special *file)
{
    char text[NUMBER_MAX + 2];
    return put_setting(file, text);
}

static uint32_t setting_read(const struct ninep_special *file, uint32_t offset, uint8_t *to,
                             uint32_t size)
{
    char text[NUMBER_MAX + 2];
    return part_of(text, put_setting(file, text), offset, to, size);
}

/* A number in decimal, and nothing else but the line's end. */
static int parse(const uint8_t *from, uint32_t size, int64_t *value)
{
    bool negative = size != 0 && from[0] == '-';
    uint32_t i = negative;
    if (size != 0 && from[size - 1u] == '\n')
        size--;
    if (i == size || size > NUMBER_MAX)
        return SBE_EINVAL;
    for (*value = 0; i < size; i++) {
        if (from[i] < '0' || from[i] > '9')
            return SBE_EINVAL;
        *value = *value * 10 + (from[i] - '0');
    }
    *value = negative ? -*value : *value;
    return SBE_OK;
}

static int setting_write(const struct ninep_special *file, const uint8_t *from, uint32_t size)
{
    struct ninep_setting *setting = (struct ninep_setting *)(uintptr_t)file; /* it began as one */
    int64_t value;
    int status = parse(from, size, &value);
    if (status != SBE_OK)
        return status;
    if (value < setting->least || value > setting->most)
        return SBE_ERANGE;
    if (setting->changed != NULL)
        status = setting->changed(setting, (int32_t)value);
    if (status == SBE_OK)
        setting->value = (int32_t)value;
    return status;
}

static int add_setting(struct ninep_setting *setting, const char *name)
{
    setting->file = (struct ninep_special){
        .name = name, .size = setting_size, .read = setting_read, .write = setting_write};
    return ninep_add_special(config, &setting->file);
}

static int set_read_only(struct ninep_setting *setting, int32_t value)
{
    (void)setting;
    ninep_read_only = value != 0;
    ninep_log(value != 0 ? "the file system is read-only" : "the file system may be written to");
    return SBE_OK;
}

static struct ninep_setting read_only = {.most = 1, .changed = set_read_only};

void ninep_files_init(void)
{
    static bool made;
    if (made)
        return;
    made = true;
    ninep_tree_init();
    struct ninep_node *root = ninep_node(NINEP_ROOT);
    (void)ninep_add_special(root, &LOG); /* there is room: it is empty */
    (void)ninep_add_special(root, &COUNTERS);
    (void)ninep_add_special(root, &CRASH);
    config = ninep_add_dir(root, "config", NINEP_DIR);
    struct ninep_node *files = ninep_add_dir(root, "ram", NINEP_RAM_DIR);
    files->mode = NINEP_MODE_DIR | 01777u;
    (void)add_setting(&read_only, "read_only");
}

int ninep_add_setting(struct ninep_setting *setting, const char *name)
{
    ninep_files_init();
    return add_setting(setting, name);
}
