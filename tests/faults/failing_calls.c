/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded: of the calls of libc that a thread makes from fail_arm() on, and that make or hand on
 * something, the n-th fails with an errno, or is interrupted by a signal and then succeeds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
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

static bool fails(const char *name)
{
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

#define WRAP(type, name, bad, parameters, arguments, ...) \
    type name parameters                                  \
    {                                                     \
        if (fails(#name))                                 \
            return bad;                                   \
        return REAL(type, #name, __VA_ARGS__) arguments;  \
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

int epoll_ctl(int a, int b, int c, struct epoll_event *d)
{
    if (b == EPOLL_CTL_ADD && fails("epoll_ctl")) /* the others make nothing */
        return -1;
    return REAL(int, "epoll_ctl", int, int, int, struct epoll_event *)(a, b, c, d);
}

/* No sandbox denies messages; they may find no room. */
ssize_t send(int a, const void *b, size_t c, int d)
{
    if (error != EPERM && fails("send"))
        return -1;
    return REAL(ssize_t, "send", int, const void *, size_t, int)(a, b, c, d);
}

ssize_t sendmsg(int a, const struct msghdr *b, int c)
{
    if (error != EPERM && fails("sendmsg"))
        return -1;
    return REAL(ssize_t, "sendmsg", int, const struct msghdr *, int)(a, b, c);
}

/* These do not fail, but a signal may come in them. */
#define WRAP_WAIT(type, name, parameters, arguments, ...) \
    type name parameters                                  \
    {                                                     \
        if (signo != 0)                                   \
            (void)fails(#name);                           \
        return REAL(type, #name, __VA_ARGS__) arguments;  \
    }

WRAP_WAIT(int, epoll_wait, (int a, struct epoll_event *b, int c, int d), (a, b, c, d), int,
          struct epoll_event *, int, int)
WRAP_WAIT(int, poll, (struct pollfd * a, nfds_t b, int c), (a, b, c), struct pollfd *, nfds_t, int)
WRAP_WAIT(ssize_t, recvmsg, (int a, struct msghdr *b, int c), (a, b, c), int, struct msghdr *, int)
WRAP_WAIT(int, close, (int a), (a), int)

static void *mapped(const char *name, void *at, size_t size, int protection, int flags, int fd,
                    off64_t offset)
{
    if ((flags & MAP_SHARED) != 0 && fails(name)) /* else it is the allocator's */
        return MAP_FAILED;
    return REAL(void *, name, void *, size_t, int, int, int, off64_t)(at, size, protection, flags,
                                                                      fd, offset);
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
