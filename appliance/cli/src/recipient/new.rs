//! `strongroom recipient new`: a key pair, made in memory. Only the certificate and the recovery kit are written; the
//! passphrase goes to the terminal alone, once.

use super::files::claim;
use super::{Ocb, RecipientFailure, kit, show};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use strongroom_model::name::TargetName;
use strongroom_offsite::openpgp::{certificate, generate, passphrase};
use zeroize::Zeroizing;

/// Fewest characters of a passphrase that the owner brings along.
const PASSPHRASE_MIN: usize = 12;
/// The gpg from which on OCB is read (GnuPG's NEWS of 2.2.21).
const READS_OCB: [u32; 3] = [2, 2, 21];

/// Makes the key pair and its files.
pub fn run(
    name: &TargetName,
    user_id: Option<String>,
    directory: &Path,
    passphrase_file: Option<&Path>,
    ocb: Ocb,
) -> Result<(), RecipientFailure> {
    // Before the names are taken and a key is made, so that a failure leaves nothing.
    let (secret, mut terminal) = match passphrase_file {
        Some(path) => (given(path)?, None),
        None => (passphrase(), Some(terminal().map_err(RecipientFailure::NoTerminal)?)),
    };
    let kit_file = claim(directory, &format!("{name}-recovery.html"), 0o600)?;
    let certificate_file = claim(directory, &format!("{name}.asc"), 0o644)?;
    let reads_ocb = match ocb {
        Ocb::Yes => true,
        Ocb::No => false,
        Ocb::Auto => gpg_reads_ocb(),
    };
    let user_id = user_id.unwrap_or_else(|| format!("Strongroom backups ({name})"));
    let key = generate::recipient(&user_id, &secret, reads_ocb)?;
    let description = certificate::describe(key.certificate.as_bytes(), None)
        .map_err(|error| RecipientFailure::Certificate(certificate_file.path().into(), error))?;
    let page = kit::page(&kit::Facts {
        name: name.as_str(),
        user_id: &user_id,
        fingerprint: &key.fingerprint,
        made: crate::now(),
        secret: &key.secret,
        own_passphrase: passphrase_file.is_some(),
    })?;
    let kit_path = kit_file.fill(page.as_bytes())?;
    let certificate_path = certificate_file.fill(key.certificate.as_bytes())?;

    print!("{}", show::described(name.as_str(), &description));
    println!(
        "\n{} is public. Put it beside strongroom.toml, where it is named:\n\n{}",
        certificate_path.display(),
        lines_for_config(name)
    );
    println!(
        "{} is the recovery kit: open it in a browser, print it twice, and delete it; keep the two apart,\nand one of them not at home. It holds the secret key.",
        kit_path.display()
    );
    if let Some(terminal) = &mut terminal {
        confirm(terminal, &secret)
            .map_err(|error| RecipientFailure::NotConfirmed(error, kit_path, certificate_path))?;
    }
    println!(
        "\nWhen the appliance has the configuration, show it that the key works: `strongroom recipient challenge` there."
    );
    Ok(())
}

/// What strongroom.toml is to say.
pub fn lines_for_config(name: &TargetName) -> String {
    format!(
        "    [[offsite.recipient]]\n    name = \"{name}\"\n    certificate = \"{name}.asc\"\n\n    # and in each [[offsite.target]]\n    recipients = [\"{name}\"]\n"
    )
}

fn given(path: &Path) -> Result<Zeroizing<String>, RecipientFailure> {
    let read = fs::read_to_string(path).map(Zeroizing::new);
    let text = read.map_err(|error| RecipientFailure::Read(path.into(), error))?;
    let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if line.chars().count() < PASSPHRASE_MIN {
        return Err(RecipientFailure::WeakPassphrase(path.into(), PASSPHRASE_MIN));
    }
    Ok(line)
}

/// The terminal itself, wherever the output goes: what is shown there is in no log.
fn terminal() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// Shows the passphrase and has it typed, so that it is known to have been written down. What was shown is wiped then.
fn confirm(terminal: &mut File, secret: &str) -> io::Result<()> {
    const PROMPT: &str = "Type it from the paper (nothing is shown; empty shows it again): ";
    loop {
        let told = format!(
            "\nThe passphrase. It is shown now and never again. Write it on the printed kit, hyphens included:\n\n    {secret}\n\n"
        );
        terminal.write_all(told.as_bytes())?;
        let mut lines = told.matches('\n').count();
        loop {
            let typed = Zeroizing::new(rpassword::prompt_password(PROMPT)?);
            lines += 1;
            if typed.trim() == secret {
                // Up to where it began, and away with what follows.
                return terminal.write_all(format!("\x1b[{lines}A\x1b[JThe passphrase is right.\n").as_bytes());
            }
            if typed.trim().is_empty() {
                terminal.write_all(format!("\x1b[{lines}A\x1b[J").as_bytes())?;
                break;
            }
            terminal.write_all(b"That is not it. Look at what you wrote.\n")?;
            lines += 1;
        }
    }
}

/// Whether the gpg that is installed here reads OCB; without one, nothing is promised.
fn gpg_reads_ocb() -> bool {
    let output = Command::new("gpg")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| reads_ocb(&String::from_utf8_lossy(&output.stdout)))
}

/// By the first line of `gpg --version`.
fn reads_ocb(text: &str) -> bool {
    let version = text.lines().next().and_then(|line| line.strip_prefix("gpg (GnuPG"));
    let version = version
        .and_then(|rest| rest.split_once(')'))
        .map(|(_, version)| version.trim());
    let numbers: Option<Vec<u32>> = version.map(|version| {
        let parts = version.split(['.', '-']).map_while(|part| part.parse().ok());
        parts.take(3).collect()
    });
    numbers.is_some_and(|numbers| numbers.len() >= 2 && numbers.as_slice() >= READS_OCB.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpg_says_what_it_reads() {
        for (text, reads) in [
            ("gpg (GnuPG) 2.2.40\nlibgcrypt 1.10.1\n", true),
            ("gpg (GnuPG) 2.2.21", true),
            ("gpg (GnuPG) 2.2.20", false),
            ("gpg (GnuPG) 2.4.7-unknown", true),
            ("gpg (GnuPG/MacGPG2) 2.2.41", true),
            ("gpg (GnuPG) 2.1.18", false),
            ("gpg (GnuPG) 1.4.23", false),
            ("gpg (GnuPG) 10.0", true),
            ("sq 1.3.0", false),
            ("", false),
        ] {
            assert_eq!(reads_ocb(text), reads, "{text}");
        }
    }

    #[test]
    fn what_strongroom_toml_is_told_is_what_it_takes() {
        let lines = lines_for_config(&TargetName::new("owner").unwrap());
        let text: String = lines
            .lines()
            .filter(|line| !line.contains("recipients"))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = strongroom_model::config::Config::parse(&text).unwrap();
        assert_eq!(config.offsite.recipient[0].certificate.as_str(), "owner.asc");
    }
}
