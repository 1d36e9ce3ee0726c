//! `strongroom client kit`: all that a client needs to back up here, as text to paste, as a folder, or as a .tar.

mod render;

use crate::{appliance, now};
use clap::Args;
use render::{Encryption, Facts, KitFile, SSH_PORT};
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use strongroom_model::config::Host;
use strongroom_model::name::ClientName;
use strongroom_model::ssh_key::SshPublicKey;
use strongroom_model::status::Status;
use strongroom_model::upkeep::policy::prune_every;

/// Of which client, and how it reaches the appliance.
#[derive(Args)]
pub struct KitArguments {
    /// The client's name.
    client: ClientName,
    /// Name or address by which the client reaches the appliance; its name on the network (`NAME.local`) when absent.
    #[arg(long, value_parser = host)]
    host: Option<Host>,
    /// The appliance's SSH port as the client sees it, as behind a router that forwards another one.
    #[arg(long, default_value_t = SSH_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How Borg is to encrypt on the client.
    #[arg(long, value_enum, default_value_t = Encryption::None)]
    encryption: Encryption,
    /// Let old archives go at most once in so many days; 0: after each backup. When absent, as the client's
    /// `compact_after_days` needs it.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=400))]
    prune_every: Option<u16>,
    /// Write the kit into this .tar; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "directory")]
    output: Option<PathBuf>,
    /// Write the kit's files into this folder.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The appliance's host key, one line (`ssh-keyscan -t ed25519 HOST`, compared with its console): makes the kit on
    /// any computer, without asking the appliance.
    #[arg(long, value_name = "LINE", requires = "host")]
    host_key: Option<String>,
}

/// Why there is no kit.
#[derive(Debug, thiserror::Error)]
pub enum KitFailure {
    /// The appliance could not be asked.
    #[error(transparent)]
    Appliance(#[from] appliance::ApplianceError),
    /// It has no host key, or one that can't be read.
    #[error("the host key can't be used: {0}")]
    HostKey(#[from] strongroom_model::ssh_key::SshKeyError),
    /// It has no name to be reached by.
    #[error("the appliance has no host name; say how the client reaches it with --host")]
    NoHost,
    /// The kit would have gone to the screen.
    #[error("the kit is an archive: send it to a file or to tar, as in `… --output - | tar x`")]
    Terminal,
    /// It could not be written.
    #[error("the kit could not be written to {0}: {1}")]
    Write(String, std::io::Error),
}

fn host(text: &str) -> Result<Host, String> {
    // A colon is only good in an address: a port stands elsewhere.
    Host::new(text)
        .filter(|_| !text.contains(':') || text.parse::<IpAddr>().is_ok())
        .ok_or_else(|| "a host name or an IP address is needed; a port is given with --port".into())
}

/// Makes a kit and writes or prints it.
pub async fn run(arguments: KitArguments) -> Result<(), KitFailure> {
    if arguments.output.as_deref() == Some(Path::new("-")) && std::io::stdout().is_terminal() {
        return Err(KitFailure::Terminal);
    }
    let facts = facts(&arguments).await?;
    if let Some(directory) = &arguments.directory {
        write_files(directory, &render::kit(&facts)).map_err(|error| failed(directory, error))?;
        eprintln!("The kit is in {}; its README.txt says what to do.", directory.display());
    } else if let Some(output) = &arguments.output {
        let archive = archive(&render::folder(&facts.client), &render::kit(&facts), now());
        archive
            .and_then(|bytes| {
                if output == Path::new("-") {
                    let mut out = std::io::stdout().lock();
                    return out.write_all(&bytes).and_then(|()| out.flush());
                }
                std::fs::write(output, bytes)
            })
            .map_err(|error| failed(output, error))?;
    } else {
        print!("{}", render::paste(&facts));
    }
    Ok(())
}

fn failed(place: &Path, error: std::io::Error) -> KitFailure {
    KitFailure::Write(place.display().to_string(), error)
}

async fn facts(arguments: &KitArguments) -> Result<Facts, KitFailure> {
    let (host, other_names, host_key, fingerprint, freed_after) = match (&arguments.host_key, &arguments.host) {
        (Some(line), Some(host)) => (host.clone(), Vec::new(), SshPublicKey::parse(line)?, None, None),
        _ => {
            let appliance = appliance::Connection::open().await?;
            let status = appliance.status().await?;
            let clients = appliance.clients().await?;
            let client = clients.iter().find(|client| client.name == arguments.client);
            if client.is_none() {
                eprintln!(
                    "strongroom: `{}` is not a client of this appliance yet; `strongroom client pair` enrols it, or see whether the name is spelt right.",
                    arguments.client
                );
            }
            let names = names(&status);
            let first = names.first().cloned();
            let host = arguments.host.clone().or(first).ok_or(KitFailure::NoHost)?;
            let key = SshPublicKey::parse(&appliance.host_key().await?)?;
            let fingerprint = Some(status.appliance.host_key.to_string()).filter(|text| !text.is_empty());
            (
                host,
                names,
                key,
                fingerprint,
                client.and_then(|client| client.compact_after_days),
            )
        }
    };
    Ok(Facts {
        client: arguments.client.clone(),
        host,
        port: arguments.port,
        other_names,
        host_key,
        fingerprint,
        encryption: arguments.encryption,
        prune_every: arguments
            .prune_every
            .or(freed_after.map(prune_every))
            .unwrap_or_default(),
    })
}

/// All names of the appliance, the best first.
fn names(status: &Status) -> Vec<Host> {
    let appliance = &status.appliance;
    let hostname = appliance.hostname.as_str();
    let named = (!hostname.is_empty())
        .then(|| [format!("{hostname}.local"), hostname.to_string()])
        .into_iter()
        .flatten();
    let addresses = appliance.addresses.iter().map(|address| address.as_str().to_string());
    named.chain(addresses).filter_map(|name| Host::new(&name)).collect()
}

fn write_files(directory: &Path, files: &[KitFile]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for file in files {
        let path = directory.join(file.name);
        std::fs::write(&path, &file.text)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode(file)))?;
    }
    Ok(())
}

/// The kit as .tar; `time` is Unix seconds.
fn archive(folder: &str, files: &[KitFile], time: u64) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(mode(file));
        header.set_mtime(time);
        archive.append_data(&mut header, format!("{folder}/{}", file.name), file.text.as_bytes())?;
    }
    archive.into_inner()
}

fn mode(file: &KitFile) -> u32 {
    if file.program { 0o755 } else { 0o644 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in ["strongroom.local", "192.168.1.10", "fd00::10"] {
            assert_eq!(host(good).unwrap().as_str(), good);
        }
        for bad in ["", "-oProxyCommand=x", "strongroom:22", "a b", "a'b", "$(id)", "a/b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_appliances_names_are_all_pinned() {
        let mut status = Status::default();
        assert!(names(&status).is_empty());
        status.appliance.hostname = "strongroom".into();
        for address in ["192.168.1.10", "fd00::10"] {
            status.appliance.addresses.push(address.into()).unwrap();
        }
        let names: Vec<String> = names(&status).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["strongroom.local", "strongroom", "192.168.1.10", "fd00::10"]);
    }
}
