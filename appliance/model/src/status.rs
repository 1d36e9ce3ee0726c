//! One snapshot of everything a person may want to know. Every face renders this and nothing else.
//!
//! The snapshot is fixed in size. Times are Unix seconds (UTC), sizes are bytes.

use crate::condition::{Conditions, Health};
use crate::drill::LastDrill;
use crate::events::Events;
use crate::name::{ClientName, TargetName};
use crate::text::Text;
use crate::verification::Compared;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Version of the snapshot's JSON form. It grows when a field changes its meaning or goes.
pub const STATUS_VERSION: u16 = 1;
/// Most clients.
pub const CLIENTS_MAX: usize = 64;
/// Most disks.
pub const DISKS_MAX: usize = 16;
/// Most targets of one client.
pub const TARGETS_MAX: usize = 4;
/// Most addresses shown.
pub const ADDRESSES_MAX: usize = 8;
/// Most jobs shown at once.
pub const JOBS_MAX: usize = 16;
/// Most sources of time shown.
pub const TIME_SOURCES_MAX: usize = 12;
/// Upper bound of `size_of::<Status>()`, checked by a test.
pub const STATUS_BYTES_MAX: usize = 224 * 1024;

/// The snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_VERSION`].
    pub version: u16,
    /// The worst condition standing.
    pub health: Health,
    /// Who this is.
    pub appliance: Appliance,
    /// The clock.
    pub clock: Clock,
    /// The array.
    pub array: Array,
    /// Every disk seen.
    pub disks: Vec<Disk, DISKS_MAX>,
    /// Every configured client, in the order of the configuration.
    pub clients: Vec<Client, CLIENTS_MAX>,
    /// Jobs that are running.
    pub jobs: Vec<Job, JOBS_MAX>,
    /// What a person should know.
    pub conditions: Conditions,
    /// What happened lately.
    #[serde(default)]
    pub events: Events,
}

/// Who this is and how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Appliance {
    /// Stable identity, `[a-z0-9_]`, used in MQTT topics.
    pub id: Text<32>,
    /// Host name.
    pub hostname: Text<64>,
    /// Release of Strongroom.
    pub release: Text<32>,
    /// IP addresses, without prefix length.
    pub addresses: Vec<Text<46>, ADDRESSES_MAX>,
    /// Fingerprint of the SSH host key, `SHA256:…`.
    pub host_key: Text<64>,
    /// When the appliance booted.
    pub booted: Option<u64>,
}

/// What the clock is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// Not observed yet, or chronyd does not answer and the kernel does not vouch for it.
    #[default]
    Unknown,
    /// It follows a source and is right within a second.
    Synchronised,
    /// It follows none now, but did, and can't have gone far since.
    Coasting,
    /// Nobody knows how far off it is, or it is known to be off.
    Unsynchronised,
}

impl Clock {
    /// The most that it can be wrong by, what is known of it included, in nanoseconds.
    pub fn total_error_ns(&self) -> u64 {
        self.offset_ns.unsigned_abs().saturating_add(self.error_ns)
    }
}

impl ClockState {
    /// Whether what needs the time may go by it: signed requests, what is judged by age, certificates.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Synchronised | Self::Coasting)
    }
}

/// What chronyd makes of a source of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeSourceState {
    /// It has not answered enough, or not lately.
    #[default]
    Unusable,
    /// The clock follows it.
    Followed,
    /// It has a say beside the one that is followed.
    Combined,
    /// It would do, but is not needed.
    Spare,
    /// Its answers vary too much.
    Unsteady,
    /// It contradicts the majority.
    Wrong,
}

