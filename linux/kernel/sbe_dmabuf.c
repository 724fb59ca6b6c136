// SPDX-License-Identifier: GPL-2.0
/*
 * Device addresses of a dma-buf, cache maintenance for a part of it, and
 * coherent memory for rings. See sbe_dmabuf.h for the interface.
 */
#include <linux/anon_inodes.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "sbe_dmabuf.h"

#define NAME "sbe-dmabuf"

static ulong coherent_limit = 16 << 20;
module_param(coherent_limit, ulong, 0644);
MODULE_PARM_DESC(coherent_limit, "bytes of coherent memory that may be out at a time");

static atomic_long_t coherent_used;
static struct platform_device *own_device;

/* -- devices -------------------------------------------------------------- */

/* The named device with a reference, or ours; NULL when there is none. */
static struct device *find_device(const char *name)
{
	struct device *dev;

	if (strnlen(name, SBE_DMABUF_NAME_SIZE) == SBE_DMABUF_NAME_SIZE)
		return NULL;
	if (!*name)
		return get_device(&own_device->dev);
	dev = bus_find_device_by_name(&platform_bus_type, NULL, name);
	if (dev && !dev->dma_mask) {
		put_device(dev);
		return NULL;
	}
	return dev;
}

/* -- attachments ---------------------------------------------------------- */

struct attachment {
	struct device *dev;
	struct dma_buf *dmabuf;
	struct dma_buf_attachment *attach;
	struct sg_table *table;
};

static int attachment_release(struct inode *inode, struct file *file)
{
	struct attachment *at = file->private_data;

	dma_buf_unmap_attachment(at->attach, at->table, DMA_BIDIRECTIONAL);
	dma_buf_detach(at->dmabuf, at->attach);
	dma_buf_put(at->dmabuf);
	put_device(at->dev);
	kfree(at);
	return 0;
}

static long read_segments(struct attachment *at,
			  struct sbe_dmabuf_segments __user *user)
{
	struct sbe_dmabuf_segment __user *array;
	struct sbe_dmabuf_segments wanted;
	struct scatterlist *sg;
	u32 written = 0;
	unsigned int i;

	if (copy_from_user(&wanted, user, sizeof(wanted)))
		return -EFAULT;
	array = u64_to_user_ptr(wanted.array);
	for_each_sgtable_dma_sg(at->table, sg, i) {
		struct sbe_dmabuf_segment segment = {
			.address = sg_dma_address(sg),
			.size = sg_dma_len(sg),
		};

		if (i < wanted.first)
			continue;
		if (written == wanted.count)
			break;
		if (copy_to_user(&array[written], &segment, sizeof(segment)))
			return -EFAULT;
		written++;
	}
	wanted.count = written;
	return copy_to_user(user, &wanted, sizeof(wanted)) ? -EFAULT : 0;
}

static long sync_range(struct attachment *at,
		       struct sbe_dmabuf_sync __user *user)
{
	struct sbe_dmabuf_sync sync;
	struct scatterlist *sg;
	u64 position = 0, end;
	unsigned int i;

	if (copy_from_user(&sync, user, sizeof(sync)))
		return -EFAULT;
	if (sync.reserved || (sync.flags != SBE_DMABUF_FOR_DEVICE &&
			      sync.flags != SBE_DMABUF_FOR_CPU))
		return -EINVAL;
	if (check_add_overflow(sync.offset, sync.size, &end) ||
	    end > at->dmabuf->size)
		return -ERANGE;
	for_each_sgtable_dma_sg(at->table, sg, i) {
		u64 from = max(position, sync.offset);
		u64 to = min_t(u64, position + sg_dma_len(sg), end);
		dma_addr_t address = sg_dma_address(sg) + (from - position);

		position += sg_dma_len(sg);
		if (from >= to)
			continue;
		if (sync.flags == SBE_DMABUF_FOR_DEVICE)
			dma_sync_single_for_device(at->dev, address, to - from,
						   DMA_BIDIRECTIONAL);
		else
			dma_sync_single_for_cpu(at->dev, address, to - from,
						DMA_BIDIRECTIONAL);
	}
	return 0;
}

