################################################################################
#
# python-borgbackup
#
################################################################################

PYTHON_BORGBACKUP_VERSION = 1.4.5
PYTHON_BORGBACKUP_SOURCE = borgbackup-$(PYTHON_BORGBACKUP_VERSION).tar.gz
PYTHON_BORGBACKUP_SITE = https://files.pythonhosted.org/packages/source/b/borgbackup
PYTHON_BORGBACKUP_SETUP_TYPE = setuptools
PYTHON_BORGBACKUP_LICENSE = BSD-3-Clause
PYTHON_BORGBACKUP_LICENSE_FILES = LICENSE
PYTHON_BORGBACKUP_DEPENDENCIES = \
	host-pkgconf \
	host-python-cython \
	host-python-pkgconfig \
	host-python-setuptools-scm \
	acl \
	lz4 \
	openssl \
	xxhash \
	zstd
# Said here, or the libraries of the machine that builds would be found.
PYTHON_BORGBACKUP_ENV = \
	SETUPTOOLS_SCM_PRETEND_VERSION=$(PYTHON_BORGBACKUP_RELEASE) \
	BORG_OPENSSL_PREFIX=$(STAGING_DIR)/usr \
	BORG_LIBLZ4_PREFIX=$(STAGING_DIR)/usr \
	BORG_LIBZSTD_PREFIX=$(STAGING_DIR)/usr \
	BORG_LIBXXHASH_PREFIX=$(STAGING_DIR)/usr \
	BORG_LIBACL_PREFIX=$(STAGING_DIR)/usr
# A source folder in the place of the tarball has no version of its own.
PYTHON_BORGBACKUP_RELEASE = $(if $(PYTHON_BORGBACKUP_OVERRIDE_SRCDIR),$(or $(PYTHON_BORGBACKUP_OVERRIDE_VERSION),1.4),$(PYTHON_BORGBACKUP_VERSION))

$(eval $(python-package))
