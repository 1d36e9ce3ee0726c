//! Which bucket it is, and with which credentials, or which directory: named by the appliance's configuration, or given.

use super::RestoreFailure;
use crate::configured::{self, BadTrust};
use clap::Args;
use std::path::{Path, PathBuf};
use strongroom_model::config::{self, CLIENT_PLACEHOLDER, Config, Multipart, Place};
use strongroom_model::name::ClientName;
use strongroom_model::recipient::is_fingerprint;
use strongroom_offsite::{AtService, Credentials, Target};
use zeroize::Zeroizing;

/// Where from.
#[derive(Args)]
pub struct SourceArguments {
    /// The appliance's strongroom.toml, which names the target; its secret file is looked for beside it.
    #[arg(long, required_unless_present_any = ["endpoint", "directory"])]
    config: Option<PathBuf>,
    /// Which target of the configuration; needed when there are several.
    #[arg(long, requires = "config")]
    target: Option<String>,
    /// A folder with copies, such as that of a target on a USB disk, mounted here: what holds a folder for each client. Needs
    /// no credentials. With a configuration, the target on a disk that it is of.
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with_all = ["endpoint", "region", "bucket", "manifest_bucket", "access_key_id", "secret_key_file"]
    )]
    directory: Option<PathBuf>,
    /// Without a configuration: address of the S3 service.
    #[arg(long, conflicts_with = "config", requires_all = ["region", "bucket", "access_key_id"])]
    endpoint: Option<String>,
    /// Without a configuration: its region.
    #[arg(long)]
    region: Option<String>,
    /// Without a configuration: the bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// Without a configuration: the bucket for manifests, if it is another.
    #[arg(long, requires = "bucket")]
    manifest_bucket: Option<String>,
    /// Without a configuration: what the names of the objects begin with; the client's name by default.
    #[arg(long)]
    prefix: Option<String>,
    /// Without a configuration: id of the access key.
    #[arg(long)]
    access_key_id: Option<String>,
    /// A file with the secret access key; STRONGROOM_SECRET_KEY in the environment otherwise.
    #[arg(long)]
    secret_key_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities that may vouch for the S3 service, beside the public ones and those that the
    /// configuration names.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Fingerprint of the appliance's signing key (`strongroom recipient show` there, or the recovery kit): what another
    /// signed, or nobody, is refused. That of `[offsite] signer` in the configuration when absent.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    signer: Option<String>,
}

fn fingerprint(text: &str) -> Result<String, String> {
    let text: String = text.split_whitespace().collect::<String>().to_ascii_uppercase();
    if is_fingerprint(&text) {
        Ok(text)
    } else {
        Err("a fingerprint has 40 hexadecimal digits".into())
    }
}

/// A bucket or a directory, or the part of it that one client has.
pub struct Source {
    /// With the client's prefix; without a client, with what the prefixes of all have in common.
    pub target: Target,
    pub credentials: Credentials,
    /// Fingerprint of the key that must have signed what is restored; any or none when `None`.
    pub signer: Option<String>,
    /// What the prefixes look like.
    pattern: Option<String>,
}

impl Source {
    /// The client whose copy has this prefix; `None` for something that isn't a copy of this target.
    pub fn client_of(&self, prefix: &str) -> Option<String> {
        match &self.pattern {
            Some(pattern) => client_of(pattern, prefix),
            None => Some(prefix.rsplit('/').next().unwrap_or(prefix).into()),
        }
    }
}

fn client_of(pattern: &str, prefix: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once(CLIENT_PLACEHOLDER) else {
        return (prefix == pattern).then(|| prefix.into());
    };
    let name = prefix.strip_prefix(before)?.strip_suffix(after)?;
    ClientName::new(name).is_ok().then(|| name.into())
}

/// The folders that the prefixes of all clients have in common.
fn common(pattern: &str) -> &str {
    let before = pattern.split(CLIENT_PLACEHOLDER).next().unwrap_or_default();
    if before.len() == pattern.len() {
        return pattern;
    }
    before.rsplit_once('/').map_or("", |(folders, _)| folders)
}

impl SourceArguments {
    /// Finds the target, of one client or of all.
    pub fn source(&self, client: Option<&ClientName>) -> Result<Source, RestoreFailure> {
        match (&self.config, &self.directory) {
            (Some(path), _) => self.configured(path, client),
            (None, Some(directory)) => Ok(self.in_directory("the given folder".into(), directory, client)),
            (None, None) => self.given(client),
        }
    }

    fn in_directory(&self, name: String, directory: &Path, client: Option<&ClientName>) -> Source {
        let prefix = self.prefix.clone().or(client.map(ToString::to_string));
        Source {
            target: Target::in_directory(name, directory.into(), prefix.unwrap_or_default()),
            credentials: Credentials::none(),
            signer: self.signer.clone(),
            pattern: None,
        }
    }

