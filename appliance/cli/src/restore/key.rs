//! What decrypts: a file with the secret key, or the owner's gpg, with its agent and smart cards.

use super::RestoreFailure;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use strongroom_offsite::{Gpg, Keyring, Opener};
use zeroize::Zeroizing;

/// With which key.
#[derive(Args)]
pub struct KeyArguments {
    /// A file with the OpenPGP secret key of a recipient, armoured or binary. Without it, gpg decrypts, with its own
    /// keyring, its agent, or a smart card.
    #[arg(long)]
    key: Option<PathBuf>,
    /// A file with the key's passphrase. Asked for when absent and needed.
    #[arg(long, requires = "key")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArguments {
    /// Reads the key, and asks for its passphrase.
    pub fn opener(&self) -> Result<Opener, RestoreFailure> {
        let Some(file) = &self.key else {
            return Ok(Opener::Gpg(Gpg::default()));
        };
        let key = super::read(file)?;
        let passphrase = match &self.passphrase_file {
            Some(path) => super::read_line(path)?,
            None if std::io::stdin().is_terminal() => {
                let prompt = format!("Passphrase of {} (empty if it has none): ", file.display());
                Zeroizing::new(rpassword::prompt_password(prompt).map_err(RestoreFailure::Passphrase)?)
            }
            None => Zeroizing::default(),
        };
        let keyring = Keyring::parse(&[key], &passphrase).map_err(RestoreFailure::Key)?;
        Ok(Opener::Keys(keyring.into()))
    }
}
