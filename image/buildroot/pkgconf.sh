#!/bin/sh
# The room's pkgconf, made to answer as Buildroot's patched one does: of a package's variables only those that are for
# the compiler lie in the staging folder; the others are places on the target.
for word in "$@"; do
	case $word in
	--variable=includedir | --variable=libdir | --variable=mapdir | --variable=sdkdir) ;;
	--variable*) unset PKG_CONFIG_SYSROOT_DIR ;;
	esac
done
exec /usr/bin/pkgconf "$@"
