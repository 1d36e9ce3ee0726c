#!/bin/sh
# Makes the initramfs of the Buildroot base: BusyBox and the file system tools of the base itself with the libraries that
# they need, init and its functions from SKELETON, and the two scripts that the Debian base runs as well.
#
# Called by ../assemble.sh with ROOT, SKELETON, OUT and SOURCE_DATE_EPOCH in the environment.
set -eu
: "${ROOT:?}" "${SKELETON:?}" "${OUT:?}" "${SOURCE_DATE_EPOCH:?}"
tree=$ROOT/initramfs
rm -rf "$tree"
mkdir -p "$tree/usr/bin" "$tree/usr/sbin" "$tree/usr/lib" "$tree/etc" "$tree/conf" "$tree/proc" "$tree/sys" "$tree/dev" \
	"$tree/run" "$tree/root"
for folder in bin sbin lib; do ln -s "usr/$folder" "$tree/$folder"; done
ln -s usr/lib "$tree/lib64"

# Copies a program, under the name $2, and its libraries.
program() {
	cp -L "$ROOT$1" "$tree$2"
	chroot "$ROOT" env -i LD_TRACE_LOADED_OBJECTS=1 /lib64/ld-linux-x86-64.so.2 "$1" | tr -s '\t ' '\n' | grep '^/' |
		while read -r library; do
			cp -nL "$ROOT$library" "$tree/usr/lib/" 2>/dev/null || :
		done
}
program /usr/bin/busybox /usr/bin/busybox
program /usr/sbin/e2fsck /usr/sbin/e2fsck
# Under a name that BusyBox does not take for its own.
program /usr/sbin/mke2fs /usr/sbin/mkfs.ext4
program /usr/sbin/blkid /usr/sbin/blkid
cp -L "$ROOT/lib64/ld-linux-x86-64.so.2" "$tree/usr/lib/"
cp "$ROOT/etc/mke2fs.conf" "$tree/etc/"
for applet in sh cat chmod echo grep head ln mkdir mount mv printf readlink reboot rm sleep switch_root sync touch tr \
	umount; do
	ln -s busybox "$tree/usr/bin/$applet"
done

cp -R "$SKELETON/." "$tree/"
for script in local-top/disk local-bottom/state; do
	mkdir -p "$tree/scripts/${script%/*}"
	cp "$ROOT/etc/initramfs-tools/scripts/$script" "$tree/scripts/$script"
	chmod 0755 "$tree/scripts/$script"
done
chmod 0755 "$tree/init"

find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --quiet --format=newc --owner=0:0 --reproducible) |
	zstd -q -9 -T1 >"$OUT"
rm -rf "$tree"
