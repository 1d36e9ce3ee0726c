//! The role `strongroom-time-sources`: tells chronyd of the time servers that DHCP gave. Runs whenever networkd's state changes.
//!
//! chronyd reads [`Paths::time_sources`] at its start; while it runs, chronyc has it read its sources again. What comes from the
//! network is checked before it becomes a line of chronyd's configuration.

use crate::configuration::in_force;
use crate::durable;
use crate::paths::Paths;
use crate::services::{command, networkd};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use strongroom_model::config::{Config, Host};
use zbus::Connection;

/// Most servers taken from DHCP. Four tell which one is wrong.
const SERVERS_MAX: usize = 4;

/// A lease comes with several changes of networkd's state, and what changes while this runs starts it no second time.
const SETTLE: Duration = Duration::from_secs(1);

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// networkd does not answer.
    #[error("networkd does not say what DHCP gave: {0}; it is asked again when the network changes")]
    Bus(#[from] zbus::Error),
    /// It answers in a form that is not known.
    #[error("what networkd says can't be understood: {0}")]
    Form(#[from] serde_json::Error),
    /// The file could not be written, or the runtime not be made.
    #[error("the time servers could not be written down: {0}")]
    Io(#[from] std::io::Error),
    /// chronyd could not be told.
    #[error("chronyd could not be told of other time servers: {0}")]
    Command(#[from] command::CommandError),
}

/// Runs the role to its end.
pub fn run(paths: &Paths) -> Result<(), SourcesError> {
    std::thread::sleep(SETTLE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let description = runtime.block_on(async {
        let bus = Connection::system().await?;
        networkd::describe(&bus).await
    })?;
    let servers = networkd::time_servers(&description)?;
    if write(paths, &in_force(paths), &servers)? && is_chronyd_there() {
        command::run("chronyc", &["reload", "sources"], "")?;
    }
    Ok(())
}

/// Before it starts, nobody has to be told: it reads the file.
fn is_chronyd_there() -> bool {
    command::run("systemctl", &["--quiet", "is-active", "chrony.service"], "").is_ok()
}

/// Returns whether that is anything new.
fn write(paths: &Paths, config: &Config, servers: &[String]) -> std::io::Result<bool> {
    let path = paths.time_sources();
    let text = lines(config, servers);
    if text.is_empty() {
        let was_there = path.exists();
        if was_there {
            std::fs::remove_file(&path)?;
        }
        return Ok(was_there);
    }
    durable::write_if_changed(&path, text.as_bytes(), 0o644)
}

/// One line for each server that is taken.
fn lines(config: &Config, servers: &[String]) -> String {
    let mut text = String::new();
    if !config.clock.dhcp {
        return text;
    }
    let configured = config.clock.servers.iter().chain(&config.clock.nts);
    let mut known: BTreeSet<String> = configured.map(ToString::to_string).collect();
    let good = servers.iter().filter_map(|server| Host::new(server));
    // The same source twice would have two votes.
    let new = good.filter(|server| known.insert(server.to_string()));
    for server in new.take(SERVERS_MAX) {
        let _ = writeln!(text, "server {server} iburst");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(config: &str, servers: &[&str]) -> String {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        lines(&Config::parse(config).unwrap(), &servers)
    }

    #[test]
    fn each_server_becomes_a_line_once() {
        assert_eq!(
            given("", &["192.168.1.1", "ntp.lan", "192.168.1.1"]),
            "server 192.168.1.1 iburst\nserver ntp.lan iburst\n"
        );
        assert_eq!(given("[clock]\nservers = [\"192.168.1.1\"]\n", &["192.168.1.1"]), "");
        assert_eq!(given("[clock]\ndhcp = false\n", &["192.168.1.1"]), "");
        assert_eq!(given("", &["a", "b", "c", "d", "e"]).lines().count(), SERVERS_MAX);
    }

    #[test]
    fn what_the_network_says_cannot_add_a_line_of_its_own() {
        for bad in ["", "a b", "ntp\nallow all", "x trust", "#", "$(id)", "a;b"] {
            assert_eq!(given("", &[bad]), "", "{bad:?}");
        }
    }

    #[test]
    fn the_file_goes_when_nothing_is_given_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, config) = (Paths::new(folder.path()), Config::parse("").unwrap());
        let servers = ["192.168.1.1".to_owned()];
        assert!(!write(&paths, &config, &[]).unwrap());
        assert!(write(&paths, &config, &servers).unwrap());
        assert!(!write(&paths, &config, &servers).unwrap());
        assert!(write(&paths, &config, &[]).unwrap());
        assert!(!paths.time_sources().exists());
    }
}
