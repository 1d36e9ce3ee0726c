//! The configuration, `strongroom.toml`: strict, validated as a whole, explained where it is wrong.
//!
//! [`Config::parse`] is the only way in. What it returns is consistent: names are unique, references resolve.
//! Secrets and certificates are files beside the configuration, referred to by name, never part of it.

mod changes;
mod depth;
mod error;
mod network;
mod parts;
mod rate;
mod size;

pub use changes::changes;
pub use error::ConfigError;
pub use network::{AddressRange, Cidr, Network, OneOrMany};
pub(crate) use parts::expect_hours;
pub use parts::*;
pub use rate::Rate;
pub use size::Size;

use crate::name::TargetName;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// Largest configuration file that is looked at, in bytes.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;

/// Smallest quota that Borg takes, in bytes.
pub const QUOTA_MIN: u64 = 10_000_000;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Host name and addresses.
    pub network: Network,
    /// Who may administer.
    pub admin: Admin,
    /// Where the time comes from.
    pub clock: Clock,
    /// The array and the consent to create it.
    pub array: Option<Array>,
    /// The broker.
    pub mqtt: Option<Mqtt>,
    /// The status for Prometheus.
    pub metrics: Option<Metrics>,
    /// Who is told of conditions.
    pub notify: Vec<Notify>,
    /// Who is told of backups and pushes.
    pub ping: Vec<Ping>,
    /// Off-site targets and recipients.
    pub offsite: Offsite,
    /// Certificate authorities of the owner's own.
    pub trust: Trust,
    /// The clients.
    pub client: Vec<Client>,
    /// When jobs run.
    pub schedule: Schedule,
}

impl Config {
    /// Parses and validates a whole file.
    ///
    /// Errors: the first thing that is wrong, with its line and what to do.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = read(text)?;
        validate(&config).map_err(|fault| ConfigError::at(text, fault.span, fault.message, fault.remedy))?;
        Ok(config)
    }

    /// The targets that a client is pushed to: those that it names, or all.
    pub fn targets_of<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Target> {
        self.offsite.target.iter().filter(move |target| match &client.targets {
            Some(named) => named.iter().any(|name| name.get_ref() == target.name.get_ref()),
            None => true,
        })
    }

    /// The client of that name.
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.client.iter().find(|client| client.name.get_ref().as_str() == name)
    }

    /// The recipient of that name.
    pub fn recipient(&self, name: &str) -> Option<&Recipient> {
        self.offsite
            .recipient
            .iter()
            .find(|recipient| recipient.name.get_ref().as_str() == name)
    }

    /// Names of all public files (certificates) that the configuration refers to, each once.
    pub fn public_files(&self) -> Vec<&FileName> {
        let mut names: Vec<&FileName> = self
            .offsite
            .recipient
            .iter()
            .map(|recipient| &recipient.certificate)
            .chain(self.trust.certificates.iter().map(|name| name.get_ref()))
            .chain(self.mqtt.iter().flat_map(Mqtt::public_files))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Every secret that the configuration needs, with its [`usage`], each once.
    pub fn secrets(&self) -> Vec<(&'static str, &FileName)> {
        let mqtt = self.mqtt.iter().flat_map(Mqtt::secrets).map(|name| (usage::MQTT, name));
        let targets = self.offsite.target.iter();
        let offsite = targets.filter_map(Target::bucket);
        let offsite = offsite.map(|bucket| (usage::OFFSITE, &bucket.secret_key));
        let notices = self.notify.iter().map(|notify| notify.url.get_ref());
        let notices = notices.chain(self.ping.iter().map(|ping| ping.url.get_ref()));
        let notices = notices.map(|name| (usage::NOTICES, name));
        let console = self.admin.console_password.iter().map(|name| (usage::CONSOLE, name));
        let mut all: Vec<_> = mqtt.chain(offsite).chain(notices).chain(console).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Names of all files that the configuration refers to, public ones and secrets.
    pub fn files(&self) -> impl Iterator<Item = &FileName> {
        let secrets = self.secrets().into_iter().map(|(_, name)| name);
        self.public_files().into_iter().chain(secrets)
    }
}

/// What secrets are for.
pub mod usage {
    /// The password for the broker, and the key of the certificate that is shown to it.
    pub const MQTT: &str = "mqtt";
    /// The URLs that are told of what happens.
    pub const NOTICES: &str = "notices";
    /// The targets' secret keys.
    pub const OFFSITE: &str = "offsite";
    /// The console password.
    pub const CONSOLE: &str = "console";
}

/// Reads a file of this form, bounded in size and depth. What its parts mean together is not judged.
pub(crate) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::whole(
            "the file is larger than 256 KiB",
            "Check that this is really strongroom.toml.",
        ));
    }
    depth::check(text)?;
    toml::from_str(text).map_err(|error| ConfigError::from_toml(text, &error))
}

