//! `strongroom client add`, `pair`, `list` and what else changes clients without strongroom.toml. What can be told to be
//! wrong here is told here; everything else is the appliance's to decide.

use crate::appliance::{ApplianceError, Connection};
use crate::{confirm, words};
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use strongroom_model::config::{AddressRange, Size};
use strongroom_model::name::ClientName;
use strongroom_model::pairing::MINUTES_MAX;
use strongroom_model::registry::{Answer, Change, ListedClient, Opened, Request, Settings};
use strongroom_model::ssh_key::SshPublicKey;
use strongroom_model::status::Status;
use strongroom_model::upkeep::policy;

/// Largest file of keys that is read, in bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// The file in which enrolled clients are kept.
const REGISTRY: &str = "clients.toml";

/// What changes clients.
#[derive(Subcommand)]
pub enum EnrolVerb {
    /// Enrol a client by its SSH key. It can back up at once.
    Add {
        /// Its name: lower-case letters, digits, `_` and `-`.
        name: ClientName,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        settings: SettingsArguments,
    },
    /// Show a code with which a machine can enrol its own key, and the command to paste there. Of a client that is
    /// enrolled already, the machine's key is admitted beside the others.
    Pair {
        /// The client's name.
        #[arg(required_unless_present = "close")]
        name: Option<ClientName>,
        /// Close the pairing that is open: its code counts no more.
        #[arg(long, exclusive = true)]
        close: bool,
        /// For how long the code counts.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(MINUTES_MAX)))]
        minutes: u16,
        /// Name or address by which the machine reaches this appliance; its first address when absent.
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        settings: SettingsArguments,
    },
    /// Show all clients with their keys.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change the quota, the expected rhythm or the addresses of an enrolled client.
    Set {
        /// Its name.
        name: ClientName,
        #[command(flatten)]
        settings: SettingsArguments,
    },
    /// Give an enrolled client another name. Its archives stay; on the client, BORG_REPO changes.
    Rename {
        /// Its name.
        old: ClientName,
        /// The new one.
        new: ClientName,
        /// Let off-site copies begin anew where they lie under the old name.
        #[arg(long)]
        new_copies: bool,
    },
    /// Give an enrolled client new keys in place of its old ones.
    Rotate {
        /// Its name.
        name: ClientName,
        #[command(flatten)]
        keys: Keys,
        /// Go on admitting the old keys too, until each is revoked.
        #[arg(long)]
        keep_old: bool,
    },
    /// Hold a client out at once, whatever it is doing, until it is resumed.
    Pause {
        /// Its name.
        name: ClientName,
    },
    /// Let a paused client in again.
    Resume {
        /// Its name.
        name: ClientName,
    },
    /// Never admit a key of a client again, or any of its keys; sessions that are running are ended.
    Revoke {
        /// Its name.
        name: ClientName,
        /// The key's fingerprint, as `strongroom client list` shows it; all keys when absent.
        fingerprint: Option<String>,
    },
    /// Let a client in again that is held out because it can't be read how far its compaction or rollback came. What
    /// can't be read is kept.
    Reopen {
        /// Its name.
        name: ClientName,
        /// Its name once more, where nobody can be asked.
        #[arg(long, value_name = "NAME")]
        yes: Option<String>,
    },
    /// Set a registry of enrolled clients aside that can't be read, and begin a new one. The clients in it have to be
    /// enrolled again.
    SetAsideRegistry {
        /// `clients.toml`, where nobody can be asked.
        #[arg(long, value_name = "FILE")]
        yes: Option<String>,
    },
    /// Forget an enrolled client. Its repository is kept, unless told otherwise.
    Remove {
        /// Its name.
        name: ClientName,
        /// Erase its repository from the array, with all its archives. Off-site copies stay.
        #[arg(long)]
        delete_repository: bool,
        /// The client's name once more, where nobody can be asked.
        #[arg(long, value_name = "NAME", requires = "delete_repository")]
        yes_delete: Option<String>,
    },
}

/// Keys, as lines of `.pub` files.
#[derive(Args)]
pub struct Keys {
    /// An SSH key: the line of its `.pub` file. May be given several times.
    #[arg(long, value_name = "LINE")]
    key: Vec<String>,
    /// A file with such lines. May be given several times; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
    /// A key that may only read, for restores. May be given several times.
    #[arg(long, value_name = "LINE")]
    restore_key: Vec<String>,
}

