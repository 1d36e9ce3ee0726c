#!/bin/sh
# Makes the initramfs of the Debian base with its own mkinitramfs, from the overlay's configuration in etc/initramfs-tools.
#
# Called by ../assemble.sh with ROOT, the kernel's VERSION, OUT and SOURCE_DATE_EPOCH in the environment.
set -eu
: "${ROOT:?}" "${VERSION:?}" "${OUT:?}" "${SOURCE_DATE_EPOCH:?}"
# In an environment of its own: mkinitramfs writes a ROOT that it finds into the initramfs.
chroot "$ROOT" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
	mkinitramfs -o /boot/initrd.img "$VERSION"
cp "$ROOT/boot/initrd.img" "$OUT"
