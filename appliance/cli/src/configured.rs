//! What a strongroom.toml and the files beside it say of a bucket, for verbs that speak to it from here.

use std::path::PathBuf;
use strongroom_model::config;
use strongroom_offsite::{Multipart, Target, Trust, TrustError, trust};

/// Why certificates of authorities can't be used.
#[derive(Debug)]
pub enum BadTrust {
    /// The file can't be read.
    Read(PathBuf, std::io::Error),
    /// It is wrong.
    Form(PathBuf, TrustError),
}

/// The bucket, below this prefix.
pub fn target(target: &config::Target, prefix: String, trust: Trust) -> Target {
    Target {
        name: target.name.get_ref().to_string(),
        endpoint: target.endpoint.to_string(),
        region: target.region.to_string(),
        bucket: target.bucket.to_string(),
        manifest_bucket: target
            .manifest_bucket
            .as_ref()
            .map(|bucket| bucket.get_ref().to_string()),
        prefix,
        multipart: match target.multipart {
            config::Multipart::Auto => Multipart::Auto,
            config::Multipart::Never => Multipart::Never,
        },
        trust,
    }
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
