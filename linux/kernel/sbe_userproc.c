// SPDX-License-Identifier: GPL-2.0
/*
 * A remote processor whose core is a process: whoever opens /dev/sbe-userprocN
 * is what firmware on a co-processor would be. See README.md.
 */
#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/poll.h>
#include <linux/remoteproc.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "sbe_remoteproc.h"
#include "sbe_userproc.h"

#define NAME "sbe-userproc"

#define MAX_CORES 8
#define MAX_NOTIFY 64

static unsigned int cores = 1;
module_param(cores, uint, 0444);
MODULE_PARM_DESC(cores, "number of remote processors (1 to 8)");

static unsigned int attach_ms = 2000;
module_param(attach_ms, uint, 0644);
MODULE_PARM_DESC(attach_ms, "how long a start waits for a core process (ms)");

static unsigned int stop_ms = 2000;
module_param(stop_ms, uint, 0644);
MODULE_PARM_DESC(stop_ms, "how long a stop waits for the core's acknowledgment (ms)");

static char *firmware = "sbe-userproc.elf";
module_param(firmware, charp, 0444);
MODULE_PARM_DESC(firmware, "name of the firmware file at first");

/**
 * struct userproc - one remote processor
 * @rproc: what remoteproc knows it as
 * @misc: the device that its core opens
 * @gate: tells when interrupts may be delivered
 * @work: delivers them, because what they call may sleep
 * @lock: guards @events, @kicks, @notify, @open_gate
 * @state_lock: guards @running, @core and mappings; never held while waiting
 * @wait: the core waits here for events, a start for the core
 * @stopped: the core has acknowledged STOP, or is gone
 * @core: who has the device open
 * @events: not read yet
 * @kicks: not read yet
 * @notify: virtqueues that the host is to look at
 * @open_gate: virtqueues exist
 * @halting: from the end of the core's work to the next start
 * @running: between start and stop
 */
struct userproc {
	struct rproc *rproc;
	struct miscdevice misc;
	struct rproc_subdev gate;
	struct work_struct work;
	spinlock_t lock; /* events, kicks, notify, open_gate, halting */
	struct mutex state_lock; /* running, core, mappings */
	wait_queue_head_t wait;
	struct completion stopped;
	struct file *core;
	u32 events;
	u64 kicks;
	DECLARE_BITMAP(notify, MAX_NOTIFY);
	bool open_gate;
	bool halting;
	bool running;
};

static struct platform_device *devices[MAX_CORES];

/* -- what remoteproc asks ------------------------------------------------- */

static void deliver(struct work_struct *work)
{
	struct userproc *up = container_of(work, struct userproc, work);
	DECLARE_BITMAP(todo, MAX_NOTIFY);
	unsigned int id;

	spin_lock_irq(&up->lock);
	bitmap_zero(todo, MAX_NOTIFY);
	if (up->open_gate) {
		bitmap_copy(todo, up->notify, MAX_NOTIFY);
		bitmap_zero(up->notify, MAX_NOTIFY);
	}
	spin_unlock_irq(&up->lock);
	for_each_set_bit(id, todo, MAX_NOTIFY)
		rproc_vq_interrupt(up->rproc, id);
}

/* Virtqueues exist from here on: the gate is the last subdevice to start. */
static int gate_start(struct rproc_subdev *subdev)
{
	struct userproc *up = container_of(subdev, struct userproc, gate);

	spin_lock_irq(&up->lock);
	up->open_gate = true;
	spin_unlock_irq(&up->lock);
	schedule_work(&up->work);
	return 0;
}

/* Ends the core's work, and its view of memory whether it agrees or not. */
static void halt(struct userproc *up)
{
	mutex_lock(&up->state_lock);
	if (!up->running) {
		mutex_unlock(&up->state_lock);
		return;
	}
	spin_lock_irq(&up->lock);
	if (!up->core || up->events & SBE_USERPROC_START) {
		/* Nobody there, or it never saw this start: nothing to stop. */
		up->events &= ~SBE_USERPROC_START;
		complete(&up->stopped);
	} else {
		up->events |= SBE_USERPROC_STOP;
	}
	/* A kick behind the STOP would bring up a core that has acknowledged it. */
	up->halting = true;
	up->kicks = 0;
	spin_unlock_irq(&up->lock);
	mutex_unlock(&up->state_lock);
	wake_up_all(&up->wait);

	if (!wait_for_completion_timeout(&up->stopped,
					 msecs_to_jiffies(stop_ms)))
		dev_warn(&up->rproc->dev,
			 "the core does not stop: its view of memory ends\n");

	mutex_lock(&up->state_lock);
	up->running = false;
	if (up->core)
		unmap_mapping_range(up->core->f_mapping, 0, 0, 1);
	mutex_unlock(&up->state_lock);
}

/*
 * And the first to stop: no interrupt meets a virtqueue that is being freed,
 * and the core is out of the rings before their memory goes to somebody else.
 * A crash that was reported of a core that lives is no exception.
 */
