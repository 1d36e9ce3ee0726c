//! `strongroom recipient list` and `show`.

use super::RecipientFailure;
use super::kit::grouped;
use crate::{appliance, now, words};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::SystemTime;
use strongroom_model::config::Config;
use strongroom_model::recipient::{Listing, Recipient};
use strongroom_offsite::openpgp::certificate::{Description, describe};

/// What a certificate says, in words.
pub fn described(name: &str, description: &Description) -> String {
    let expires = match description.expires {
        None => "never expires".to_owned(),
        Some(end) => format!("until {}", words::day(end)),
    };
    let ocb = if description.reads_ocb {
        "reads OCB"
    } else {
        "reads CFB alone"
    };
    format!(
        "{name}: {}\n  {}\n  {}, {expires}, {ocb}\n",
        description.user_id,
        grouped(&description.fingerprint),
        description.algorithm
    )
}

fn words_of(recipient: &Recipient, now: u64) -> String {
    if !recipient.fault.is_empty() {
        return format!("{}: can't be used: {}\n", recipient.name, recipient.fault);
    }
    let mut text = described(
        recipient.name.as_str(),
        &Description {
            fingerprint: recipient.fingerprint.clone(),
            user_id: recipient.user_id.clone(),
            algorithm: recipient.algorithm.clone(),
            expires: recipient.expires,
            reads_ocb: recipient.reads_ocb,
        },
    );
    if !recipient.used {
        text.push_str("  nothing is encrypted to it\n");
    }
    // The time of a proof is the appliance's to know.
    if recipient.since.is_some() {
        let _ = match recipient.proven {
            Some(proven) => writeln!(
                text,
                "  the secret key was shown to be there {}",
                words::age(Some(proven), now)
            ),
            None => writeln!(
                text,
                "  nobody has shown yet that the secret key is there: `strongroom recipient challenge {}`",
                recipient.name
            ),
        };
    }
    text
}

/// The recipients that a strongroom.toml names.
fn of_config(path: &Path) -> Result<Listing, RecipientFailure> {
    let text = fs::read_to_string(path).map_err(|error| RecipientFailure::Read(path.into(), error))?;
    let config = Config::parse(&text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let recipients = config.offsite.recipient.iter().map(|declared| {
        let name = declared.name.get_ref();
        let mut recipient = Recipient {
            name: name.clone(),
            used: config.offsite.target.iter().any(|target| target.encrypts_to(name)),
            ..Recipient::default()
        };
        let read = fs::read(folder.join(declared.certificate.as_str())).map_err(|error| error.to_string());
        let described =
            read.and_then(|bytes| describe(&bytes, Some(SystemTime::now())).map_err(|error| error.to_string()));
        match described {
            Err(why) => recipient.fault = format!("{}: {why}", declared.certificate),
            Ok(found) => {
                recipient.fingerprint = found.fingerprint;
                recipient.user_id = found.user_id;
                recipient.algorithm = found.algorithm;
                recipient.expires = found.expires;
                recipient.reads_ocb = found.reads_ocb;
            }
        }
        recipient
    });
    Ok(Listing {
        recipients: recipients.collect(),
        signer: None,
    })
}

/// Lists all recipients.
pub async fn list(config: Option<&Path>, json: bool) -> Result<(), RecipientFailure> {
    let listing = match config {
        Some(path) => of_config(path)?,
        None => appliance::Connection::open().await?.recipients().await?,
    };
    if json {
        let text = serde_json::to_string_pretty(&listing).map_err(appliance::ApplianceError::from)?;
        println!("{text}");
        return Ok(());
    }
    if listing.recipients.is_empty() {
        println!("There are no recipients; `strongroom recipient new` makes one.");
    }
    for recipient in &listing.recipients {
        print!("{}", words_of(recipient, now()));
    }
    Ok(())
}

/// Shows one recipient, the certificate in a file, or all and who signs.
pub async fn show(which: Option<&str>) -> Result<(), RecipientFailure> {
    if let Some(path) = which.map(Path::new).filter(|path| path.is_file()) {
        let bytes = fs::read(path).map_err(|error| RecipientFailure::Read(path.into(), error))?;
        let found = describe(&bytes, Some(SystemTime::now()))
            .map_err(|error| RecipientFailure::Certificate(path.into(), error))?;
        print!("{}", described(&path.display().to_string(), &found));
        return Ok(());
    }
    let listing = appliance::Connection::open().await?.recipients().await?;
    let wanted = listing
        .recipients
        .iter()
        .filter(|recipient| which.is_none_or(|name| recipient.name.as_str() == name));
    let mut text = String::new();
    for recipient in wanted {
        text.push_str(&words_of(recipient, now()));
    }
    match which {
        Some(name) if text.is_empty() => return Err(RecipientFailure::Unknown(name.into())),
        Some(_) => {}
        None => match &listing.signer {
            None => text.push_str("The manifests are not signed: this appliance has no signing key yet.\n"),
            Some(signer) => {
                let _ = write!(
                    text,
                    "The manifests are signed by this appliance:\n  {}\n{}",
                    grouped(&signer.fingerprint),
                    signer.certificate
                );
            }
        },
    }
    print!("{text}");
    Ok(())
}
