//! Why the broker cannot be used, in words, with advice.

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use std::io::{Error, ErrorKind};
use strongroom_model::condition::{Condition, ConditionId, Severity};

/// What keeps us from the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its name has no address.
    #[error("its name cannot be resolved")]
    NameNotFound,
    /// Nothing listens there.
    #[error("nothing listens on that port")]
    NothingListens,
    /// No way leads there.
    #[error("it cannot be reached over the network ({0})")]
    Unreachable(String),
    /// It does not answer.
    #[error("it does not answer in time")]
    Silent,
    /// User name or password are wrong, or missing.
    #[error("it refuses the user name or password")]
    Credentials,
    /// It refuses for a reason of its own.
    #[error("it refuses the connection ({0})")]
    Refused(&'static str),
    /// The connection broke soon after it was made.
    #[error("it ended the connection ({0})")]
    Lost(String),
}

impl Fault {
    fn advice(&self) -> &'static str {
        match self {
            Self::NameNotFound => "Check `host` in `[mqtt]` and the name server, or use the broker's IP address.",
            Self::NothingListens => {
                "Check that the broker runs and listens on the network (mosquitto: `listener 1883`), and `port` in `[mqtt]`."
            }
            Self::Unreachable(_) => "Check `host` in `[mqtt]`, the network, and that the broker's machine is on.",
            Self::Silent => {
                "Check `host` and `port` in `[mqtt]`, firewalls in between, and that the port speaks MQTT without TLS."
            }
            Self::Credentials => {
                "Check `username` in `[mqtt]`, and that its `password` file holds the password that the broker knows."
            }
            Self::Refused(_) => "Look at the broker's log; it must accept MQTT 3.1.1.",
            Self::Lost(_) => {
                "Look at the broker's log. Another program with the same client id, or an access list, may be the cause."
            }
        }
    }

    /// The condition that stands while this keeps us from the broker at `place`.
    pub fn condition(&self, place: &str) -> Condition {
        let text = format!("The MQTT broker {place} cannot be used: {self}. It is tried again every minute.");
        Condition::new(
            ConditionId::MqttUnreachable,
            Severity::Warning,
            "",
            &text,
            self.advice(),
        )
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::NothingListens,
            ErrorKind::TimedOut => Self::Silent,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Self::Lost(error.kind().to_string()),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::Unreachable(error.kind().to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<&ConnectionError> for Fault {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => error.into(),
            ConnectionError::NetworkTimeout
            | ConnectionError::FlushTimeout
            | ConnectionError::MqttState(StateError::AwaitPingResp) => Self::Silent,
            ConnectionError::ConnectionRefused(code) => match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => Self::Credentials,
                ConnectReturnCode::RefusedProtocolVersion => Self::Refused("protocol version"),
                ConnectReturnCode::BadClientId => Self::Refused("client id"),
                ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => Self::Refused("not available"),
            },
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::Lost("closed".into()),
            // Never the packet itself, which may hold anything.
            ConnectionError::NotConnAck(_) => Self::Refused("its answer is not MQTT 3.1.1"),
            other => Self::Lost(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        let refused = |code| Fault::from(&ConnectionError::ConnectionRefused(code));
        assert_eq!(refused(ConnectReturnCode::BadUserNamePassword), Fault::Credentials);
        assert_eq!(refused(ConnectReturnCode::NotAuthorized), Fault::Credentials);
        assert_eq!(
            Fault::from(&Error::from(ErrorKind::ConnectionRefused)),
            Fault::NothingListens
        );
        assert_eq!(Fault::from(&ConnectionError::NetworkTimeout), Fault::Silent);
    }

    #[test]
    fn text_and_advice_fit() {
        let place = format!("{}:65535", "h".repeat(120));
        for fault in [
            Fault::NameNotFound,
            Fault::NothingListens,
            Fault::Unreachable("x".into()),
            Fault::Silent,
            Fault::Credentials,
            Fault::Refused("x"),
            Fault::Lost("x".into()),
        ] {
            let condition = fault.condition(&place);
            assert!(condition.text.ends_with("every minute."), "{}", condition.text);
            assert!(!condition.advice.ends_with('…'));
        }
    }
}
