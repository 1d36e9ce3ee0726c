//! What `strongroom-serve` and the broker say to each other, over a socket that keeps messages apart (SOCK_SEQPACKET).
//!
//! One request, with the three file descriptors of the connection; then one answer when the session is over or refused, and
//! before it, where it has to wait, why. Closing the socket before that ends the session.

use super::unit::{Level, Right};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, send, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use strongroom_model::name::ClientName;

/// Where the broker listens. Only the account that sshd runs keys' commands as may connect.
pub const SOCKET: &str = "/run/strongroom/sessions.sock";
/// Longest message.
const MESSAGE_MAX: usize = 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub client: ClientName,
    /// The right of its key.
    pub right: Right,
    /// How much Borg is to tell.
    pub level: Level,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The session is over; Borg ended with this code.
    Ended(u8),
    /// The session has not begun yet, for a reason that the client's user is to read; another answer follows.
    Waits(String),
    /// The repository is not ready yet: it is worth asking again.
    NotYet,
    /// There was no session, or it came to a bad end, for a reason that the client's user is to read.
    Refused(String),
}

impl Request {
    /// As a message.
    pub fn to_message(&self) -> String {
        let right = match self.right {
            Right::Append => "append",
            Right::Read => "read",
        };
        format!("{} {right} {}", self.client, self.level.option())
    }

    /// Reads a message; `None` when it is not a request.
    pub fn from_message(message: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(message).ok()?.split(' ');
        let request = Self {
            client: ClientName::new(words.next()?).ok()?,
            right: match words.next()? {
                "append" => Right::Append,
                "read" => Right::Read,
                _ => return None,
            },
            level: words
                .next()
                .and_then(|word| Level::ALL.into_iter().find(|level| level.option() == word))?,
        };
        words.next().is_none().then_some(request)
    }
}

impl Answer {
    /// As a message. A long reason is cut.
    pub fn to_message(&self) -> String {
        let mut message = match self {
            Self::Ended(code) => format!("ended {code}"),
            Self::Waits(reason) => format!("waits {reason}"),
            Self::NotYet => "not-yet".to_string(),
            Self::Refused(reason) => format!("refused {reason}"),
        };
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        message
    }

    /// Reads a message; `None` when it is not an answer.
    pub fn from_message(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        match text.split_once(' ') {
            None if text == "not-yet" => Some(Self::NotYet),
            Some(("ended", code)) => code.parse().ok().map(Self::Ended),
            Some(("waits", reason)) => Some(Self::Waits(reason.to_string())),
            Some(("refused", reason)) => Some(Self::Refused(reason.to_string())),
            _ => None,
        }
    }
}

/// Sends a request and the connection's input, output and errors.
pub fn send_request(socket: impl AsFd, request: &Request, connection: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&connection)) {
        return Err(Errno::NOBUFS);
    }
    let message = request.to_message();
    sendmsg(
        socket,
        &[IoSlice::new(message.as_bytes())],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives a request with the connection's three descriptors; `None` when what came is not one.
pub fn receive_request(socket: impl AsFd) -> Result<Option<(Request, [OwnedFd; 3])>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; MESSAGE_MAX];
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    let request = bytes.get(..received.bytes).and_then(Request::from_message);
    Ok(request.zip(descriptors.try_into().ok()))
}

/// Sends an answer. Whoever asked may be gone.
pub fn send_answer(socket: impl AsFd, answer: &Answer) {
    let _ = send(
        socket,
        answer.to_message().as_bytes(),
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    );
}

/// Receives an answer; `None` when the broker is gone, or what came is not one.
pub fn receive_answer(socket: impl AsFd) -> Result<Option<Answer>, Errno> {
    let mut bytes = [0; MESSAGE_MAX];
    let (received, _) = rustix::net::recv(socket, &mut bytes, RecvFlags::empty())?;
    Ok(bytes.get(..received).and_then(Answer::from_message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn request() -> Request {
        Request {
            client: ClientName::new("asus").unwrap(),
            right: Right::Append,
            level: Level::Debug,
        }
    }

    #[test]
    fn a_request_arrives_with_its_connection() {
        let (one, other) = pair();
        let (mut near, far) = UnixStream::pair().unwrap();
        send_request(&one, &request(), [far.as_fd(); 3]).unwrap();
        drop(far);
        let (received, [input, output, errors]) = receive_request(&other).unwrap().unwrap();
        assert_eq!(received, request());
        UnixStream::from(output).write_all(b"hello").unwrap();
        let mut five = [0; 5];
        near.read_exact(&mut five).unwrap();
        assert_eq!(&five, b"hello");
        drop((input, errors));
    }

    #[test]
    fn what_is_not_a_request_is_none() {
        let (one, other) = pair();
        let (_near, far) = UnixStream::pair().unwrap();
        // Too few descriptors.
        send(&one, request().to_message().as_bytes(), SendFlags::empty()).unwrap();
        assert!(receive_request(&other).unwrap().is_none());
        for bad in [
            "",
            "asus",
            "asus append",
            "asus write --info",
            "../x append --info",
            "asus append --info x",
            "asus append --umask=0",
        ] {
            assert_eq!(Request::from_message(bad.as_bytes()), None, "{bad}");
        }
        drop((one, far));
        assert!(receive_request(&other).unwrap().is_none());
    }

    #[test]
    fn answers_arrive() {
        let (one, other) = pair();
        for answer in [
            Answer::Ended(2),
            Answer::NotYet,
            Answer::Waits("for its turn".into()),
            Answer::Refused("the array: not ready".into()),
        ] {
            send_answer(&one, &answer);
            assert_eq!(receive_answer(&other).unwrap(), Some(answer));
        }
        drop(one);
        assert_eq!(receive_answer(&other).unwrap(), None);
        assert!(Answer::Refused("é".repeat(2000)).to_message().len() <= MESSAGE_MAX);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Request::from_message(&bytes);
            let _ = Answer::from_message(&bytes);
        }
    }
}
