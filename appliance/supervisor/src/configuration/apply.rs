//! Letting the running system take up what changed: a short list of steps, none of which ends a client's session or a
//! job. What reads its file at each use (sshd's keys, the push's configuration) needs no step.

use std::collections::BTreeSet;
use strongroom_model::config::{Client, Config};

use super::generate::{self, vlan_name};
use super::take_over::Taken;
use crate::services::command;

/// One thing to be done to the running system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// systemd reads its units again.
    Units,
    /// networkd takes up files that changed, on the links that they concern.
    Network,
    /// A device that the configuration no longer has goes.
    RemoveDevice(String),
    /// resolved announces the name and the services anew.
    Names,
    /// chronyd reads its sources again.
    TimeSources,
    /// The servers that DHCP gives are taken up or left out.
    TimeSourcesOfDhcp,
    /// chronyd starts again with other authorities.
    TimeTrust,
    /// The firewall lets in what it is told to.
    Firewall,
    /// The folders of new clients' repositories are made, and those of clients that are no more are kept by root, if the
    /// array is there.
    Repositories,
    /// A client that is no more, or has no copies any more, is not pushed any more.
    StopTimer(String),
    /// The supervisor takes up clients that changed.
    Clients,
    /// The supervisor starts again with the new configuration and secrets. Its jobs are units of their own.
    Supervisor,
}

/// What has to be done after the generated files of `changed` were written anew.
pub fn steps(old: &Config, new: &Config, taken: &Taken, changed: &BTreeSet<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    let under = |folder: &str| changed.iter().any(|path| path.starts_with(folder));
    if under("/run/systemd/system/") {
        steps.push(Step::Units);
    }
    let vlan = |config: &Config| config.network.vlan.as_ref().map(|vlan| vlan_name(*vlan.get_ref()));
    if let Some(gone) = vlan(old).filter(|gone| Some(gone) != vlan(new).as_ref()) {
        steps.push(Step::RemoveDevice(gone));
    }
    if under("/run/systemd/network/") {
        steps.push(Step::Network);
    }
    if old.network.hostname != new.network.hostname || changed.contains(generate::SERVICE) {
        steps.push(Step::Names);
    }
    if changed.contains(generate::NTS_TRUST) {
        steps.push(Step::TimeTrust);
    } else if changed.contains(generate::NTP_SERVERS) {
        steps.push(Step::TimeSources);
    }
    if old.clock.dhcp != new.clock.dhcp {
        steps.push(Step::TimeSourcesOfDhcp);
    }
    if changed.contains(generate::METRICS) {
        steps.push(Step::Firewall);
    }
    steps.extend(client_steps(old, new));
    if !taken.changes.is_empty() || taken.secrets_changed || !changed.is_empty() {
        steps.push(Step::Supervisor);
    }
    steps
}

/// What has to be done for clients that came or went, or got another quota.
pub fn client_steps(old: &Config, new: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    let bounded = |config: &Config| -> BTreeSet<(String, Option<u64>)> {
        config
            .client
            .iter()
            .map(|client| {
                let quota = client.quota.as_ref().map(|quota| quota.get_ref().bytes());
                (client.name.get_ref().to_string(), quota)
            })
            .collect()
    };
    if bounded(old) != bounded(new) {
        steps.push(Step::Repositories);
    }
    let pushed = |config: &Config, client: &Client| config.targets_of(client).next().is_some();
    for client in &old.client {
        let name = client.name.get_ref().as_str();
        let still = new.client(name).is_some_and(|client| pushed(new, client));
        if pushed(old, client) && !still {
            steps.push(Step::StopTimer(format!("strongroom-push@{name}.timer")));
        }
    }
    steps
}

/// Takes the steps. What can't be done is told, and comes into force at the next start.
pub fn perform(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .filter_map(|step| {
            let error = take(step).err()?;
            Some(format!("{}: {error}", words(step)))
        })
        .collect()
}

fn words(step: &Step) -> &'static str {
    match step {
        Step::Units | Step::StopTimer(_) => "the schedule",
        Step::Network | Step::RemoveDevice(_) => "the network",
        Step::Names => "the announced name",
        Step::TimeSources | Step::TimeSourcesOfDhcp | Step::TimeTrust => "the time servers",
        Step::Firewall => "the firewall",
        Step::Repositories => "the clients' folders",
        Step::Clients | Step::Supervisor => "the supervisor",
    }
}

