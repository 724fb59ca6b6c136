/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into the rig's kernel. User Mode Linux up to 6.12 keeps 2,696 bytes of a process's
 * floating-point state (HOST_FP_SIZE of arch/x86/um/user-offsets.c), whatever the CPU has; the host
 * takes a state back only in the size it has itself, 11,008 bytes with AMX (xstateregs_set() of
 * arch/x86/kernel/fpu/regset.c). So what UML gives is laid over the whole state as it is. Where the
 * sizes agree this changes nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define STATE_MAX  65536u /* bytes; a CPU's own is in leaf 0xD of CPUID */
#define HEADER_BV  512u   /* offset of XSTATE_BV: which components the state holds, a bit each */
#define HEADER_END 576u
#define COMPONENTS 10u /* up to the protection keys, which end UML's 2,696 bytes */

typedef long (*ptrace_function)(int request, ...);

/*
 * `part` over the beginning of `whole`, both states as XSAVE lays them out. Of components that
 * `part` has no room for, `whole` keeps both the bytes and the bit that says that they count.
 */
void uml_overlay(uint8_t *whole, size_t whole_size, const uint8_t *part, size_t part_size)
{
    uint64_t kept, given, low = (UINT64_C(1) << COMPONENTS) - 1;
    if (part_size >= whole_size) {
        memcpy(whole, part, whole_size);
        return;
    }
    memcpy(&kept, whole + HEADER_BV, sizeof kept);
    memcpy(whole, part, part_size);
    if (part_size < HEADER_END)
        return;
    memcpy(&given, part + HEADER_BV, sizeof given);
    given = (given & low) | (kept & ~low);
    memcpy(whole + HEADER_BV, &given, sizeof given);
}

static long set_state(ptrace_function real, pid_t pid, const struct iovec *given)
{
    /* Not on the stack: the kernel's are two pages. One process traces, and one thread of it. */
    static _Alignas(64) uint8_t whole[STATE_MAX];
    struct iovec state = {whole, sizeof whole};
    if (real(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &state) < 0)
        return -1;
    uml_overlay(whole, state.iov_len, given->iov_base, given->iov_len);
    return real(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &state);
}

/* glibc's, with its variable arguments. */
long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_function real;
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (real == NULL) {
        void *symbol = dlsym(RTLD_NEXT, "ptrace");
        memcpy(&real, &symbol, sizeof real); /* ISO C has no cast from object to function */
    }
    if ((int)request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
        return set_state(real, pid, data);
    return real((int)request, pid, address, data);
}
