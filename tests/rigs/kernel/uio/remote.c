/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firmware behind a window of RAM and a bare interrupt each way: the real port for carve-outs, as a
 * process. `remote MEMORY BYTES BELL`: MEMORY is mapped; a byte written to BELL is the interrupt
 * for Linux, and it is readable when Linux has rung.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/service.h"
#include "core/status.h"
#include "ports/carveout/carveout.h"

static struct carveout link_;
static struct carveout_config config = {.board = "uio", .image = "rig", .coherent = true};
static int bell = -1;

static uint64_t now_ns(void *self)
{
    struct timespec now;
    (void)self;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* There are no bytes: one interrupt for the first of each token. */
static void send_byte(void *self, uint8_t byte)
{
    (void)self;
    if ((byte & 0x80u) != 0 && write(bell, "", 1) < 0)
        perror("remote: the interrupt");
}

static int crash(struct sbe_request *request)
{
    struct sbe_crash_record record = {.kind = SBE_CRASH_ASSERT};
    (void)request;
    (void)strcpy(record.text, "as it was told");
    carveout_crash(&link_, &record);
    _exit(0);
}

SBE_SERVICE(crash, 1, crash);

static void wait_for_bell(void)
{
    uint64_t due = carveout_due_ns(), now = now_ns(NULL);
    uint64_t ms = due == UINT64_MAX ? UINT64_MAX : due <= now ? 0 : (due - now + 999999) / 1000000;
    struct pollfd watched = {.fd = bell, .events = POLLIN};
    char taken[512];
    if (poll(&watched, 1, ms > 60000 ? -1 : (int)ms) <= 0)
        return;
    if (pread(bell, taken, sizeof taken, 0) < 0 && errno != EAGAIN)
        exit(1);
    carveout_take_ring(&link_);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int memory = open(argv[1], O_RDWR | O_CLOEXEC | O_NONBLOCK);
    config.window_size = strtoull(argv[2], NULL, 0);
    bell = strcmp(argv[1], argv[3]) == 0 ? memory : open(argv[3], O_RDWR | O_CLOEXEC | O_NONBLOCK);
    void *window = mmap(NULL, config.window_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (bell < 0 || window == MAP_FAILED || getrandom(&config.seed, sizeof config.seed, 0) < 0) {
        perror("remote");
        return 1;
    }
    config.window = window;
    config.send_byte = send_byte;
    config.now_ns = now_ns;
    if (carveout_start(&link_, &config) < 0)
        return 1;
    for (;;)
        if (!carveout_run(&link_) && !carveout_rung(&link_))
            wait_for_bell();
}
