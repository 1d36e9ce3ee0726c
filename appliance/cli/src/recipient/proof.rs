//! `strongroom recipient challenge` and `prove`: showing the appliance that a secret key is there, which stays where it is.

use super::{RecipientFailure, kit::grouped};
use crate::appliance::Connection;
use std::io::Read;
use strongroom_model::name::TargetName;
use zeroize::Zeroizing;

/// Longest answer that is read, in bytes.
const NONCE_MAX: u64 = 1024;

/// Prints a message that only the holder of the secret key can read.
pub async fn challenge(name: Option<&TargetName>) -> Result<(), RecipientFailure> {
    let name = name.map(TargetName::as_str).unwrap_or_default();
    let challenge = Connection::open().await?.challenge(name).await?;
    eprintln!(
        "This is for the recipient `{}`, {}.\nWhere its secret key is, `gpg --decrypt` turns it into a code; give that to `strongroom recipient prove CODE` here, within a week.",
        challenge.name,
        grouped(&challenge.fingerprint)
    );
    print!("{}", challenge.message);
    Ok(())
}

/// Gives the appliance what the message held; `-` reads it from standard input, as gpg prints it.
pub async fn prove(nonce: &str) -> Result<(), RecipientFailure> {
    let mut typed = Zeroizing::new(nonce.to_owned());
    if nonce == "-" {
        typed.clear();
        std::io::stdin()
            .lock()
            .take(NONCE_MAX)
            .read_to_string(&mut typed)
            .map_err(|error| RecipientFailure::Read("standard input".into(), error))?;
    }
    let name = Connection::open().await?.prove(typed.trim()).await?;
    println!("The secret key of the recipient `{name}` is there. You are asked again in a year.");
    Ok(())
}
