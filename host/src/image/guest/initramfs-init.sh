#!/bin/busybox sh
# shellcheck shell=dash
# First process of the guest: loads the modules that reach the root disk and hands over to it.
export PATH=/bin

busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
    busybox insmod "$module"
done

tries=0
until busybox mount -t ext4 -o rw,noatime /dev/vda /root 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 200 ]; then
        echo "banger: the root disk /dev/vda cannot be mounted" >&2
        busybox poweroff -f
    fi
    busybox usleep 50000
done
busybox umount /dev
exec busybox switch_root /root /sbin/banger-init
