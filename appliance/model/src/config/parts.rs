//! The parts of the configuration. Each field says what it may hold; anything else is refused by its type.

use super::{AddressRange, Rate, Size};
use crate::condition::Severity;
use crate::name::{ClientName, TargetName};
use crate::ssh_key::SshPublicKey;
use crate::superblock::ArrayUuid;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// Stands for the client's name in a target's prefix.
pub const CLIENT_PLACEHOLDER: &str = "{client}";

macro_rules! checked_string {
    ($(#[$doc:meta])* $type:ident, $check:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Checks and takes the text; `None` when it is not of the form that the type documents.
            pub fn new(text: &str) -> Option<Self> {
                let check: fn(&str) -> bool = $check;
                check(text).then(|| Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).ok_or_else(|| {
                    serde::de::Error::custom(format_args!("`{}` is not {}", text.escape_debug(), $expected))
                })
            }
        }
    };
}

checked_string!(
    /// Name of a file beside the configuration: letters, digits, `.`, `_`, `-`; no folder, no leading dot.
    FileName,
    |text| {
        (1..=64).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    },
    "the name of a file beside strongroom.toml (letters, digits, `.`, `_`, `-`; no folder)"
);
checked_string!(
    /// Host name or its label: letters, digits and hyphens (RFC 1123 section 2.1).
    HostLabel,
    |text| {
        (1..=63).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    },
    "a host name (letters, digits and hyphens, at most 63)"
);
checked_string!(
    /// Host name or IP address of a server.
    Host,
    |text| {
        (1..=253).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b))
    },
    "a host name or an IP address"
);
checked_string!(
    /// Serial number or WWN of a disk, as printed on it and as `strongroom disks` shows it.
    Serial,
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && text.trim() == text,
    "a disk's serial number or WWN (see the label on the disk, or `strongroom disks`)"
);
checked_string!(
    /// An S3 endpoint: `https://host[:port]`, or `http://…` for a server on the LAN. No path.
    Endpoint,
    |text| {
        text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).is_some_and(|rest| {
            let host = rest.strip_suffix('/').unwrap_or(rest);
            (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        })
    },
    "an S3 endpoint such as https://NAMESPACE.compat.objectstorage.REGION.oraclecloud.com"
);
checked_string!(
    /// Name of a bucket: letters, digits, `.`, `_`, `-`.
    Bucket,
    |text| (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
    "the name of a bucket (letters, digits, `.`, `_`, `-`)"
);
checked_string!(
    /// Label or UUID of a file system: letters, digits, `.`, `_`, `-`. Labels with other characters have to be changed, which
    /// is done in a moment.
    Volume,
    |text| {
        (1..=36).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    },
    "the label or the UUID of a disk's file system (letters, digits, `.`, `_`, `-`; `lsblk -f` shows both)"
);
checked_string!(
    /// A folder on a disk. No leading or trailing `/`; no part begins with a dot.
    Folder,
    |text| {
        text.len() <= 100
            && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
    },
    "a folder on the disk (letters, digits, `.`, `_`, `-`, and `/` between them)"
);
checked_string!(
    /// Prefix of a target's objects; `{client}` stands for the client's name. No leading or trailing `/`.
    Prefix,
    |text| {
        let plain = text.replace(CLIENT_PLACEHOLDER, "client");
        plain.len() <= 200
            && plain.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
    },
    "a prefix of object names (letters, digits, `.`, `_`, `-`, `/` between them, and `{client}`)"
);
checked_string!(
    /// One word of printable characters: a region, a user name, an access key id.
    Word,
    |text| (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()),
    "one word"
);
checked_string!(
    /// A calendar expression of systemd.time(7), e.g. `daily` or `*-*-* 03:30`.
    Calendar,
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" *-:,./~".contains(&b))
    },
    "a calendar expression such as `daily` or `*-*-* 03:30` (see systemd.time(7))"
);
checked_string!(
    /// Fingerprint of an OpenPGP key of version 4: 40 hexadecimal digits, in capitals.
    Fingerprint,
    crate::recipient::is_fingerprint,
    "a fingerprint: 40 hexadecimal digits, in capitals and without spaces"
);

