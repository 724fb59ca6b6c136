/* SPDX-License-Identifier: Apache-2.0 */
#include "carveout/crash.h"
#include "ports/carveout/carveout.h"

#define NAME_WIDTH 12u

struct text {
    char *at;
    uint32_t left; /* without the NUL at its end */
};

static void put_char(struct text *text, char character)
{
    if (text->left == 0)
        return;
    bool shown = (character >= ' ' && character <= '~') || character == '\n';
    *text->at++ = shown ? character : '?';
    text->left--;
}

/* At most so many bytes, up to a NUL. */
static uint32_t put(struct text *text, const char *from, uint32_t size)
{
    uint32_t i = 0;
    for (; i < size && from[i] != '\0'; i++)
        put_char(text, from[i] == '\n' ? '?' : from[i]);
    return i;
}

static void put_name(struct text *text, const char *name)
{
    for (uint32_t done = put(text, name, NAME_WIDTH); done < NAME_WIDTH; done++)
        put_char(text, ' ');
}

static void put_line(struct text *text, const char *name, const char *value, uint32_t size)
{
    if (value[0] == '\0')
        return;
    put_name(text, name);
    (void)put(text, value, size);
    put_char(text, '\n');
}

static void put_hex(struct text *text, uint32_t value)
{
    (void)put(text, "0x", 2);
    for (uint32_t i = 0; i < 8; i++, value <<= 4)
        put_char(text, "0123456789abcdef"[value >> 28]);
}

static void put_decimal(struct text *text, uint64_t value)
{
    char digits[20];
    uint32_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0);
    (void)put(text, digits + i, (uint32_t)sizeof digits - i);
}

static void put_registers(struct text *text, const struct sbe_crash_record *record)
{
    const struct {
        const char *name;
        uint32_t value;
    } shown[] = {
        {"pc", record->registers[6]},      {"lr", record->registers[5]},
        {"sp", record->stack_pointer},     {"cfsr", record->fault_status[0]},
        {"hfsr", record->fault_status[1]}, {"mmfar", record->fault_status[2]},
        {"bfar", record->fault_status[3]},
    };
    for (uint32_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        put_name(text, shown[i].name);
        put_hex(text, shown[i].value);
        put_char(text, '\n');
    }
}

void carveout_crash_text(const struct sbe_crash_record *record,
                         char text[static CARVEOUT_CRASH_TEXT])
{
    struct text to = {text, CARVEOUT_CRASH_TEXT - 1u};
    put_line(&to, "text", record->text, sizeof record->text);
    put_line(&to, "kind", sbe_crash_kind_name(record), NAME_WIDTH);
    if (record->service[0] != '\0') {
        put_line(&to, "service", record->service, sizeof record->service);
        put_name(&to, "transaction");
        put_decimal(&to, record->transaction);
        put_char(&to, '\n');
    }
    put_registers(&to, record);
    if (record->backtrace[0] != 0)
        put_name(&to, "backtrace");
    for (uint32_t i = 0; i < SBE_CRASH_BACKTRACE && record->backtrace[i] != 0; i++) {
        put_hex(&to, record->backtrace[i]);
        bool last = i + 1u == SBE_CRASH_BACKTRACE || record->backtrace[i + 1u] == 0;
        put_char(&to, last ? '\n' : ' ');
    }
    *to.at = '\0';
}
