// SPDX-License-Identifier: GPL-2.0
/*
 * Says where the kernel has put the file of its argument iomem=sbe,FILE, for
 * whoever maps it by /dev/mem: two kernels with one file share memory.
 */
#include <linux/module.h>
#include <mem_user.h>
#include <mem.h>

static unsigned long address;
module_param(address, ulong, 0444);
MODULE_PARM_DESC(address, "physical address of the file");

static unsigned long size;
module_param(size, ulong, 0444);
MODULE_PARM_DESC(size, "its bytes");

static int __init rig_iomem_init(void)
{
	unsigned long found = find_iomem("sbe", &size); /* where the kernel sees it */

	if (found == 0)
		return -ENODEV;
	address = __pa(found);
	return 0;
}

static void __exit rig_iomem_exit(void)
{
}

module_init(rig_iomem_init);
module_exit(rig_iomem_exit);

MODULE_DESCRIPTION("Where a file of the host lies in this kernel's memory");
MODULE_LICENSE("GPL");
