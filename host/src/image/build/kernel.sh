#!/bin/bash
# Customize hook of mmdebstrap: unpacks the kernel package without installing it, so that none of
# its dependencies (initramfs-tools, udev, ...) come along and no initramfs is generated.
#
# usage: kernel.sh ROOT
# environment: BANGER_KERNEL, and MMDEBSTRAP_APT_CONFIG from mmdebstrap
set -eu

root=$1
out=$(dirname "$root")
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG

printf 'banger-stage: %s\n' kernel-download
package=$(apt-cache depends "$BANGER_KERNEL" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
if [ -z "$package" ]; then
    echo "kernel.sh: $BANGER_KERNEL names no kernel package" >&2
    exit 1
fi
work=$(mktemp -d "$out/tmp-kernel-XXXXXX")
(cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package")
dpkg -x "$work"/*.deb "$work/unpacked"
mkdir -p "$root/lib/modules" "$root/boot"
cp -a "$work/unpacked/boot/." "$root/boot/"
cp -a "$work/unpacked/lib/modules/." "$root/lib/modules/"
# shellcheck disable=SC2016 # the braces are for dpkg-deb
dpkg-deb -W --showformat='${Package}\t${Version}\n' "$work"/*.deb >"$out/tmp-kernel-package"
rm -rf "$work"
