#!/bin/bash
# Writes the initramfs: busybox, the virtio modules in the order in which they load, and /init.
# The archive is made by the image's own busybox, so that the host needs no cpio.
#
# usage: initramfs.sh ROOT KERNEL_VERSION ASSETS OUTPUT
set -eu

root=$1
version=$2
assets=$3
output=$4
stage=$root/tmp/initramfs

mkdir -p "$stage/bin" "$stage/dev" "$stage/proc" "$stage/sys" "$stage/root" "$stage/modules"
cp "$root/bin/busybox" "$stage/bin/busybox"
ln -s busybox "$stage/bin/sh"
install -m 0755 "$assets/initramfs-init.sh" "$stage/init"
number=10
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_mmio \
    virtio_blk failover net_failover virtio_net button evdev; do
    file=$(find "$root/lib/modules/$version" -name "$module.ko" | head -n 1)
    # A module that is missing is built in, or not needed by this kernel.
    if [ -n "$file" ]; then
        cp "$file" "$stage/modules/$number-$module.ko"
        number=$((number + 1))
    fi
done
env -u TMPDIR chroot "$root" /bin/busybox sh -c \
    'cd /tmp/initramfs && busybox find . | busybox cpio -o -H newc' >"$output" 2>/dev/null
rm -rf "$stage"
