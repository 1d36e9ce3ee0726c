//! Conditions: what a person should know, in words, with advice. Health is the worst condition standing.

use crate::name::ClientName;
use crate::text::Text;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most conditions that can stand at once; further ones are counted by [`Conditions::dropped`].
pub const CONDITIONS_MAX: usize = 64;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing needs to be done soon.
    Info,
    /// Needs attention within days; backups still work.
    Warning,
    /// Backups, their off-site copies or the data itself are at risk now.
    Alarm,
}

/// The worst condition standing, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The first observations are still under way.
    #[default]
    Starting,
    /// Nothing stands, or only what is merely worth knowing.
    Good,
    /// At least one warning.
    Warning,
    /// At least one alarm.
    Alarm,
}

/// What kind of condition it is. The name is stable: faces and automations refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionId {
    /// No configuration has been given yet.
    NotConfigured,
    /// A new configuration was refused; the last good one is in force.
    ConfigRefused,
    /// A sealed secret can't be opened, as with another machine's state partition.
    SecretUnusable,
    /// The state partition could not be mounted; nothing survives a restart.
    StateLost,
    /// The state partition's file system was damaged and has been repaired.
    StateRepaired,
    /// After a reflash, what the array keeps of identity and settings could not be brought back yet.
    RecallPending,
    /// The state partition is nearly full.
    StateFull,
    /// The array is not set up: consent or a disk is missing.
    ArrayNotReady,
    /// Creating or assembling the array failed or was refused.
    ArrayFailed,
    /// A consent in the configuration has been used up.
    ConsentLeftOver,
    /// A member of the array is missing.
    MemberMissing,
    /// The array's file system could not be mounted.
    ArrayNotMounted,
    /// The array is nearly full.
    ArrayFull,
    /// The array will be full soon if the last month goes on.
    ArrayFilling,
    /// A disk loses data or will soon.
    DiskFailing,
    /// A disk shows its age.
    DiskAging,
    /// A disk is too warm.
    DiskHot,
    /// A disk's cable or plug disturbs the transfer.
    DiskCable,
    /// The kernel could not read from or write to a disk.
    DiskErrors,
    /// Some disks tell nothing of their health.
    DiskSilent,
    /// The array's file system has found itself damaged.
    FileSystemDamaged,
    /// A scrub found what can't be read any more.
    ScrubUnreadable,
    /// No scrub has come to its end for long.
    ScrubOverdue,
    /// A scrub could not be done.
    ScrubFailed,
    /// The clock is not synchronised.
    ClockUnsynchronised,
    /// chronyd does not answer.
    ClockUnknown,
    /// The kernel does not use the clock source that it should.
    ClockSourceDemoted,
    /// A source of time contradicts the others.
    TimeSourceWrong,
    /// The clock runs far too fast or too slow by itself, or at a rate that changes.
    ClockUnsteady,
    /// The hardware clock was far off at the start, or doesn't keep what it is told.
    HardwareClockWrong,
    /// Interrupts get lost or go astray.
    InterruptsLost,
    /// A client's repository could not be read.
    RepositoryUnreadable,
    /// A client's repository has vanished, but its copy is there.
    RepositoryGone,
    /// A repository on the array belongs to no client.
    RepositoryUnclaimed,
    /// Clients enrolled by command can't all stand beside those of the configuration.
    EnrolmentClash,
    /// The registry of enrolled clients could not be read.
    RegistryUnreadable,
    /// A client is held out.
    ClientPaused,
    /// The configuration lists a key that was revoked.
    KeyRevoked,
    /// Wrong codes closed a pairing.
    PairingFailed,
    /// A client has never made a backup.
    ClientNeverSeen,
    /// A client has been silent for longer than expected.
    ClientSilent,
    /// A client has used up most of its quota.
    QuotaNearlyReached,
    /// A client deleted a large part of its backups.
    MassDeletion,
    /// A client's backups have become markedly fewer.
    RepositoryShrinking,
    /// Objects were deleted while no archive was.
    UnlistedDeletion,
    /// A client deleted more archives at once than pruning explains.
    ArchivesRemoved,
    /// The list of archives was deleted.
    ManifestLost,
    /// A repository's settings or its key were changed, or it is another one.
    ConfigChanged,
    /// Committed segments are gone or have another size.
    SegmentsChanged,
    /// Transactions that had been seen are gone.
    TransactionsGone,
    /// A client's new transactions could not be read.
    AuditFailed,
    /// A check found segments that are damaged, altered or missing.
    RepositoryDamaged,
    /// Parts of a repository have not been checked for too long.
    CheckOverdue,
    /// A repository could not be checked.
    CheckFailed,
    /// A compaction, a rollback or a repair was cut short; its client is held out until it is brought to its end.
    UpkeepUnfinished,
    /// A compaction that a policy asks for failed, or has been kept off for days.
    CompactionWaits,
    /// A push failed; it is tried again.
    PushFailed,
    /// A client has no off-site target.
    NoTarget,
    /// A repository has never been pushed to a target.
    NeverPushed,
    /// A copy has been behind its repository for long, though no push reported an error.
    CopyBehind,
    /// A bucket holds a manifest that claims to be newer than what was pushed, and is not this appliance's.
    ManifestDistrusted,
    /// Objects of a copy that nothing needs any more could not be deleted.
    RetirementHindered,
    /// Objects of a copy are gone, or not what was sent.
    CopyDamaged,
    /// Beside a copy lies what no push sent.
    CopyForeign,
    /// A copy could not be compared with what was sent for long, though pushes end well.
    CopyUnverified,
    /// A copy is to go to a disk that is not plugged in.
    DiskAway,
    /// What is plugged in can't be the disk for copies that is meant, or can't be used.
    DiskUnfit,
    /// A copy to a disk that is plugged in failed.
    DiskCopyFailed,
    /// A disk for copies has all that it should have, and can be pulled out.
    DiskDone,
    /// A restore from a copy was tried and failed.
    DrillFailed,
    /// It is long since a restore was tried.
    DrillDue,
    /// Nobody has shown that a recipient's secret key is there.
    RecipientUnproven,
    /// It is long since a recipient's secret key was shown to be there.
    KeyDrillDue,
    /// A recipient's certificate expires soon.
    RecipientExpiring,
    /// The broker does not answer or refuses.
    MqttUnreachable,
    /// Somebody who is to be told of what happens can't be.
    NoticeFailed,
    /// The status can't be offered to Prometheus.
    MetricsFailed,
    /// A unit of the appliance has failed.
    UnitFailed,
    /// A duty of the supervisor has stopped and is being started again.
    DutyFailed,
}

