/*
 * Floor of every shared-memory exchange: two threads on two CPUs hand one cache line back and
 * forth. Usage: bounce NEAR_CPU FAR_CPU BATCHES TRIPS; prints nanoseconds per round trip, one line
 * per batch.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Alone on its line. 128: x86 fetches lines in pairs, some Arm cores have lines that long. */
static struct {
    _Alignas(128) _Atomic uint32_t turn;
    char alone[124];
} line;

static int far_cpu;
static uint32_t trips_total;

static int pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/* Odd values are the far end's turn, even ones the near end's; ordered as a ring's index is. */
static void *far_end(void *unused)
{
    (void)unused;
    if (pin(far_cpu) != 0)
        exit(2);
    for (uint32_t trip = 0; trip < trips_total; trip++) {
        uint32_t mine = 2 * trip + 1;

        while (atomic_load_explicit(&line.turn, memory_order_acquire) != mine)
            ;
        atomic_store_explicit(&line.turn, mine + 1, memory_order_release);
    }
    return NULL;
}

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    pthread_t far;
    uint32_t batches, trips, turn = 0;

    if (argc != 5)
        return 2;
    far_cpu = atoi(argv[2]);
    batches = (uint32_t)atoi(argv[3]);
    trips = (uint32_t)atoi(argv[4]);
    trips_total = batches * trips;
    if (pin(atoi(argv[1])) != 0 || pthread_create(&far, NULL, far_end, NULL) != 0)
        return 2;
    for (uint32_t batch = 0; batch < batches; batch++) {
        double begin = now_ns();

        for (uint32_t trip = 0; trip < trips; trip++, turn += 2) {
            atomic_store_explicit(&line.turn, turn + 1, memory_order_release);
            while (atomic_load_explicit(&line.turn, memory_order_acquire) != turn + 2)
                ;
        }
        printf("%.2f\n", (now_ns() - begin) / trips);
    }
    pthread_join(far, NULL);
    return 0;
}
