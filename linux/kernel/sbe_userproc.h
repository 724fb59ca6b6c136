/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of /dev/sbe-userprocN, through which a process is the core of a
 * remote processor.
 *
 * read() returns a struct sbe_userproc_event, or blocks; poll() works. Events
 * are state, not a queue: what happened twice is told once.
 *
 * mmap() maps physical memory: the offset is the address, as the core of a
 * system without an IOMMU would put it on the bus. It works from START until
 * STOP has been acknowledged; then every mapping ends and a touch is a SIGBUS.
 */
#ifndef SBE_USERPROC_H
#define SBE_USERPROC_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SBE_USERPROC_START 0x1u /* the host starts the core */
#define SBE_USERPROC_STOP 0x2u /* the host waits for SBE_USERPROC_STOPPED */

/**
 * struct sbe_userproc_event - what happened since the last read
 * @events: SBE_USERPROC_START, _STOP; when both are set, STOP came first
 * @reserved: zero
 * @kicks: one bit for each notify id below 64 that the host has kicked
 */
struct sbe_userproc_event {
	__u32 events;
	__u32 reserved;
	__u64 kicks;
};

/**
 * struct sbe_userproc_table - where to copy the loaded resource table
 * @address: of the buffer in the calling process
 * @size: of the buffer; returns the table's
 * @reserved: zero
 */
struct sbe_userproc_table {
	__u64 address;
	__u32 size;
	__u32 reserved;
};

#define SBE_USERPROC_IOC 0xb7

/* Copies the resource table as it stands; -ENOSPC: size says how much it takes */
#define SBE_USERPROC_GET_TABLE \
	_IOWR(SBE_USERPROC_IOC, 0, struct sbe_userproc_table)
/* Interrupts the host for the virtqueue whose notify id is the argument */
#define SBE_USERPROC_NOTIFY _IO(SBE_USERPROC_IOC, 1)
/* Acknowledges STOP: nothing of the host's memory is used any more */
#define SBE_USERPROC_STOPPED _IO(SBE_USERPROC_IOC, 2)
/* Reports a crash, as a watchdog would */
#define SBE_USERPROC_CRASH _IO(SBE_USERPROC_IOC, 3)

#endif
