// SPDX-License-Identifier: GPL-2.0
/*
 * A mailbox controller for the kernel's own mailbox-test, which nothing but
 * this module has: the devices are those of ../board.dts. Channel 0 goes to the
 * other end, channel 1 comes from it.
 *
 * The other end is who opens /dev/sbe-rig-mailbox: write() is a message of its,
 * read() and poll() wait for one of Linux's.
 */
#include <linux/mailbox_controller.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/platform_device.h>

#include "sbe_rig_bell.h"

#define MESSAGE	128	/* bytes: MBOX_MAX_MSG_LEN of mailbox-test */
#define PERIOD	1	/* ms: how often the core asks whether a message has gone */

static struct mbox_chan channels[2];

static int send_data(struct mbox_chan *channel, void *data)
{
	if (channel != &channels[0])
		return -EINVAL;
	ring();
	return 0;
}

static bool last_tx_done(struct mbox_chan *channel)
{
	return true;
}

static const struct mbox_chan_ops operations = {
	.send_data = send_data,
	.last_tx_done = last_tx_done,
};

static struct mbox_controller controller = {
	.ops = &operations,
	.chans = channels,
	.num_chans = ARRAY_SIZE(channels),
	.txdone_poll = true,
	.txpoll_period = PERIOD,
};

/* -- the other end ------------------------------------------------------------------------- */

static ssize_t rig_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	u8 message[MESSAGE] = {};

	if (!channels[1].cl)
		return -ENOTCONN;
	mbox_chan_received_data(&channels[1], message);
	return size;
}

static const struct file_operations rig_operations = {
	.owner = THIS_MODULE,
	.read = bell_read,
	.write = rig_write,
	.poll = bell_poll,
};

static struct miscdevice rig_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "sbe-rig-mailbox",
	.fops = &rig_operations,
};

/* -- life ---------------------------------------------------------------------------------- */

static int rig_probe(struct platform_device *device)
{
	controller.dev = &device->dev;
	return devm_mbox_controller_register(&device->dev, &controller);
}

static const struct of_device_id rig_match[] = {
	{ .compatible = "sbe,rig-mailbox" },
	{}
};
MODULE_DEVICE_TABLE(of, rig_match);

static struct platform_driver rig_driver = {
	.driver = {
		.name = "sbe-rig-mailbox",
		.of_match_table = rig_match,
	},
	.probe = rig_probe,
};

static int __init rig_init(void)
{
	int error = misc_register(&rig_misc);

	if (error)
		return error;
	error = platform_driver_register(&rig_driver);
	if (error)
		misc_deregister(&rig_misc);
	return error;
}

static void __exit rig_exit(void)
{
	platform_driver_unregister(&rig_driver);
	misc_deregister(&rig_misc);
}

module_init(rig_init);
module_exit(rig_exit);
MODULE_DESCRIPTION("A mailbox for mailbox-test");
MODULE_LICENSE("GPL");
