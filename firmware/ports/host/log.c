/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "ninep/files.h"
#include "ports/host/host.h"

#define LINES_PER_PERIOD 10u
#define PERIOD_NS        (10u * UINT64_C(1000000000))

uint64_t host_now_ns(void *self)
{
    struct timespec now;
    (void)self;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void host_log(const char *format, ...)
{
    static uint64_t period_began;
    static uint32_t lines;
    uint64_t now = host_now_ns(NULL);
    if (lines == 0 || now - period_began > PERIOD_NS) {
        period_began = now;
        lines = 0;
    }
    if (lines >= LINES_PER_PERIOD)
        return;
    lines++;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    ninep_log(line);
    (void)fprintf(stderr, "sbe-remote: %s%s\n", line,
                  lines == LINES_PER_PERIOD ? " (quiet now for some seconds)" : "");
}
