//! `strongroom recipient import`: a certificate that was made elsewhere, checked, and without what is secret.

use super::files::claim;
use super::{RecipientFailure, new, show};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;
use strongroom_model::name::TargetName;
use strongroom_offsite::openpgp::certificate::import;
use zeroize::Zeroizing;

/// Largest certificate that is looked at, in bytes; the appliance takes no larger one.
const BYTES_MAX: u64 = 64 * 1024;

/// Checks a certificate and writes the public part.
pub fn run(file: &Path, name: Option<TargetName>, directory: &Path) -> Result<(), RecipientFailure> {
    let is_standard = file.as_os_str() == "-";
    let name = match name {
        Some(name) => name,
        None if is_standard => return Err(RecipientFailure::NoName),
        None => {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            TargetName::new(&stem).map_err(|_| RecipientFailure::BadName(stem.into_owned()))?
        }
    };
    // It may be a secret key.
    let bytes = Zeroizing::new(read(file, is_standard).map_err(|error| RecipientFailure::Read(file.into(), error))?);
    let imported = import(&bytes, SystemTime::now()).map_err(|error| RecipientFailure::Import(file.into(), error))?;
    print!("{}", show::described(name.as_str(), &imported.description));
    if imported.weak {
        println!("It will do, but is shorter than what is made today; rsa4096 and cv25519 are.");
    }
    if imported.was_secret {
        println!("This is a secret key. Only its public part is taken; the appliance must never have the rest.");
    }
    let target = directory.join(format!("{name}.asc"));
    if !imported.was_secret && std::fs::read(&target).is_ok_and(|there| there == *bytes) {
        println!("{} holds it already.", target.display());
    } else {
        let written = claim(directory, &format!("{name}.asc"), 0o644)?.fill(imported.certificate.as_bytes())?;
        println!("{} is the public part.", written.display());
    }
    println!(
        "Put it beside strongroom.toml, where it is named:\n\n{}",
        new::lines_for_config(&name)
    );
    Ok(())
}

fn read(file: &Path, is_standard: bool) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if is_standard {
        std::io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut bytes)?
    } else {
        std::fs::File::open(file)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?
    };
    if read as u64 > BYTES_MAX {
        return Err(std::io::Error::other(
            "it is larger than 64 KiB; export it without others' signatures: `gpg --export-options export-minimal`",
        ));
    }
    Ok(bytes)
}
