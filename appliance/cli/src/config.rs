//! `strongroom config`: checking a configuration anywhere, and handing one to the appliance that this runs on. The appliance
//! judges it as a whole and shows what it would change; nothing changes before the owner agrees.

use crate::confirm;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strongroom_model::config::{CONFIG_BYTES_MAX, Config, ConfigError, FileName};
use strongroom_model::offer::{ANSWER_MAX, Answer, Offer, SOCKET};

const CONFIG_NAME: &str = "strongroom.toml";
/// Largest file beside it, in bytes; the appliance takes no larger one.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Largest archive that is read from standard input, in bytes.
const INPUT_MAX: u64 = 16 << 20;
/// How long the appliance may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Verbs that look after the configuration.
#[derive(clap::Subcommand)]
pub enum ConfigVerb {
    /// Check a strongroom.toml without using it.
    Check {
        /// The file; `-`: standard input.
        file: PathBuf,
        /// What is wrong as JSON: line, message, remedy.
        #[arg(long)]
        json: bool,
    },
    /// Hand a strongroom.toml to this appliance. Shows what it changes, and asks first; it is taken over whole or not at all.
    Apply {
        /// The file, with the certificates and secrets that it names beside it, as on a USB stick. `-`: standard input, the
        /// file alone or a tar archive of the folder, as in `tar -C FOLDER -c . | ssh admin@… strongroom config apply - --yes`.
        file: PathBuf,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        /// What it changes, or what is wrong, as JSON. Without --yes nothing is changed, and nobody is asked.
        #[arg(long)]
        json: bool,
        /// Where the appliance listens.
        #[arg(long, hide = true, default_value = SOCKET)]
        socket: PathBuf,
    },
}