/// What a condition is part of: things that are looked after together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The appliance itself: configuration, state partition, units, broker.
    System,
    /// The disks, and what is read from and written to them.
    Disks,
    /// The array and its file system.
    Array,
    /// The clock.
    Clock,
    /// The clients and their repositories.
    Clients,
    /// The off-site copies and who can read them.
    Offsite,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::System,
        Self::Disks,
        Self::Array,
        Self::Clock,
        Self::Clients,
        Self::Offsite,
    ];

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Disks => "disks",
            Self::Array => "array",
            Self::Clock => "clock",
            Self::Clients => "clients",
            Self::Offsite => "offsite",
        }
    }
}

impl ConditionId {
    /// What it is part of.
    pub const fn area(self) -> Area {
        use ConditionId as Id;
        match self {
            Id::NotConfigured
            | Id::ConfigRefused
            | Id::SecretUnusable
            | Id::StateLost
            | Id::StateRepaired
            | Id::StateFull
            | Id::RecallPending
            | Id::MqttUnreachable
            | Id::NoticeFailed
            | Id::MetricsFailed
            | Id::UnitFailed
            | Id::DutyFailed => Area::System,
            Id::DiskFailing
            | Id::DiskAging
            | Id::DiskHot
            | Id::DiskCable
            | Id::DiskErrors
            | Id::DiskSilent
            | Id::ScrubUnreadable
            | Id::ScrubOverdue
            | Id::ScrubFailed => Area::Disks,
            Id::ArrayNotReady
            | Id::ArrayFailed
            | Id::ConsentLeftOver
            | Id::MemberMissing
            | Id::ArrayNotMounted
            | Id::ArrayFull
            | Id::ArrayFilling
            | Id::FileSystemDamaged => Area::Array,
            Id::ClockUnsynchronised
            | Id::ClockUnknown
            | Id::TimeSourceWrong
            | Id::ClockSourceDemoted
            | Id::ClockUnsteady
            | Id::HardwareClockWrong
            | Id::InterruptsLost => Area::Clock,
            Id::PushFailed
            | Id::NoTarget
            | Id::NeverPushed
            | Id::CopyBehind
            | Id::ManifestDistrusted
            | Id::RetirementHindered
            | Id::CopyDamaged
            | Id::CopyForeign
            | Id::CopyUnverified
            | Id::DiskAway
            | Id::DiskUnfit
            | Id::DiskCopyFailed
            | Id::DiskDone
            | Id::DrillFailed
            | Id::DrillDue
            | Id::RepositoryGone
            | Id::RecipientUnproven
            | Id::KeyDrillDue
            | Id::RecipientExpiring => Area::Offsite,
            Id::RepositoryUnreadable
            | Id::RepositoryUnclaimed
            | Id::EnrolmentClash
            | Id::RegistryUnreadable
            | Id::ClientPaused
            | Id::KeyRevoked
            | Id::PairingFailed
            | Id::ClientNeverSeen
            | Id::ClientSilent
            | Id::QuotaNearlyReached
            | Id::MassDeletion
            | Id::RepositoryShrinking
            | Id::UnlistedDeletion
            | Id::ArchivesRemoved
            | Id::ManifestLost
            | Id::ConfigChanged
            | Id::SegmentsChanged
            | Id::TransactionsGone
            | Id::AuditFailed
            | Id::RepositoryDamaged
            | Id::CheckOverdue
            | Id::CheckFailed
            | Id::UpkeepUnfinished
            | Id::CompactionWaits => Area::Clients,
        }
    }
}