static void gate_stop(struct rproc_subdev *subdev, bool crashed)
{
	struct userproc *up = container_of(subdev, struct userproc, gate);

	spin_lock_irq(&up->lock);
	up->open_gate = false;
	bitmap_zero(up->notify, MAX_NOTIFY);
	spin_unlock_irq(&up->lock);
	cancel_work_sync(&up->work);
	halt(up);
}

static int userproc_start(struct rproc *rproc)
{
	struct userproc *up = rproc->priv;

	if (!wait_event_timeout(up->wait, READ_ONCE(up->core),
				msecs_to_jiffies(attach_ms))) {
		dev_err(&rproc->dev, "no process has opened /dev/%s\n",
			up->misc.name);
		return -ENODEV;
	}
	mutex_lock(&up->state_lock);
	if (!up->core) {
		mutex_unlock(&up->state_lock);
		return -ENODEV;
	}
	up->running = true;
	reinit_completion(&up->stopped);
	spin_lock_irq(&up->lock);
	up->events |= SBE_USERPROC_START;
	up->halting = false;
	up->kicks = 0;
	bitmap_zero(up->notify, MAX_NOTIFY);
	spin_unlock_irq(&up->lock);
	mutex_unlock(&up->state_lock);
	rproc_add_subdev(rproc, &up->gate);
	wake_up_all(&up->wait);
	return 0;
}

static int userproc_stop(struct rproc *rproc)
{
	struct userproc *up = rproc->priv;

	rproc_remove_subdev(rproc, &up->gate);
	halt(up); /* a start that failed half-way never came to the gate */
	return 0;
}

static void userproc_kick(struct rproc *rproc, int vqid)
{
	struct userproc *up = rproc->priv;
	unsigned long flags;

	if (vqid < 0 || vqid >= MAX_NOTIFY)
		return;
	spin_lock_irqsave(&up->lock, flags);
	if (!up->halting)
		up->kicks |= BIT_ULL(vqid);
	spin_unlock_irqrestore(&up->lock, flags);
	wake_up_all(&up->wait);
}

static const struct rproc_ops userproc_ops = {
	.start = userproc_start,
	.stop = userproc_stop,
	.kick = userproc_kick,
};

/* -- what the core asks --------------------------------------------------- */

static struct userproc *to_userproc(struct file *file)
{
	return container_of(file->private_data, struct userproc, misc);
}

static int core_open(struct inode *inode, struct file *file)
{
	struct userproc *up = to_userproc(file);
	int ret = 0;

	/* It will see all of memory. */
	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	mutex_lock(&up->state_lock);
	if (up->core)
		ret = -EBUSY;
	else
		up->core = file;
	mutex_unlock(&up->state_lock);
	if (ret)
		return ret;
	wake_up_all(&up->wait);
	return stream_open(inode, file);
}

static int core_release(struct inode *inode, struct file *file)
{
	struct userproc *up = to_userproc(file);
	bool died;

	mutex_lock(&up->state_lock);
	up->core = NULL;
	spin_lock_irq(&up->lock);
	/* A core that goes with STOP pending has stopped. */
	died = up->running && !(up->events & SBE_USERPROC_STOP);
	up->events = 0;
	up->kicks = 0;
	spin_unlock_irq(&up->lock);
	complete(&up->stopped);
	mutex_unlock(&up->state_lock);
	if (died)
		rproc_report_crash(up->rproc, RPROC_FATAL_ERROR);
	return 0;
}

static bool has_events(struct userproc *up)
{
	return READ_ONCE(up->events) || READ_ONCE(up->kicks);
}

static ssize_t core_read(struct file *file, char __user *buffer, size_t size,
			 loff_t *offset)
{
	struct userproc *up = to_userproc(file);
	struct sbe_userproc_event event = {};
	int ret;

	if (size < sizeof(event))
		return -EINVAL;
	for (;;) {
		spin_lock_irq(&up->lock);
		event.events = up->events;
		event.kicks = up->kicks;
		up->events = 0;
		up->kicks = 0;
		spin_unlock_irq(&up->lock);
		if (event.events || event.kicks)
			break;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		ret = wait_event_interruptible(up->wait, has_events(up));
		if (ret)
			return ret;
	}
	if (copy_to_user(buffer, &event, sizeof(event)))
		return -EFAULT;
	return sizeof(event);
}

static __poll_t core_poll(struct file *file, poll_table *table)
{
	struct userproc *up = to_userproc(file);

	poll_wait(file, &up->wait, table);
	return has_events(up) ? EPOLLIN | EPOLLRDNORM : 0;
}

static int get_table(struct userproc *up, struct sbe_userproc_table __user *user)
{
	struct sbe_userproc_table table;
	u32 room;
	int ret = 0;

	if (copy_from_user(&table, user, sizeof(table)))
		return -EFAULT;
	if (table.reserved)
		return -EINVAL;
	room = table.size;
	mutex_lock(&up->state_lock);
	if (!up->running || !up->rproc->table_ptr) {
		ret = -ENXIO;
	} else {
		table.size = up->rproc->table_sz;
		if (room < table.size)
			ret = -ENOSPC;
		else if (copy_to_user(u64_to_user_ptr(table.address),
				      up->rproc->table_ptr, table.size))
			ret = -EFAULT;
	}
	mutex_unlock(&up->state_lock);
	if ((!ret || ret == -ENOSPC) && copy_to_user(user, &table, sizeof(table)))
		return -EFAULT;
	return ret;
}

