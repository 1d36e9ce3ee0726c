//! A client: its repository, and the jobs that work on that.

use super::desk::{failed, json, known, word};
use super::tree::Object;
use crate::configuration;
use crate::report::Command;
use crate::sessions::list;
use crate::upkeep::Order;
use crate::upkeep::look::{self, Look};
use crate::watch::store;
use strongroom_model::name::ClientName;
use strongroom_model::status;
use strongroom_model::upkeep::Work;
use strongroom_model::watch::{Record, Remembered};
use zbus::{fdo, interface};

/// The object.
pub type Client = Object<status::Client>;

#[interface(name = "org.strongroom.Appliance1.Client")]
impl Client {
    /// Its name.
    #[zbus(property)]
    fn name(&self) -> String {
        self.client().to_string()
    }

    /// `unknown` (the array is not mounted), `empty`, `present` or `unreadable`.
    #[zbus(property)]
    fn repository(&self) -> String {
        word(&self.part.get().repository)
    }

    /// Size of the repository's segments in bytes.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.part.get().size_bytes
    }

    /// How much the repository may hold, in bytes; -1 without a quota.
    #[zbus(property)]
    fn quota_bytes(&self) -> i64 {
        known(self.part.get().quota_bytes)
    }

    /// What counts against the quota, in bytes, as Borg counts it; -1 while unknown.
    #[zbus(property)]
    fn quota_used_bytes(&self) -> i64 {
        known(self.part.get().quota_used_bytes)
    }

    /// The repository's last committed transaction; -1 while there is none.
    #[zbus(property)]
    fn transaction(&self) -> i64 {
        known(self.part.get().transaction)
    }

    /// When a backup was last committed, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_backup(&self) -> u64 {
        self.part.get().last_backup.unwrap_or_default()
    }

    /// How many archives there are; -1 where they can't be listed, as in an encrypted repository.
    #[zbus(property)]
    fn archives(&self) -> i64 {
        known(self.part.get().archives)
    }

    /// When the newest archive was begun, by the client's clock, Unix seconds; 0 while unknown.
    #[zbus(property)]
    fn last_archive(&self) -> u64 {
        self.part.get().last_archive.unwrap_or_default()
    }

    /// Whether something has to be accepted before anything may be compacted.
    #[zbus(property)]
    fn held(&self) -> bool {
        self.part.get().held
    }

    /// Every byte has been checked since then, Unix seconds; 0 while some part never was.
    #[zbus(property)]
    fn checked(&self) -> u64 {
        self.part.get().checked.unwrap_or_default()
    }

    /// Segments that a check found damaged, and that nobody accepted.
    #[zbus(property)]
    fn damaged_segments(&self) -> u32 {
        self.part.get().damaged
    }

    /// When all of a copy was last restored for trial, well, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_drill(&self) -> u64 {
        self.part.get().drill.whole.unwrap_or_default()
    }

    /// When a sample of a copy was last restored well, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_sample_drill(&self) -> u64 {
        self.part.get().drill.sample.unwrap_or_default()
    }

    /// When a drill failed that none has made good since, Unix seconds; 0: none did.
    #[zbus(property)]
    fn drill_failed(&self) -> u64 {
        self.part.get().drill.failed.unwrap_or_default()
    }

    /// When the repository is pushed next, Unix seconds; 0 without a target, and while that isn't known.
    #[zbus(property)]
    fn next_push(&self) -> u64 {
        self.part.get().next_push.unwrap_or_default()
    }

    /// Pushes the repository to its targets now. Returns once the job is asked for.
    async fn push(&self) -> fdo::Result<()> {
        let name = self.client();
        let status = self.desk.status.borrow().clone();
        let known = status.clients.iter().find(|known| known.name == name);
        if known.is_none_or(|known| known.targets.is_empty()) {
            return Err(failed(format!(
                "client `{name}` has no off-site target; add an [[offsite.target]] to strongroom.toml"
            )));
        }
        self.desk.mounted("push")?;
        self.desk.send(Command::Push(name)).await
    }

    /// Reads all of the repository now, and compares it with what it was. Returns once the job is asked for; `answered` of
    /// Watched changes with its end.
    async fn check(&self) -> fdo::Result<()> {
        self.desk.mounted("check")?;
        self.desk.send(Command::Check(Some(self.client()))).await
    }

    /// Takes note that the owner knows of all that stands about the repository. Returns once that is asked for.
    async fn accept(&self) -> fdo::Result<()> {
        self.desk.send(Command::Accept(self.client())).await
    }

    /// What is remembered of the repository, as JSON: `record` (`strongroom_model::watch::Record`), `archives`
    /// (`ArchiveNote`, newest first) and `verification` (`strongroom_model::verification::Verification`).
    async fn watched(&self) -> fdo::Result<String> {
        let folder = self.desk.paths.watch(&self.client());
        let record = match store::read_record(&folder) {
            store::Read::Known(record) => *record,
            store::Read::New | store::Read::Unreadable => Record::default(),
        };
        json(&Remembered {
            record,
            archives: store::read_archives(&folder),
            verification: store::read_verification(&folder),
            transactions: store::read_transactions(&folder),
        })
    }

    /// What a compaction or a rollback of the repository would do, what stands against it, and how the last one ended, as
    /// JSON (`strongroom_model::upkeep::Upkeep`).
    async fn upkeep(&self) -> fdo::Result<String> {
        json(&self.look().await?.upkeep)
    }

    /// Frees for good what was deleted in the repository up to `transaction`, its last one, as it was shown and confirmed.
    /// Returns once the job is asked for; `last` of Upkeep changes with its end.
    async fn compact(&self, transaction: u32, without_off_site_copy: bool) -> fdo::Result<()> {
        let look = self.look().await?;
        let work = look.may_compact(transaction, without_off_site_copy).map_err(failed)?;
        self.order(work).await
    }

    /// Undoes what the client did to its repository after the transaction `to`. `transaction` is its last one, as it was
    /// shown and confirmed. Returns once the job is asked for; `last` of Upkeep changes with its end.
    async fn roll_back(&self, transaction: u32, to: u32) -> fdo::Result<()> {
        let look = self.look().await?;
        let work = look.may_go_back(&self.client(), transaction, to).map_err(failed)?;
        self.order(work).await
    }

    /// Whether a segment of the repository could be repaired now, as far as that can be told without reading it. An error
    /// says what stands against it.
    async fn repairable(&self, segment: u32) -> fdo::Result<()> {
        self.may_repair(segment).await.map(drop)
    }

    /// Puts what `bytes` gives, up to its end, in the place of a damaged segment, if it is what the segment was. Returns once
    /// the job is asked for; `last` of Upkeep changes with its end.
    async fn repair(&self, segment: u32, bytes: zbus::OwnedFd) -> fdo::Result<()> {
        let work = self.may_repair(segment).await?;
        self.desk.inputs.put(self.client(), segment, bytes.into());
        self.order(work).await
    }

    /// What was given to Repair, once: the job fetches it.
    async fn repair_input(&self, segment: u32) -> fdo::Result<zbus::OwnedFd> {
        let client = self.client();
        let input = self.desk.inputs.take(&client, segment);
        input.map(Into::into).ok_or_else(|| {
            failed(format!(
                "nothing was given to repair segment {segment} of {client} with; use `strongroom repair`"
            ))
        })
    }
}

impl Client {
    fn client(&self) -> ClientName {
        self.part.get().name.clone()
    }

    async fn order(&self, work: Work) -> fdo::Result<()> {
        let client = self.client();
        self.desk.send(Command::Upkeep(Order { client, work })).await
    }

    async fn may_repair(&self, segment: u32) -> fdo::Result<Work> {
        let look = self.look().await?;
        let config = configuration::in_force(&self.desk.paths);
        look.may_repair(&self.desk.paths, &config, &self.client(), segment)
            .map_err(failed)
    }

    async fn look(&self) -> fdo::Result<Look> {
        let client = self.client();
        let sessions = list::of_client(&self.desk.systemd, &client).await.map_err(failed)?;
        let status = self.desk.status.borrow().clone();
        let config = configuration::in_force(&self.desk.paths);
        look::look(&self.desk.paths, &config, &client, &status, sessions)
            .map_err(|error| failed(format!("what is remembered of {client} can't be read: {error}")))
    }
}
