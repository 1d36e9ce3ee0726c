//! A configuration that the owner hands over by `strongroom config apply`. systemd starts the role for one connection to its
//! socket, which is its standard input; it reads one offer, judges it or takes it over, answers, and ends.
//!
//! Who may connect is decided by the socket's mode: root and the group strongroom-admin. Nothing is taken over without the
//! consent that was given out for exactly this offer, over exactly this configuration in force.

use super::incoming::{self, Incoming};
use super::sources::Source;
use super::take_over::judge;
use super::{Outcome, Refusal, take_incoming};
use crate::paths::Paths;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use strongroom_model::offer::{Answer, Offer, REQUEST_MAX};

/// How long an offer may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the role over a connection.
///
/// Errors: nobody could be answered.
pub fn run(paths: &Paths, connection: OwnedFd) -> io::Result<()> {
    let mut connection = UnixStream::from(connection);
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    (&mut connection).take(REQUEST_MAX).read_to_end(&mut request)?;
    let answer = match serde_json::from_slice::<Offer>(&request) {
        Ok(offer) => answer(paths, offer)?,
        Err(error) => Answer::Refused {
            why: format!("the offer can't be understood: {error}. Is the command of the same release?"),
        },
    };
    connection.write_all(&serde_json::to_vec(&answer)?)
}

fn answer(paths: &Paths, offer: Offer) -> io::Result<Answer> {
    let judged = incoming::of_offer(offer.text, offer.files)
        .map_err(Refusal::from)
        .and_then(|incoming| judge(paths, &incoming).map(|changes| (incoming, changes)));
    let (incoming, changes) = match judged {
        Ok(judged) => judged,
        // Whoever offers it reads why; nothing stands that others should know of.
        Err(refusal) => return Ok(refused(&refusal)),
    };
    if changes.is_empty() && paths.config().exists() {
        return Ok(Answer::InForce);
    }
    let consent = consent(paths, &incoming);
    match offer.consent {
        None => Ok(Answer::Would { changes, consent }),
        Some(given) if given != consent => Ok(Answer::Refused {
            why: "what was agreed to is not what would happen now: the configuration in force has changed since. Try again"
                .into(),
        }),
        Some(_) => Ok(match take_incoming(paths, &Source::Command, &incoming)? {
            Outcome::Taken { changes, later } => Answer::Taken { changes, later },
            Outcome::Refused(refusal) => refused(&refusal),
            Outcome::InForce | Outcome::Old | Outcome::Nothing => Answer::InForce,
        }),
    }
}

fn refused(refusal: &Refusal) -> Answer {
    Answer::Refused {
        why: refusal.to_string(),
    }
}

/// Names an offer, and what it would take the place of. Secrets are left out: they are never hashed (see
/// [`Incoming::digest`]).
fn consent(paths: &Paths, incoming: &Incoming) -> String {
    let mut hash = Sha256::new();
    hash.update(incoming.digest());
    hash.update(fs::read(paths.config()).unwrap_or_default());
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use strongroom_model::condition::Condition;

    const OWNER: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n";

    fn offer(text: &str) -> Offer {
        Offer {
            text: text.into(),
            ..Offer::default()
        }
    }

    /// Through a socket, as it is used.
    fn ask(paths: &Paths, offer: &Offer) -> Answer {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let request = serde_json::to_vec(offer).unwrap();
        let asked = std::thread::spawn(move || {
            ours.write_all(&request).unwrap();
            ours.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).unwrap();
            serde_json::from_slice(&answer).unwrap()
        });
        run(paths, theirs.into()).unwrap();
        asked.join().unwrap()
    }

    fn would(answer: Answer) -> (Vec<String>, String) {
        match answer {
            Answer::Would { changes, consent } => (changes, consent),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_offer_is_shown_first_and_taken_over_with_its_consent_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let first = offer("[network]\nhostname = \"attic\"\n");
        let (changes, consent) = would(ask(&paths, &first));
        assert_eq!(changes, ["host name: strongroom -> attic"]);
        assert!(!paths.config().exists(), "nothing is kept before");
        // Consent for another one.
        let other = Offer {
            consent: Some(consent.clone()),
            ..offer("[network]\nhostname = \"cellar\"\n")
        };
        assert!(matches!(ask(&paths, &other), Answer::Refused { .. }));
        assert!(!paths.config().exists());
        let agreed = Offer {
            consent: Some(consent.clone()),
            ..first.clone()
        };
        assert!(matches!(ask(&paths, &agreed), Answer::Taken { .. }));
        assert_eq!(fs::read_to_string(paths.config()).unwrap(), first.text);
        assert_eq!(ask(&paths, &first), Answer::InForce);
        // The same change again, over what is another's by now.
        fs::write(paths.config(), "[network]\nhostname = \"shed\"\n").unwrap();
        assert!(matches!(ask(&paths, &agreed), Answer::Refused { .. }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let why = |offer: &Offer| match ask(&paths, offer) {
            Answer::Refused { why } => why,
            other => panic!("{other:?}"),
        };
        let told = why(&offer("[network]\nhostnam = \"x\"\n"));
        assert!(told.contains("line 2") && told.contains("hostname"), "{told}");
        let told = why(&offer(OWNER));
        assert!(told.contains("owner.asc") && told.contains("gpg --export"), "{told}");
        let mut huge = offer(OWNER);
        huge.files.insert("owner.asc".into(), vec![b'x'; 65 << 10]);
        assert!(why(&huge).contains("larger than 64 KiB"));
        assert!(why(&offer(&"#".repeat(257 << 10))).contains("larger than 256 KiB"));
        assert!(!paths.config().exists());
        let standing = fs::read(paths.config_report()).ok();
        assert!(standing.is_none_or(|text| serde_json::from_slice::<Vec<Condition>>(&text).unwrap().is_empty()));
    }

    #[test]
    fn what_is_no_offer_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"[network]\n").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        run(&Paths::new(folder.path()), theirs.into()).unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains("refused") && answer.contains("can't be understood"),
            "{answer}"
        );
    }
}
