################################################################################
#
# strongroom
#
################################################################################

# Where cargo leaves the programs of the workspace that this tree is part of: "cargo build --release" there comes first.
STRONGROOM_PROGRAMS = $(BR2_EXTERNAL_STRONGROOM_PATH)/../target/release
STRONGROOM_LICENSE = Apache-2.0 or MIT

define STRONGROOM_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(STRONGROOM_PROGRAMS)/strongroom \
		$(TARGET_DIR)/usr/bin/strongroom
	for program in `find $(STRONGROOM_PROGRAMS) -maxdepth 1 -type f -executable -name 'strongroom?*'`; do \
		$(INSTALL) -D -m 0755 $$program \
			$(TARGET_DIR)/usr/lib/strongroom/$${program##*/} || exit 1; \
	done
endef

$(eval $(generic-package))
