#!/bin/sh
# Makes the system's root file system from a base, Debian's or Buildroot's, and the overlay, and the initramfs.
#
# Runs as root of private mount and process namespaces (see src/namespace.rs), so that nothing it mounts outlives it.
# Reads BASE (tar), OVERLAYS (folders, the later over the earlier), MANIFEST; works in ROOT, which it removes; makes with
# INITRAMFS (the base's own script) or, if it exists, takes INITRD; writes OUT (tar), nothing in it newer than
# SOURCE_DATE_EPOCH, and moves os-release to OS_RELEASE. All of these come in by the environment.
set -eu
umask 022
: "${BASE:?}" "${OVERLAYS:?}" "${MANIFEST:?}" "${ROOT:?}" "${INITRAMFS:?}" "${INITRD:?}" "${OUT:?}" "${OS_RELEASE:?}" \
	"${SOURCE_DATE_EPOCH:?}"

rm -rf --one-file-system "$ROOT"
mkdir "$ROOT"
# Never across a mount: a failure may leave the machine's own /dev bound in there.
trap 'umount -l "$ROOT/proc" "$ROOT/dev" 2>/dev/null || :; rm -rf --one-file-system "$ROOT"' EXIT

tar -C "$ROOT" --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' -xpf "$BASE"
rm -rf "$ROOT"/etc/systemd/system/*.wants
# One a line: a folder's name may have blanks.
echo "$OVERLAYS" | while read -r overlay; do
	tar -C "$overlay" --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" --mode='u=rwX,go=rX' -cf - . |
		tar -C "$ROOT" --keep-directory-symlink -xpf -
done

mkdir -p "$ROOT/dev" "$ROOT/proc" "$ROOT/sys" "$ROOT/run" "$ROOT/tmp"

version=$(ls "$ROOT/usr/lib/modules")
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
if [ ! -e "$INITRD" ]; then
	ROOT="$ROOT" VERSION="$version" OUT="$INITRD.new" "$INITRAMFS"
	mv "$INITRD.new" "$INITRD"
fi
chroot "$ROOT" systemd-sysusers
chroot "$ROOT" systemctl preset-all
# Lazily, since an ordinary user may not take the mounts below /dev apart one by one.
umount -l "$ROOT/proc" "$ROOT/dev"

# The kernel under the name that grub-slot.cfg knows. Buildroot calls it bzImage.
for kernel in "$ROOT/boot/vmlinuz-$version" "$ROOT/boot/bzImage"; do
	[ ! -e "$kernel" ] || mv "$kernel" "$ROOT/boot/kernel"
done
rm -f "$ROOT"/boot/System.map-* "$ROOT"/boot/config-* "$ROOT"/boot/vmlinuz* "$ROOT"/boot/initrd* "$ROOT"/vmlinuz* "$ROOT"/initrd*
mv "$ROOT/boot/kernel" "$ROOT/boot/vmlinuz"
cp "$INITRD" "$ROOT/boot/initrd.img"
chmod 0644 "$ROOT/boot/vmlinuz" "$ROOT/boot/initrd.img"

# Places that others fill: mount points, our programs, the identity that the initramfs binds here.
mkdir -p "$ROOT/mnt/raid" "$ROOT/boot/efi" "$ROOT/usr/lib/strongroom" "$ROOT/usr/share/strongroom" \
	"$ROOT/usr/share/doc/strongroom"
rm -f "$ROOT/etc/machine-id"
: >"$ROOT/etc/machine-id"
cp "$MANIFEST" "$ROOT/usr/share/strongroom/manifest"
mv "$ROOT/usr/lib/os-release" "$OS_RELEASE"

# What only made sense while packages were installed, what belongs to one machine, and the old /var, which the state
# partition covers.
rm -rf "$ROOT"/etc/ssh/ssh_host_* "$ROOT/etc/apt" "$ROOT/etc/systemd/user" "$ROOT"/etc/*- "$ROOT/etc/.pwd.lock" \
	"$ROOT/etc/kernel" "$ROOT/etc/cron.d" "$ROOT/etc/cron.daily" "$ROOT/etc/logrotate.d" \
	"$ROOT/usr/share/initramfs-tools" "${ROOT:?}"/var/* "$ROOT"/tmp/* "$ROOT"/run/*

# Nobody becomes somebody else on the appliance.
find "$ROOT" -xdev -type f -perm /6000 -exec chmod ug-s {} +

tar -C "$ROOT" --one-file-system --exclude='./dev/*' --sort=name --numeric-owner --xattrs --xattrs-include='*' \
	--format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
	--clamp-mtime --mtime="@$SOURCE_DATE_EPOCH" -cf "$OUT" .