static long attachment_ioctl(struct file *file, unsigned int command,
			     unsigned long argument)
{
	struct attachment *at = file->private_data;

	switch (command) {
	case SBE_DMABUF_SEGMENTS:
		return read_segments(at, (void __user *)argument);
	case SBE_DMABUF_SYNC:
		return sync_range(at, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations attachment_operations = {
	.owner = THIS_MODULE,
	.release = attachment_release,
	.unlocked_ioctl = attachment_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct attachment *attach(int fd, struct device *dev)
{
	struct attachment *at = kzalloc(sizeof(*at), GFP_KERNEL);
	long ret;

	if (!at)
		return ERR_PTR(-ENOMEM);
	at->dev = dev;
	at->dmabuf = dma_buf_get(fd);
	if (IS_ERR(at->dmabuf)) {
		ret = PTR_ERR(at->dmabuf);
		goto free_at;
	}
	at->attach = dma_buf_attach(at->dmabuf, dev);
	if (IS_ERR(at->attach)) {
		ret = PTR_ERR(at->attach);
		goto put_dmabuf;
	}
	at->table = dma_buf_map_attachment(at->attach, DMA_BIDIRECTIONAL);
	if (IS_ERR(at->table)) {
		ret = PTR_ERR(at->table);
		goto detach;
	}
	return at;

detach:
	dma_buf_detach(at->dmabuf, at->attach);
put_dmabuf:
	dma_buf_put(at->dmabuf);
free_at:
	kfree(at);
	return ERR_PTR(ret);
}

static long import(struct sbe_dmabuf_import __user *user)
{
	struct sbe_dmabuf_import wanted;
	struct attachment *at;
	struct device *dev;
	struct file *file;
	int fd;

	if (copy_from_user(&wanted, user, sizeof(wanted)))
		return -EFAULT;
	if (wanted.reserved)
		return -EINVAL;
	dev = find_device(wanted.device);
	if (!dev)
		return -ENODEV;
	at = attach(wanted.dmabuf, dev);
	if (IS_ERR(at)) {
		put_device(dev);
		return PTR_ERR(at);
	}
	file = anon_inode_getfile("[sbe-dmabuf]", &attachment_operations, at,
				  O_RDWR | O_CLOEXEC);
	if (IS_ERR(file)) {
		struct file unborn = { .private_data = at };

		attachment_release(NULL, &unborn);
		return PTR_ERR(file);
	}
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		fput(file);
		return fd;
	}
	wanted.fd = fd;
	wanted.size = at->dmabuf->size;
	wanted.segments = at->table->nents;
	if (copy_to_user(user, &wanted, sizeof(wanted))) {
		put_unused_fd(fd);
		fput(file);
		return -EFAULT;
	}
	fd_install(fd, file);
	return 0;
}

/* -- coherent memory ------------------------------------------------------ */

struct coherent {
	struct device *dev;
	void *memory;
	dma_addr_t address;
	size_t size;
};

static struct sg_table *coherent_map(struct dma_buf_attachment *attach,
				     enum dma_data_direction direction)
{
	struct coherent *co = attach->dmabuf->priv;
	struct sg_table *table = kzalloc(sizeof(*table), GFP_KERNEL);
	int ret;

	if (!table)
		return ERR_PTR(-ENOMEM);
	ret = dma_get_sgtable(co->dev, table, co->memory, co->address, co->size);
	if (ret)
		goto free_table;
	/* Coherent memory takes no maintenance. */
	ret = dma_map_sgtable(attach->dev, table, direction,
			      DMA_ATTR_SKIP_CPU_SYNC);
	if (ret)
		goto free_entries;
	return table;

free_entries:
	sg_free_table(table);
free_table:
	kfree(table);
	return ERR_PTR(ret);
}

static void coherent_unmap(struct dma_buf_attachment *attach,
			   struct sg_table *table,
			   enum dma_data_direction direction)
{
	dma_unmap_sgtable(attach->dev, table, direction, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(table);
	kfree(table);
}

static int coherent_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct coherent *co = dmabuf->priv;

	return dma_mmap_coherent(co->dev, vma, co->memory, co->address,
				 co->size);
}

static void coherent_free(struct coherent *co)
{
	dma_free_coherent(co->dev, co->size, co->memory, co->address);
	atomic_long_sub(co->size, &coherent_used);
	put_device(co->dev);
	kfree(co);
}

static void coherent_release(struct dma_buf *dmabuf)
{
	coherent_free(dmabuf->priv);
}

static const struct dma_buf_ops coherent_operations = {
	.map_dma_buf = coherent_map,
	.unmap_dma_buf = coherent_unmap,
	.mmap = coherent_mmap,
	.release = coherent_release,
};

static struct coherent *coherent_alloc(struct device *dev, u64 wanted)
{
	struct coherent *co;
	size_t size;

	if (!wanted || wanted > coherent_limit)
		return ERR_PTR(wanted ? -ENOMEM : -EINVAL);
	size = PAGE_ALIGN(wanted);
	if (atomic_long_add_return(size, &coherent_used) > coherent_limit)
		goto give_back;
	co = kzalloc(sizeof(*co), GFP_KERNEL);
	if (!co)
		goto give_back;
	co->dev = dev;
	co->size = size;
	co->memory = dma_alloc_coherent(dev, size, &co->address,
					GFP_KERNEL | __GFP_NOWARN);
	if (co->memory)
		return co;
	kfree(co);
give_back:
	atomic_long_sub(size, &coherent_used);
	return ERR_PTR(-ENOMEM);
}

static long export_coherent(struct sbe_dmabuf_coherent __user *user)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct sbe_dmabuf_coherent wanted;
	struct dma_buf *dmabuf;
	struct coherent *co;
	struct device *dev;
	int fd;

	if (copy_from_user(&wanted, user, sizeof(wanted)))
		return -EFAULT;
	if (wanted.reserved)
		return -EINVAL;
	dev = find_device(wanted.device);
	if (!dev)
		return -ENODEV;
	co = coherent_alloc(dev, wanted.size);
	if (IS_ERR(co)) {
		put_device(dev);
		return PTR_ERR(co);
	}
	info.exp_name = NAME;
	info.ops = &coherent_operations;
	info.size = co->size;
	info.flags = O_RDWR | O_CLOEXEC;
	info.priv = co;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		coherent_free(co);
		return PTR_ERR(dmabuf);
	}
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		dma_buf_put(dmabuf);
		return fd;
	}
	wanted.fd = fd;
	wanted.size = dmabuf->size;
	if (copy_to_user(user, &wanted, sizeof(wanted))) {
		put_unused_fd(fd);
		dma_buf_put(dmabuf);
		return -EFAULT;
	}
	fd_install(fd, dmabuf->file);
	return 0;
}