/// A source of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeSource {
    /// The name or address that it was configured by.
    pub name: Text<64>,
    /// Its address.
    pub address: Text<46>,
    /// What chronyd makes of it.
    pub state: TimeSourceState,
    /// Its stratum; 0 while it has not answered.
    pub stratum: u8,
    /// Seconds between two requests.
    pub poll_s: u32,
    /// Which of the last eight requests it answered, the last one in the lowest bit.
    pub reach: u8,
    /// Offset of the clock from it when it last answered, in nanoseconds; positive when the clock was ahead.
    pub offset_ns: i64,
    /// Largest error of that, in nanoseconds.
    pub error_ns: u64,
    /// Whether it is asked by NTS: then an answer that counts is one that was authenticated.
    pub nts: bool,
}

/// A leap second that is to come at the end of this UTC day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leap {
    /// None.
    #[default]
    None,
    /// The day has 86,401 seconds.
    Insert,
    /// The day has 86,399 seconds.
    Delete,
}

/// The clock was set, rather than made to run faster or slower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStep {
    /// By how much, in milliseconds; positive when it was behind.
    pub by_ms: i64,
    /// When, by the clock as it was set; none when that was before the supervisor looked for the first time.
    pub at: Option<u64>,
    /// Whether that was within the first ten minutes, and so tells how wrong the hardware clock was.
    pub at_start: bool,
}

/// What became of the processor's own counter, the best clock source a PC has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tsc {
    /// Not known, or the processor has none that keeps one rate.
    #[default]
    Absent,
    /// The kernel keeps time by it.
    Used,
    /// It is on offer, but another is used.
    Spare,
    /// The kernel found it unstable and took it off its list.
    Demoted,
}

/// The clock, as chrony and the kernel see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// What it is worth.
    pub state: ClockState,
    /// Offset of the system clock from NTP time, in nanoseconds; positive when it is ahead.
    pub offset_ns: i64,
    /// Largest error of the clock in nanoseconds: root dispersion plus half the root delay; while it coasts, with what it may
    /// have gained or lost since.
    pub error_ns: u64,
    /// Stratum; 0 when not synchronised.
    pub stratum: u8,
    /// Frequency error of the system clock in parts per billion, as corrected by chrony.
    pub frequency_ppb: i64,
    /// How well that is known: its error bound in parts per billion; none when not synchronised.
    #[serde(default)]
    pub skew_ppb: Option<u64>,
    /// By how much it has wandered within a day, in parts per billion; none before two hours have passed.
    #[serde(default)]
    pub wander_ppb: Option<u64>,
    /// Until when it may be trusted, Unix seconds by its own reckoning, while it coasts.
    #[serde(default)]
    pub trusted_until: Option<u64>,
    /// Name or address of the source that is followed; empty when none.
    pub source: Text<64>,
    /// Sources that answered lately.
    pub reachable: u8,
    /// Sources known.
    pub sources: u8,
    /// Each source, up to [`TIME_SOURCES_MAX`].
    #[serde(default)]
    pub servers: Vec<TimeSource, TIME_SOURCES_MAX>,
    /// The leap second that is announced.
    #[serde(default)]
    pub leap: Leap,
    /// The last time it was set, since the start.
    #[serde(default)]
    pub last_step: Option<ClockStep>,
    /// Offset of the hardware clock from the system clock in seconds, which is as finely as it tells; positive when it is
    /// ahead. None without one.
    #[serde(default)]
    pub rtc_offset_s: Option<i64>,
    /// Whether the kernel holds itself for synchronised, and so keeps the hardware clock right; none when it doesn't tell.
    #[serde(default)]
    pub kernel_synchronised: Option<bool>,
    /// Seconds that the kernel puts between atomic time and UTC; none when nobody told it.
    #[serde(default)]
    pub tai_offset_s: Option<i32>,
    /// The kernel's clock source, e.g. `tsc` or `hpet`.
    pub clocksource: Text<16>,
    /// What became of the processor's counter.
    #[serde(default)]
    pub tsc: Tsc,
    /// Why the kernel demoted it, in its own words; empty when it didn't, or its words are lost.
    #[serde(default)]
    pub tsc_fault: Text<64>,
    /// Whether the kernel was started with `noapic`.
    #[serde(default)]
    pub noapic: bool,
}

