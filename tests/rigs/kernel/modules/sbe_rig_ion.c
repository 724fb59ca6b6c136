// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/ion as kernels before 5.11 had it, no more than allocation: a small
 * stand-in, for ION itself is in no kernel that the rig can run. Two heaps, 0
 * "system" and 5 "secure_video", whose buffers can't be mapped by processes.
 *
 * old=1: as before 4.12, with handles. Else as from 4.12 on, with a query.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define SYSTEM	0
#define SECURE	5
#define HANDLES	16
#define LARGEST	SZ_1M

static bool old;
module_param(old, bool, 0444);
MODULE_PARM_DESC(old, "the interface of Linux before 4.12");

struct new_allocation {
	__u64 len;
	__u32 heap_id_mask, flags, fd, unused;
};

struct heap_data {
	char name[32];
	__u32 type, heap_id, reserved[3];
};

struct heap_query {
	__u32 cnt, reserved0;
	__u64 heaps;
	__u32 reserved1, reserved2;
};

struct old_allocation {
	size_t len, align;
	unsigned int heap_id_mask, flags;
	int handle;
};

struct handle_data {
	int handle;
};

struct fd_data {
	int handle, fd;
};

#define NEW_ALLOC	_IOWR('I', 0, struct new_allocation)
#define NEW_QUERY	_IOWR('I', 8, struct heap_query)
#define OLD_ALLOC	_IOWR('I', 0, struct old_allocation)
#define OLD_FREE	_IOWR('I', 1, struct handle_data)
#define OLD_SHARE	_IOWR('I', 4, struct fd_data)

/* -- buffers -------------------------------------------------------------- */

struct buffer {
	void *memory;
	size_t size;
};

static struct sg_table *buffer_map(struct dma_buf_attachment *at, enum dma_data_direction way)
{
	struct buffer *buffer = at->dmabuf->priv;
	struct sg_table *table = kzalloc(sizeof(*table), GFP_KERNEL);
	int error = -ENOMEM;

	if (!table || sg_alloc_table(table, 1, GFP_KERNEL))
		goto no_table;
	sg_set_buf(table->sgl, buffer->memory, buffer->size);
	error = dma_map_sgtable(at->dev, table, way, DMA_ATTR_SKIP_CPU_SYNC);
	if (!error)
		return table;
	sg_free_table(table);
no_table:
	kfree(table);
	return ERR_PTR(error);
}

static void buffer_unmap(struct dma_buf_attachment *at, struct sg_table *table,
			 enum dma_data_direction way)
{
	dma_unmap_sgtable(at->dev, table, way, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(table);
	kfree(table);
}

static int buffer_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct buffer *buffer = dmabuf->priv;

	return vm_iomap_memory(vma, virt_to_phys(buffer->memory), buffer->size);
}

static void buffer_release(struct dma_buf *dmabuf)
{
	struct buffer *buffer = dmabuf->priv;

	free_pages_exact(buffer->memory, buffer->size);
	kfree(buffer);
}

static const struct dma_buf_ops system_ops = {
	.map_dma_buf = buffer_map,
	.unmap_dma_buf = buffer_unmap,
	.mmap = buffer_mmap,
	.release = buffer_release,
};

static const struct dma_buf_ops secure_ops = {
	.map_dma_buf = buffer_map,
	.unmap_dma_buf = buffer_unmap,
	.release = buffer_release,
};

static struct dma_buf *make(u64 len, u32 mask)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf;
	struct buffer *buffer;

	if (len == 0 || len > LARGEST)
		return ERR_PTR(len ? -ENOMEM : -EINVAL);
	if (!(mask & (BIT(SYSTEM) | BIT(SECURE))))
		return ERR_PTR(-ENODEV);
	buffer = kzalloc(sizeof(*buffer), GFP_KERNEL);
	if (!buffer)
		return ERR_PTR(-ENOMEM);
	buffer->size = PAGE_ALIGN(len);
	buffer->memory = alloc_pages_exact(buffer->size, GFP_KERNEL | __GFP_ZERO);
	if (!buffer->memory) {
		kfree(buffer);
		return ERR_PTR(-ENOMEM);
	}
	info.ops = mask & BIT(SYSTEM) ? &system_ops : &secure_ops;
	info.size = buffer->size;
	info.flags = O_RDWR;
	info.priv = buffer;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		free_pages_exact(buffer->memory, buffer->size);
		kfree(buffer);
	}
	return dmabuf;
}

/* -- from 4.12 on --------------------------------------------------------- */

