//! What a job that copies leaves under /run for the offsite duty: how far it is, and what went wrong with each of those that it
//! works for, one after the other. A push works for a client's buckets, a copy to a disk for its clients.

use crate::durable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use strongroom_model::disk_copy::Attempt;

/// Longest report, in bytes: an error for each of 64 clients.
const BYTES_MAX: u64 = 256 * 1024;

/// What the job is doing and what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport<Of> {
    /// The one that it works for now, or worked for last; none before the first.
    pub now: Option<Of>,
    /// Bytes of that one done.
    pub done_bytes: u64,
    /// Bytes of it in all; 0 while unknown.
    pub total_bytes: u64,
    /// Those that failed, with the reason. Those of an earlier run stand until they have been tried again.
    pub errors: Vec<(Of, String)>,
    /// How the last copy to the disk ended. How a push did, systemd tells.
    pub last: Option<Attempt>,
}

impl<Of> Default for JobReport<Of> {
    fn default() -> Self {
        Self {
            now: None,
            done_bytes: 0,
            total_bytes: 0,
            errors: Vec::new(),
            last: None,
        }
    }
}

impl<Of: DeserializeOwned> JobReport<Of> {
    /// What the job left; nothing before it ran.
    pub fn read(path: &Path) -> Self {
        durable::read_json(path, BYTES_MAX).unwrap_or_default()
    }
}

/// The report of a job that runs. What can't be written of its progress is told in the journal, and keeps nothing from being
/// copied.
pub(super) struct Reporter<Of> {
    path: PathBuf,
    report: JobReport<Of>,
}

impl<Of: Clone + PartialEq + Serialize + DeserializeOwned> Reporter<Of> {
    /// Goes on from the last run. Errors of those that the job does not work for any more are gone.
    pub fn new(path: PathBuf, all: &[Of]) -> Self {
        let mut report = JobReport::read(&path);
        report.errors.retain(|(one, _)| all.contains(one));
        Self { path, report }
    }

    /// It works for this one now.
    pub fn begin(&mut self, one: &Of) {
        self.report.now = Some(one.clone());
        self.tell(0, 0);
    }

    /// So many bytes are done, of so many.
    pub fn tell(&mut self, done: u64, total: u64) {
        (self.report.done_bytes, self.report.total_bytes) = (done, total);
        if let Err(error) = self.write() {
            eprintln!("the progress could not be written: {error}");
        }
    }

    /// It is through with this one.
    pub fn end(&mut self, one: &Of, error: Option<String>) {
        self.report.errors.retain(|(other, _)| other != one);
        self.report.errors.extend(error.map(|error| (one.clone(), error)));
    }

    /// It is through with all of them. Returns the report as it is kept.
    pub fn close(mut self, last: Option<Attempt>) -> io::Result<JobReport<Of>> {
        self.report.last = last;
        self.write()?;
        Ok(self.report)
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.report)?;
        durable::write(&self.path, &text, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::name::ClientName;

    #[test]
    fn errors_stand_until_it_is_tried_again_or_belongs_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/report.json");
        let [a, b, c] = ["a", "b", "c"].map(|name| ClientName::new(name).unwrap());
        let read = || JobReport::<ClientName>::read(&path);
        assert_eq!(read(), JobReport::default());

        let mut job = Reporter::new(path.clone(), &[a.clone(), b.clone(), c.clone()]);
        for one in [&a, &b, &c] {
            job.begin(one);
            assert_eq!((read().now.as_ref(), read().total_bytes), (Some(one), 0));
            job.tell(3, 7);
            assert_eq!((read().done_bytes, read().total_bytes), (3, 7));
            job.end(one, (*one != b).then(|| format!("{one} fails")));
        }
        let kept = job.close(None).unwrap();
        assert_eq!(read(), kept);
        let errors = [(a.clone(), "a fails".to_owned()), (c.clone(), "c fails".to_owned())];
        assert_eq!((&kept.now, &kept.errors[..]), (&Some(c), &errors[..]));

        let mut job = Reporter::new(path.clone(), &[a.clone(), b]);
        job.begin(&a);
        assert_eq!(read().errors, errors[..1], "it is not through with it");
        job.end(&a, None);
        assert!(job.close(None).unwrap().errors.is_empty());
    }
}