/// How far the array is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrayState {
    /// Not observed yet.
    #[default]
    Unknown,
    /// Not configured, or consent or a disk is missing; the conditions say what.
    NotReady,
    /// Being created or assembled.
    Working,
    /// Something went wrong or was refused; the conditions say what.
    Failed,
    /// Assembled, but not mounted.
    Assembled,
    /// Mounted at `/mnt/raid`.
    Mounted,
}

/// Whether the kernel bounds what each client's repository takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quotas {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// It does, those that have a quota.
    Enforced,
    /// The array's file system was made without: Borg and the sessions' own bounds hold alone.
    Absent,
}

/// The RAID0 over all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// How far it is.
    pub state: ArrayState,
    /// Its members' paths by serial, e.g. `S4XYZ partition 6`.
    pub members: Vec<Text<64>, DISKS_MAX>,
    /// Size of the file system; 0 when not mounted.
    pub size_bytes: u64,
    /// Used on the file system.
    pub used_bytes: u64,
    /// In how many days it will be full if the last month goes on; `None` while that can't be told, and when it isn't
    /// filling.
    #[serde(default)]
    pub days_until_full: Option<u32>,
    /// When the last scrub came to its end.
    #[serde(default)]
    pub last_scrub: Option<u64>,
    /// Whether the kernel bounds its clients.
    #[serde(default)]
    pub quotas: Quotas,
}

/// What part a disk plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskRole {
    /// None of ours.
    #[default]
    Other,
    /// The disk that was flashed and booted.
    System,
    /// A data disk of the configuration.
    Data,
}

/// What a disk says of itself, and what the kernel says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskHealth {
    /// Not read yet, or the disk tells nothing.
    #[default]
    Unknown,
    /// Nothing speaks against it.
    Good,
    /// It shows its age, or is not well connected: replace or mend it in time.
    Aging,
    /// It loses data or will soon: copy and replace it now.
    Failing,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Serial number; the only name by which a disk is configured.
    pub serial: Text<64>,
    /// Model.
    pub model: Text<48>,
    /// Kernel name right now, e.g. `sda`; it may differ at the next boot.
    pub kernel_name: Text<16>,
    /// Size.
    pub size_bytes: u64,
    /// What part it plays.
    pub role: DiskRole,
    /// Whether it holds a member of the running array.
    pub member: bool,
    /// How it is.
    #[serde(default)]
    pub health: DiskHealth,
    /// Why it is not good, in a few words; empty when it is.
    #[serde(default)]
    pub reason: Text<96>,
    /// Temperature in degrees Celsius; `None` when it does not tell, or sleeps.
    #[serde(default)]
    pub temperature: Option<i16>,
    /// Hours that it has been running in its life.
    #[serde(default)]
    pub power_on_hours: Option<u32>,
}

/// What is known of a client's repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryState {
    /// Not observed: the array is not mounted.
    #[default]
    Unknown,
    /// The directory is there; the client has not run `borg init` yet.
    Empty,
    /// A Borg repository.
    Present,
    /// Something is there that cannot be read as a Borg 1.x repository.
    Unreadable,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name.
    pub name: ClientName,
    /// What is known of its repository.
    pub repository: RepositoryState,
    /// Size of the repository's segments.
    pub size_bytes: u64,
    /// How much the repository may hold; none without a quota.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    /// What counts against the quota, as Borg counts it, as of the last look at the repository; none before one.
    #[serde(default)]
    pub quota_used_bytes: Option<u64>,
    /// Last committed transaction.
    pub transaction: Option<u64>,
    /// When a backup was last committed.
    pub last_backup: Option<u64>,
    /// How many archives there are; none where they can't be listed, as in an encrypted repository.
    #[serde(default)]
    pub archives: Option<u32>,
    /// When the newest archive was begun, by the client's clock.
    #[serde(default)]
    pub last_archive: Option<u64>,
    /// What the client did last.
    #[serde(default)]
    pub last_change: Option<Change>,
    /// Whether something has to be accepted before anything may be compacted.
    #[serde(default)]
    pub held: bool,
    /// Every byte has been checked since then; none while some part never was.
    #[serde(default)]
    pub checked: Option<u64>,
    /// Whether that went by checksums alone, or compared what is stored with its names.
    #[serde(default)]
    pub compared: Compared,
    /// Segments that a check found damaged, and that nobody accepted.
    #[serde(default)]
    pub damaged: u32,
    /// Restores that were tried.
    #[serde(default)]
    pub drill: LastDrill,
    /// When it is pushed next; none without a target, and while that isn't known.
    #[serde(default)]
    pub next_push: Option<u64>,
    /// Off-site copies.
    pub targets: Vec<Target, TARGETS_MAX>,
}

