/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every memory-ordering primitive of the core, with its reason.
 *
 * Only loads, stores and fences: single-CPU emulators and some buses do not carry exclusive
 * accesses to the other end, so nothing here is a read-modify-write.
 */
#ifndef SBE_CORE_ATOMIC_H
#define SBE_CORE_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* A word in shared memory with one writer. Aligned 32-bit accesses never tear. */
typedef _Atomic uint32_t sbe_shared_u32;
_Static_assert(sizeof(sbe_shared_u32) == 4, "a shared word is four bytes");

/* Reads what the peer publishes: frames written before its store are visible after this load. */
static inline uint32_t sbe_load_acquire(const sbe_shared_u32 *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

/* Publishes: everything written before is visible to whoever reads the new value. */
static inline void sbe_store_release(sbe_shared_u32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* A wake-up index or a statistic: its order is given by the full barrier beside it, if any. */
static inline uint32_t sbe_load_relaxed(const sbe_shared_u32 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void sbe_store_relaxed(sbe_shared_u32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/*
 * Orders our store before our next load, the one case acquire and release do not cover: "publish,
 * then look whether the peer sleeps" against "say that I sleep, then look again". Without it both
 * ends may read the old value and a wake-up is lost.
 *
 * On Arm the peer may sit outside the inner shareable domain, which is all that a C11 fence
 * orders, hence DMB SY.
 */
static inline void sbe_full_barrier(void)
{
#if defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("dmb sy" ::: "memory");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/*
 * Copies shared bytes into private memory once. The signal fence keeps the compiler from reading
 * the source again where the copy is used: a peer may change shared memory at any time.
 */
static inline void sbe_snapshot(void *private_copy, const void *shared, uint32_t size)
{
    memcpy(private_copy, shared, size);
    atomic_signal_fence(memory_order_seq_cst);
}

/*
 * Copies a record of whole words between places that are aligned to words. In place: memcpy() is a
 * call in freestanding code, which for a header costs several times the copy.
 */
#define sbe_copy_record(to, from, size) \
    __builtin_memcpy(__builtin_assume_aligned(to, 4), __builtin_assume_aligned(from, 4), size)

/* Between two looks at a shared word: spares the other hyperthread and the bus. */
static inline void sbe_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

#endif
