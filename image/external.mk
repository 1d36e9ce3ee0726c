include $(sort $(wildcard $(BR2_EXTERNAL_STRONGROOM_PATH)/package/*/*.mk))

# Debian's names and places, which the overlay and our programs know; and places under /run, since /var starts out empty.
CHRONY_CONF_OPTS += \
	--sysconfdir=/etc/chrony \
	--chronyrundir=/run/chrony \
	--with-pidfile=/run/chrony/chronyd.pid \
	--with-user=_chrony

OPENSSH_CONF_OPTS += --with-privsep-path=/run/sshd