impl HostLabel {
    /// The name of an appliance that was given none.
    pub(super) fn standard() -> Self {
        Self("strongroom".into())
    }
}

impl Prefix {
    /// The prefix for one client.
    pub fn for_client(&self, client: &ClientName) -> String {
        self.as_str().replace(CLIENT_PLACEHOLDER, client.as_str())
    }
}

/// `[admin]`: who may log in as `admin`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// SSH keys.
    pub keys: Vec<Spanned<SshPublicKey>>,
    /// Name of the secret file with the console password, which the boot loader asks for.
    pub console_password: Option<FileName>,
}

/// Most files of certificates in `[trust]`.
pub const TRUST_MAX: usize = 8;

/// `[trust]`: certificate authorities that are believed in addition to the public ones, by all that speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Names of files (PEM) beside the configuration.
    pub certificates: Vec<Spanned<FileName>>,
}

/// `[clock]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// NTP servers. Without any, here and in `nts`, the public pool is used.
    pub servers: Vec<Host>,
    /// NTP servers that are asked by NTS (RFC 8915). With any, the clock is set only by what these agree to.
    pub nts: Vec<Host>,
    /// Whether the servers that DHCP gives are asked as well.
    pub dhcp: bool,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            nts: Vec::new(),
            dhcp: true,
        }
    }
}

/// `[array]`: which disks make up the array. Disks are named by serial number or by WWN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Array {
    /// The flashed disk, whose last partition becomes a member. Absent only where an array is to be adopted.
    pub system_disk: Option<Spanned<Serial>>,
    /// The data disks.
    pub data_disks: Vec<Spanned<Serial>>,
    /// Consent to create the array on exactly these disks when they are blank. An existing array is only ever
    /// assembled.
    pub create: bool,
    /// Consent to erase what these disks hold, where it stands in the way of creating the array. Each is named as in
    /// `system_disk` or `data_disks`; of the system disk only the space of the raid partition is meant.
    pub erase: Vec<Spanned<Serial>>,
    /// Consent to use this array that was made elsewhere.
    pub adopt: Option<ArrayUuid>,
}

impl Array {
    /// Every disk named: the system disk, then the data disks.
    pub fn disks(&self) -> impl Iterator<Item = &str> {
        self.system_disk
            .iter()
            .chain(&self.data_disks)
            .map(|name| name.get_ref().as_str())
    }
}

/// `[mqtt]`: the broker that Home Assistant uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// Host name or address. With TLS, the broker's certificate must be for it.
    pub host: Host,
    /// Port; by default that of MQTT, with or without TLS (see [`Mqtt::port`]).
    pub port: Option<u16>,
    /// The version of MQTT that is spoken.
    #[serde(default)]
    pub version: MqttVersion,
    /// User name.
    pub username: Option<Word>,
    /// Name of the secret file with the password.
    pub password: Option<FileName>,
    /// Whether TLS is spoken.
    #[serde(default)]
    pub tls: bool,
    /// Name of the file (PEM) with the authority that alone may vouch for the broker. Without one, the public authorities
    /// and those of `[trust]` may.
    pub ca: Option<Spanned<FileName>>,
    /// Name of the file (PEM) with the certificate that is shown to the broker, and what leads to its authority.
    pub certificate: Option<Spanned<FileName>>,
    /// Name of the secret file (PEM) with the certificate's key.
    pub key: Option<Spanned<FileName>>,
    /// Home Assistant's discovery prefix.
    #[serde(default = "discovery_prefix")]
    pub discovery_prefix: Word,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttVersion {
    /// 3.1.1, which every broker speaks, and which has all that is needed.
    #[default]
    #[serde(rename = "3.1.1")]
    V3,
    /// 5, for brokers that want nothing else.
    #[serde(rename = "5")]
    V5,
}

