################################################################################
#
# Sources and tools from Debian, in the place of Buildroot's downloads
#
# The package override file of --sources debian. It is read before the packages; "override" wins over what they set.
#
################################################################################

# What Debian's binary packages hold, in the place of a package that the mirror has no source of.
# $(1): the package in capitals, $(2): the folder
define room-prebuilt
override $(1)_OVERRIDE_SRCDIR = $(2)
override $(1)_AUTORECONF = NO
override $(1)_CONFIGURE_CMDS = :
override $(1)_BUILD_CMDS = :
override $(1)_INSTALL_STAGING_CMDS = cp -a $$(@D)/usr $$(STAGING_DIR)/
override $(1)_INSTALL_TARGET_CMDS = cp -a $$(@D)/usr $$(TARGET_DIR)/
override $(1)_LICENSE_FILES = COPYING
endef

# Made by "cargo image": FOO_OVERRIDE_SRCDIR, FOO_BARE where Debian's patches are not in it, or a call of the above, for each package of sources.list.
include $(STRONGROOM_SOURCES)/overrides.mk

# Of what Debian's packages of firmware hold, what the defconfig asks for.
override LINUX_FIRMWARE_INSTALL_STAGING_CMDS =
override LINUX_FIRMWARE_INSTALL_IMAGES_CMDS =
override LINUX_FIRMWARE_INSTALL_TARGET_CMDS = mkdir -p $(TARGET_DIR)/usr/lib/firmware && \
	cd $(@D)/usr/lib/firmware && cp -a bnx2 rtl_nic tigon $(TARGET_DIR)/usr/lib/firmware/

# Buildroot's own patches, on archives of the version that its recipe is for.
define ROOM_BUILDROOT_PATCHES
	$(APPLY_PATCHES) $(@D) $($(PKG)_PKGDIR) \*.patch
endef
$(foreach package,ACL ATTR BZIP2 READLINE,\
	$(if $($(package)_BARE),$(eval $(package)_POST_RSYNC_HOOKS += ROOM_BUILDROOT_PATCHES)))

# ------------------------------------------------------------------------------
# Programs that the room has: linked into HOST_DIR instead of built.
# ------------------------------------------------------------------------------

ROOM_NOTHING = $(STRONGROOM_SOURCES)/nothing
# The last is where Debian keeps what only its own packages call.
ROOM_PATH = /usr/bin:/usr/sbin:/usr/lib/x86_64-linux-gnu/glib-2.0

# $(1): the host package in capitals, $(2): its programs, $(3): further commands
define room-tool
override HOST_$(1)_OVERRIDE_SRCDIR = $$(ROOM_NOTHING)
override HOST_$(1)_LICENSE_FILES =
override HOST_$(1)_REDISTRIBUTE = NO
override HOST_$(1)_DEPENDENCIES =
override HOST_$(1)_AUTORECONF = NO
override HOST_$(1)_CONFIGURE_CMDS = :
override HOST_$(1)_BUILD_CMDS = :
override HOST_$(1)_INSTALL_CMDS = mkdir -p $$(HOST_DIR)/bin $$(HOST_DIR)/sbin$(foreach program,$(2), && found=`PATH=$$(ROOM_PATH) command -v $(program)` && ln -sf $$$$found $$(HOST_DIR)/bin/$(program)) $(3)
endef

