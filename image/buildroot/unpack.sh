#!/bin/sh
# Unpacks a package's source, or what stands in for it, into the new folder $2. Runs in the room.
#
#   unpack.sh source FOLDER FILE.dsc [BEGINNING]   with Debian's patches; or only those from the first of BEGINNING on
#   unpack.sh archive FOLDER FILE                  the authors' archive alone
#   unpack.sh binaries FOLDER PACKAGE...           Debian's binary packages, their libraries where Buildroot has them
set -eu
kind=$1
folder=$2
shift 2
rm -rf "$folder" "$folder.new"
case $kind in
source)
	dpkg-source --no-check --no-copy ${2:+--skip-patches} -x "$1" "$folder.new"
	if [ -n "${2:-}" ]; then
		sed -n "/^$2/,\$p" "$folder.new/debian/patches/series" | while read -r name; do
			patch -d "$folder.new" -p1 -s -f <"$folder.new/debian/patches/$name"
		done
	fi
	;;
archive)
	mkdir "$folder.new"
	tar -C "$folder.new" --strip-components=1 -xf "$1"
	;;
binaries)
	mkdir "$folder.new"
	scratch=$(mktemp -d)
	cd "$scratch"
	apt-get download -qq -o APT::Sandbox::User=root "$@"
	for package in *.deb; do dpkg-deb -x "$package" "$folder.new"; done
	rm -rf "$scratch"
	cd "$folder.new/usr"
	# Where a source has its licence.
	cat share/doc/*/copyright >../COPYING
	rm -rf share
	for sub in lib include; do
		if [ -d "$sub/x86_64-linux-gnu" ]; then
			cp -a "$sub/x86_64-linux-gnu/." "$sub/"
			rm -rf "$sub/x86_64-linux-gnu"
		fi
	done
	find lib -name '*.pc' -exec sed -i 's#/x86_64-linux-gnu##g' {} +
	;;
esac
mv "$folder.new" "$folder"