impl Mqtt {
    /// The port (IANA: mqtt, secure-mqtt).
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 8883 } else { 1883 })
    }

    /// Names of the public files.
    pub(super) fn public_files(&self) -> impl Iterator<Item = &FileName> {
        self.ca.iter().chain(&self.certificate).map(Spanned::get_ref)
    }

    /// Names of the secret files.
    pub fn secrets(&self) -> impl Iterator<Item = &FileName> {
        self.password.iter().chain(self.key.as_ref().map(Spanned::get_ref))
    }
}

fn discovery_prefix() -> Word {
    Word("homeassistant".into())
}

/// `[metrics]`: the status for Prometheus, on the LAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// The TCP port.
    pub port: Spanned<u16>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            port: Spanned::new(0..0, 9633),
        }
    }
}

/// Most `[[notify]]` and most `[[ping]]`.
pub const NOTICES_MAX: usize = 8;

/// How a notice is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifyForm {
    /// As JSON of our own.
    #[default]
    Json,
    /// As ntfy takes a message: text, with title and priority in the header.
    Ntfy,
    /// As Gotify takes a message.
    Gotify,
}

/// `[[notify]]`: a URL that is told of conditions that begin and end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Name of the secret file with the URL: whoever knows it can send, too.
    pub url: Spanned<FileName>,
    /// How it is written.
    #[serde(default)]
    pub form: NotifyForm,
    /// The mildest that is told.
    #[serde(default = "least")]
    pub least: Severity,
}

fn least() -> Severity {
    Severity::Warning
}

/// `[[ping]]`: a URL that is called when something went well, and with `/fail` behind it when it did not, as
/// healthchecks.io has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// Name of the secret file with the URL.
    pub url: Spanned<FileName>,
    /// The client whose backups, or with a target whose pushes, are meant. It may be enrolled by command.
    pub client: Option<ClientName>,
    /// The target; pushes of all clients to it without a client.
    pub target: Option<Spanned<TargetName>>,
}

/// `[offsite]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offsite {
    /// What is done before a recipient's owner has shown that the secret key is there.
    pub proof: Proof,
    /// Fingerprint of the key that must have signed what `strongroom restore` takes; the appliance itself makes no use of it.
    pub signer: Option<Fingerprint>,
    /// After how many days without a restore that was tried a client with a copy is told of; 0 for never.
    pub drill_days: Spanned<u16>,
    /// Who can read the copies.
    pub recipient: Vec<Recipient>,
    /// Where the copies go.
    pub target: Vec<Target>,
}

impl Default for Offsite {
    fn default() -> Self {
        Self {
            proof: Proof::default(),
            signer: None,
            drill_days: Spanned::new(0..0, crate::drill::DRILL_DAYS),
            recipient: Vec::new(),
            target: Vec::new(),
        }
    }
}

/// Whether a push waits for the proof that each of its recipients' secret keys is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// It is pushed all the same; a warning stands, and an alarm after two weeks.
    #[default]
    Advised,
    /// Nothing is pushed before.
    Required,
}

/// `[[offsite.recipient]]`: an OpenPGP certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// Its name here.
    pub name: Spanned<TargetName>,
    /// Name of the file with the certificate (public key), armoured or binary.
    pub certificate: FileName,
}

/// Whether large objects may be sent in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multipart {
    /// In parts where the object is large. Needs the permission to overwrite.
    #[default]
    Auto,
    /// Each object by one PUT, for credentials that may only create.
    Never,
}

/// How what is pushed is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// OCB when every recipient's certificate says that it is understood, CFB otherwise.
    #[default]
    Auto,
    /// OpenPGP's SEIPD version 1: every OpenPGP program reads it.
    Cfb,
    /// LibrePGP's OCB: gpg reads it from 2.2.21 on.
    Ocb,
}

