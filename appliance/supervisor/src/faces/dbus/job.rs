//! A job that runs, or that ended lately.

use super::desk::{failed, word};
use super::tree::Object;
use strongroom_model::job::{self, State};
use zbus::{fdo, interface};

/// The object.
pub type Job = Object<job::Job>;

#[interface(name = "org.strongroom.Appliance1.Job")]
impl Job {
    /// Its identity, 32 hexadecimal digits: the invocation of its unit, by which the journal knows its lines.
    #[zbus(property)]
    fn id(&self) -> String {
        self.part.get().id.clone()
    }

    /// `push`, `check`, `scrub`, `compact`, `rollback`, `repair` or `probe`.
    #[zbus(property)]
    fn kind(&self) -> String {
        word(&self.part.get().kind)
    }

    /// What it works for, such as a client's name.
    #[zbus(property)]
    fn subject(&self) -> String {
        self.part.get().subject.clone()
    }

    /// Its unit.
    #[zbus(property)]
    fn unit(&self) -> String {
        self.part.get().unit.clone()
    }

    /// When it began, Unix seconds.
    #[zbus(property)]
    fn started(&self) -> u64 {
        self.part.get().started
    }

    /// When it ended, Unix seconds; 0 while it runs.
    #[zbus(property)]
    fn ended(&self) -> u64 {
        self.part.get().ended.unwrap_or_default()
    }

    /// `running`, `succeeded`, `failed` or `stopped`.
    #[zbus(property)]
    fn state(&self) -> String {
        word(&self.part.get().state)
    }

    /// Why it failed, as systemd calls it (`exit-code`, `timeout`, …); empty when it did not.
    #[zbus(property)]
    fn reason(&self) -> String {
        self.part.get().reason.clone()
    }

    /// Which of several it works on now: a push on a target; a copy to a disk, or a check of every repository, on a client.
    /// Empty while unknown, and for jobs that work on one thing.
    #[zbus(property)]
    fn working_on(&self) -> String {
        self.part.get().working_on.clone()
    }

    /// Bytes done of what it works on now, as far as it tells.
    #[zbus(property)]
    fn done_bytes(&self) -> u64 {
        self.part.get().done_bytes
    }

    /// Bytes in all; 0 while unknown, and for jobs that don't tell.
    #[zbus(property)]
    fn total_bytes(&self) -> u64 {
        self.part.get().total_bytes
    }

    /// Ends it. What it did so far stays, and it goes on from there when it is begun again. Returns once that is asked for.
    /// Refused for jobs that change a repository, which come to their end, and for those that have ended.
    async fn stop(&self) -> fdo::Result<()> {
        let job = self.part.get();
        if job.state != State::Running {
            return Err(failed(format!("the {} of {} has ended", word(&job.kind), job.subject)));
        }
        if !job.may_stop() {
            return Err(failed(format!(
                "a {} changes the repository, so it is not stopped but brought to its end",
                word(&job.kind)
            )));
        }
        self.desk.systemd.stop(&job.unit).await.map_err(failed)
    }
}
