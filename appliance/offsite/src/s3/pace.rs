//! A limit on what is sent, shared by all requests of a target, as a token bucket: short bursts pass at once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is handed over at once, in bytes: small, so that the line is evenly used.
const PIECE: usize = 16 * 1024;
/// So much time's worth of bytes may be sent in one burst.
const BURST: Duration = Duration::from_millis(200);

/// A token bucket. It counts in time: when the line would be free if it were as fast as the limit.
#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    /// Bytes per second.
    rate: u64,
    free_at: Duration,
}

impl TokenBucket {
    /// Takes `bytes` at the time `now`, and says until when to wait before more are taken.
    fn take(&mut self, now: Duration, bytes: usize) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.free_at = self.free_at.max(now.saturating_sub(BURST)) + cost;
        self.free_at
    }
}

/// The limit of one target.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    bucket: Mutex<TokenBucket>,
}

impl Pace {
    /// At most `rate` bytes per second.
    pub fn new(rate: u64) -> Self {
        Self {
            started: Instant::now(),
            bucket: Mutex::new(TokenBucket {
                rate: rate.max(1),
                free_at: Duration::ZERO,
            }),
        }
    }

    fn take(&self, bytes: usize) -> Instant {
        let now = self.started.elapsed();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        self.started + bucket.take(now, bytes)
    }
}

/// A body that is sent no faster than its [`Pace`].
pub(super) struct Paced<B> {
    inner: B,
    pace: Arc<Pace>,
    rest: Bytes,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub fn new(inner: B, pace: Arc<Pace>) -> Self {
        Self {
            inner,
            pace,
            rest: Bytes::new(),
            waiting: None,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
            self.waiting = None;
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        self.waiting = Some(Box::pin(sleep_until(self.pace.take(piece.len()))));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.rest.remaining() as u64;
        match self.inner.size_hint().exact() {
            Some(exact) => SizeHint::with_exact(exact + left),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However the requests fall, no stretch of time sees more than its share, one burst and one piece.
        #[test]
        fn the_rate_holds_over_any_stretch(
            rate in 1_000_u64..10_000_000, steps in proptest::collection::vec((1_usize..=PIECE, 0_u64..500), 2..60),
        ) {
            let mut bucket = TokenBucket { rate, free_at: Duration::ZERO };
            let mut now = Duration::from_secs(5);
            let mut sent = Vec::new();
            for (bytes, idle) in steps {
                now += Duration::from_millis(idle);
                sent.push((now, bytes));
                now = now.max(bucket.take(now, bytes));
            }
            for (first, (start, _)) in sent.iter().enumerate() {
                for (last, (end, _)) in sent.iter().enumerate().skip(first) {
                    let bytes: usize = sent[first..=last].iter().map(|(_, bytes)| bytes).sum();
                    let allowed = (*end - *start + BURST).as_secs_f64() * rate as f64 + PIECE as f64 + 1.0;
                    prop_assert!(bytes as f64 <= allowed, "{bytes} > {allowed}");
                }
            }
        }
    }

    #[test]
    fn a_line_in_use_is_used_up() {
        let mut bucket = TokenBucket {
            rate: 100_000,
            free_at: Duration::ZERO,
        };
        let mut now = Duration::from_secs(1);
        for _ in 0..100 {
            now = now.max(bucket.take(now, 10_000));
        }
        // A million bytes at 100,000 in a second, but for the burst.
        assert_eq!(now, Duration::from_secs(11) - BURST);
    }
}
