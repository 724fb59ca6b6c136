#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The guest's first process, in its initramfs: drivers, then the real root, which this machine shares by 9P.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r module; do
    $b insmod "/modules/$module" || echo "no driver $module"
done </modules/order
mount_9p() {
    $b mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2" || echo "no $1 over 9P"
}
mount_9p root /mnt ro,cache=loose
mount_9p checkout /mnt/checkout ro,cache=loose
mount_9p package /mnt/checkout/sbe ro,cache=loose
mount_9p work /mnt/work rw,cache=none
$b mount --move /dev /mnt/dev
exec $b switch_root /mnt /usr/bin/python3 /checkout/tests/rigs/kernel/guest_init.py
