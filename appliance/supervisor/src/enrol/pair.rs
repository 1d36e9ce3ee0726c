//! The role `strongroom-pair`: what sshd runs for the login `pair`. `keys TYPE BASE64` is asked whether a key that is
//! offered may come in (sshd_config(5), AuthorizedKeysCommand): while a pairing is open, any key of an acceptable form may,
//! for one command only. `enrol TYPE BASE64` is that command. sshd has seen by then that whoever came holds that key; it
//! only offers the code, and the role `strongroom-clients` decides.

use super::{ask, pairing};
use crate::paths::Paths;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use strongroom_model::registry::{Answer, Request};
use strongroom_model::ssh_key::{SshKeyError, SshPublicKey};

/// Where the program lies on the appliance.
const PROGRAM: &str = "/usr/lib/strongroom/strongroom-pair";
/// Longest code that is read, in bytes.
const CODE_MAX: u64 = 64;

/// Why no key was enrolled. The client's user reads this.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// sshd's configuration is wrong.
    #[error("strongroom-pair was started in another way than by sshd; make a report to the appliance's owner")]
    Usage,
    /// The key is not acceptable.
    #[error("Strongroom: {0}")]
    Key(#[from] SshKeyError),
    /// There is no code.
    #[error("Strongroom: give the code that `strongroom client pair` showed, as in `ssh pair@HOST 01234-56789`")]
    NoCode,
    /// The registry can't be asked.
    #[error("Strongroom: {0}")]
    Ask(#[from] ask::AskError),
    /// It was refused.
    #[error("Strongroom: {0}")]
    Refused(String),
}

/// Runs the role. Returns what is to be printed.
pub fn run(paths: &Paths, arguments: &[String], wanted: Option<OsString>) -> Result<String, PairError> {
    match arguments {
        [verb, kind, base64] if verb == "keys" => {
            // Beneath another root, as in tests, it lies elsewhere.
            let own = std::env::args().next().filter(|_| paths.root() != Path::new("/"));
            Ok(admitted(
                paths,
                own.as_deref().unwrap_or(PROGRAM),
                &format!("{kind} {base64}"),
            ))
        }
        [verb, kind, base64] if verb == "enrol" => enrol(paths, &format!("{kind} {base64}"), wanted),
        _ => Err(PairError::Usage),
    }
}

/// The line for sshd that lets this key in for one command; empty when it may not come in.
fn admitted(paths: &Paths, program: &str, key: &str) -> String {
    let Ok(key) = SshPublicKey::parse(key) else {
        return String::new();
    };
    if !pairing::is_open(paths) {
        return String::new();
    }
    let root = match paths.root().to_str() {
        Some("/") | None => String::new(),
        Some(root) => format!(" --root {root}"),
    };
    let key = key.authorized();
    format!("restrict,command=\"{program}{root} enrol {key}\" {key}\n")
}

fn enrol(paths: &Paths, key: &str, wanted: Option<OsString>) -> Result<String, PairError> {
    let key = SshPublicKey::parse(&format!("{key} paired"))?;
    let code = match wanted {
        Some(wanted) => wanted.into_string().map_err(|_| PairError::NoCode)?,
        None => {
            eprint!("Code: ");
            let mut typed = Vec::new();
            let mut input = std::io::stdin().lock().take(CODE_MAX);
            let mut byte = [0];
            while input.read(&mut byte).is_ok_and(|read| read == 1) && byte != *b"\n" {
                typed.push(byte[0]);
            }
            String::from_utf8(typed).map_err(|_| PairError::NoCode)?
        }
    };
    let code = code.trim();
    if code.is_empty() || code.len() as u64 > CODE_MAX {
        return Err(PairError::NoCode);
    }
    let request = Request::Code { code: code.into(), key };
    match ask::ask(paths, &request)? {
        Answer::Done(words) => Ok(words.join("\n") + "\n"),
        Answer::Refused(why) => Err(PairError::Refused(why)),
        Answer::Opened(_) => Err(PairError::Usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::name::ClientName;
    use strongroom_model::pairing::Pairing;
    use strongroom_model::registry::Settings;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO";

    #[test]
    fn keys_come_in_only_while_a_pairing_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert_eq!(admitted(&paths, PROGRAM, KEY), "");
        let client = ClientName::new("asus").unwrap();
        let (pairing, _) = Pairing::open(client, Settings::default(), [1; 10], pairing::now(), 10);
        pairing::keep(&paths, &pairing).unwrap();
        let line = admitted(&paths, PROGRAM, KEY);
        let root = folder.path().display();
        assert_eq!(
            line,
            format!("restrict,command=\"{PROGRAM} --root {root} enrol {KEY}\" {KEY}\n")
        );
        for bad in [
            "ssh-dss AAAAB3NzaC1kc3M=",
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "ssh-ed25519 AAAA\"",
            "",
        ] {
            assert_eq!(admitted(&paths, PROGRAM, bad), "", "{bad}");
        }
    }

    #[test]
    fn there_is_no_way_without_a_code() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let words = |wanted: &str| {
            let arguments = format!("enrol {KEY}").split(' ').map(String::from).collect::<Vec<_>>();
            run(&paths, &arguments, Some(wanted.into())).unwrap_err().to_string()
        };
        assert!(words("").contains("give the code"));
        assert!(words(&"0".repeat(65)).contains("give the code"));
        assert!(words("01234-56789").contains("can't be asked"));
        assert!(matches!(run(&paths, &["keys".into()], None), Err(PairError::Usage)));
    }
}
