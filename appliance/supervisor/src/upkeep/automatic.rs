//! Compactions that happen by themselves, by the policy `compact_after_days` (`strongroom_model::upkeep::policy`). Each
//! client that has it is looked at now and then; what is due is ordered as its owner would order it, and begun by the same
//! job, which looks at everything again. A check and a push that it wants are asked for before.

use super::look;
use super::{Order, Work};
use crate::paths::Paths;
use crate::services::systemd::{Systemd, SystemdError};
use crate::sessions::list;
use crate::watch::verify_job;
use std::collections::BTreeMap;
use std::time::Duration;
use strongroom_model::condition::Condition;
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::status::Status;
use strongroom_model::upkeep::policy::Next;
use tokio::time::Instant;

/// How often a client is looked at whose turn is days away.
const FAR: Duration = Duration::from_secs(1800);
/// How often one is looked at that is due: between a push and the next backup there may be minutes only.
const NEAR: Duration = Duration::from_secs(60);
/// A check and a push are not asked for again within this time.
const PREPARE_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// What is remembered between two rounds.
#[derive(Default)]
pub struct Automatic {
    clients: BTreeMap<ClientName, Known>,
}

struct Known {
    /// When it is looked at again.
    again: Instant,
    /// When a check and a push were asked for.
    prepared: Option<Instant>,
    told: Option<Condition>,
}

impl Automatic {
    /// Looks at the clients whose turn it is. Returns a compaction that is due; one at a time.
    pub async fn round(
        &mut self,
        paths: &Paths,
        config: &Config,
        systemd: &Systemd,
        status: &Status,
    ) -> Result<Option<Order>, SystemdError> {
        let with_policy = |name: &ClientName| {
            config
                .client(name.as_str())
                .is_some_and(|client| client.compact_after_days.is_some())
        };
        self.clients.retain(|name, _| with_policy(name));
        for client in config
            .client
            .iter()
            .map(|client| client.name.get_ref())
            .filter(|name| with_policy(name))
        {
            let known = self.clients.entry(client.clone()).or_insert_with(|| Known {
                again: Instant::now(),
                prepared: None,
                told: None,
            });
            if known.again > Instant::now() {
                continue;
            }
            if !is_observed(config, client, status) {
                continue;
            }
            let sessions = list::of_client(systemd, client).await?;
            let looked = match look::look(paths, config, client, status, sessions) {
                Ok(looked) => looked,
                Err(error) => {
                    eprintln!("{client}: what is remembered of it can't be read: {error}");
                    known.again = Instant::now() + FAR;
                    continue;
                }
            };
            let Some((next, told)) = looked.next else { continue };
            known.told = told;
            known.again = Instant::now()
                + match next {
                    Next::Nothing | Next::Quarantine(_) | Next::Failed(_) => FAR,
                    Next::Against(_) | Next::Prepare | Next::Compact => NEAR,
                };
            match (next, looked.upkeep.transaction) {
                (Next::Compact, Some(transaction)) => {
                    eprintln!("{client}: what it deleted has been in quarantine for its time, and is freed now");
                    // If it could not be begun, not at once again.
                    known.again = Instant::now() + FAR;
                    return Ok(Some(Order {
                        client: client.clone(),
                        work: Work::Compact { transaction },
                    }));
                }
                (Next::Prepare, _) if known.prepared.is_none_or(|at| at.elapsed() > PREPARE_AGAIN) => {
                    known.prepared = Some(Instant::now());
                    eprintln!("{client}: a check and a push, so that it can be compacted");
                    // What was never read comes first in what is due.
                    let check = format!("strongroom-verify@{}.service", verify_job::DUE);
                    for unit in [check, format!("strongroom-push@{client}.service")] {
                        systemd.start(&unit).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// What a person should know.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.clients.values().filter_map(|known| known.told.as_ref())
    }
}

/// Whether the status tells of the client's repository and of all its copies. After a start it does not at once.
fn is_observed(config: &Config, client: &ClientName, status: &Status) -> bool {
    let targets = config
        .client(client.as_str())
        .map_or(0, |client| config.targets_of(client).count());
    status
        .clients
        .iter()
        .find(|known| known.name == *client)
        .is_some_and(|known| known.transaction.is_some() && known.targets.len() == targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::status::{Client, Target};

    const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";
    const CLIENT: &str = "[[client]]\nname = \"asus\"\nkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO\"]\n";

    #[test]
    fn nothing_is_decided_before_all_is_observed() {
        let config = Config::parse(&format!("{TARGET}{CLIENT}")).unwrap();
        let asus = ClientName::new("asus").unwrap();
        let mut status = Box::<Status>::default();
        assert!(!is_observed(&config, &asus, &status));
        let client = Client {
            name: asus.clone(),
            transaction: Some(9),
            ..Client::default()
        };
        status.clients.push(client).unwrap();
        assert!(!is_observed(&config, &asus, &status), "not its copy");
        status.clients[0].targets.push(Target::default()).unwrap();
        assert!(is_observed(&config, &asus, &status));
        status.clients[0].transaction = None;
        assert!(!is_observed(&config, &asus, &status));
    }
}
