//! What opens the broker's door: the password and the certificates that `[mqtt]` names. Reads the public files beside the
//! configuration and the secrets that systemd gave to the supervisor; they are read once, at its start.

use super::fault::Fault;
use super::tls::{Authorities, Tls};
use crate::configuration::seal;
use crate::offsite::bucket;
use crate::paths::Paths;
use std::fs;
use std::path::Path;
use strongroom_model::config::{FileName, Mqtt};
use strongroom_offsite::trust;
use zeroize::Zeroizing;

/// What opens the broker's door.
#[derive(Clone, Default)]
pub struct Access {
    /// The password that goes with the user name.
    pub password: Option<Zeroizing<String>>,
    /// How TLS is spoken, if it is.
    pub tls: Option<Tls>,
}

/// Reads it. `credentials` is the folder of the secrets (systemd.exec(5), CREDENTIALS_DIRECTORY).
pub fn read(paths: &Paths, credentials: Option<&Path>, config: &Mqtt) -> Result<Access, Fault> {
    let secret = |name: &FileName| {
        let folder = credentials.ok_or_else(|| unusable(name, "systemd gave no secrets to the supervisor"))?;
        seal::given(folder, seal::MQTT, name).map_err(|error| unusable(name, &error.to_string()))
    };
    let public = |name: &FileName| {
        fs::read(paths.config_files().join(name.as_str())).map_err(|error| unusable(name, &error.to_string()))
    };
    let password = config.password.as_ref().map(secret).transpose()?;
    if !config.tls {
        return Ok(Access { password, tls: None });
    }
    let authorities = match &config.ca {
        Some(name) => {
            let name = name.get_ref();
            let parsed = trust::parse(&public(name)?);
            Authorities::Only(parsed.map_err(|error| unusable(name, &error.to_string()))?)
        }
        None => Authorities::PublicAnd(bucket::trust(paths).map_err(Fault::Files)?),
    };
    let own = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => Some((public(certificate.get_ref())?, secret(key.get_ref())?)),
        _ => None,
    };
    let own = own
        .as_ref()
        .map(|(certificate, key)| (certificate.as_slice(), key.as_bytes()));
    let tls = Tls::new(&authorities, own).map_err(Fault::Files)?;
    Ok(Access {
        password,
        tls: Some(tls),
    })
}

fn unusable(name: &FileName, why: &str) -> Fault {
    Fault::Files(format!("the file `{name}`: {why}"))
}