/// `[[offsite.target]]`: where copies go, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TargetTable")]
pub struct Target {
    /// Its name.
    pub name: Spanned<TargetName>,
    /// A bucket, or a disk.
    pub place: Place,
    /// What object names begin with; `{client}` by default.
    pub prefix: Spanned<Prefix>,
    /// Names of the recipients that copies are encrypted to.
    pub recipients: Vec<Spanned<TargetName>>,
    /// How what is pushed is encrypted.
    pub encryption: Encryption,
    /// Whether objects that nothing needs any more are deleted; otherwise it is only told how much that would free.
    pub retire: bool,
    /// How many days back any state stays restorable when they are: 7 to 3650; 90 by default.
    pub keep_days: Spanned<u16>,
}

/// Where a target's copies lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Place {
    /// In a bucket.
    Bucket(AtService),
    /// On a disk that is plugged in for the purpose.
    Disk(OnDisk),
}

/// A bucket at an S3 service, and its credentials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AtService {
    /// Where the S3 service is.
    pub endpoint: Endpoint,
    /// Region that requests are signed for.
    pub region: Word,
    /// The bucket.
    pub bucket: Bucket,
    /// A second bucket for what is small and read first: manifests, versions of `config`, the instructions. Of the
    /// standard tier where the other is an archive; the same endpoint, region and credentials.
    pub manifest_bucket: Option<Spanned<Bucket>>,
    /// Id of the access key (Oracle: of the Customer Secret Key).
    pub access_key_id: Word,
    /// Name of the secret file with the secret access key.
    pub secret_key: FileName,
    /// Whether large objects may be sent in parts.
    pub multipart: Multipart,
    /// How many files, or parts of files, are on their way at a time: 1 to 4; 3 by default.
    pub uploads: Spanned<u8>,
    /// Most that is sent; as much as the line takes when absent.
    pub bandwidth: Option<Spanned<Rate>>,
    /// How many days the service has an object paid for at least, 0 to 365; by default what is known of the service.
    pub minimum_age_days: Option<Spanned<u16>>,
}

/// A USB disk, by what its file system says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnDisk {
    /// Label or UUID of the file system.
    pub disk: Spanned<Volume>,
    /// The folder on it; `strongroom` by default.
    pub folder: Folder,
    /// How old the copy may become, in days, before it is asked for that the disk be plugged in: 1 to 365; 14 by default.
    pub remind_days: Spanned<u16>,
}

/// A target as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    name: Spanned<TargetName>,
    endpoint: Option<Endpoint>,
    region: Option<Word>,
    bucket: Option<Bucket>,
    manifest_bucket: Option<Spanned<Bucket>>,
    disk: Option<Spanned<Volume>>,
    folder: Option<Folder>,
    remind_days: Option<Spanned<u16>>,
    #[serde(default = "prefix")]
    prefix: Spanned<Prefix>,
    access_key_id: Option<Word>,
    secret_key: Option<FileName>,
    recipients: Vec<Spanned<TargetName>>,
    multipart: Option<Multipart>,
    #[serde(default)]
    encryption: Encryption,
    uploads: Option<Spanned<u8>>,
    bandwidth: Option<Spanned<Rate>>,
    #[serde(default)]
    retire: bool,
    #[serde(default = "keep_days")]
    keep_days: Spanned<u16>,
    minimum_age_days: Option<Spanned<u16>>,
}

impl TryFrom<TargetTable> for Target {
    type Error = String;