$(eval $(call room-tool,ACL,))
$(eval $(call room-tool,ATTR,))
$(eval $(call room-tool,AUTOCONF,autoconf autoheader autom4te autoreconf autoscan autoupdate ifnames))
$(eval $(call room-tool,AUTOCONF_ARCHIVE,))
$(eval $(call room-tool,AUTOMAKE,automake aclocal))
$(eval $(call room-tool,BISON,bison yacc))
$(eval $(call room-tool,BZIP2,bzip2))
$(eval $(call room-tool,CMAKE,cmake ctest))
$(eval $(call room-tool,ELFUTILS,))
$(eval $(call room-tool,EXPAT,))
$(eval $(call room-tool,FAKEROOT,fakeroot))
$(eval $(call room-tool,FLEX,flex))
$(eval $(call room-tool,GETTEXT_TINY,autopoint gettext gettextize msgfmt msgmerge xgettext))
$(eval $(call room-tool,GPERF,gperf))
$(eval $(call room-tool,KMOD,kmod))
$(eval $(call room-tool,LIBCAP,))
$(eval $(call room-tool,LIBFFI,))
$(eval $(call room-tool,LIBGLIB2,gdbus-codegen glib-genmarshal glib-mkenums glib-compile-schemas glib-compile-resources))
$(eval $(call room-tool,LIBOPENSSL,openssl c_rehash))
$(eval $(call room-tool,LIBTOOL,libtoolize))
$(eval $(call room-tool,LIBXCRYPT,))
$(eval $(call room-tool,LIBZLIB,))
$(eval $(call room-tool,M4,m4))
# Meson is what asks for Ninja, and it has no dependencies here.
$(eval $(call room-tool,MESON,meson ninja))
$(eval $(call room-tool,NCURSES,tic))
$(eval $(call room-tool,PATCHELF,patchelf))
$(eval $(call room-tool,PCRE2,))
$(eval $(call room-tool,PKGCONF,,&& install -m 0755 $$(BR2_EXTERNAL_STRONGROOM_PATH)/buildroot/pkgconf.sh $$(HOST_DIR)/bin/pkgconf))
$(eval $(call room-tool,PYTHON_CYTHON,cython cythonize))
$(eval $(call room-tool,PYTHON_FLIT_CORE,))
$(eval $(call room-tool,PYTHON_INSTALLER,))
$(eval $(call room-tool,PYTHON_JINJA2,))
$(eval $(call room-tool,PYTHON_MARKUPSAFE,))
$(eval $(call room-tool,PYTHON_PACKAGING,))
$(eval $(call room-tool,PYTHON_PKGCONFIG,))
$(eval $(call room-tool,PYTHON_POETRY_CORE,))
$(eval $(call room-tool,PYTHON_PYPA_BUILD,))
$(eval $(call room-tool,PYTHON_PYPROJECT_HOOKS,))
$(eval $(call room-tool,PYTHON_SETUPTOOLS,))
$(eval $(call room-tool,PYTHON_SETUPTOOLS_SCM,))
$(eval $(call room-tool,PYTHON_TYPING_EXTENSIONS,))
$(eval $(call room-tool,PYTHON_WHEEL,))
$(eval $(call room-tool,PYTHON3,python3 python3.13))
$(eval $(call room-tool,SYSTEMD,systemctl systemd-hwdb systemd-tmpfiles systemd-sysusers journalctl udevadm))
$(eval $(call room-tool,UTIL_LINUX,))
$(eval $(call room-tool,XZ,xz))
$(eval $(call room-tool,ZIC,,&& ln -sf /usr/sbin/zic $$(HOST_DIR)/sbin/zic))
$(eval $(call room-tool,ZSTD,zstd))

# These would change the room's own files.
override HOST_MESON_POST_INSTALL_HOOKS =
override HOST_SYSTEMD_POST_INSTALL_HOOKS =

# ------------------------------------------------------------------------------
# Where Debian's version differs from the one that Buildroot's recipe is for.
# ------------------------------------------------------------------------------

# The room's Python and the target's are of one version.
override PYTHON3_VERSION_MAJOR = 3.13
# Without Buildroot's patches: configure is whole, and has no options that leave out modules.
override PYTHON3_AUTORECONF = NO
PYTHON3_CONF_ENV += \
	ac_cv_buggy_getaddrinfo=no \
	py_cv_module__curses=n/a \
	py_cv_module__curses_panel=n/a \
	py_cv_module__sqlite3=n/a \
	py_cv_module__tkinter=n/a
define PYTHON3_REMOVE_MODULES
	cd $(TARGET_DIR)/usr/lib/python$(PYTHON3_VERSION_MAJOR) && \
		rm -rf ensurepip idlelib pydoc_data tkinter turtledemo test
endef
PYTHON3_POST_INSTALL_TARGET_HOOKS += PYTHON3_REMOVE_MODULES

# Stands before the room's own of this name, which sends what is installed to Debian's places. The room's setuptools
# asks for these two things from it.
define PYTHON3_WITHOUT_DEBIAN_PLACES
	printf 'from distutils.command.install import install\ninstall.install_layout = install.prefix_option = None\n' \
		>$(STAGING_DIR)/usr/lib/python$(PYTHON3_VERSION_MAJOR)/_distutils_system_mod.py
endef
PYTHON3_POST_INSTALL_STAGING_HOOKS += PYTHON3_WITHOUT_DEBIAN_PLACES

# Bare, it lacks Debian's patch for Python since 3.11, and names a Cython of its time. Where the compiled module fails it
# installs a slow one without a word.
define PYTHON_MSGPACK_PUBLIC_NAMES
	$(SED) 's/_PyFloat_\(Pack[48]\)(d, /PyFloat_\1(d, (char *)/; s/_PyFloat_\(Unpack[48]\)((unsigned char\*)/PyFloat_\1((const char *)/' \
		$(@D)/msgpack/pack_template.h $(@D)/msgpack/unpack_template.h
endef
PYTHON_MSGPACK_POST_RSYNC_HOOKS += PYTHON_MSGPACK_PUBLIC_NAMES
PYTHON_MSGPACK_BUILD_OPTS = --skip-dependency-check
define PYTHON_MSGPACK_CHECK
	ls $(TARGET_DIR)/usr/lib/python$(PYTHON3_VERSION_MAJOR)/site-packages/msgpack/_cmsgpack.*.so