fn take(step: &Step) -> Result<(), command::CommandError> {
    // A service that does not run yet reads its files when it starts.
    let systemctl = |verb: &str, unit: &str| command::run("systemctl", &["--no-block", verb, unit], "").map(drop);
    let is_active = |unit: &str| command::run("systemctl", &["--quiet", "is-active", unit], "").is_ok();
    match step {
        Step::Units => command::run("systemctl", &["daemon-reload"], "").map(drop),
        Step::Network => systemctl("try-reload-or-restart", "systemd-networkd.service"),
        Step::RemoveDevice(name) => {
            if !std::path::Path::new("/sys/class/net").join(name).exists() {
                return Ok(());
            }
            command::run("ip", &["link", "delete", "dev", name], "").map(drop)
        }
        Step::Names => systemctl("try-reload-or-restart", "systemd-resolved.service"),
        Step::TimeSources => {
            if !is_active("chrony.service") {
                return Ok(());
            }
            command::run("chronyc", &["reload", "sources"], "").map(drop)
        }
        Step::TimeSourcesOfDhcp => systemctl("restart", "strongroom-time-sources.service"),
        Step::TimeTrust => systemctl("try-restart", "chrony.service"),
        Step::Firewall => systemctl("try-reload-or-restart", "nftables.service"),
        Step::Repositories => {
            if !is_active("mnt-raid.mount") {
                return Ok(());
            }
            systemctl("restart", "strongroom-repositories.service")
        }
        Step::StopTimer(unit) => systemctl("stop", unit),
        Step::Clients => {
            if !is_active("strongroomd.service") {
                return Ok(());
            }
            let arguments = ["kill", "--signal=HUP", "--kill-whom=main", "strongroomd.service"];
            command::run("systemctl", &arguments, "").map(drop)
        }
        Step::Supervisor => systemctl("try-restart", "strongroomd.service"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO root@asus";
    const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";

    fn between(old: &str, new: &str) -> Vec<Step> {
        let (old, new) = (Config::parse(old).unwrap(), Config::parse(new).unwrap());
        let made = |config: &Config| generate::files(config, "strongroom_1", &Default::default());
        let (before, after) = (made(&old), made(&new));
        let differs = |one: &[generate::Generated], other: &[generate::Generated]| -> BTreeSet<String> {
            let new = one.iter().filter(|file| !other.contains(file));
            new.map(|file| file.path.clone()).collect()
        };
        let mut changed = differs(&after, &before);
        changed.extend(differs(&before, &after));
        let taken = Taken {
            changes: strongroom_model::config::changes(&old, &new),
            secrets_changed: false,
        };
        steps(&old, &new, &taken, &changed)
    }

    #[test]
    fn nothing_new_needs_nothing() {
        assert_eq!(between("", "# a remark\n"), []);
    }

    #[test]
    fn each_change_takes_its_own_steps() {
        assert_eq!(
            between("", "[network]\nhostname = \"attic\"\n"),
            [Step::Names, Step::Supervisor]
        );
        assert_eq!(
            between("", "[clock]\nservers = [\"ntp\"]\n"),
            [Step::TimeSources, Step::Supervisor]
        );
        assert_eq!(between("", "[metrics]\n"), [Step::Firewall, Step::Supervisor]);
        assert_eq!(between("[metrics]\n", ""), [Step::Firewall, Step::Supervisor]);
        assert_eq!(
            between("", "[clock]\nnts = [\"nts\"]\ndhcp = false\n"),
            [Step::TimeSources, Step::TimeSourcesOfDhcp, Step::Supervisor]
        );
        assert_eq!(
            between("", "[schedule]\npush = \"daily\"\n"),
            [Step::Units, Step::Supervisor]
        );
        let client = format!("[[client]]\nname = \"asus\"\nkeys = [\"{KEY}\"]\n");
        assert_eq!(between("", &client), [Step::Repositories, Step::Supervisor]);
        let bounded = format!("{client}quota = \"5 GB\"\n");
        assert_eq!(between(&client, &bounded), [Step::Repositories, Step::Supervisor]);
        assert_eq!(between(&bounded, &client), [Step::Repositories, Step::Supervisor]);
        assert_eq!(
            between(&client, &format!("{client}expect_hours = 5\n")),
            [Step::Supervisor]
        );
    }

    #[test]
    fn a_vlan_that_is_no_more_goes() {
        let network = "[network]\nvlan = 7\n";
        assert_eq!(between("", network), [Step::Network, Step::Supervisor]);
        let gone = Step::RemoveDevice("vlan7".into());
        assert_eq!(
            between(network, "[network]\nvlan = 8\n"),
            [gone.clone(), Step::Network, Step::Supervisor]
        );
        assert_eq!(between(network, ""), [gone, Step::Network, Step::Supervisor]);
    }

    #[test]
    fn a_client_without_copies_is_not_pushed_any_more() {
        let client = format!("{TARGET}[[client]]\nname = \"asus\"\nkeys = [\"{KEY}\"]\n");
        let stop = Step::StopTimer("strongroom-push@asus.timer".into());
        assert!(between(&client, TARGET).contains(&stop));
        assert!(between(&client, &format!("{client}targets = []\n")).contains(&stop));
        assert!(!between(TARGET, &client).contains(&stop));
    }
}
