//! A body that passes at a limited pace, or only up to a point.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A cap on bytes per second, shared by all connections.
#[derive(Debug)]
pub struct Limiter {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Limiter {
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Books `bytes` and says when the line is free again.
    fn book(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *free_at = (*free_at).max(Instant::now()) + cost;
        *free_at
    }
}

/// Reading stopped on purpose.
#[derive(Debug, thiserror::Error)]
pub enum PaceError {
    #[error("connection cut on purpose")]
    Cut,
    #[error(transparent)]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

pub struct Paced<B> {
    inner: B,
    limiter: Option<Arc<Limiter>>,
    waiting: Option<Pin<Box<Sleep>>>,
    cut_after: Option<u64>,
}

impl<B> Paced<B> {
    pub fn new(inner: B, limiter: Option<Arc<Limiter>>, cut_after: Option<u64>) -> Self {
        Self {
            inner,
            limiter,
            waiting: None,
            cut_after,
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = PaceError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PaceError>>> {
        if let Some(waiting) = &mut self.waiting {
            std::task::ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        let Some(frame) = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| PaceError::Body(error.into()))?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        if let Some(left) = &mut self.cut_after {
            match left.checked_sub(length as u64) {
                Some(rest) => *left = rest,
                None => return Poll::Ready(Some(Err(PaceError::Cut))),
            }
        }
        if let Some(limiter) = &self.limiter {
            let free_at = limiter.book(length);
            self.waiting = Some(Box::pin(sleep_until(free_at)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
