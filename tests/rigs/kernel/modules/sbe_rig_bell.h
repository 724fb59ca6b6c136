/* SPDX-License-Identifier: GPL-2.0 */
/* What Linux rings and the other end waits for, of a module that has one. */
#ifndef SBE_RIG_BELL_H
#define SBE_RIG_BELL_H

#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(rung_queue);
static atomic_t rung;

static void ring(void)
{
	atomic_set(&rung, 1);
	wake_up_interruptible(&rung_queue);
}

static ssize_t bell_read(struct file *file, char __user *to, size_t size, loff_t *at)
{
	int error;

	if (size == 0)
		return -EINVAL;
	if (file->f_flags & O_NONBLOCK)
		return atomic_xchg(&rung, 0) ? (put_user(1, to) ? -EFAULT : 1) : -EAGAIN;
	error = wait_event_interruptible(rung_queue, atomic_xchg(&rung, 0));
	if (error)
		return error;
	return put_user(1, to) ? -EFAULT : 1;
}

static __poll_t bell_poll(struct file *file, poll_table *table)
{
	poll_wait(file, &rung_queue, table);
	return EPOLLOUT | (atomic_read(&rung) ? EPOLLIN : 0);
}

#endif