/// One thing that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What kind it is.
    pub id: ConditionId,
    /// How bad it is.
    pub severity: Severity,
    /// The client, disk, target or unit that it is about; empty for the appliance as a whole.
    pub subject: Text<64>,
    /// What is wrong, in words.
    pub text: Text<512>,
    /// What to do about it.
    pub advice: Text<280>,
}

impl Condition {
    /// A condition about `subject`.
    pub fn new(id: ConditionId, severity: Severity, subject: &str, text: &str, advice: &str) -> Self {
        Self {
            id,
            severity,
            subject: subject.into(),
            text: text.into(),
            advice: advice.into(),
        }
    }

    /// Whether it is about this client, or its copy at one of its targets.
    pub fn is_about(&self, client: &ClientName) -> bool {
        let of = self.subject.split('@').next();
        matches!(self.id.area(), Area::Clients | Area::Offsite) && of == Some(client.as_str())
    }

    /// Whether somebody has to do something about it.
    pub fn is_problem(&self) -> bool {
        self.severity > Severity::Info
    }
}

/// The conditions standing, the worst first, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The conditions, the worst first.
    pub standing: Vec<Condition, CONDITIONS_MAX>,
    /// How many did not fit.
    pub dropped: u16,
}

impl Conditions {
    /// Adds a condition. When the list is full, the mildest gives way to a worse one; either way one is counted as
    /// dropped.
    pub fn raise(&mut self, condition: Condition) {
        let at = self
            .standing
            .iter()
            .position(|other| other.severity < condition.severity)
            .unwrap_or(self.standing.len());
        if self.standing.is_full() {
            self.dropped = self.dropped.saturating_add(1);
            if at == self.standing.len() {
                return;
            }
            self.standing.pop();
        }
        // There is room: checked or made above.
        let _ = self.standing.insert(at, condition);
    }

    /// The worst condition standing.
    pub fn health(&self) -> Health {
        match self.standing.first().map(|condition| condition.severity) {
            None | Some(Severity::Info) => Health::Good,
            Some(Severity::Warning) => Health::Warning,
            Some(Severity::Alarm) => Health::Alarm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(severity: Severity, subject: &str) -> Condition {
        Condition::new(ConditionId::PushFailed, severity, subject, "text", "advice")
    }

    #[test]
    fn health_is_the_worst_condition() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.health(), Health::Good);
        conditions.raise(condition(Severity::Info, "a"));
        assert_eq!(conditions.health(), Health::Good);
        conditions.raise(condition(Severity::Alarm, "b"));
        conditions.raise(condition(Severity::Warning, "c"));
        assert_eq!(conditions.health(), Health::Alarm);
        let order: std::vec::Vec<_> = conditions.standing.iter().map(|c| c.subject.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn a_condition_is_about_its_client_and_no_namesake() {
        let asus = ClientName::new("asus").unwrap();
        assert!(condition(Severity::Info, "asus").is_about(&asus));
        assert!(condition(Severity::Info, "asus@far").is_about(&asus));
        assert!(!condition(Severity::Info, "asus2").is_about(&asus));
        assert!(!condition(Severity::Info, "").is_about(&asus));
        let duty = Condition::new(ConditionId::DutyFailed, Severity::Warning, "asus", "text", "advice");
        assert!(!duty.is_about(&asus));
    }

    #[test]
    fn an_alarm_is_never_dropped_for_a_warning() {
        let mut conditions = Conditions::default();
        for _ in 0..CONDITIONS_MAX {
            conditions.raise(condition(Severity::Warning, "w"));
        }
        conditions.raise(condition(Severity::Alarm, "a"));
        conditions.raise(condition(Severity::Warning, "w"));
        assert_eq!(conditions.standing[0].subject.as_str(), "a");
        assert_eq!(conditions.standing.len(), CONDITIONS_MAX);
        assert_eq!(conditions.dropped, 2);
    }
}
