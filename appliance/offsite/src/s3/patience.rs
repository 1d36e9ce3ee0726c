//! How often to try, and how long to wait between attempts. What a service asks for is kept to exactly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::S3Error;

/// The longest wait that a service may ask for; a push that is asked for more ends, and is tried again later.
const LONGEST_ASKED: Duration = Duration::from_secs(15 * 60);

/// How often and how long to try.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Wait after the first failure; doubles each time.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
}

impl Default for Retry {
    /// Six attempts within about a minute.
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// How long to wait after failure number `failed` (from 1), or `None` to give up.
    pub(crate) fn wait(&self, failed: u32, error: &S3Error) -> Option<Duration> {
        if failed >= self.attempts || !error.is_transient() {
            return None;
        }
        let asked = error.retry_after().unwrap_or_default();
        if asked > LONGEST_ASKED {
            return None;
        }
        let exponential = self.first_wait.saturating_mul(1_u32 << (failed - 1).min(16));
        // Spread over half to the whole, so that many appliances don't come back at once.
        let spread = exponential
            .min(self.longest_wait)
            .mul_f64(rand::thread_rng().gen_range(0.5..=1.0));
        Some(spread.max(asked))
    }
}

/// Reads `Retry-After` (RFC 9110 10.2.3): seconds, or a date, which is compared with the answer's own `Date`, so that
/// neither clock need be right.
pub(super) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(date?.trim()).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// A pause that the service asked for, for all requests to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pause(Arc<Mutex<Option<Instant>>>);

impl Pause {
    /// Nothing is sent before this has passed, at most the longest that may be asked for.
    pub fn until_after(&self, asked: Duration) {
        let until = Instant::now() + asked.min(LONGEST_ASKED);
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *end = (*end).max(Some(until));
    }

    /// Returns when the pause is over; at once when there is none.
    pub async fn over(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match end {
                Some(end) if end > Instant::now() => tokio::time::sleep_until(end).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let retry = Retry::default();
        let error = S3Error::Interrupted {
            operation: String::new(),
            why: String::new(),
        };
        let waits: Vec<_> = (1..).map_while(|n| retry.wait(n, &error)).collect();
        assert_eq!(waits.len(), 5);
        assert!(waits.iter().all(|wait| *wait <= retry.longest_wait));
        assert!(waits[4] >= Duration::from_secs(8));
        assert_eq!(retry.wait(1, &S3Error::UnknownAccessKey), None);
    }

    #[test]
    fn what_is_asked_for_is_kept() {
        let retry = Retry::default();
        let asking = |seconds| S3Error::Unavailable {
            operation: String::new(),
            status: 503,
            code: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        // Longer than the longest wait of our own; never shorter than our own.
        assert_eq!(retry.wait(1, &asking(100)), Some(Duration::from_secs(100)));
        assert!(retry.wait(5, &asking(0)).unwrap() >= Duration::from_secs(8));
        assert_eq!(retry.wait(1, &asking(3600)), None);
    }

    #[test]
    fn seconds_and_dates() {
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(retry_after("120", None), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:29:30 GMT", date),
            Some(Duration::from_secs(90))
        );
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:00:00 GMT", date), Some(Duration::ZERO));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:29:30 GMT", None), None);
        assert_eq!(retry_after("soon", date), None);
    }
}
