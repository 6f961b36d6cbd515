#!/bin/busybox sh
# shellcheck shell=dash
# Process 1 of a banger guest: mounts, network, sshd, orphans, and an orderly end.
#
# A stop is asked for by the ACPI power button (QEMU: system_powerdown) or by SIGTERM to process 1
# (over SSH: kill -TERM 1). Both end every process with SIGTERM, then SIGKILL, unmount the work disk
# and power off. Disks, by position: vda root, vdb work (mounted at /root), vdc seed (a tar).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
bb=/bin/busybox

say() { echo "banger-init: $*"; }

power_off() {
    trap '' TERM INT USR1 USR2 PWR
    say "stopping"
    # Every process but this one; -1 never includes the sender.
    kill -TERM -1 2>/dev/null
    tries=0
    while [ "$tries" -lt 40 ] && others_run; do
        tries=$((tries + 1))
        $bb usleep 50000
    done
    kill -KILL -1 2>/dev/null
    $bb sync
    cd /
    $bb umount /root || $bb umount -l /root
    $bb mount -o remount,ro / 2>/dev/null
    $bb sync
    say "off"
    $bb poweroff -f
}

# Whether a process with a command line (so no kernel thread), other than this one, is alive.
others_run() {
    for entry in /proc/[0-9]*/cmdline; do
        case $entry in
        /proc/1/* | /proc/self/*) continue ;;
        esac
        line=
        { read -r line <"$entry"; } 2>/dev/null
        [ -n "$line" ] && return 0
    done
    return 1
}

trap power_off TERM INT USR1 USR2 PWR

$bb mount -t proc -o nosuid,nodev,noexec proc /proc
$bb mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
$bb mount -t devtmpfs -o nosuid devtmpfs /dev
$bb mkdir -p /dev/pts /dev/shm
$bb mount -t devpts -o nosuid,noexec,gid=5,mode=0620,ptmxmode=0666 devpts /dev/pts
$bb mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
$bb mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /run
$bb mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup 2>/dev/null
$bb ln -sf /proc/self/fd /dev/fd
$bb ln -sf /proc/self/fd/0 /dev/stdin
$bb ln -sf /proc/self/fd/1 /dev/stdout
$bb ln -sf /proc/self/fd/2 /dev/stderr
$bb mkdir -p /run/sshd /run/lock
: >/run/utmp

if [ -b /dev/vdc ]; then
    $bb tar -xf /dev/vdc -C / || say "the seed disk cannot be read"
fi

if [ -b /dev/vdb ]; then
    if ! $bb mount -t ext4 -o noatime,discard /dev/vdb /root; then
        say "checking the work disk"
        e2fsck -p /dev/vdb || e2fsck -y /dev/vdb
        $bb mount -t ext4 -o noatime,discard /dev/vdb /root || say "the work disk cannot be mounted"
    fi
    if [ ! -e /root/.hushlogin ]; then
        $bb cp -a /etc/skel/. /root/
        $bb chmod 0700 /root
    fi
fi

[ -s /etc/hostname ] && $bb hostname -F /etc/hostname
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

# The power button: the first event is enough, whichever it is.
for button in /dev/input/event*; do
    [ -e "$button" ] || continue
    ($bb dd if="$button" of=/dev/null bs=24 count=1 2>/dev/null && kill -TERM 1) &
done

say "ready"
while :; do
    /usr/sbin/sshd -D -e </dev/null &
    # Waiting also reaps the orphans of detached sessions, which belong to process 1.
    wait $!
    say "sshd ended ($?), starting it again"
    $bb usleep 500000
done
