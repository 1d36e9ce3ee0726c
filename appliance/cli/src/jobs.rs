//! `strongroom jobs`: what is running, how what ran last ended, and ending what may be ended.

use crate::appliance::{ApplianceError, Connection};
use crate::{now, words};
use std::fmt::Write;
use strongroom_model::job::{self, Job, State};
use strongroom_model::status::JobKind;

/// As many digits of a job's name are shown.
const DIGITS: usize = 8;

/// Prints the jobs.
pub async fn show(json: bool) -> Result<(), ApplianceError> {
    let jobs = Connection::open().await?.jobs().await?;
    if json {
        println!("{}", serde_json::to_string(&jobs)?);
    } else {
        print!("{}", table(&jobs, now()));
    }
    Ok(())
}

/// Ends a job.
pub async fn stop(id: &str) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let jobs = appliance.jobs().await?;
    let job = find(&jobs, id)?;
    appliance.stop(&job.id).await?;
    println!("The {} of {} ends.", kind(job.kind), job.subject);
    Ok(())
}

/// The job that is meant.
pub fn find<'a>(jobs: &'a [Job], id: &str) -> Result<&'a Job, ApplianceError> {
    job::find(jobs, id).map_err(|why| ApplianceError::Job(format!("{why}; `strongroom jobs` lists them")))
}

fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Push => "push",
        JobKind::Scrub => "scrub",
        JobKind::Check => "check",
        JobKind::Compact => "compaction",
        JobKind::Rollback => "rollback",
        JobKind::Repair => "repair",
        JobKind::Probe => "probe",
    }
}

fn table(jobs: &[Job], now: u64) -> String {
    if jobs.is_empty() {
        return "Nothing is running, and nothing ran lately.\n".into();
    }
    let mut text = format!(
        "{:<8}  {:<10}  {:<32}  {:<12}  {}\n",
        "JOB", "WHAT", "OF", "BEGUN", "STATE"
    );
    for job in jobs {
        let id: String = job.id.chars().take(DIGITS).collect();
        let (subject, begun) = (&job.subject, words::age(Some(job.started), now));
        let _ = writeln!(
            text,
            "{id:<8}  {:<10}  {subject:<32}  {begun:<12}  {}",
            kind(job.kind),
            state(job)
        );
    }
    text
}

fn state(job: &Job) -> String {
    let took = words::duration(job.ended.unwrap_or(job.started).saturating_sub(job.started));
    match job.state {
        State::Running => running(job),
        State::Succeeded => format!("done in {took}"),
        State::Stopped => format!("stopped after {took}"),
        State::Failed => format!("FAILED after {took} ({})", job.reason),
    }
}

fn running(job: &Job) -> String {
    let mut text = String::from("running");
    if !job.working_on.is_empty() {
        let _ = write!(text, ", {}", job.working_on);
    }
    if job.total_bytes > 0 {
        let (done, total) = (words::size(job.done_bytes), words::size(job.total_bytes));
        let _ = write!(text, ", {done} of {total}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_job() {
        let job = |id: &str, state, ended, reason: &str| Job {
            id: id.repeat(32),
            kind: JobKind::Push,
            subject: "asus_home".into(),
            unit: String::new(),
            started: 1000,
            ended,
            state,
            reason: reason.into(),
            working_on: String::new(),
            done_bytes: 1 << 30,
            total_bytes: 4 << 30,
        };
        let disk = Job {
            subject: "the disk usb".into(),
            working_on: "asus_home".into(),
            ..job("d", State::Running, None, "")
        };
        let jobs = [
            job("a", State::Running, None, ""),
            disk,
            job("b", State::Failed, Some(1030), "exit-code"),
            job("c", State::Succeeded, Some(1300), ""),
        ];
        let text = table(&jobs, 1000 + 7200);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[1..],
            [
                "aaaaaaaa push asus_home 2 h ago running, 1.0 GiB of 4.0 GiB",
                "dddddddd push the disk usb 2 h ago running, asus_home, 1.0 GiB of 4.0 GiB",
                "bbbbbbbb push asus_home 2 h ago FAILED after 30 s (exit-code)",
                "cccccccc push asus_home 2 h ago done in 5 min",
            ]
        );
        assert_eq!(table(&[], 0), "Nothing is running, and nothing ran lately.\n");
        assert!(
            find(&jobs, "eeee")
                .unwrap_err()
                .to_string()
                .contains("`strongroom jobs` lists")
        );
    }
}