static int notify(struct userproc *up, unsigned long id)
{
	if (id >= MAX_NOTIFY)
		return -EINVAL;
	spin_lock_irq(&up->lock);
	__set_bit(id, up->notify);
	spin_unlock_irq(&up->lock);
	schedule_work(&up->work);
	return 0;
}

static long core_ioctl(struct file *file, unsigned int command,
		       unsigned long argument)
{
	struct userproc *up = to_userproc(file);

	switch (command) {
	case SBE_USERPROC_GET_TABLE:
		return get_table(up, (void __user *)argument);
	case SBE_USERPROC_NOTIFY:
		return notify(up, argument);
	case SBE_USERPROC_STOPPED:
		complete(&up->stopped);
		return 0;
	case SBE_USERPROC_CRASH:
		if (!READ_ONCE(up->running))
			return -ENXIO;
		rproc_report_crash(up->rproc, RPROC_WATCHDOG);
		return 0;
	default:
		return -ENOTTY;
	}
}

static int core_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct userproc *up = to_userproc(file);
	unsigned long size = vma->vm_end - vma->vm_start;
	unsigned long first = vma->vm_pgoff, pfn;
	int ret = 0;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	for (pfn = first; pfn < first + (size >> PAGE_SHIFT); pfn++)
		if (pfn < first || !pfn_valid(pfn))
			return -EFAULT;
	mutex_lock(&up->state_lock);
	if (!up->running)
		ret = -ENXIO;
	else
		ret = remap_pfn_range(vma, vma->vm_start, first, size,
				      vma->vm_page_prot);
	mutex_unlock(&up->state_lock);
	return ret;
}

static const struct file_operations core_operations = {
	.owner = THIS_MODULE,
	.open = core_open,
	.release = core_release,
	.read = core_read,
	.poll = core_poll,
	.unlocked_ioctl = core_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = core_mmap,
};

/* -- devices -------------------------------------------------------------- */

/* No core has the device open: its file holds the module. */
static void userproc_remove(void *data)
{
	struct userproc *up = data;

	misc_deregister(&up->misc);
	rproc_del(up->rproc);
	cancel_work_sync(&up->work);
	rproc_free(up->rproc);
}

static int userproc_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct userproc *up;
	struct rproc *rproc;
	char *name;
	int ret;

	name = devm_kasprintf(dev, GFP_KERNEL, NAME "%d", pdev->id);
	if (!name)
		return -ENOMEM;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(32));
	if (ret)
		return ret;
	rproc = rproc_alloc(dev, name, &userproc_ops, firmware, sizeof(*up));
	if (!rproc)
		return -ENOMEM;
	rproc->auto_boot = false;
	up = rproc->priv;
	up->rproc = rproc;
	up->gate.start = gate_start;
	up->gate.stop = gate_stop;
	spin_lock_init(&up->lock);
	mutex_init(&up->state_lock);
	init_waitqueue_head(&up->wait);
	init_completion(&up->stopped);
	INIT_WORK(&up->work, deliver);
	ret = rproc_add(rproc);
	if (ret)
		goto free_rproc;
	up->misc.minor = MISC_DYNAMIC_MINOR;
	up->misc.name = name;
	up->misc.fops = &core_operations;
	up->misc.parent = dev;
	up->misc.mode = 0600;
	ret = misc_register(&up->misc);
	if (ret)
		goto delete_rproc;
	/* Not the driver's remove(), which has another type from Linux 6.11 on. */
	return devm_add_action_or_reset(dev, userproc_remove, up);

delete_rproc:
	rproc_del(rproc);
free_rproc:
	rproc_free(rproc);
	return ret;
}

static struct platform_driver userproc_driver = {
	.driver = {
		.name = NAME,
		/* Unbinding would take the device from under an open file. */
		.suppress_bind_attrs = true,
	},
	.probe = userproc_probe,
};

static void remove_devices(void)
{
	unsigned int i;

	for (i = 0; i < cores; i++)
		platform_device_unregister(devices[i]);
}

static int __init userproc_init(void)
{
	unsigned int i;
	int ret;

	if (cores < 1 || cores > MAX_CORES)
		return -EINVAL;
	ret = platform_driver_register(&userproc_driver);
	if (ret)
		return ret;
	for (i = 0; i < cores; i++) {
		struct platform_device *pdev;

		pdev = platform_device_register_simple(NAME, i, NULL, 0);
		if (IS_ERR(pdev)) {
			cores = i;
			remove_devices();
			platform_driver_unregister(&userproc_driver);
			return PTR_ERR(pdev);
		}
		devices[i] = pdev;
	}
	return 0;
}

static void __exit userproc_exit(void)
{
	remove_devices();
	platform_driver_unregister(&userproc_driver);
}

module_init(userproc_init);
module_exit(userproc_exit);
MODULE_DESCRIPTION("remoteproc driver whose core is a process");
MODULE_AUTHOR("The Structured Buffer Exchange authors");
MODULE_LICENSE("GPL");