    /// Whether a target of the configuration may be meant: of disks, those alone whose folder is given.
    fn may_be(&self, target: &config::Target) -> bool {
        match &self.target {
            Some(name) => target.name.get_ref().as_str() == name,
            None => target.disk().is_some() == self.directory.is_some(),
        }
    }

    fn configured(&self, path: &Path, client: Option<&ClientName>) -> Result<Source, RestoreFailure> {
        let text = String::from_utf8_lossy(&super::read(path)?).into_owned();
        let config = Config::parse(&text)?;
        // One that was enrolled by command is copied to every target; so may one have been that is no more.
        let targets: Vec<_> = match client.and_then(|client| config.client(client.as_str())) {
            Some(declared) => config.targets_of(declared).collect(),
            None => config.offsite.target.iter().collect(),
        };
        let wanted: Vec<_> = targets.iter().filter(|target| self.may_be(target)).collect();
        let [target] = wanted.as_slice() else {
            let names: Vec<String> = targets.iter().map(|target| target.name.get_ref().to_string()).collect();
            return Err(RestoreFailure::WhichTarget(names.join(", ")));
        };
        let signer = self.signer.clone();
        let signer = signer.or_else(|| config.offsite.signer.as_ref().map(|signer| signer.as_str().to_owned()));
        let pattern = target.prefix.get_ref();
        let prefix = match client {
            Some(client) => pattern.for_client(client),
            None => common(pattern.as_str()).into(),
        };
        let name = target.name.get_ref();
        let bucket = match (&target.place, &self.directory) {
            (Place::Bucket(bucket), None) => bucket,
            (Place::Disk(_), Some(directory)) => {
                return Ok(Source {
                    target: Target::in_directory(name.to_string(), directory.clone(), prefix),
                    credentials: Credentials::none(),
                    signer,
                    pattern: Some(pattern.as_str().into()),
                });
            }
            (Place::Disk(disk), None) => {
                return Err(RestoreFailure::WhereIsDisk(name.clone(), disk.folder.to_string()));
            }
            (Place::Bucket(_), Some(_)) => return Err(RestoreFailure::NoDisk(name.clone())),
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let named = config
            .trust
            .certificates
            .iter()
            .map(|name| folder.join(name.get_ref().as_str()));
        let trust = configured::trust(named.chain(self.trust.iter().cloned()))?;
        Ok(Source {
            target: Target::configured(name, bucket, prefix, trust),
            credentials: Credentials::new(
                bucket.access_key_id.as_str(),
                self.secret(Some(folder.join(bucket.secret_key.as_str())))?,
            ),
            signer,
            pattern: Some(pattern.as_str().into()),
        })
    }

    fn given(&self, client: Option<&ClientName>) -> Result<Source, RestoreFailure> {
        // clap has seen to it that these are there.
        let given = |value: &Option<String>| value.clone().unwrap_or_default();
        let prefix = self.prefix.clone().or(client.map(ToString::to_string));
        let at = AtService {
            endpoint: given(&self.endpoint),
            region: given(&self.region),
            bucket: given(&self.bucket),
            manifest_bucket: self.manifest_bucket.clone(),
            multipart: Multipart::default(),
            trust: configured::trust(self.trust.iter().cloned())?,
        };
        Ok(Source {
            target: Target {
                name: "the given bucket".into(),
                place: strongroom_offsite::Place::Bucket(at),
                prefix: prefix.unwrap_or_default(),
            },
            credentials: Credentials::new(given(&self.access_key_id), self.secret(None)?),
            signer: self.signer.clone(),
            pattern: None,
        })
    }

    fn secret(&self, beside: Option<PathBuf>) -> Result<Zeroizing<String>, RestoreFailure> {
        match (&self.secret_key_file, std::env::var("STRONGROOM_SECRET_KEY"), beside) {
            (Some(path), _, _) => super::read_line(path),
            (None, Ok(secret), _) => Ok(Zeroizing::new(secret)),
            (None, Err(_), Some(path)) if path.exists() => super::read_line(&path),
            _ => Err(RestoreFailure::NoSecret),
        }
    }
}

impl From<BadTrust> for RestoreFailure {
    fn from(bad: BadTrust) -> Self {
        match bad {
            BadTrust::Read(file, error) => Self::Read(file, error),
            BadTrust::Form(file, error) => Self::Trust(file, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_their_prefixes() {
        for (pattern, prefix, client, below) in [
            ("{client}", "asus", Some("asus"), ""),
            ("{client}", "homes/asus", None, ""),
            ("homes/{client}", "homes/asus", Some("asus"), "homes"),
            ("homes/of-{client}/1", "homes/of-asus/1", Some("asus"), "homes"),
            ("homes/of-{client}/1", "homes/asus/1", None, "homes"),
            ("asus", "asus", Some("asus"), "asus"),
            ("asus", "laptop", None, "asus"),
        ] {
            assert_eq!(client_of(pattern, prefix).as_deref(), client, "{pattern} {prefix}");
            assert_eq!(common(pattern), below);
        }
    }
}
