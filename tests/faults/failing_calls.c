/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded: of the calls of libc that a thread makes from fail_arm() on, and that make or hand on
 * something, the n-th fails with an errno, or is interrupted by a signal and then succeeds.
 *
 * Another process may arm all threads of this one: the environment's SBE_GATE names the file of a
 * struct gate, which tests/deaths/gate.py has mapped as well. There the n-th call fails, or at the
 * n-th point the process is killed: before and after each call, and at those of the core.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static __thread int left;           /* calls until the one that fails, 0: not armed */
static __thread int error;          /* of the call that fails, 0: a signal */
static __thread int signo;          /* to raise instead */
static __thread pid_t armed_by;     /* not the child of a vfork() */
static __thread const char *failed; /* the call that did */

void fail_arm(int which, int code, int number)
{
    error = code;
    signo = number;
    failed = NULL;
    armed_by = getpid();
    left = which;
}

/* The name of the call that failed or was interrupted; NULL: there were not so many. */
const char *fail_disarm(void)
{
    left = 0;
    return failed;
}

struct gate {
    int32_t left;   /* points until the one, 0: not armed */
    int32_t again;  /* what `left` is from then on */
    int32_t error;  /* of the call that fails; 0: the process is killed */
    int32_t done;   /* how often that was */
    int32_t passed; /* points, whether armed or not */
    char program[16];
    char name[64]; /* of the point */
};

static struct gate *gate;
static pid_t gated; /* not the child of a vfork() */

static void take_over(void)
{
    gated = getpid();
}

__attribute__((constructor)) static void open_gate(void)
{
    const char *path = getenv("SBE_GATE");
    long fd = path == NULL ? -1 : syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at =
        (void *)syscall(SYS_mmap, NULL, sizeof *gate, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)syscall(SYS_close, fd);
    if (at == MAP_FAILED)
        abort();
    take_over();
    (void)pthread_atfork(NULL, NULL, take_over);
    gate = at;
}