    fn try_from(table: TargetTable) -> Result<Self, String> {
        let name = table.name.get_ref().as_str();
        let (of_bucket, of_disk) = (table.of_bucket(), table.of_disk());
        let place = match table.disk {
            Some(disk) => {
                if let Some(key) = of_bucket {
                    return Err(format!("target `{name}` has a `disk`, with which `{key}` does not go"));
                }
                Place::Disk(OnDisk {
                    disk,
                    folder: table.folder.unwrap_or_else(folder),
                    remind_days: table.remind_days.unwrap_or_else(remind_days),
                })
            }
            None => {
                if let Some(key) = of_disk {
                    return Err(format!("target `{name}` has a `{key}`, which goes with a `disk` alone"));
                }
                let missing = |key: &str| format!("missing field `{key}` in target `{name}`");
                Place::Bucket(AtService {
                    endpoint: table.endpoint.ok_or_else(|| missing("endpoint"))?,
                    region: table.region.ok_or_else(|| missing("region"))?,
                    bucket: table.bucket.ok_or_else(|| missing("bucket"))?,
                    manifest_bucket: table.manifest_bucket,
                    access_key_id: table.access_key_id.ok_or_else(|| missing("access_key_id"))?,
                    secret_key: table.secret_key.ok_or_else(|| missing("secret_key"))?,
                    multipart: table.multipart.unwrap_or_default(),
                    uploads: table.uploads.unwrap_or_else(uploads),
                    bandwidth: table.bandwidth,
                    minimum_age_days: table.minimum_age_days,
                })
            }
        };
        Ok(Self {
            place,
            name: table.name,
            prefix: table.prefix,
            recipients: table.recipients,
            encryption: table.encryption,
            retire: table.retire,
            keep_days: table.keep_days,
        })
    }
}

impl TargetTable {
    /// A key that says something of a bucket.
    fn of_bucket(&self) -> Option<&'static str> {
        let keys = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("bucket", self.bucket.is_some()),
            ("manifest_bucket", self.manifest_bucket.is_some()),
            ("access_key_id", self.access_key_id.is_some()),
            ("secret_key", self.secret_key.is_some()),
            ("multipart", self.multipart.is_some()),
            ("uploads", self.uploads.is_some()),
            ("bandwidth", self.bandwidth.is_some()),
            ("minimum_age_days", self.minimum_age_days.is_some()),
        ];
        keys.into_iter().find_map(|(key, is_there)| is_there.then_some(key))
    }

    /// A key that says something of a disk, beside `disk` itself.
    fn of_disk(&self) -> Option<&'static str> {
        match (&self.folder, &self.remind_days) {
            (Some(_), _) => Some("folder"),
            (None, Some(_)) => Some("remind_days"),
            (None, None) => None,
        }
    }
}

/// Days for which Oracle's archive tier is paid at least (its documentation).
const ORACLE_DAYS: u16 = 90;

impl AtService {
    /// How many days the service has an object paid for at least: as said, or 90 at Oracle, whose buckets for copies are
    /// of the archive tier, or none.
    pub fn minimum_age(&self) -> u16 {
        let host = self.endpoint.as_str().trim_end_matches('/');
        let host = host.rsplit_once("://").map_or(host, |(_, host)| host);
        let host = host.split(':').next().unwrap_or(host);
        let oracle = [".oraclecloud.com", ".oci.customer-oci.com"];
        let usual = oracle.iter().any(|end| host.ends_with(end)).then_some(ORACLE_DAYS);
        let said = self.minimum_age_days.as_ref().map(|days| *days.get_ref());
        said.or(usual).unwrap_or_default()
    }
}

impl Target {
    /// The bucket, if it is one.
    pub fn bucket(&self) -> Option<&AtService> {
        match &self.place {
            Place::Bucket(bucket) => Some(bucket),
            Place::Disk(_) => None,
        }
    }

    /// The disk, if it is one.
    pub fn disk(&self) -> Option<&OnDisk> {
        match &self.place {
            Place::Bucket(_) => None,
            Place::Disk(disk) => Some(disk),
        }
    }

    /// Whether its copies are encrypted to this recipient.
    pub fn encrypts_to(&self, recipient: &TargetName) -> bool {
        self.recipients.iter().any(|used| used.get_ref() == recipient)
    }
}

/// Most uploads at a time.
pub(super) const UPLOADS_MAX: u8 = 4;
/// Least bandwidth, in bytes per second.
pub(super) const BANDWIDTH_MIN: u64 = 500_000 / 8;

/// Bounds of `keep_days`.
pub(super) const KEEP_DAYS: core::ops::RangeInclusive<u16> = 7..=3650;
/// Most of `minimum_age_days`.
pub(super) const MINIMUM_AGE_DAYS_MAX: u16 = 365;

