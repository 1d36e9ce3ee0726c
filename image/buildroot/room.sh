#!/bin/sh
# Runs a command in the room: the Debian root file system in ROOM, with the folders of BINDS, one a line, at their own
# places. Runs as root of private mount and process namespaces (see src/namespace.rs), so that no mount outlives it.
set -eu
: "${ROOM:?}" "${BINDS:?}"
mount -t proc proc "$ROOM/proc"
mount --rbind /dev "$ROOM/dev"
echo "$BINDS" | while read -r folder; do
	mkdir -p "$ROOM$folder"
	mount --rbind "$folder" "$ROOM$folder"
done
# apt in the room asks the same name servers as this machine.
cp -L /etc/resolv.conf "$ROOM/etc/resolv.conf"
# Buildroot builds tar and coreutils, whose configure minds being root; here root is nobody outside.
exec chroot "$ROOM" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 FORCE_UNSAFE_CONFIGURE=1 "$@"
