/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of /dev/sbe-dmabuf: what user space needs of a dma-buf to share it
 * with a remote processor, and mainline does not offer.
 */
#ifndef SBE_DMABUF_H
#define SBE_DMABUF_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SBE_DMABUF_NAME_SIZE 32

/**
 * struct sbe_dmabuf_import - attaches a dma-buf to a device
 * @dmabuf: its file descriptor
 * @fd: returns the attachment, which keeps device addresses valid until closed
 * @size: returns its bytes
 * @segments: returns the number of its segments
 * @reserved: zero
 * @device: the platform device that will read and write the memory, usually
 *	the remote processor's; empty: a device without limits
 */
struct sbe_dmabuf_import {
	__s32 dmabuf;
	__s32 fd;
	__u64 size;
	__u32 segments;
	__u32 reserved;
	char device[SBE_DMABUF_NAME_SIZE];
};

/**
 * struct sbe_dmabuf_coherent - allocates coherent memory as a dma-buf
 * @size: bytes, rounded up to whole pages
 * @fd: returns the dma-buf
 * @reserved: zero
 * @device: as in struct sbe_dmabuf_import
 */
struct sbe_dmabuf_coherent {
	__u64 size;
	__s32 fd;
	__u32 reserved;
	char device[SBE_DMABUF_NAME_SIZE];
};

struct sbe_dmabuf_segment {
	__u64 address; /* as the device sees it */
	__u64 size;
};

/**
 * struct sbe_dmabuf_segments - reads segments of an attachment
 * @first: index of the first one wanted
 * @count: room in the array; returns how many were written
 * @array: address of an array of struct sbe_dmabuf_segment
 */
struct sbe_dmabuf_segments {
	__u32 first;
	__u32 count;
	__u64 array;
};

#define SBE_DMABUF_FOR_DEVICE 1u /* the processor has written, the device will read */
#define SBE_DMABUF_FOR_CPU 2u /* the device has written, the processor will read */

/**
 * struct sbe_dmabuf_sync - cache maintenance for a range of an attachment
 * @offset: of the range
 * @size: of the range
 * @flags: SBE_DMABUF_FOR_DEVICE or SBE_DMABUF_FOR_CPU
 * @reserved: zero
 */
struct sbe_dmabuf_sync {
	__u64 offset;
	__u64 size;
	__u32 flags;
	__u32 reserved;
};

#define SBE_DMABUF_IOC 0xb8

/* On /dev/sbe-dmabuf */
#define SBE_DMABUF_IMPORT _IOWR(SBE_DMABUF_IOC, 0, struct sbe_dmabuf_import)
#define SBE_DMABUF_COHERENT _IOWR(SBE_DMABUF_IOC, 1, struct sbe_dmabuf_coherent)
/* On an attachment */
#define SBE_DMABUF_SEGMENTS _IOWR(SBE_DMABUF_IOC, 2, struct sbe_dmabuf_segments)
#define SBE_DMABUF_SYNC _IOW(SBE_DMABUF_IOC, 3, struct sbe_dmabuf_sync)

#endif