endef
PYTHON_MSGPACK_POST_INSTALL_TARGET_HOOKS += PYTHON_MSGPACK_CHECK

# Archives as their authors tag them, without the files that autotools make.
override KMOD_AUTORECONF = YES
# As kmod's own autogen.sh does where there is no gtkdocize: automake reads this file even when it is not used.
define KMOD_WITHOUT_GTKDOC
	touch $(@D)/libkmod/docs/gtk-doc.make
endef
KMOD_PRE_CONFIGURE_HOOKS += KMOD_WITHOUT_GTKDOC
override LIBXCRYPT_AUTORECONF = YES
# In the source folder: with one of its own, its makefile looks for another named after the machine that builds.
override LIBFFI_CONF_OPTS = --disable-multi-os-directory --disable-exec-static-tramp --disable-builddir
override EXPAT_AUTORECONF = YES
override EXPAT_SUBDIR = expat

# Debian's patches change configure.ac and Makefile.am, not what is made of them.
override UTIL_LINUX_LIBS_AUTORECONF = YES
override OPENSSH_AUTORECONF = YES
# sshd of version 10 is three programs.
define OPENSSH_INSTALL_SSHD_AUTH
	$(INSTALL) -D -m 0755 $(@D)/sshd-auth $(TARGET_DIR)/usr/libexec/sshd-auth
endef
OPENSSH_POST_INSTALL_TARGET_HOOKS += OPENSSH_INSTALL_SSHD_AUTH

# The recipe's version looks for the wide ncurses where Buildroot has it; this one in a folder.
define PROCPS_NG_NCURSES
	$(SED) 's#<ncursesw/ncurses.h>#<ncurses.h>#' $(@D)/src/watch.c
endef
PROCPS_NG_POST_RSYNC_HOOKS += PROCPS_NG_NCURSES

# These have left autotools for Meson.
# $(1): the package in capitals, $(2): its options
define room-meson
override $(1)_CONFIGURE_CMDS = rm -rf $$(@D)/build && mkdir $$(@D)/build && \
	sed $$(call PKG_MESON_CROSSCONFIG_SED,TARGET_CFLAGS,TARGET_CXXFLAGS,TARGET_LDFLAGS,TARGET_FCFLAGS) \
		>$$(@D)/build/cross-compilation.conf && \
	$$(TARGET_MAKE_ENV) $$(HOST_DIR)/bin/meson setup --cross-file=$$(@D)/build/cross-compilation.conf \
	--prefix=/usr --libdir=/usr/lib --sysconfdir=/etc --localstatedir=/var \
	--default-library=shared --buildtype=release --wrap-mode=nodownload $(2) $$(@D) $$(@D)/build
override $(1)_BUILD_CMDS = $$(TARGET_MAKE_ENV) $$(HOST_DIR)/bin/ninja -C $$(@D)/build
override $(1)_INSTALL_STAGING_CMDS = $$(TARGET_MAKE_ENV) DESTDIR=$$(STAGING_DIR) $$(HOST_DIR)/bin/ninja -C $$(@D)/build install
override $(1)_INSTALL_TARGET_CMDS = $$(TARGET_MAKE_ENV) DESTDIR=$$(TARGET_DIR) $$(HOST_DIR)/bin/ninja -C $$(@D)/build install
endef

# Without translations 1.7.0 asks for a variable that it has not set.
define LINUX_PAM_WITHOUT_LIBINTL
	$(SED) 's/, libintl\]/]/' $(@D)/libpam/meson.build
endef
LINUX_PAM_POST_RSYNC_HOOKS += LINUX_PAM_WITHOUT_LIBINTL
$(eval $(call room-meson,LINUX_PAM,\
	-Di18n=disabled -Ddocs=disabled -Daudit=disabled -Deconf=disabled \
	-Dlogind=disabled -Dopenssl=disabled -Dselinux=disabled -Dnis=disabled \
	-Dexamples=false -Dpam_lastlog=disabled -Dpam_userdb=disabled \
	-Dsecuredir=/usr/lib/security -Dsystemdunitdir=/usr/lib/systemd/system))
$(eval $(call room-meson,DBUS,\
	-Dapparmor=disabled -Dasserts=false -Dchecks=false -Dinotify=enabled \
	-Ddoxygen_docs=disabled -Dducktype_docs=disabled -Dxml_docs=disabled -Dqt_help=disabled \
	-Dlibaudit=disabled -Dselinux=disabled -Dx11_autolaunch=disabled \
	-Dmodular_tests=disabled -Dinstalled_tests=false -Dsystemd=enabled -Duser_session=false \
	-Ddbus_user=dbus -Druntime_dir=/run -Dsession_socket_dir=/tmp \
	-Dsystem_socket=/run/dbus/system_bus_socket -Dsystem_pid_file=/run/messagebus.pid))
