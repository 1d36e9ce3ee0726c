//! Reading the configuration, and writing it with its secret: whole or not at all, and nothing that was there is lost.

use super::TargetFailure;
use crate::durable::put;
use rustix::fs::RenameFlags;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The configuration's text.
pub fn read_text(path: &Path) -> Result<String, TargetFailure> {
    fs::read_to_string(path).map_err(|error| TargetFailure::Read(path.into(), error))
}

/// Writes the secret into its new file, and then `new` in place of `old` as the configuration.
pub fn add(
    config: &Path,
    old: &str,
    new: &str,
    secret_file: &Path,
    secret: &Zeroizing<String>,
) -> Result<(), TargetFailure> {
    let line = Zeroizing::new(format!("{}\n", secret.as_str()));
    put(
        secret_file,
        line.as_bytes(),
        Permissions::from_mode(0o600),
        RenameFlags::NOREPLACE,
    )
    .map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            TargetFailure::SecretIsThere(secret_file.into())
        } else {
            TargetFailure::Write(secret_file.into(), error)
        }
    })?;
    let replaced = replace(config, old, new);
    if replaced.is_err() {
        // It is of no use, and would stand in the way.
        let _ = fs::remove_file(secret_file);
    }
    replaced
}

/// Writes `new` in place of `old` as the configuration. A link stays one.
pub fn replace(config: &Path, old: &str, new: &str) -> Result<(), TargetFailure> {
    let config = &config
        .canonicalize()
        .map_err(|error| TargetFailure::Read(config.into(), error))?;
    if read_text(config)? != old {
        return Err(TargetFailure::Changed(config.clone()));
    }
    let write = || {
        put(
            config,
            new.as_bytes(),
            fs::metadata(config)?.permissions(),
            RenameFlags::empty(),
        )
    };
    write().map_err(|error| TargetFailure::Write(config.clone(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn both_are_written_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("strongroom.toml");
        let secret_file = folder.path().join("oracle-secret");
        let secret = Zeroizing::new("hush".to_string());
        fs::write(&config, "old").unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
        add(&config, "old", "new", &secret_file, &secret).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "new");
        assert_eq!(fs::read_to_string(&secret_file).unwrap(), "hush\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&config), mode(&secret_file)), (0o640, 0o600));

        // A secret that is there stays, and so does the configuration.
        let other = Zeroizing::new("other".to_string());
        let refused = add(&config, "new", "newer", &secret_file, &other);
        assert!(matches!(refused, Err(TargetFailure::SecretIsThere(_))), "{refused:?}");
        assert_eq!(fs::read_to_string(&secret_file).unwrap(), "hush\n");
        // One that somebody else changed stays, and no secret is left.
        let refused = add(&config, "old", "newer", &folder.path().join("b-secret"), &other);
        assert!(matches!(refused, Err(TargetFailure::Changed(_))), "{refused:?}");
        assert_eq!(fs::read_to_string(&config).unwrap(), "new");
        assert_eq!(names(folder.path()), ["oracle-secret", "strongroom.toml"]);
    }

    #[test]
    fn a_link_to_the_configuration_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.toml"), folder.path().join("strongroom.toml"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let secret = Zeroizing::new("hush".to_string());
        add(&link, "old", "new", &folder.path().join("s"), &secret).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }
}