/// What else is said of a client.
#[derive(Args)]
pub struct SettingsArguments {
    /// The most that its repository may hold, as in `500GB` or `1.5 TB`.
    #[arg(long, value_parser = size)]
    quota: Option<Size>,
    /// How often it backs up: `daily` warns after 48 hours without a backup, `weekly` after 8 days.
    #[arg(long, value_name = "RHYTHM", value_parser = ["daily", "weekly"], conflicts_with = "expect_hours")]
    expect: Option<String>,
    /// After how many hours without a backup to warn.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8760))]
    expect_hours: Option<u32>,
    /// An address, or a network as in `192.168.1.0/24`, from which its keys are admitted. May be given several times;
    /// `anywhere` lifts the limit.
    #[arg(long, value_name = "CIDR")]
    from: Vec<String>,
    /// Free what it deleted without being asked, once nothing more was deleted for so many days, 7 to 365; `never` by
    /// default.
    #[arg(long, value_name = "DAYS", value_parser = quarantine)]
    compact_after_days: Option<u16>,
}

/// 0 stands for never.
fn quarantine(text: &str) -> Result<u16, String> {
    match text {
        "never" => Ok(0),
        text => (text.parse().ok().filter(|days| policy::DAYS.contains(days)))
            .ok_or_else(|| "it is a number of days, 7 to 365, or `never`".into()),
    }
}

fn size(text: &str) -> Result<Size, String> {
    Size::new(text).ok_or_else(|| "it is a number with MB, GB, TB, MiB, GiB or TiB, as in `500GB`".into())
}

fn wrong(text: String) -> ApplianceError {
    ApplianceError::Client(text)
}

impl Keys {
    /// The keys for backups, and those for restores.
    fn read(&self) -> Result<[Vec<SshPublicKey>; 2], ApplianceError> {
        let parse = |line: &str| SshPublicKey::parse(line).map_err(|error| wrong(error.to_string()));
        let mut keys = self.key.iter().map(|line| parse(line)).collect::<Result<Vec<_>, _>>()?;
        for file in &self.key_file {
            let name = file.display();
            let text = read(file).map_err(|error| wrong(format!("{name}: {error}")))?;
            let before = keys.len();
            for line in text
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            {
                keys.push(SshPublicKey::parse(line).map_err(|error| wrong(format!("{name}: {error}")))?);
            }
            if keys.len() == before {
                return Err(wrong(format!("{name}: there is no key in it")));
            }
        }
        let restore = self
            .restore_key
            .iter()
            .map(|line| parse(line))
            .collect::<Result<_, _>>()?;
        Ok([keys, restore])
    }
}

