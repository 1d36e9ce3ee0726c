//! A request body of known length that is produced while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// The producing end; blocks when the network is slower.
#[derive(Debug, Clone)]
pub struct BodySender(mpsc::Sender<Bytes>);

impl BodySender {
    /// Hands over a piece, from a thread that may block. False when nobody reads any more.
    #[must_use]
    pub fn blocking_send(&self, piece: Bytes) -> bool {
        self.0.blocking_send(piece).is_ok()
    }
}

/// The body for `length` bytes, and its producing end.
pub(super) fn channel(length: u64) -> (BodySender, ChannelBody) {
    let (sender, receiver) = mpsc::channel(4);
    (BodySender(sender), ChannelBody { receiver, left: length })
}

/// The producer ended early or gave too much.
#[derive(Debug, thiserror::Error)]
#[error("the body's producer failed")]
pub(super) struct ProducerFailed;

pub(super) struct ChannelBody {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = ProducerFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProducerFailed>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.receiver.poll_recv(context));
        Poll::Ready(Some(
            match piece.map(|piece| (self.left.checked_sub(piece.len() as u64), piece)) {
                Some((Some(left), piece)) => {
                    self.left = left;
                    Ok(Frame::data(piece))
                }
                _ => Err(ProducerFailed),
            },
        ))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