/// Why it could not be checked or handed over.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFailure {
    /// A file could not be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// Not what is expected.
    #[error("{0}: {1}")]
    Form(PathBuf, &'static str),
    /// It is wrong.
    #[error("{0}")]
    Wrong(#[from] ConfigError),
    /// The appliance can't be asked.
    #[error("the appliance can't be asked ({0}): {1}. Run this on the appliance, as `admin`")]
    Unreachable(PathBuf, io::Error),
    /// It speaks another language, or stopped.
    #[error("the appliance gave no answer that can be understood ({0}); `strongroom logs` may say why")]
    Answer(serde_json::Error),
    /// It was refused.
    #[error("{0}")]
    Refused(String),
    /// Nobody agreed.
    #[error("{0}")]
    NotConfirmed(String),
    /// Not of JSON's form.
    #[error(transparent)]
    Json(serde_json::Error),
}

/// Performs a verb.
pub fn run(verb: ConfigVerb) -> Result<(), ConfigFailure> {
    match verb {
        ConfigVerb::Check { file, json } => check(&file, json),
        ConfigVerb::Apply {
            file,
            yes,
            json,
            socket,
        } => apply(&file, yes, json, &socket),
    }
}

fn check(file: &Path, json: bool) -> Result<(), ConfigFailure> {
    let text = if file == Path::new("-") {
        text(read(io::stdin().lock(), CONFIG_BYTES_MAX as u64, file)?, file)?
    } else {
        std::fs::read_to_string(file).map_err(|error| ConfigFailure::File(file.into(), error))?
    };
    let config = match Config::parse(&text) {
        Ok(config) => config,
        Err(error) if json => {
            let told = serde_json::json!({"good": false, "line": error.line, "message": error.message, "remedy": error.remedy});
            println!("{told}");
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let (clients, targets) = (config.client.len(), config.offsite.target.len());
    if json {
        println!(
            "{}",
            serde_json::json!({"good": true, "clients": clients, "targets": targets})
        );
    } else {
        println!("{}: good ({clients} clients, {targets} targets)", file.display());
    }
    Ok(())
}

fn apply(file: &Path, yes: bool, json: bool, socket: &Path) -> Result<(), ConfigFailure> {
    let from_input = file == Path::new("-");
    let mut offer = if from_input {
        of_input(read(io::stdin().lock(), INPUT_MAX, file)?)?
    } else {
        of_file(file)?
    };
    let mut answer = ask(socket, &offer)?;
    if let Answer::Would { changes, consent } = &answer {
        if !json {
            println!("It is good. It changes:");
            changes.iter().for_each(|change| println!("- {change}"));
        }
        if !yes && json {
            println!("{}", serde_json::to_string(&answer).map_err(ConfigFailure::Json)?);
            return Ok(());
        }
        if !yes {
            let given = if from_input {
                "-".into()
            } else {
                file.display().to_string()
            };
            agreed(from_input, &given).map_err(ConfigFailure::NotConfirmed)?;
        }
        offer.consent = Some(consent.clone());
        answer = ask(socket, &offer)?;
    }
    if json {
        println!("{}", serde_json::to_string(&answer).map_err(ConfigFailure::Json)?);
    }
    match answer {
        Answer::Refused { why } => Err(ConfigFailure::Refused(why)),
        _ if json => Ok(()),
        Answer::InForce | Answer::Would { .. } => {
            println!("It is in force already; nothing was changed.");
            Ok(())
        }
        Answer::Taken { later, .. } => {
            println!("It is in force.");
            for step in later {
                println!("This comes into force at the next start: {step}");
            }
            Ok(())
        }
    }
}

/// Whether the owner agrees.
fn agreed(from_input: bool, file: &str) -> Result<(), String> {
    if from_input || !io::stdin().is_terminal() {
        return Err(format!(
            "nothing was changed: nobody is here to confirm. If you have read the above and mean it: `strongroom config apply {file} --yes`"
        ));
    }
    confirm::named("the word", "apply", None, &format!("config apply {file}"))
}

/// A file, and of those beside it the ones that it names.
fn of_file(file: &Path) -> Result<Offer, ConfigFailure> {
    let opened = File::open(file).map_err(|error| ConfigFailure::File(file.into(), error))?;
    let text = text(read(opened, CONFIG_BYTES_MAX as u64, file)?, file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut files = BTreeMap::new();
    for name in names(&Config::parse(&text)?) {
        let path = folder.join(name);
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let opened = File::options().read(true).custom_flags(NONBLOCK).open(&path);
        let Ok(opened) = opened else { continue };
        if opened.metadata().is_ok_and(|found| found.is_file()) {
            files.insert(name.into(), read(opened, FILE_BYTES_MAX, &path)?);
        }
    }
    Ok(Offer {
        text,
        files,
        consent: None,
    })
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// What came by standard input: a file, or an archive of a folder.
fn of_input(bytes: Vec<u8>) -> Result<Offer, ConfigFailure> {
    let place = Path::new("standard input");
    // POSIX.1-2024, pax: `magic` of a header, at 257.
    if bytes.get(257..262) != Some(b"ustar") {
        let text = text(bytes, place)?;
        return Ok(Offer {
            text,
            ..Offer::default()
        });
    }
    let failed = |error| ConfigFailure::File(place.into(), error);
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| entry.header().entry_type().is_file()) {
            let most = if name == CONFIG_NAME {
                CONFIG_BYTES_MAX as u64
            } else {
                FILE_BYTES_MAX
            };
            // What is larger is none of it; the appliance says so if it is named.
            if entry.size() <= most {
                files.insert(name.to_string(), read(entry, most, &path)?);
            }
        }
    }
    let Some(bytes) = files.remove(CONFIG_NAME) else {
        return Err(ConfigFailure::Form(
            place.into(),
            "there is no strongroom.toml in the archive",
        ));
    };
    let text = text(bytes, place)?;
    let config = Config::parse(&text)?;
    files.retain(|name, _| names(&config).any(|named| named == name));
    Ok(Offer {
        text,
        files,
        consent: None,
    })
}

/// Names of the files beside it that go along.
fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.files().map(FileName::as_str).filter(|name| *name != CONFIG_NAME)
}

fn read(from: impl Read, most: u64, path: &Path) -> Result<Vec<u8>, ConfigFailure> {
    let mut bytes = Vec::new();
    let read = from.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| ConfigFailure::File(path.into(), error))?;
    if bytes.len() as u64 > most {
        return Err(ConfigFailure::Form(
            path.into(),
            "it is larger than anything of its kind",
        ));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, ConfigFailure> {
    String::from_utf8(bytes).map_err(|_| ConfigFailure::Form(path.into(), "it is not UTF-8 text"))
}

fn ask(socket: &Path, offer: &Offer) -> Result<Answer, ConfigFailure> {
    let asked = || -> io::Result<Vec<u8>> {
        let mut connection = UnixStream::connect(socket)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(&serde_json::to_vec(offer)?)?;
        connection.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        connection.take(ANSWER_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().map_err(|error| ConfigFailure::Unreachable(socket.into(), error))?;
    serde_json::from_slice(&answer).map_err(ConfigFailure::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[mqtt]\nhost = \"broker\"\npassword = \"word\"\n";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG_NAME), TEXT).unwrap();
        for name in ["owner.asc", "word", "other"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    fn named(offer: &Offer) -> Vec<&str> {
        assert_eq!(offer.text, TEXT);
        assert!(offer.files.iter().all(|(name, bytes)| name.as_bytes() == bytes));
        offer.files.keys().map(String::as_str).collect()
    }

    #[test]
    fn what_the_file_names_goes_along_and_nothing_else() {
        let folder = folder();
        let offer = of_file(&folder.path().join(CONFIG_NAME)).unwrap();
        assert_eq!(named(&offer), ["owner.asc", "word"]);
        std::fs::remove_file(folder.path().join("word")).unwrap();
        let offer = of_file(&folder.path().join(CONFIG_NAME)).unwrap();
        assert_eq!(named(&offer), ["owner.asc"], "it may be known from before");
        std::fs::write(folder.path().join("owner.asc"), vec![b'x'; 65 << 10]).unwrap();
        assert!(of_file(&folder.path().join(CONFIG_NAME)).is_err());
    }

    #[test]
    fn an_archive_of_the_folder_is_the_same() {
        let folder = folder();
        let made = std::process::Command::new("tar")
            .arg("-C")
            .arg(folder.path())
            .args(["-c", "."])
            .output();
        let archive = made.unwrap().stdout;
        assert_eq!(named(&of_input(archive).unwrap()), ["owner.asc", "word"]);
        assert_eq!(of_input(TEXT.into()).unwrap().text, TEXT);
        let nothing = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("tar")
            .arg("-C")
            .arg(nothing.path())
            .args(["-c", "."])
            .output();
        let told = of_input(made.unwrap().stdout).unwrap_err().to_string();
        assert!(told.contains("no strongroom.toml"), "{told}");
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        for name in ["owner.asc", "secret-1"] {
            assert!(FileName::new(name).is_some());
        }
        for other in ["", ".ssh", "../x", "a/b", "a b"] {
            assert!(FileName::new(other).is_none(), "{other}");
        }
        let itself = TEXT.replace("owner.asc", CONFIG_NAME);
        assert_eq!(names(&Config::parse(&itself).unwrap()).collect::<Vec<_>>(), ["word"]);
    }
}
