/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every memory-ordering primitive of the core, with its reason.
 *
 * Only loads, stores and fences: single-CPU emulators and some buses do not carry exclusive
 * accesses to the other end, so nothing here is a read-modify-write.
 *
 * On Arm every order is a DMB of the full system beside a plain access. The peer may be a Cortex-M
 * behind a bus, outside of the inner shareable domain, and C11 gives no more than that: DMB ISH on
 * v7, while LDAR and STLR reach as far as the word's mapping says, which for cached memory is no
 * further. A Cortex-M has no option but SY. docs/adr/0018 has the rules; nothing else in the tree
 * may order memory that a peer sees, and tests/unit/test_barriers.py reads the instructions.
 */
#ifndef SBE_CORE_ATOMIC_H
#define SBE_CORE_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* A word in shared memory with one writer. Aligned 32-bit accesses never tear. */
typedef _Atomic uint32_t sbe_shared_u32;
_Static_assert(sizeof(sbe_shared_u32) == 4, "a shared word is four bytes");

/* ThreadSanitizer sees C11's orders and not an instruction; its two ends are threads. */
#if (defined(__aarch64__) || defined(__arm__)) && !defined(__SANITIZE_THREAD__)
#define SBE_DMB(option) __asm__ volatile("dmb " option ::: "memory")
#endif

/* After the load of an index, before anything that it shows is read or overwritten. */
static inline void sbe_acquire_barrier(void)
{
#if defined(SBE_DMB) && defined(__aarch64__)
    SBE_DMB("ld"); /* loads before, everything after: does not wait for our own stores */
#elif defined(SBE_DMB)
    SBE_DMB("sy");
#else
    atomic_thread_fence(memory_order_acquire);
#endif
}

/*
 * Before the store of an index, after all that it shows. Never only stores before stores: a
 * returned slot, and a buffer whose answer this is, must have been read as well.
 */
static inline void sbe_release_barrier(void)
{
#ifdef SBE_DMB
    SBE_DMB("sy");
#else
    atomic_thread_fence(memory_order_release);
#endif
}

/* Reads what the peer publishes: frames written before its store are visible after this load. */
static inline uint32_t sbe_load_acquire(const sbe_shared_u32 *word)
{
#ifdef SBE_DMB
    uint32_t value = atomic_load_explicit(word, memory_order_relaxed);
    sbe_acquire_barrier();
    return value;
#else
    return atomic_load_explicit(word, memory_order_acquire);
#endif
}

/* Publishes: everything written before is visible to whoever reads the new value. */
static inline void sbe_store_release(sbe_shared_u32 *word, uint32_t value)
{
#ifdef SBE_DMB
    sbe_release_barrier();
    atomic_store_explicit(word, value, memory_order_relaxed);
#else
    atomic_store_explicit(word, value, memory_order_release);
#endif
}

/* A wake-up index or a statistic: its order is given by the full barrier beside it, if any. */
static inline uint32_t sbe_load_relaxed(const sbe_shared_u32 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* The same for storing one: who must not overlook it has a full barrier between it and his look. */
static inline void sbe_store_relaxed(sbe_shared_u32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/*
 * A point at which tests/deaths ends this end: before and after each store that the peer sees, and
 * at each control message. In a build without tests/deaths/step.h there is nothing of it.
 */
#ifdef SBE_STEP
#define sbe_store_release(word, value) \
    (SBE_STEP("before " #word), (sbe_store_release)(word, value), SBE_STEP("after " #word))
#define sbe_store_relaxed(word, value) \
    (SBE_STEP("before " #word), (sbe_store_relaxed)(word, value), SBE_STEP("after " #word))
#else
#define SBE_STEP(name) ((void)0)
#endif

/*
 * Orders our store before our next load, the one case acquire and release do not cover: "publish,
 * then look whether the peer sleeps" against "say that I sleep, then look again". Without it both
 * ends may read the old value and a wake-up is lost. Also before a doorbell that is a store of ours
 * to a device, where no such look comes between.
 */
static inline void sbe_full_barrier(void)
{
#ifdef SBE_DMB
    SBE_DMB("sy");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/*
 * After a copy of shared bytes: keeps the compiler from reading the source again where the copy is
 * used, as a peer may change shared memory at any time. No instruction.
 */
static inline void sbe_copied(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

/* Copies shared bytes into private memory once. */
static inline void sbe_snapshot(void *private_copy, const void *shared, uint32_t size)
{
    memcpy(private_copy, shared, size);
    sbe_copied();
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
