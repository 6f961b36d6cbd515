#!/bin/bash
# Assembles an image inside the namespaces that outer.sh made. Everything it writes is in OUT.
#
# usage: assemble.sh OUT ASSETS
#   OUT     the directory of this build; receives rootfs.ext4, vmlinuz, initrd.img, packages
#   ASSETS  the directory with the files of guest/ and build/
# environment: BANGER_SUITE, BANGER_MIRROR, BANGER_SECURITY_MIRROR, BANGER_INCLUDE (comma separated),
#   BANGER_KERNEL (package), BANGER_DISK_MIB, BANGER_CA_BUNDLE (file, may be empty)
#
# Lines "banger-stage: ID" on standard output tell how far it is.
set -eu
umask 022

out=$1
assets=$2
root=$out/rootfs
export TMPDIR=$out/tmp
mkdir -p "$TMPDIR"

stage() { printf 'banger-stage: %s\n' "$1"; }

stage bootstrap
mmdebstrap \
    --mode=root \
    --variant=minbase \
    --format=directory \
    --components=main \
    --include="$BANGER_INCLUDE" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-include=/usr/share/locale/locale.alias' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "3"' \
    --customize-hook="$assets/kernel.sh" \
    "$BANGER_SUITE" "$root" \
    "deb $BANGER_MIRROR $BANGER_SUITE main" \
    "deb $BANGER_MIRROR $BANGER_SUITE-updates main" \
    "deb $BANGER_SECURITY_MIRROR $BANGER_SUITE-security main"

stage configure
install -m 0755 "$assets/banger-init.sh" "$root/sbin/banger-init"
install -m 0644 "$assets/sshd_config" "$root/etc/ssh/sshd_config"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/motd" "$root/etc/hostname" "$root/etc/resolv.conf"
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
printf '/dev/vda / ext4 noatime 0 1\n/dev/vdb /root ext4 noatime 0 2\n' >"$root/etc/fstab"
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"
touch "$root/root/.hushlogin" "$root/etc/skel/.hushlogin"
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt
rm -f "$root/boot"/System.map-* "$root/boot"/config-*
if [ -n "$BANGER_CA_BUNDLE" ]; then
    # One certificate a file: update-ca-certificates warns about, and links only, single ones.
    mkdir -p "$root/usr/local/share/ca-certificates/host"
    awk -v dir="$root/usr/local/share/ca-certificates/host" '
        /-----BEGIN CERTIFICATE-----/ { n++; file = sprintf("%s/%04d.crt", dir, n); inside = 1 }
        inside { print > file }
        /-----END CERTIFICATE-----/ { inside = 0; close(file) }
    ' "$BANGER_CA_BUNDLE"
    # Those that Debian has already would only be repeated in the bundle.
    env -u TMPDIR chroot "$root" /bin/bash -s <"$assets/trust.sh"
fi

stage kernel
modules=$(echo "$root"/lib/modules/*)
version=${modules##*/}
env -u TMPDIR chroot "$root" depmod "$version"
mv "$root/boot/vmlinuz-$version" "$out/vmlinuz"
"$assets/initramfs.sh" "$root" "$version" "$assets" "$out/initrd.img"

stage packages
# shellcheck disable=SC2016 # the braces are for dpkg-query
env -u TMPDIR chroot "$root" dpkg-query -W -f '${Package}\t${Version}\n' >"$out/packages"
cat "$out/tmp-kernel-package" >>"$out/packages"
rm -f "$out/tmp-kernel-package"

stage disk
rm -f "$out/rootfs.ext4"
truncate -s "${BANGER_DISK_MIB}M" "$out/rootfs.ext4"
mkfs.ext4 -q -F -L banger-root -m 0 -d "$root" \
    -E lazy_itable_init=1,lazy_journal_init=1,nodiscard "$out/rootfs.ext4"
rm -rf "$root" "$TMPDIR"