static bool is_the_one(void)
{
    int32_t now = __atomic_load_n(&gate->left, __ATOMIC_RELAXED);
    while (now > 0 && !__atomic_compare_exchange_n(&gate->left, &now, now - 1, false,
                                                   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
    return now == 1;
}

/* True: the call that begins here fails. May not return. */
static bool pass(const char *name, bool can_fail)
{
    if (gate == NULL || getpid() != gated ||
        strncmp(program_invocation_short_name, gate->program, strlen(gate->program)) != 0)
        return false;
    (void)__atomic_add_fetch(&gate->passed, 1, __ATOMIC_RELAXED);
    if ((gate->error != 0 && !can_fail) || !is_the_one())
        return false;
    (void)snprintf(gate->name, sizeof gate->name, "%s", name);
    gate->done++;
    gate->left = gate->again;
    gate->again = 0;
    if (gate->error == 0)
        for (;;)
            (void)syscall(SYS_kill, getpid(), SIGKILL);
    errno = gate->error;
    return true;
}

/* Of the core, in a build with tests/deaths/step.h. */
void deaths_step(const char *name);
void deaths_step(const char *name)
{
    int before = errno;
    (void)pass(name, false);
    errno = before;
}

static void passed(const char *name)
{
    int before = errno;
    char after[64];
    if (gate == NULL)
        return;
    (void)snprintf(after, sizeof after, "after %s", name);
    (void)pass(after, false);
    errno = before;
}

static bool fails(const char *name)
{
    if (pass(name, true))
        return true;
    if (left == 0 || getpid() != armed_by || --left != 0)
        return false;
    failed = name;
    if (signo != 0) {
        (void)raise(signo);
        return false;
    }
    errno = error;
    return true;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

#define WRAP(type, name, bad, parameters, arguments, ...)       \
    type name parameters                                        \
    {                                                           \
        if (fails(#name))                                       \
            return bad;                                         \
        type result = REAL(type, #name, __VA_ARGS__) arguments; \
        passed(#name);                                          \
        return result;                                          \
    }

WRAP(int, socket, -1, (int a, int b, int c), (a, b, c), int, int, int)
WRAP(int, socketpair, -1, (int a, int b, int c, int d[2]), (a, b, c, d), int, int, int, int *)
WRAP(int, connect, -1, (int a, const struct sockaddr *b, socklen_t c), (a, b, c), int,
     const struct sockaddr *, socklen_t)
WRAP(int, dup, -1, (int a), (a), int)
WRAP(int, dup2, -1, (int a, int b), (a, b), int, int)
WRAP(int, dup3, -1, (int a, int b, int c), (a, b, c), int, int, int)
WRAP(int, epoll_create1, -1, (int a), (a), int)
WRAP(int, eventfd, -1, (unsigned a, int b), (a, b), unsigned, int)
WRAP(int, memfd_create, -1, (const char *a, unsigned b), (a, b), const char *, unsigned)
WRAP(int, ftruncate, -1, (int a, off_t b), (a, b), int, off_t)
WRAP(int, ftruncate64, -1, (int a, off64_t b), (a, b), int, off64_t)
WRAP(int, pipe2, -1, (int a[2], int b), (a, b), int *, int)
WRAP(int, bind, -1, (int a, const struct sockaddr *b, socklen_t c), (a, b, c), int,
     const struct sockaddr *, socklen_t)
WRAP(int, listen, -1, (int a, int b), (a, b), int, int)
WRAP(int, signalfd, -1, (int a, const sigset_t *b, int c), (a, b, c), int, const sigset_t *, int)

int epoll_ctl(int a, int b, int c, struct epoll_event *d)
{
    if (b == EPOLL_CTL_ADD && fails("epoll_ctl")) /* the others make nothing */
        return -1;
    return REAL(int, "epoll_ctl", int, int, int, struct epoll_event *)(a, b, c, d);
}

/* How the call that fails is to fail. */
static int asked(void)
{
    return gate != NULL && gate->error != 0 ? gate->error : error;
}

/* No sandbox denies messages; they may find no room. */
ssize_t send(int a, const void *b, size_t c, int d)
{
    if (asked() != EPERM && fails("send"))
        return -1;
    ssize_t result = REAL(ssize_t, "send", int, const void *, size_t, int)(a, b, c, d);
    passed("send");
    return result;
}

ssize_t sendmsg(int a, const struct msghdr *b, int c)
{
    if (asked() != EPERM && fails("sendmsg"))
        return -1;
    ssize_t result = REAL(ssize_t, "sendmsg", int, const struct msghdr *, int)(a, b, c);
    passed("sendmsg");
    return result;
}

/* These do not fail, but a signal may come in them, or the end. */
#define WRAP_WAIT(type, name, parameters, arguments, ...)       \
    type name parameters                                        \
    {                                                           \
        if (signo != 0)                                         \
            (void)fails(#name);                                 \
        else                                                    \
            (void)pass(#name, false);                           \
        type result = REAL(type, #name, __VA_ARGS__) arguments; \
        passed(#name);                                          \
        return result;                                          \
    }

WRAP_WAIT(int, epoll_wait, (int a, struct epoll_event *b, int c, int d), (a, b, c, d), int,
          struct epoll_event *, int, int)
WRAP_WAIT(int, poll, (struct pollfd * a, nfds_t b, int c), (a, b, c), struct pollfd *, nfds_t, int)
WRAP_WAIT(int, close, (int a), (a), int)

/* Here the end may come, no more. */
#define WRAP_POINT(type, name, parameters, arguments, ...)      \
    type name parameters                                        \
    {                                                           \
        (void)pass(#name, false);                               \
        type result = REAL(type, #name, __VA_ARGS__) arguments; \
        passed(#name);                                          \
        return result;                                          \
    }

WRAP_POINT(ssize_t, write, (int a, const void *b, size_t c), (a, b, c), int, const void *, size_t)
WRAP_POINT(int, munmap, (void *a, size_t b), (a, b), void *, size_t)

/* Of a program that is linked with --wrap: its own allocations, not those of the C library. */
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return pass("malloc", true) ? NULL : malloc(size);
}

void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return pass("calloc", true) ? NULL : calloc(count, size);
}

/* A signal may come; of the errors, the kernel has only a want of memory. */
ssize_t recvmsg(int a, struct msghdr *b, int c)
{
    if ((signo != 0 || asked() == ENOMEM) && fails("recvmsg"))
        return -1;
    (void)(asked() == 0 && pass("recvmsg", false));
    ssize_t result = REAL(ssize_t, "recvmsg", int, struct msghdr *, int)(a, b, c);
    passed("recvmsg");
    return result;
}

int accept4(int a, struct sockaddr *b, socklen_t *c, int d)
{
    if (gate != NULL && asked() != EPERM && fails("accept4"))
        return -1;
    int result = REAL(int, "accept4", int, struct sockaddr *, socklen_t *, int)(a, b, c, d);
    passed("accept4");
    return result;
}

static void *mapped(const char *name, void *at, size_t size, int protection, int flags, int fd,
                    off64_t offset)
{
    if ((flags & MAP_SHARED) != 0 && fails(name)) /* else it is the allocator's */
        return MAP_FAILED;
    void *result = REAL(void *, name, void *, size_t, int, int, int, off64_t)(at, size, protection,
                                                                              flags, fd, offset);
    if ((flags & MAP_SHARED) != 0)
        passed(name);
    return result;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return mapped("mmap", at, size, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
    return mapped("mmap64", at, size, protection, flags, fd, offset);
}

static int controlled(const char *name, int fd, int command, void *argument)
{
    bool makes = command == F_DUPFD_CLOEXEC || command == F_DUPFD || command == F_ADD_SEALS;
    if (makes && fails(name))
        return -1;
    return REAL(int, name, int, int, void *)(fd, command, argument);
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return controlled("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return controlled("fcntl64", fd, command, argument);
}