/// What a client did between two looks at its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The last transaction of it.
    pub transaction: u64,
    /// Objects stored.
    pub puts: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Bytes stored.
    pub bytes: u64,
}

/// How the copy of one repository at one target is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The target's name.
    pub name: TargetName,
    /// Transaction of the last manifest that was published.
    pub transaction: Option<u64>,
    /// When it was published.
    pub last_push: Option<u64>,
    /// Objects that belong to it.
    pub objects: u64,
    /// Their size.
    pub size_bytes: u64,
    /// When it was last compared with what was sent, by a list of the bucket.
    #[serde(default)]
    pub verified: Option<u64>,
    /// Objects that were gone then, or not what was sent.
    #[serde(default)]
    pub damaged: u32,
    /// Objects that no push had sent.
    #[serde(default)]
    pub foreign: u32,
    /// What the repository holds beyond it; none while that isn't known.
    #[serde(default)]
    pub behind: Option<Behind>,
    /// Why the last push failed; empty when it did not.
    pub error: Text<280>,
    /// What lies there that the newest state does not need.
    #[serde(default)]
    pub obsolete: Obsolete,
}

/// Objects of a copy that its newest state does not need. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obsolete {
    /// What could be deleted now.
    pub free_bytes: u64,
    /// What has to wait: an older state that is kept needs it, or it is too young.
    pub waiting_bytes: u64,
    /// When the first of that may go; `None` when nothing waits, or that depends on pushes to come.
    pub next: Option<u64>,
    /// What was deleted, as far as is remembered.
    pub retired_bytes: u64,
}

/// How far a copy is behind its repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Transactions that it lacks: of those that were not compacted since.
    pub transactions: u32,
    /// Size of the segments that it lacks.
    pub bytes: u64,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Pushes a client's repository to its targets.
    Push,
    /// Reads everything on the array, to find what can't be read while it can still be mended.
    Scrub,
    /// Reads a client's repository and compares it with what it was.
    Check,
    /// Frees what a client deleted.
    Compact,
    /// Undoes a client's last transactions.
    Rollback,
    /// Puts a sound segment in a damaged one's place.
    Repair,
    /// Tries a target out. It takes seconds, so the snapshot leaves it out.
    Probe,
}

/// One running job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What it does.
    pub kind: JobKind,
    /// The client that it works for; none for the array as a whole.
    pub client: Option<ClientName>,
    /// The target that it works on now; none while it is coming up, and for a scrub.
    pub target: Option<TargetName>,
    /// Whether that is a disk, whose job copies all clients, one after the other.
    #[serde(default)]
    pub on_disk: bool,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_coming_up_reads_back_as_written() {
        let client = ClientName::new("asus").unwrap();
        let job = Job {
            kind: JobKind::Push,
            client: Some(client),
            target: None,
            on_disk: false,
            done_bytes: 0,
            total_bytes: 0,
        };
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }

    #[test]
    fn the_snapshot_keeps_within_its_documented_size() {
        let size = core::mem::size_of::<Status>();
        assert!(size <= STATUS_BYTES_MAX, "{size}");
    }
}
