/* SPDX-License-Identifier: Apache-2.0 */
/* Areas are sealed memfds. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ports/host/host.h"

/*
 * Memory that nobody can take away under our hands: a memfd that cannot shrink, else reading it
 * would raise SIGBUS. It must not grow either, so that its size is the one that was paid for. Huge
 * pages are refused, unless it is told otherwise, because a hole punched into them may find no page
 * to fill it.
 */
static int check_memfd(int fd, uint64_t size, bool huge_pages)
{
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat status;
    struct statfs system;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & wanted) != wanted) {
        host_log("area refused: not a memfd sealed against shrinking and growing");
        return SBE_EPERM;
    }
    if (fstatfs(fd, &system) < 0 ||
        (system.f_type != TMPFS_MAGIC && !(huge_pages && system.f_type == HUGETLBFS_MAGIC))) {
        host_log("area refused: not memory of ordinary pages%s",
                 huge_pages ? " or of huge ones" : " (--huge-pages was not said)");
        return SBE_ENOTSUP;
    }
    if (fstat(fd, &status) < 0 || status.st_size < 0 || (uint64_t)status.st_size < size) {
        host_log("area refused: its memfd is smaller than the message says");
        return SBE_ERANGE;
    }
    return SBE_OK;
}

int host_area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    if (message->handles != 1 || message->segment_count != 0)
        return SBE_ENOTSUP; /* there are no device addresses here */
    int fd = host_take_fd(self, 0);
    if (fd < 0)
        return SBE_ENOMEM;
    int status = check_memfd(fd, area->size, ((const struct host *)self)->options.huge_pages);
    if (status == SBE_OK) {
        int protection = PROT_READ | ((area->flags & SBE_AREA_READONLY) != 0 ? 0 : PROT_WRITE);
        void *base = mmap(NULL, (size_t)area->size, protection, MAP_SHARED, fd, 0);
        if (base != MAP_FAILED)
            area->base = base;
        else
            status = errno == EPERM || errno == EACCES ? SBE_EPERM : SBE_ENOMEM;
    }
    (void)close(fd);
    return status;
}

void host_area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    if (area->base != NULL)
        (void)munmap(area->base, (size_t)area->size);
}
