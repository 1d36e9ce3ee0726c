//! Where a target is and its credentials, for the roles that speak to it. Reads the configuration in force, the owner's
//! authorities and the secrets that systemd gave to the role.

use crate::configuration::seal;
use crate::paths::Paths;
use std::fs;
use std::path::Path;
use strongroom_model::config::{self, Place};
use strongroom_model::name::ClientName;
use strongroom_offsite::{Credentials, Target, Trust, trust};

/// The target, below the prefix of one client: a bucket, or a folder of the disk, which is mounted. Errors are in words.
pub fn target(paths: &Paths, target: &config::Target, client: &ClientName) -> Result<Target, String> {
    let prefix = target.prefix.get_ref().for_client(client);
    let name = target.name.get_ref();
    Ok(match &target.place {
        Place::Bucket(bucket) => Target::configured(name, bucket, prefix, trust(paths)?),
        Place::Disk(disk) => {
            let folder = paths.disk_place(name).join(disk.folder.as_str());
            Target::in_directory(name.to_string(), folder, prefix)
        }
    })
}

/// Its credentials; a disk needs none. Errors are in words.
pub fn credentials(target: &config::Target) -> Result<Credentials, String> {
    let Some(bucket) = target.bucket() else {
        return Ok(Credentials::none());
    };
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or("no secrets were given to the job; start it by the command `strongroom`")?;
    let name = &bucket.secret_key;
    let secret = seal::given(Path::new(&folder), seal::OFFSITE, name)
        .map_err(|error| format!("the secret `{name}` could not be read: {error}"))?;
    Ok(Credentials::new(bucket.access_key_id.as_str(), secret))
}

/// The owner's own authorities, if there are any. Errors are in words.
pub(crate) fn trust(paths: &Paths) -> Result<Trust, String> {
    match fs::read(paths.trust()) {
        Ok(pem) => trust::parse(&pem).map_err(|error| format!("{}: {error}", paths.trust().display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Trust::default()),
        Err(error) => Err(format!("{}: {error}", paths.trust().display())),
    }
}
