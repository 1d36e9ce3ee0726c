//! Faults to order: the nth matching request fails in a given way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Answer with this status, without looking at the request.
    Status(u16),
    /// Answer with this status and `Retry-After` in seconds; requests that come before that are counted.
    Busy(u16, u64),
    /// Close the connection before anything is read.
    Cut,
    /// Read this many bytes of the body, then close the connection.
    CutAfter(u64),
    /// Do what was asked, then close the connection instead of answering.
    DropAnswer,
    /// Send at most this many bytes of the answer's body, then close the connection.
    Truncate(u64),
}

/// Which request fails.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Method to match, such as `PUT`; any when `None`.
    pub method: Option<&'static str>,
    /// Text that path and query must contain.
    pub contains: String,
    /// Matching requests to let through first.
    pub skip: u32,
    /// Matching requests to fail after that.
    pub times: u32,
    /// How they fail.
    pub action: Action,
}

/// The faults in force, shared with the running server.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    requests: Arc<AtomicU64>,
    log: Arc<Mutex<Vec<String>>>,
    /// Until when clients were asked to wait.
    wait_until: Arc<Mutex<Option<Instant>>>,
    too_early: Arc<AtomicU64>,
    uploads: Arc<AtomicU64>,
    most_uploads: Arc<AtomicU64>,
}

/// A PUT that is being worked on.
pub(crate) struct Upload(Faults);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Faults {
    /// Adds a rule.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Drops all rules.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Requests received since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that came before the time that [`Action::Busy`] asked for.
    #[must_use]
    pub fn too_early(&self) -> u64 {
        self.too_early.load(Ordering::Relaxed)
    }

    /// Most PUTs that were worked on at the same time.
    #[must_use]
    pub fn most_uploads(&self) -> u64 {
        self.most_uploads.load(Ordering::SeqCst)
    }

    pub(crate) fn upload(&self) -> Upload {
        let now = self.uploads.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_uploads.fetch_max(now, Ordering::SeqCst);
        Upload(self.clone())
    }

    /// Clients were asked to wait so long; requests that are on their way already are none of theirs.
    pub(crate) fn asked_to_wait(&self, how_long: Duration) {
        *self.wait_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + how_long);
    }

    /// Takes the list of requests received since the last call, as `METHOD /path?query`.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request and says whether it is to fail.
    pub(crate) fn on_request(&self, method: &str, target: &str) -> Option<Action> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let wait_until = *self.wait_until.lock().unwrap_or_else(PoisonError::into_inner);
        if wait_until.is_some_and(|until| Instant::now() < until) {
            self.too_early.fetch_add(1, Ordering::Relaxed);
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // The double may run for days under `cargo image run`: remember a bounded number.
        if log.len() < 10_000 {
            log.push(format!("{method} {target}"));
        }
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in rules.iter_mut() {
            if rule.times == 0 || rule.method.is_some_and(|m| m != method) || !target.contains(&rule.contains) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.action);
        }
        None
    }
}
