//! Why the broker cannot be used, in words, with advice.

use super::tls;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode as Code5, DisconnectReasonCode};
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, v5};
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
    /// What `[mqtt]` names can't be used.
    #[error("{0}")]
    Files(String),
    /// Nobody who is believed vouches for its certificate.
    #[error("nobody who is trusted vouches for its certificate")]
    Unknown,
    /// Its certificate is for another host.
    #[error("its certificate is for another name")]
    OtherName,
    /// Its certificate is of another time.
    #[error("its certificate has expired, or is not valid yet")]
    OutOfDate,
    /// It refuses the certificate that it is shown, or wants one.
    #[error("it refuses TLS with us ({0})")]
    Alert(String),
    /// It speaks something else.
    #[error("it does not speak TLS on that port")]
    NoTls,
    /// TLS failed otherwise.
    #[error("TLS with it failed ({0})")]
    Tls(String),
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
                "Check `host`, `port` and `tls` in `[mqtt]`, firewalls in between, and that the port speaks MQTT and nothing else."
            }
            Self::Credentials => {
                "Check `username` in `[mqtt]`, and that its `password` file holds the password that the broker knows."
            }
            Self::Refused(_) => "Look at the broker's log; it must accept the `version` of MQTT that `[mqtt]` says.",
            Self::Lost(_) => {
                "Look at the broker's log. Another program with the same client id, an access list, or a port that wants TLS (`tls` in `[mqtt]`) may be the cause."
            }
            Self::Files(_) => {
                "Offer the configuration again, with the file beside it, on a USB stick labelled STRONGROOM."
            }
            Self::Unknown => {
                "Name the file with the certificate of your broker's authority in `ca` of `[mqtt]`, and put it beside strongroom.toml."
            }
            Self::OtherName => {
                "Write `host` in `[mqtt]` as the broker's certificate names it (subjectAltName), or give the broker one for this name or address."
            }
            Self::OutOfDate => {
                "Renew the broker's certificate. If it is good, the appliance's clock is wrong: `strongroom status` tells."
            }
            Self::Alert(_) => {
                "Look at the broker's log. If it wants a certificate, name one that its authority signed in `certificate` and `key` of `[mqtt]`."
            }
            Self::NoTls => "Check `port` in `[mqtt]` (8883 is usual for TLS, 1883 without), or remove `tls`.",
            Self::Tls(_) => "Look at the broker's log; it must speak TLS 1.2 or 1.3.",
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
        if let Some(fault) = tls::fault(error) {
            return fault;
        }
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

impl From<&v5::ConnectionError> for Fault {
    fn from(error: &v5::ConnectionError) -> Self {
        use v5::{ConnectionError as Error, StateError as State};
        match error {
            Error::Io(error) | Error::MqttState(State::Io(error)) => error.into(),
            Error::Timeout(_) | Error::MqttState(State::AwaitPingResp) => Self::Silent,
            Error::ConnectionRefused(code) => match code {
                Code5::BadUserNamePassword | Code5::NotAuthorized | Code5::BadAuthenticationMethod | Code5::Banned => {
                    Self::Credentials
                }
                Code5::RefusedProtocolVersion | Code5::UnsupportedProtocolVersion => Self::Refused("protocol version"),
                Code5::BadClientId | Code5::ClientIdentifierNotValid => Self::Refused("client id"),
                Code5::RetainNotSupported => Self::Refused("it keeps no retained messages"),
                Code5::QoSNotSupported => Self::Refused("it has no QoS 1"),
                Code5::ServerBusy | Code5::ConnectionRateExceeded | Code5::QuotaExceeded => Self::Refused("busy"),
                _ => Self::Refused("not available"),
            },
            // Its own words may hold anything.
            Error::MqttState(State::ServerDisconnect { reason_code, .. }) => match reason_code {
                DisconnectReasonCode::NotAuthorized => Self::Credentials,
                reason => Self::Lost(format!("{reason:?}")),
            },
            Error::MqttState(State::ConnectionAborted) => Self::Lost("closed".into()),
            Error::NotConnAck(_) => Self::Refused("its answer is not MQTT 5"),
            // A broker of 3.1.1 only answers in a form that can't be read as 5.
            Error::MqttState(State::Deserialization(error)) => Self::Lost(format!("{error}; is it MQTT 5?")),
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
        let refused = |code| Fault::from(&v5::ConnectionError::ConnectionRefused(code));
        assert_eq!(refused(Code5::NotAuthorized), Fault::Credentials);
        assert_eq!(refused(Code5::ServerBusy), Fault::Refused("busy"));
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
            Fault::Files("x".into()),
            Fault::Unknown,
            Fault::OtherName,
            Fault::OutOfDate,
            Fault::Alert("x".into()),
            Fault::NoTls,
            Fault::Tls("x".into()),
        ] {
            let condition = fault.condition(&place);
            assert!(condition.text.ends_with("every minute."), "{}", condition.text);
            assert!(!condition.advice.ends_with('…'));
        }
    }
}
