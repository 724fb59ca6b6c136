// SPDX-License-Identifier: GPL-2.0
/*
 * A board for the kernel's own UIO_PDRV_GENIRQ: memory, a page of registers and
 * an interrupt, which nothing but this module has. It is the machine's RAM.
 *
 * Maps of the UIO device "sbe-window": 0 the window, 1 the registers, 2 one that
 * begins within a page. The first word of the registers is the doorbell of the
 * other end, whatever but 0 is written there.
 *
 * The other end is who opens /dev/sbe-rig-uio: its mmap() has the window,
 * write() is the interrupt, read() and poll() wait for the doorbell. RAM tells
 * nobody that it is written to, so a timer looks.
 */
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/uio_driver.h>
#include <linux/workqueue.h>

#include "sbe_rig_bell.h"

#define ORDER		9	/* of the window: 2 MiB */
#define WINDOW		(PAGE_SIZE << ORDER)
#define LOOK_NS		(100 * NSEC_PER_USEC)
#define WITHIN		0x800	/* a page: where map 2 begins */

static void *window, *registers;
static int irq;
static struct platform_device *device;

/* -- the interrupt ------------------------------------------------------------------------- */

static void raise_it(struct work_struct *work)
{
	unsigned long flags;

	local_irq_save(flags);
	generic_handle_irq(irq);
	local_irq_restore(flags);
}

static DECLARE_WORK(raise_work, raise_it);

static void nothing(struct irq_data *data)
{
}

/* It came while UIO had it disabled, and is asked for again once it has not. */
static int retrigger(struct irq_data *data)
{
	schedule_work(&raise_work);
	return 1;
}

static struct irq_chip chip = {
	.name = "sbe-rig",
	.irq_ack = nothing,
	.irq_mask = nothing,
	.irq_unmask = nothing,
	.irq_retrigger = retrigger,
};

/* -- the other end ------------------------------------------------------------------------- */

static unsigned long open_now;
static struct hrtimer look_timer;

static enum hrtimer_restart look(struct hrtimer *timer)
{
	if (xchg((u32 *)registers, 0) != 0)
		ring();
	hrtimer_forward_now(timer, ns_to_ktime(LOOK_NS));
	return HRTIMER_RESTART;
}

static int rig_open(struct inode *inode, struct file *file)
{
	if (test_and_set_bit(0, &open_now))
		return -EBUSY;
	hrtimer_start(&look_timer, ns_to_ktime(LOOK_NS), HRTIMER_MODE_REL);
	return 0;
}

static int rig_release(struct inode *inode, struct file *file)
{
	hrtimer_cancel(&look_timer);
	clear_bit(0, &open_now);
	return 0;
}

static ssize_t rig_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	raise_it(NULL);
	return size;
}

static int rig_mmap(struct file *file, struct vm_area_struct *vma)
{
	return vm_iomap_memory(vma, virt_to_phys(window), WINDOW);
}

static const struct file_operations rig_operations = {
	.owner = THIS_MODULE,
	.open = rig_open,
	.release = rig_release,
	.read = bell_read,
	.write = rig_write,
	.poll = bell_poll,
	.mmap = rig_mmap,
};

static struct miscdevice rig_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "sbe-rig-uio",
	.fops = &rig_operations,
};

/* -- life ---------------------------------------------------------------------------------- */

static int add_device(void)
{
	phys_addr_t memory = virt_to_phys(window), page = virt_to_phys(registers);
	struct uio_info info = { .name = "sbe-window", .version = "1", .irq = irq };
	struct resource resources[] = {
		DEFINE_RES_MEM_NAMED(memory, WINDOW, "window"),
		DEFINE_RES_MEM_NAMED(page, PAGE_SIZE, "registers"),
		DEFINE_RES_MEM_NAMED(memory + WITHIN, 64, "within"),
	};
	int error = -ENOMEM;

	device = platform_device_alloc("uio_pdrv_genirq", PLATFORM_DEVID_NONE);
	if (!device)
		return error;
	error = platform_device_add_data(device, &info, sizeof(info));
	if (!error)
		error = platform_device_add_resources(device, resources, ARRAY_SIZE(resources));
	if (!error)
		error = platform_device_add(device);
	if (error)
		platform_device_put(device);
	return error;
}

static int __init rig_init(void)
{
	int error = -ENOMEM;

	window = (void *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, ORDER);
	registers = (void *)get_zeroed_page(GFP_KERNEL);
	if (!window || !registers)
		goto no_memory;
	/* Nobody's: UIO's request for it would keep this module for ever. */
	irq = __irq_alloc_descs(-1, 1, 1, NUMA_NO_NODE, NULL, NULL);
	error = irq;
	if (irq < 0)
		goto no_memory;
	irq_set_chip_and_handler(irq, &chip, handle_edge_irq);
	irq_clear_status_flags(irq, IRQ_NOREQUEST);
	hrtimer_init(&look_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	look_timer.function = look;
	error = misc_register(&rig_misc);
	if (error)
		goto no_misc;
	error = add_device();
	if (!error)
		return 0;
	misc_deregister(&rig_misc);
no_misc:
	irq_free_desc(irq);
no_memory:
	free_page((unsigned long)registers);
	free_pages((unsigned long)window, ORDER);
	return error;
}

static void __exit rig_exit(void)
{
	platform_device_unregister(device);
	misc_deregister(&rig_misc);
	cancel_work_sync(&raise_work);
	irq_free_desc(irq);
	free_page((unsigned long)registers);
	free_pages((unsigned long)window, ORDER);
}

module_init(rig_init);
module_exit(rig_exit);
MODULE_DESCRIPTION("A board for UIO_PDRV_GENIRQ, of RAM");
MODULE_LICENSE("GPL");