static long new_alloc(void __user *user)
{
	struct new_allocation data;
	struct dma_buf *dmabuf;
	int fd;

	if (copy_from_user(&data, user, sizeof(data)))
		return -EFAULT;
	dmabuf = make(data.len, data.heap_id_mask);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0) {
		dma_buf_put(dmabuf);
		return fd;
	}
	data.fd = fd;
	return copy_to_user(user, &data, sizeof(data)) ? -EFAULT : 0;
}

static long new_query(void __user *user)
{
	static const struct heap_data heaps[] = {
		{ .name = "system", .type = 0, .heap_id = SYSTEM },
		{ .name = "secure_video", .type = 5, .heap_id = SECURE },
	};
	struct heap_query query;
	u32 count;

	if (copy_from_user(&query, user, sizeof(query)))
		return -EFAULT;
	count = query.heaps ? min_t(u32, query.cnt, ARRAY_SIZE(heaps)) : ARRAY_SIZE(heaps);
	if (query.heaps &&
	    copy_to_user(u64_to_user_ptr(query.heaps), heaps, count * sizeof(heaps[0])))
		return -EFAULT;
	query.cnt = count;
	return copy_to_user(user, &query, sizeof(query)) ? -EFAULT : 0;
}

/* -- before --------------------------------------------------------------- */

struct client {
	struct mutex lock; /* for the handles */
	struct dma_buf *handles[HANDLES];
};

static long old_alloc(struct client *client, void __user *user)
{
	struct old_allocation data;
	struct dma_buf *dmabuf;
	int i = 0;

	if (copy_from_user(&data, user, sizeof(data)))
		return -EFAULT;
	while (i < HANDLES && client->handles[i])
		i++;
	if (i == HANDLES)
		return -ENOMEM;
	dmabuf = make(data.len, data.heap_id_mask);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	client->handles[i] = dmabuf;
	data.handle = i + 1;
	return copy_to_user(user, &data, sizeof(data)) ? -EFAULT : 0;
}

static struct dma_buf **find(struct client *client, int handle)
{
	if (handle < 1 || handle > HANDLES || !client->handles[handle - 1])
		return NULL;
	return &client->handles[handle - 1];
}

static long old_share(struct client *client, void __user *user)
{
	struct dma_buf **found;
	struct fd_data data;

	if (copy_from_user(&data, user, sizeof(data)))
		return -EFAULT;
	found = find(client, data.handle);
	if (!found)
		return -EINVAL;
	get_dma_buf(*found);
	data.fd = dma_buf_fd(*found, O_CLOEXEC);
	if (data.fd < 0) {
		dma_buf_put(*found);
		return data.fd;
	}
	return copy_to_user(user, &data, sizeof(data)) ? -EFAULT : 0;
}

static long old_free(struct client *client, void __user *user)
{
	struct dma_buf **found;
	struct handle_data data;

	if (copy_from_user(&data, user, sizeof(data)))
		return -EFAULT;
	found = find(client, data.handle);
	if (!found)
		return -EINVAL;
	dma_buf_put(*found);
	*found = NULL;
	return 0;
}

/* -- the device ----------------------------------------------------------- */

static int ion_open(struct inode *inode, struct file *file)
{
	struct client *client = kzalloc(sizeof(*client), GFP_KERNEL);

	if (!client)
		return -ENOMEM;
	mutex_init(&client->lock);
	file->private_data = client;
	return 0;
}

static int ion_release(struct inode *inode, struct file *file)
{
	struct client *client = file->private_data;
	int i;

	for (i = 0; i < HANDLES; i++)
		if (client->handles[i])
			dma_buf_put(client->handles[i]);
	kfree(client);
	return 0;
}

static long ion_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct client *client = file->private_data;
	void __user *user = (void __user *)argument;
	long result = -ENOTTY;

	mutex_lock(&client->lock);
	if (!old && command == NEW_ALLOC)
		result = new_alloc(user);
	else if (!old && command == NEW_QUERY)
		result = new_query(user);
	else if (old && command == OLD_ALLOC)
		result = old_alloc(client, user);
	else if (old && command == OLD_SHARE)
		result = old_share(client, user);
	else if (old && command == OLD_FREE)
		result = old_free(client, user);
	mutex_unlock(&client->lock);
	return result;
}

static const struct file_operations ion_operations = {
	.owner = THIS_MODULE,
	.open = ion_open,
	.release = ion_release,
	.unlocked_ioctl = ion_ioctl,
};

static struct miscdevice ion_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ion",
	.fops = &ion_operations,
};

module_misc_device(ion_misc);
MODULE_DESCRIPTION("A small device with ION's interface");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS(DMA_BUF);