/// Bounds of `remind_days`.
pub(super) const REMIND_DAYS: core::ops::RangeInclusive<u16> = 1..=365;

fn remind_days() -> Spanned<u16> {
    Spanned::new(0..0, 14)
}

fn folder() -> Folder {
    Folder("strongroom".into())
}

fn keep_days() -> Spanned<u16> {
    Spanned::new(0..0, 90)
}

fn uploads() -> Spanned<u8> {
    Spanned::new(0..0, 3)
}

fn prefix() -> Spanned<Prefix> {
    Spanned::new(0..0, Prefix(CLIENT_PLACEHOLDER.into()))
}

impl Volume {
    /// Whether it is a UUID: that of ext4 (RFC 9562's form), or the eight digits of exFAT.
    pub fn is_uuid(&self) -> bool {
        let groups = |lengths: &[usize]| {
            let parts: Vec<&str> = self.as_str().split('-').collect();
            parts.len() == lengths.len()
                && parts
                    .iter()
                    .zip(lengths)
                    .all(|(part, length)| part.len() == *length && part.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        groups(&[8, 4, 4, 4, 12]) || groups(&[4, 4])
    }

    /// Whether a file system of this label and this UUID is meant. Case counts in labels alone.
    pub fn is_of(&self, label: Option<&str>, uuid: Option<&str>) -> bool {
        if self.is_uuid() {
            uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(self.as_str()))
        } else {
            label == Some(self.as_str())
        }
    }
}

/// `[[client]]`: a machine that backs up here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name; its repository is `/mnt/raid/<name>_repository`.
    pub name: Spanned<ClientName>,
    /// Its SSH keys.
    pub keys: Vec<Spanned<SshPublicKey>>,
    /// SSH keys that may only read its repository, for restores.
    #[serde(default)]
    pub restore_keys: Vec<Spanned<SshPublicKey>>,
    /// Addresses from which its keys are admitted; from anywhere when there are none.
    #[serde(default)]
    pub from: Vec<Spanned<AddressRange>>,
    /// How much its repository may hold; as much as there is room for when absent.
    pub quota: Option<Spanned<Size>>,
    /// Longest silence in hours before a warning; 48 by default.
    #[serde(default = "expect_hours")]
    pub expect_hours: u32,
    /// What it deleted is freed by itself once the newest deletion is so many days old
    /// ([`crate::upkeep::policy::DAYS`]); only by command when absent.
    pub compact_after_days: Option<Spanned<u16>>,
    /// Targets that it is pushed to; all by default.
    pub targets: Option<Vec<Spanned<TargetName>>>,
    /// It gets no session until it is resumed. Said by command only (see [`crate::registry`]).
    #[serde(skip)]
    pub paused: bool,
}

impl Client {
    /// Each of its keys, with whether it may only read.
    pub fn all_keys(&self) -> impl Iterator<Item = (&SshPublicKey, bool)> {
        let backup = self.keys.iter().map(|key| (key.get_ref(), false));
        backup.chain(self.restore_keys.iter().map(|key| (key.get_ref(), true)))
    }
}

/// [`Client::expect_hours`] where nothing is said.
pub(crate) fn expect_hours() -> u32 {
    48
}

/// `[schedule]`, in systemd calendar syntax.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// When repositories are pushed.
    pub push: Calendar,
    /// When everything on the array is read, to find what has become unreadable.
    pub scrub: Calendar,
    /// When a part of each repository is checked against what it was.
    pub check: Calendar,
    /// In how many days every part has had its turn; 1 to 365.
    pub check_days: Spanned<u16>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            push: Calendar("*-*-* 03:30".into()),
            scrub: Calendar("*-*-01 05:00".into()),
            check: Calendar("*-*-* 06:30".into()),
            check_days: Spanned::new(0..0, crate::verification::CHECK_DAYS),
        }
    }
}
