#!/bin/sh
# Makes a toolchain for Buildroot from the room's own Debian packages, in TOOLCHAIN: the compilers in a place of their
# own, so that they find nothing of the room's, and a sysroot with the C library.
#
# Runs in the room. Takes twenty seconds. Reads nothing but what dpkg has unpacked.
set -eu
: "${TOOLCHAIN:?}"
gcc=14
triple=x86_64-linux-gnu
new=$TOOLCHAIN.new
rm -rf "$new"
mkdir -p "$new/bin" "$new/sysroot"

# Copies the files of packages, less their documentation, into the folder $1.
copy() {
	to=$1
	shift
	for package in "$@"; do dpkg -L "$package"; done | sort -u | while read -r file; do
		case $file in /usr/share/* | /etc/*) continue ;; esac
		if [ -L "$file" ] || [ -f "$file" ]; then echo "$file"; fi
	done | tar -C / -cPf - -T - | tar -C "$to" -xf -
}
copy "$new" "gcc-$gcc" "gcc-$gcc-x86-64-linux-gnu" "g++-$gcc" "g++-$gcc-x86-64-linux-gnu" "cpp-$gcc" \
	"cpp-$gcc-x86-64-linux-gnu" "libgcc-$gcc-dev" "libstdc++-$gcc-dev" binutils binutils-x86-64-linux-gnu
copy "$new/sysroot" libc6 libc6-dev linux-libc-dev libgcc-s1 libstdc++6 libatomic1 libgomp1

# Debian's folders by architecture become the plain ones; the old names lead there.
cd "$new/sysroot/usr"
rm -rf "include/$triple/asm"
mv lib/linux/uapi/x86/asm include/asm
rm -rf lib/linux lib64 "lib/$triple/gconv" "lib/$triple/audit"
find include -maxdepth 1 -name '*-linux-gnu*' ! -name "$triple" -exec rm -rf {} +
for folder in lib include; do
	cp -a "$folder/$triple/." "$folder/"
	rm -rf "${folder:?}/$triple"
	ln -s . "$folder/$triple"
done
ln -s lib lib64
ln -s usr/lib ../lib
ln -s usr/lib ../lib64
ln -sf "$triple/ld-linux-x86-64.so.2" lib/ld-linux-x86-64.so.2.link 2>/dev/null || :
rm -f lib/ld-linux-x86-64.so.2.link
find . -type l -lname '/*' | while read -r link; do
	ln -sfn "$(basename "$(readlink "$link")")" "$link"
done
# The linker's scripts name files of the room.
for script in lib/libc.so lib/libm.so lib/libm.a; do
	sed -i "s#/usr/lib/$triple/##g; s#/lib/$triple/##g; s#/lib64/##g" "$script"
done

cd "$new/bin"
for program in gcc g++ cpp; do
	printf '#!/bin/sh\nexec %s/usr/bin/%s-%s-%s --sysroot=%s/sysroot "$@"\n' \
		"$TOOLCHAIN" "$triple" "$program" "$gcc" "$TOOLCHAIN" >"$triple-$program"
	chmod 0755 "$triple-$program"
done
ln -s "$triple-g++" "$triple-c++"
for program in ar as ld ld.bfd nm objcopy objdump ranlib readelf strip size strings addr2line; do
	ln -s "../usr/bin/$triple-$program" "$triple-$program"
done
for program in gcc-ar gcc-nm gcc-ranlib gcov; do
	ln -s "../usr/bin/$triple-$program-$gcc" "$triple-$program"
done
rm -rf "$TOOLCHAIN"
mv "$new" "$TOOLCHAIN"
