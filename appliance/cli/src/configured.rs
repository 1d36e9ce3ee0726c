//! The authorities that a strongroom.toml and the files beside it name, for verbs that speak to a bucket from here.

use std::path::PathBuf;
use strongroom_offsite::{Trust, TrustError, trust};

/// Why certificates of authorities can't be used.
#[derive(Debug)]
pub enum BadTrust {
    /// The file can't be read.
    Read(PathBuf, std::io::Error),
    /// It is wrong.
    Form(PathBuf, TrustError),
}

/// The authorities in these files, beside the public ones.
pub fn trust(files: impl IntoIterator<Item = PathBuf>) -> Result<Trust, BadTrust> {
    let mut all = Trust::default();
    for file in files {
        let pem = std::fs::read(&file).map_err(|error| BadTrust::Read(file.clone(), error))?;
        all.extend(trust::parse(&pem).map_err(|error| BadTrust::Form(file, error))?);
    }
    Ok(all)
}