struct Fault {
    span: core::ops::Range<usize>,
    message: String,
    remedy: &'static str,
}

fn fault<T>(at: &Spanned<T>, message: String, remedy: &'static str) -> Fault {
    Fault {
        span: at.span(),
        message,
        remedy,
    }
}

fn duplicate<'a, T: PartialEq + 'a>(items: impl Iterator<Item = &'a Spanned<T>>) -> Option<&'a Spanned<T>> {
    let mut seen: Vec<&T> = Vec::new();
    for item in items {
        if seen.contains(&item.get_ref()) {
            return Some(item);
        }
        seen.push(item.get_ref());
    }
    None
}

fn validate(config: &Config) -> Result<(), Fault> {
    network::validate(&config.network)?;
    validate_clients(config)?;
    validate_offsite(config)?;
    if let Some(extra) = config.trust.certificates.get(TRUST_MAX) {
        return Err(fault(
            extra,
            alloc::format!("there are more than {TRUST_MAX} files of certificates"),
            "Put several certificates into one file.",
        ));
    }
    let days = &config.schedule.check_days;
    if !(1..=365).contains(days.get_ref()) {
        return Err(fault(
            days,
            alloc::format!("`check_days` is {}", days.get_ref()),
            "It is the number of days in which every part of each repository is checked once: 1 to 365; 30 is usual.",
        ));
    }
    if let Some(array) = &config.array {
        validate_array(array)?;
    }
    config.mqtt.as_ref().map_or(Ok(()), validate_mqtt)?;
    validate_exits(config)
}

fn validate_exits(config: &Config) -> Result<(), Fault> {
    if let Some(metrics) = config.metrics.as_ref().filter(|metrics| *metrics.port.get_ref() < 1024) {
        return Err(fault(
            &metrics.port,
            alloc::format!("`port` in [metrics] is {}", metrics.port.get_ref()),
            "Write a port from 1024 to 65535 that nothing else uses; 9633 is usual.",
        ));
    }
    let notices: [(&str, Vec<&Spanned<FileName>>); 2] = [
        ("notify", config.notify.iter().map(|notify| &notify.url).collect()),
        ("ping", config.ping.iter().map(|ping| &ping.url).collect()),
    ];
    for (what, urls) in notices {
        if let Some(extra) = urls.get(NOTICES_MAX) {
            return Err(fault(
                *extra,
                alloc::format!("there are more than {NOTICES_MAX} [[{what}]]"),
                "Remove some.",
            ));
        }
        if let Some(again) = duplicate(urls.into_iter()) {
            return Err(fault(
                again,
                alloc::format!("two [[{what}]] name the file `{}`", again.get_ref()),
                "Give each a file of its own, with its URL.",
            ));
        }
    }
    for ping in &config.ping {
        let known = |name: &TargetName| config.offsite.target.iter().any(|target| target.name.get_ref() == name);
        match &ping.target {
            Some(target) if !known(target.get_ref()) => {
                return Err(fault(
                    target,
                    alloc::format!("[[ping]] names a target `{}` that does not exist", target.get_ref()),
                    "Add an `[[offsite.target]]` of that name, or correct the name.",
                ));
            }
            None if ping.client.is_none() => {
                return Err(fault(
                    &ping.url,
                    "[[ping]] names neither a client nor a target".into(),
                    "Name the `client` whose backups are meant, or the `target` (or both) whose pushes are.",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn validate_mqtt(mqtt: &Mqtt) -> Result<(), Fault> {
    let named = [("ca", &mqtt.ca), ("certificate", &mqtt.certificate), ("key", &mqtt.key)];
    for (what, name) in named {
        if let Some(name) = name.as_ref().filter(|_| !mqtt.tls) {
            return Err(fault(
                name,
                alloc::format!("[mqtt] has a `{what}`, but TLS is off"),
                "Write `tls = true` in [mqtt], or remove it.",
            ));
        }
    }
    match (&mqtt.certificate, &mqtt.key) {
        (Some(alone), None) => Err(fault(
            alone,
            "[mqtt] has a `certificate` without its `key`".into(),
            "Name the secret file with the certificate's key in `key`.",
        )),
        (None, Some(alone)) => Err(fault(
            alone,
            "[mqtt] has a `key` without its `certificate`".into(),
            "Name the file with the certificate that belongs to the key in `certificate`.",
        )),
        _ => Ok(()),
    }
}

fn validate_array(array: &Array) -> Result<(), Fault> {
    if let Some(again) = duplicate(array.system_disk.iter().chain(&array.data_disks)) {
        return Err(fault(
            again,
            alloc::format!("the disk `{}` is named twice", again.get_ref()),
            "Name each disk once: the system disk in `system_disk`, every other one in `data_disks`.",
        ));
    }
    match &array.system_disk {
        Some(system) if array.data_disks.is_empty() || array.data_disks.len() >= crate::status::DISKS_MAX => {
            return Err(fault(
                system,
                "the array needs between 1 and 15 data disks".into(),
                "Put the serial number of each data disk in `data_disks`.",
            ));
        }
        None if !array.data_disks.is_empty() || array.create || array.adopt.is_none() => {
            let place = array.data_disks.first().map_or(0..0, Spanned::span);
            return Err(fault(
                &Spanned::new(place, ()),
                "[array] names no `system_disk`".into(),
                "Put the serial number of the flashed disk in `system_disk`.",
            ));
        }
        _ => {}
    }
    let stranger = array
        .erase
        .iter()
        .find(|name| !array.disks().any(|known| known == name.get_ref().as_str()));
    match stranger {
        Some(stranger) => Err(fault(
            stranger,
            alloc::format!(
                "`erase` names `{}`, which is neither the system disk nor a data disk",
                stranger.get_ref()
            ),
            "Write it exactly as in `system_disk` or `data_disks`. No other disk is ever erased.",
        )),
        None => Ok(()),
    }
}

fn validate_clients(config: &Config) -> Result<(), Fault> {
    if config.client.len() > crate::status::CLIENTS_MAX {
        let extra = &config.client[crate::status::CLIENTS_MAX].name;
        return Err(fault(
            extra,
            "there are more than 64 clients".into(),
            "Remove some, or use a second appliance.",
        ));
    }
    if let Some(again) = duplicate(config.client.iter().map(|client| &client.name)) {
        return Err(fault(
            again,
            alloc::format!("there are two clients named `{}`", again.get_ref()),
            "Give each client a name of its own; several keys of one client go into its `keys`.",
        ));
    }
    let mut seen: Vec<(&crate::ssh_key::SshPublicKey, String)> = config
        .admin
        .keys
        .iter()
        .map(|key| (key.get_ref(), "the administrator".to_string()))
        .collect();
    for client in &config.client {
        if client.keys.is_empty() {
            return Err(fault(
                &client.name,
                alloc::format!("client `{}` has no key", client.name.get_ref()),
                "Put the line of its `id_ed25519.pub` into `keys`.",
            ));
        }
        for key in client.keys.iter().chain(&client.restore_keys) {
            if let Some((_, owner)) = seen.iter().find(|(other, _)| other.same_key(key.get_ref())) {
                return Err(fault(
                    key,
                    alloc::format!(
                        "this key of client `{}` already belongs to {owner}",
                        client.name.get_ref()
                    ),
                    "The key decides who logs in, so each needs one of its own: make it with `ssh-keygen -t ed25519`.",
                ));
            }
            seen.push((key.get_ref(), alloc::format!("client `{}`", client.name.get_ref())));
        }
        if let Some(quota) = client
            .quota
            .as_ref()
            .filter(|quota| quota.get_ref().bytes() < QUOTA_MIN)
        {
            return Err(fault(
                quota,
                alloc::format!("a quota of {} is too small: Borg needs 10 MB at least", quota.get_ref()),
                "Write how much the client's repository may hold, as in `quota = \"500 GB\"`, or remove it.",
            ));
        }
        let days = client.compact_after_days.as_ref();
        if let Some(days) = days.filter(|days| !crate::upkeep::policy::DAYS.contains(days.get_ref())) {
            return Err(fault(
                days,
                alloc::format!("`compact_after_days` is {}", days.get_ref()),
                "It is the number of days for which what was deleted can be brought back before it is freed: 7 to 365. Leave it out, and only `strongroom compact` frees anything.",
            ));
        }
        for target in client.targets.iter().flatten() {
            if !config
                .offsite
                .target
                .iter()
                .any(|known| known.name.get_ref() == target.get_ref())
            {
                return Err(fault(
                    target,
                    alloc::format!(
                        "client `{}` names a target `{}` that does not exist",
                        client.name.get_ref(),
                        target.get_ref()
                    ),
                    "Add an `[[offsite.target]]` of that name, or correct the name.",
                ));
            }
        }
    }
    Ok(())
}

fn validate_offsite(config: &Config) -> Result<(), Fault> {
    let days = &config.offsite.drill_days;
    if *days.get_ref() > crate::drill::DRILL_DAYS_MAX {
        return Err(fault(
            days,
            alloc::format!("`drill_days` is {}", days.get_ref()),
            "It is the number of days after which you are asked to try a restore: 1 to 3650, and 0 for never; 180 is usual.",
        ));
    }
    if let Some(again) = duplicate(config.offsite.target.iter().map(|target| &target.name)) {
        return Err(fault(
            again,
            alloc::format!("there are two targets named `{}`", again.get_ref()),
            "Give each target a name of its own.",
        ));
    }
    if config.offsite.target.len() > crate::status::TARGETS_MAX {
        let extra = &config.offsite.target[crate::status::TARGETS_MAX].name;
        return Err(fault(extra, "there are more than 4 targets".into(), "Remove some."));
    }
    if let Some(again) = duplicate(config.offsite.recipient.iter().map(|recipient| &recipient.name)) {
        return Err(fault(
            again,
            alloc::format!("there are two recipients named `{}`", again.get_ref()),
            "Give each recipient a name of its own.",
        ));
    }
    validate_apart(&config.offsite.target)?;
    for target in &config.offsite.target {
        match &target.place {
            Place::Bucket(bucket) => validate_bucket(bucket)?,
            Place::Disk(disk) => validate_disk(disk)?,
        }
        if !KEEP_DAYS.contains(target.keep_days.get_ref()) {
            return Err(fault(
                &target.keep_days,
                alloc::format!("`keep_days` is {}", target.keep_days.get_ref()),
                "It is how many days back any state can be restored when old objects are deleted: 7 to 3650; 90 is usual.",
            ));
        }
        if target.recipients.is_empty() {
            return Err(fault(
                &target.name,
                alloc::format!(
                    "target `{}` has no recipient, so nobody could read the copy",
                    target.name.get_ref()
                ),
                "Name at least one `[[offsite.recipient]]` in its `recipients`.",
            ));
        }
        for recipient in &target.recipients {
            if config.recipient(recipient.get_ref().as_str()).is_none() {
                return Err(fault(
                    recipient,
                    alloc::format!(
                        "target `{}` names a recipient `{}` that does not exist",
                        target.name.get_ref(),
                        recipient.get_ref()
                    ),
                    "Add an `[[offsite.recipient]]` of that name, or correct the name.",
                ));
            }
        }
        let several = config
            .client
            .iter()
            .filter(|client| config.targets_of(client).any(|t| t.name == target.name))
            .count()
            > 1;
        if several && !target.prefix.get_ref().as_str().contains(CLIENT_PLACEHOLDER) {
            return Err(fault(
                &target.prefix,
                alloc::format!(
                    "several clients would share one prefix at target `{}`",
                    target.name.get_ref()
                ),
                "Put `{client}` into its `prefix`, as in \"{client}\".",
            ));
        }
    }
    Ok(())
}

fn validate_bucket(bucket: &AtService) -> Result<(), Fault> {
    if !(1..=UPLOADS_MAX).contains(bucket.uploads.get_ref()) {
        return Err(fault(
            &bucket.uploads,
            alloc::format!("`uploads` is {}", bucket.uploads.get_ref()),
            "It is the number of files, or parts of files, that are on their way at a time: 1 to 4; 3 is usual.",
        ));
    }
    if let Some(rate) = &bucket.bandwidth
        && rate.get_ref().bytes() < BANDWIDTH_MIN
    {
        return Err(fault(
            rate,
            alloc::format!("`bandwidth` is {}", rate.get_ref()),
            "Leave a push at least 500 kbit/s, or it never ends; for a push at other hours see `push` in [schedule].",
        ));
    }
    if let Some(manifests) = &bucket.manifest_bucket
        && *manifests.get_ref() == bucket.bucket
    {
        return Err(fault(
            manifests,
            alloc::format!("`manifest_bucket` is `bucket` itself, {}", bucket.bucket),
            "Name a second bucket, of the standard tier, or leave it out: manifests then lie beside the rest.",
        ));
    }
    if let Some(days) = &bucket.minimum_age_days
        && *days.get_ref() > MINIMUM_AGE_DAYS_MAX
    {
        return Err(fault(
            days,
            alloc::format!("`minimum_age_days` is {}", days.get_ref()),
            "It is for how many days the service has an object paid for at least: 90 in Oracle's archive tier, at most 365.",
        ));
    }
    Ok(())
}

fn validate_disk(disk: &OnDisk) -> Result<(), Fault> {
    if disk.disk.get_ref().as_str().eq_ignore_ascii_case("strongroom") {
        return Err(fault(
            &disk.disk,
            alloc::format!(
                "a disk labelled `{}` is a stick with a configuration",
                disk.disk.get_ref()
            ),
            "Give the disk for copies another label, such as BACKUP.",
        ));
    }
    if !REMIND_DAYS.contains(disk.remind_days.get_ref()) {
        return Err(fault(
            &disk.remind_days,
            alloc::format!("`remind_days` is {}", disk.remind_days.get_ref()),
            "It is how old the copy may become, in days, before you are asked to plug the disk in: 1 to 365; 14 is usual.",
        ));
    }
    Ok(())
}

/// Two targets that would write the same files of the same disk.
fn validate_apart(targets: &[Target]) -> Result<(), Fault> {
    let on_disks = |target: &'_ Target| {
        target
            .disk()
            .map(|disk| (disk.disk.get_ref().clone(), disk.folder.clone()))
    };
    for (at, target) in targets.iter().enumerate() {
        let same = on_disks(target).is_some_and(|place| {
            let before = targets.iter().take(at);
            before.filter_map(on_disks).any(|other| other == place)
        });
        if same {
            return Err(fault(
                &target.name,
                alloc::format!(
                    "target `{}` is the same folder of the same disk as another",
                    target.name.get_ref()
                ),
                "Give each its own `folder`.",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