/* -- the device ----------------------------------------------------------- */

static long control_ioctl(struct file *file, unsigned int command,
			  unsigned long argument)
{
	switch (command) {
	case SBE_DMABUF_IMPORT:
		return import((void __user *)argument);
	case SBE_DMABUF_COHERENT:
		return export_coherent((void __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations control_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = control_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice control = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = NAME,
	.fops = &control_operations,
	.mode = 0660,
};

static int __init sbe_dmabuf_init(void)
{
	int ret;

	own_device = platform_device_register_simple(NAME, PLATFORM_DEVID_NONE,
						     NULL, 0);
	if (IS_ERR(own_device))
		return PTR_ERR(own_device);
	ret = dma_set_mask_and_coherent(&own_device->dev, DMA_BIT_MASK(64));
	if (!ret)
		ret = misc_register(&control);
	if (ret)
		platform_device_unregister(own_device);
	return ret;
}

/* Attachments and dma-bufs hold the module by their files. */
static void __exit sbe_dmabuf_exit(void)
{
	misc_deregister(&control);
	platform_device_unregister(own_device);
}

module_init(sbe_dmabuf_init);
module_exit(sbe_dmabuf_exit);
MODULE_DESCRIPTION("Device addresses and range synchronisation of dma-bufs");
MODULE_AUTHOR("The Structured Buffer Exchange authors");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(DMA_BUF);