fn read(file: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    if file.as_os_str() == "-" {
        io::stdin().lock().take(KEY_FILE_MAX).read_to_string(&mut text)?;
    } else {
        fs::File::open(file)?.take(KEY_FILE_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}

impl SettingsArguments {
    fn settings(&self) -> Result<Settings, ApplianceError> {
        let from = match self.from.as_slice() {
            [] => None,
            [one] if one == "anywhere" => Some(Vec::new()),
            all => Some(
                all.iter()
                    .map(|text| {
                        AddressRange::new(text).map_err(|why| wrong(format!("`{}` {why}", text.escape_debug())))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        let rhythm = match self.expect.as_deref() {
            Some("weekly") => Some(8 * 24),
            Some(_) => Some(48),
            None => None,
        };
        Ok(Settings {
            quota: self.quota.clone(),
            expect_hours: self.expect_hours.or(rhythm),
            from,
            compact_after_days: self.compact_after_days,
        })
    }
}

/// Runs a verb.
pub async fn run(verb: EnrolVerb, now: u64) -> Result<(), ApplianceError> {
    let change = match verb {
        EnrolVerb::List { json } => return list(json, now).await,
        EnrolVerb::Pair { name: None, .. } => return ask(&Request::ClosePairing).await,
        EnrolVerb::Pair {
            name: Some(name),
            minutes,
            host,
            settings,
            ..
        } => return pair(name, minutes, host, settings.settings()?).await,
        EnrolVerb::Reopen { name, yes } => {
            println!(
                "A compaction or rollback of {name} may have been cut short. `strongroom report` keeps what is known of it."
            );
            confirm::client(name.as_str(), yes.as_deref(), &format!("client reopen {name}")).map_err(wrong)?;
            return ask(&Request::Reopen { name }).await;
        }
        EnrolVerb::SetAsideRegistry { yes } => {
            println!(
                "The clients in it are no longer enrolled. Of paused clients and revoked keys what can be read counts on; of the others in strongroom.toml, look after."
            );
            confirm::named("the file's name", REGISTRY, yes.as_deref(), "client set-aside-registry").map_err(wrong)?;
            return ask(&Request::SetRegistryAside).await;
        }
        EnrolVerb::Add { name, keys, settings } => {
            let [keys, restore_keys] = keys.read()?;
            Change::Add {
                name,
                keys,
                restore_keys,
                settings: settings.settings()?,
            }
        }
        EnrolVerb::Set { name, settings } => Change::Set {
            name,
            settings: settings.settings()?,
        },
        EnrolVerb::Rename { old, new, new_copies } => Change::Rename {
            from: old,
            to: new,
            new_copies,
        },
        EnrolVerb::Rotate { name, keys, keep_old } => {
            let [keys, restore_keys] = keys.read()?;
            Change::Rotate {
                name,
                keys,
                restore_keys,
                keep_old,
            }
        }
        EnrolVerb::Pause { name } => Change::Pause { name },
        EnrolVerb::Resume { name } => Change::Resume { name },
        EnrolVerb::Revoke { name, fingerprint } => Change::Revoke { name, fingerprint },
        EnrolVerb::Remove {
            name,
            delete_repository,
            yes_delete,
        } => {
            if delete_repository {
                confirm_twice(&name, yes_delete.as_deref(), now).await?;
            }
            Change::Remove {
                name,
                delete_repository,
            }
        }
    };
    ask(&Request::Change(change)).await
}

async fn ask(request: &Request) -> Result<(), ApplianceError> {
    match Connection::open().await?.enrol(request).await? {
        Answer::Done(words) => words.iter().for_each(|line| println!("{line}")),
        Answer::Opened(_) | Answer::Refused(_) => {}
    }
    Ok(())
}

/// Has it confirmed twice that a repository is erased.
async fn confirm_twice(name: &ClientName, given: Option<&str>, now: u64) -> Result<(), ApplianceError> {
    let refuse = || wrong("that is not the client's name; nothing was changed".into());
    if let Some(given) = given {
        return if given == name.as_str() { Ok(()) } else { Err(refuse()) };
    }
    if !io::stdin().is_terminal() {
        return Err(wrong(format!(
            "erasing a repository has to be confirmed: add `--yes-delete {name}`. Nothing was changed"
        )));
    }
    let status = Connection::open().await?.status().await?;
    if let Some(client) = status.clients.iter().find(|client| client.name == *name) {
        println!(
            "The repository of {name} holds {}; its last backup was {}.",
            words::size(client.size_bytes),
            words::age(client.last_backup, now)
        );
    }
    println!("All its archives on the array are lost; off-site copies stay.");
    for question in [
        "Type the client's name to erase them",
        "And once more, since this can't be undone",
    ] {
        print!("{question}: ");
        let _ = io::stdout().flush();
        let mut typed = String::new();
        if io::stdin().read_line(&mut typed).is_err() || typed.trim() != name.as_str() {
            return Err(refuse());
        }
    }
    Ok(())
}

async fn pair(name: ClientName, minutes: u16, host: Option<String>, settings: Settings) -> Result<(), ApplianceError> {
    let plain =
        |host: &String| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    if let Some(host) = host.as_ref().filter(|host| !plain(host)) {
        return Err(wrong(format!(
            "`{}` is neither a name nor an address",
            host.escape_debug()
        )));
    }
    let appliance = Connection::open().await?;
    let status = appliance.status().await?;
    let request = Request::Pair {
        name: name.clone(),
        minutes,
        settings,
    };
    if let Answer::Opened(opened) = appliance.enrol(&request).await? {
        print!("{}", instructions(&name, &opened, &hosts(host, &status)));
    }
    Ok(())
}

/// By which names and addresses the appliance may be reached; the first is the one to use.
fn hosts(wanted: Option<String>, status: &Status) -> Vec<String> {
    let mut hosts: Vec<String> = wanted.into_iter().collect();
    let mut addresses: Vec<&str> = status
        .appliance
        .addresses
        .iter()
        .map(|address| address.as_str())
        .collect();
    // IPv4 is what people know.
    addresses.sort_by_key(|address| address.contains(':'));
    hosts.extend(addresses.into_iter().map(String::from));
    if !status.appliance.hostname.is_empty() {
        hosts.push(format!("{}.local", status.appliance.hostname));
    }
    hosts.dedup();
    hosts
}

/// What to do on the client.
fn instructions(name: &ClientName, opened: &Opened, hosts: &[String]) -> String {
    let Opened {
        code,
        minutes,
        host_key,
        known,
    } = opened;
    let host = hosts.first().map_or("HOST", String::as_str);
    let known_hosts = format!("{} {host_key}", hosts.join(","));
    let what = if *known {
        format!("Client {name} is enrolled; the machine's key will be admitted beside those it has.")
    } else {
        format!("Client {name} will be enrolled with the machine's key.")
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{what} Within {minutes} minutes, paste this there, as the user that backs up (root, mostly):\n"
    );
    let _ = writeln!(text, "{}\n", command(code, host, &known_hosts));
    let _ = writeln!(
        text,
        "The code in it counts once. `strongroom client list` shows the key when it is enrolled."
    );
    let _ = writeln!(
        text,
        "Script and timer are in the kit (`strongroom client kit {name}`): there, `./install {code}` does the same and sets \
         them up."
    );
    text
}

/// The one command for the client: it trusts this appliance's host key and no other, makes a key unless there is one, and
/// offers the code with it.
fn command(code: &str, host: &str, known_hosts: &str) -> String {
    format!(
        "( umask 077; cd && mkdir -p .ssh && cd .ssh && touch known_hosts && \\\n  \
         {{ grep -qxF '{known_hosts}' known_hosts || echo '{known_hosts}' >> known_hosts; }} && \\\n  \
         {{ test -f id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f id_ed25519; }} && \\\n  \
         ssh -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -i id_ed25519 pair@{host} {code} )"
    )
}

async fn list(json: bool, now: u64) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let clients = appliance.clients().await?;
    if json {
        println!("{}", serde_json::to_string(&clients)?);
    } else {
        print!("{}", table(&clients, &*appliance.status().await?, now));
    }
    Ok(())
}

fn table(clients: &[ListedClient], status: &Status, now: u64) -> String {
    if clients.is_empty() {
        return "There is no client yet. `strongroom client pair NAME` enrols one.\n".into();
    }
    let mut text = String::new();
    for client in clients {
        let known = status.clients.iter().find(|known| known.name == client.name);
        let declared = if client.declared { "strongroom.toml" } else { "enrolled" };
        let paused = if client.paused { ", PAUSED" } else { "" };
        let last = words::age(known.and_then(|known| known.last_backup), now);
        let _ = writeln!(text, "{}  {declared}{paused}, last backup {last}", client.name);
        let size = words::size(known.map_or(0, |known| known.size_bytes));
        let quota = client
            .quota
            .as_ref()
            .map(|quota| format!(" of {quota}"))
            .unwrap_or_default();
        let from = if client.from.is_empty() {
            String::new()
        } else {
            format!(", from {}", client.from.join(" "))
        };
        let freed = match client.compact_after_days {
            Some(days) => format!(", freed by itself after {days} days"),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "  {size}{quota}, expected every {} h{from}{freed}",
            client.expect_hours
        );
        if client.keys.is_empty() {
            text.push_str("  no key is admitted\n");
        }
        for key in &client.keys {
            let restore = if key.restore { "  (reads only)" } else { "" };
            let _ = writeln!(text, "  {}  {}{restore}", key.fingerprint, key.comment);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::registry::ListedKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO";

    #[derive(clap::Parser)]
    struct Only {
        #[command(subcommand)]
        verb: EnrolVerb,
    }

    #[test]
    fn command_lines_are_understood_or_refused() {
        use clap::{CommandFactory, Parser};
        Only::command().debug_assert();
        let parse = |line: &str| Only::try_parse_from(line.split_whitespace());
        for good in [
            "x add asus --key one --key two --key-file - --quota 500GB --expect daily --from 10.0.0.1",
            "x pair asus --minutes 60 --host strongroom.local",
            "x pair --close",
            "x reopen asus --yes asus",
            "x set-aside-registry --yes clients.toml",
            "x rename asus laptop --new-copies",
            "x rotate asus --restore-key one --keep-old",
            "x revoke asus SHA256:abc",
            "x remove asus --delete-repository --yes-delete asus",
            "x set asus --compact-after-days 30",
            "x set asus --compact-after-days never",
            "x list --json",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let refused = |line: &str| parse(line).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused("x add Asus --key one").contains("1 to 31 characters"));
        assert!(refused("x add ../x --key one").contains("1 to 31 characters"));
        assert!(refused("x set asus --quota 500").contains("500GB"));
        for bad in [
            "x add asus --expect hourly",
            "x add asus --expect daily --expect-hours 5",
            "x set asus --expect-hours 0",
            "x set asus --compact-after-days 0",
            "x set asus --compact-after-days 6",
            "x pair",
            "x pair asus --close",
            "x pair --close --minutes 5",
            "x reopen",
            "x pair asus --minutes 0",
            "x pair asus --minutes 61",
            "x remove asus --yes-delete asus",
            "x rename asus",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    fn keys(key: &[&str], files: &[PathBuf]) -> Keys {
        Keys {
            key: key.iter().map(|line| line.to_string()).collect(),
            key_file: files.into(),
            restore_key: Vec::new(),
        }
    }

    #[test]
    fn keys_come_from_lines_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        fs::write(&file, format!("# of the attic\n{KEY} one\n\n{KEY} two\r\n")).unwrap();
        let [all, restore] = keys(&[KEY], std::slice::from_ref(&file)).read().unwrap();
        assert_eq!((all.len(), restore.len()), (3, 0));
        assert_eq!(all[2].comment(), "two");
        for bad in [format!("{KEY}\n{KEY}"), format!("command=\"sh\" {KEY}"), String::new()] {
            assert!(keys(&[&bad], &[]).read().is_err(), "{bad}");
            fs::write(&file, format!("{bad}\u{7}")).unwrap();
            assert!(keys(&[], std::slice::from_ref(&file)).read().is_err(), "{bad}");
        }
        fs::write(&file, "# nothing\n").unwrap();
        let told = keys(&[], std::slice::from_ref(&file)).read().unwrap_err().to_string();
        assert!(told.contains("no key in it"), "{told}");
    }

    #[test]
    fn settings_are_what_was_said() {
        let mut said = SettingsArguments {
            quota: None,
            expect: Some("weekly".into()),
            expect_hours: None,
            from: Vec::new(),
            compact_after_days: None,
        };
        let settings = said.settings().unwrap();
        assert_eq!((settings.expect_hours, settings.from), (Some(192), None));
        said.from = vec!["anywhere".into()];
        assert_eq!(said.settings().unwrap().from, Some(Vec::new()));
        said.from = vec!["192.168.1.5/24".into()];
        assert!(said.settings().unwrap_err().to_string().contains("192.168.1.0/24"));
    }

    #[test]
    fn the_command_for_the_client_pins_the_host_and_is_one_of_a_shell() {
        let opened = Opened {
            code: "01234-abcde".into(),
            minutes: 10,
            host_key: KEY.into(),
            known: false,
        };
        let mut status = Box::<Status>::default();
        for address in ["fd00::7", "192.168.1.10"] {
            let _ = status.appliance.addresses.push(address.into());
        }
        status.appliance.hostname = "strongroom".into();
        let hosts = hosts(None, &status);
        let text = instructions(&ClientName::new("asus").unwrap(), &opened, &hosts);
        assert!(
            text.contains(&format!("'192.168.1.10,fd00::7,strongroom.local {KEY}'")),
            "{text}"
        );
        assert!(text.contains("pair@192.168.1.10 01234-abcde )"), "{text}");
        let start = text.find("( umask").unwrap();
        let pasted = &text[start..start + text[start..].find("\n\n").unwrap()];
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // In place of ssh: what it is told, instead of the network.
        let ssh = "#!/bin/sh\necho \"$@\" > ../told\n";
        fs::write(bin.join("ssh"), ssh).unwrap();
        fs::set_permissions(bin.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for _ in 0..2 {
            let ran = std::process::Command::new("sh")
                .args(["-c", pasted])
                .env("HOME", home.path())
                .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
                .status()
                .unwrap();
            assert!(ran.success());
        }
        let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
        assert_eq!(read(".ssh/known_hosts").lines().count(), 1);
        assert!(read(".ssh/id_ed25519.pub").starts_with("ssh-ed25519 "));
        assert!(
            read("told").ends_with("pair@192.168.1.10 01234-abcde\n"),
            "{}",
            read("told")
        );
    }

    #[test]
    fn clients_are_shown_with_their_keys() {
        let client = ListedClient {
            name: ClientName::new("asus").unwrap(),
            declared: false,
            paused: true,
            keys: vec![ListedKey {
                fingerprint: "SHA256:abc".into(),
                comment: "root@asus".into(),
                restore: true,
            }],
            quota: Some("500 GB".into()),
            expect_hours: 48,
            from: vec!["192.168.1.0/24".into()],
            compact_after_days: Some(30),
        };
        assert_eq!(
            table(&[client], &Status::default(), 0),
            "asus  enrolled, PAUSED, last backup never\n  0 B of 500 GB, expected every 48 h, from 192.168.1.0/24, freed by itself \
             after 30 days\n  \
             SHA256:abc  root@asus  (reads only)\n"
        );
    }
}
