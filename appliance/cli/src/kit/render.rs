//! The kit's files as text. Pure: what is known of the appliance in, files out.

use clap::ValueEnum;
use std::net::{IpAddr, Ipv6Addr};
use strongroom_model::config::Host;
use strongroom_model::name::ClientName;
use strongroom_model::ssh_key::SshPublicKey;

/// sshd's usual port.
pub const SSH_PORT: u16 = 22;

/// A mode of `borg init --encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encryption {
    /// Not encrypted by the client; what leaves the house is encrypted by the appliance.
    None,
    /// Not encrypted, but nobody without the passphrase can alter it unseen.
    Authenticated,
    /// The same with BLAKE2b.
    AuthenticatedBlake2,
    /// Encrypted; the key lies in the repository.
    Repokey,
    /// The same with BLAKE2b: faster on most computers.
    RepokeyBlake2,
    /// Encrypted; the key lies on the client only.
    Keyfile,
    /// The same with BLAKE2b.
    KeyfileBlake2,
}

/// What a kit is made of. Nothing of it is secret.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The client.
    pub client: ClientName,
    /// Name or address by which the client reaches the appliance.
    pub host: Host,
    /// Its SSH port, as the client sees it.
    pub port: u16,
    /// Other names and addresses of the appliance, for which its key is pinned as well.
    pub other_names: Vec<Host>,
    /// The appliance's host key.
    pub host_key: SshPublicKey,
    /// The host key's fingerprint, as ssh shows it, where it is known.
    pub fingerprint: Option<String>,
    /// How the repository is to be made.
    pub encryption: Encryption,
    /// Days between two prunes; 0: one after each backup.
    pub prune_every: u16,
}

/// A file of the kit.
#[derive(Debug, PartialEq, Eq)]
pub struct KitFile {
    /// Its name in the kit's folder.
    pub name: &'static str,
    /// What it holds.
    pub text: String,
    /// Whether it is a program.
    pub program: bool,
}

/// The files of a kit.
pub fn kit(facts: &Facts) -> Vec<KitFile> {
    let file = |name, template: &str, program| KitFile {
        name,
        text: facts.fill(template),
        program,
    };
    vec![
        file("README.txt", include_str!("files/README.txt"), false),
        file("install", include_str!("files/install"), true),
        file("strongroom-backup", include_str!("files/strongroom-backup"), true),
        file("patterns", include_str!("files/patterns"), false),
        file("ssh_config", include_str!("files/ssh_config"), false),
        KitFile {
            name: "known_hosts",
            text: facts.known_hosts(),
            program: false,
        },
        file(
            "strongroom-backup.service",
            include_str!("files/strongroom-backup.service"),
            false,
        ),
        file(
            "strongroom-backup.timer",
            include_str!("files/strongroom-backup.timer"),
            false,
        ),
        file(
            "strongroom-backup.cron",
            include_str!("files/strongroom-backup.cron"),
            false,
        ),
        file("borgmatic.yaml", include_str!("files/borgmatic.yaml"), false),
    ]
}

/// The folder in which a kit unpacks.
pub fn folder(client: &ClientName) -> String {
    format!("strongroom-{client}")
}

/// What to type and paste on the client.
pub fn paste(facts: &Facts) -> String {
    let paste = facts.fill(include_str!("files/paste.txt"));
    let ssh_config = facts.fill(include_str!("files/ssh_config"));
    paste
        .replace("@SSH_CONFIG@", &ssh_config)
        .replace("@KNOWN_HOSTS@", &facts.known_hosts())
}

impl Facts {
    /// Every name, the one that the client uses first.
    fn names(&self) -> Vec<&str> {
        let mut names = vec![self.host.as_str()];
        for other in &self.other_names {
            if !names.contains(&other.as_str()) {
                names.push(other.as_str());
            }
        }
        names
    }

    /// sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: a port other than 22 stands with its name in brackets.
    fn known_hosts(&self) -> String {
        let mut names: Vec<String> = self.names().into_iter().map(str::to_string).collect();
        if self.port != SSH_PORT {
            let with_port = names.iter().map(|name| format!("[{name}]:{}", self.port));
            names = with_port.chain(names.iter().cloned()).collect();
        }
        format!("{} {}\n", names.join(","), self.host_key.authorized())
    }

    fn fill(&self, template: &str) -> String {
        let client = self.client.as_str();
        let host = self.host.as_str();
        let bracketed = match host.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{host}]"),
            Err(_) => host.to_string(),
        };
        let is_address = |name: &&str| name.parse::<IpAddr>().is_ok();
        // For where the name isn't found.
        let address = self
            .names()
            .into_iter()
            .find(is_address)
            .filter(|address| *address != host);
        let encryption = self
            .encryption
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_string());
        let if_asked = self.fingerprint.as_ref().map_or_else(String::new, |fingerprint| {
            format!(
                "\nIf ssh asks whether to trust the host, this is the fingerprint that it must show:\n\n    {fingerprint}\n"
            )
        });
        let title = format!("{client} backs up to the Strongroom {host}");
        // Not all clients at once.
        let minute = client.bytes().map(u32::from).sum::<u32>() % 60;
        let only_if = |wanted: bool, text: &str| if wanted { text.to_string() } else { String::new() };
        let secret = |text: &str| only_if(self.encryption.has_passphrase(), text);
        let key_note = only_if(self.encryption.has_key_file(), KEY_NOTE);
        let open_note = only_if(
            !self.encryption.has_passphrase(),
            " (what leaves the house is encrypted by the appliance)",
        );
        let port_option = only_if(self.port != SSH_PORT, &format!("-p {} ", self.port));
        let kit_options = format!(
            " --host {host}{}{}",
            only_if(self.port != SSH_PORT, &format!(" --port {}", self.port)),
            only_if(
                self.encryption != Encryption::None,
                &format!(" --encryption {encryption}")
            ),
        );
        [
            ("@CLIENT@", client.to_string()),
            ("@HOST@", host.to_string()),
            ("@BRACKETED@", bracketed),
            ("@PORT@", self.port.to_string()),
            ("@ADDRESS@", address.unwrap_or_default().to_string()),
            ("@REPOSITORY@", format!("/mnt/raid/{client}_repository")),
            ("@FOLDER@", folder(&self.client)),
            ("@UNDERLINE@", "=".repeat(title.len())),
            ("@MINUTE@", minute.to_string()),
            ("@ENCRYPTION@", encryption),
            ("@ENCRYPTION_NOTE@", open_note),
            ("@PRUNE_EVERY@", self.prune_every.to_string()),
            (
                "@BORGMATIC_PRUNE_NOTE@",
                only_if(
                    self.prune_every > 0,
                    &BORGMATIC_PRUNE_NOTE.replace("@DAYS@", &self.prune_every.to_string()),
                ),
            ),
            ("@IF_ASKED@", if_asked),
            ("@PORT_OPTION@", port_option),
            ("@KIT_OPTIONS@", kit_options),
            ("@PASSPHRASE_TOO@", secret(", the passphrase")),
            ("@PASSPHRASE_NOTE@", secret(PASSPHRASE_NOTE) + &key_note),
            ("@PASSCOMMAND@", secret(PASSCOMMAND)),
            ("@BORGMATIC_PASSCOMMAND@", secret(BORGMATIC_PASSCOMMAND)),
            ("@MAKE_PASSPHRASE@", secret(MAKE_PASSPHRASE)),
            ("@KEEP_PASSPHRASE@", secret(KEEP_PASSPHRASE)),
        ]
        .iter()
        .fold(template.to_string(), |text, (mark, value)| text.replace(mark, value))
    }
}

const PASSCOMMAND: &str = "export BORG_PASSCOMMAND=\"cat $FOLDER/passphrase\"\n";
const BORGMATIC_PASSCOMMAND: &str = "encryption_passcommand: cat /etc/strongroom-backup/passphrase\n";
const BORGMATIC_PRUNE_NOTE: &str = "\
# The appliance frees space by itself once nothing was deleted for long: have `borgmatic create` run each hour, and
# `borgmatic prune` every @DAYS@ days at most.
";
/// Under another name first: an empty passphrase must never be taken for one.
const MAKE_PASSPHRASE: &str = "\
if [ ! -e \"$FOLDER/passphrase\" ]; then
    head -c 32 /dev/urandom | base64 >\"$FOLDER/passphrase.new\"
    [ -s \"$FOLDER/passphrase.new\" ]
    mv \"$FOLDER/passphrase.new\" \"$FOLDER/passphrase\"
fi
";
const KEEP_PASSPHRASE: &str = "\
echo \"Keep a copy of $FOLDER/passphrase away from this machine: without it nothing can be restored. README.txt says more.\"
";
const PASSPHRASE_NOTE: &str = "
`install` makes a passphrase, /etc/strongroom-backup/passphrase. Keep a copy of it away from this machine: without it
nothing can be restored, by nobody. To use one of your own, write it there before step 3.
";
const KEY_NOTE: &str = "
The key of the repository lies on this machine only. Keep a copy of it, too:

    strongroom-backup borg key export :: FILE
";

impl Encryption {
    fn has_passphrase(self) -> bool {
        self != Self::None
    }

    fn has_key_file(self) -> bool {
        matches!(self, Self::Keyfile | Self::KeyfileBlake2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn facts() -> Facts {
        let host = |name: &str| Host::new(name).unwrap();
        Facts {
            client: ClientName::new("asus_home").unwrap(),
            host: host("strongroom.local"),
            port: SSH_PORT,
            other_names: vec![
                host("strongroom"),
                host("strongroom.local"),
                host("192.168.1.10"),
                host("fd00::10"),
            ],
            host_key: SshPublicKey::parse(KEY).unwrap(),
            fingerprint: Some("SHA256:oWuYfTM+KO/wn0x9RQNLxJfPPF3Zga/+LeT0xXntPqk".into()),
            encryption: Encryption::None,
            prune_every: 0,
        }
    }

    fn text(facts: &Facts, name: &str) -> String {
        kit(facts).into_iter().find(|file| file.name == name).unwrap().text
    }

    /// Everything, as one text.
    fn whole(facts: &Facts) -> String {
        let files = kit(facts).into_iter().map(|file| {
            let program = if file.program { " (program)" } else { "" };
            format!("==== {}{program}\n{}", file.name, file.text)
        });
        files.chain([format!("==== (pasted)\n{}", paste(facts))]).collect()
    }

    /// The golden texts are what tests/kit.rs has real programs accept. `KIT_GOLDEN=1 cargo test kit` writes them anew.
    fn golden(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/kit/golden")
            .join(name);
        if std::env::var_os("KIT_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert!(text == expected, "{name} is another than before:\n{text}");
    }

    #[test]
    fn whole_kits_are_as_they_were_when_real_programs_took_them() {
        golden("plain.txt", &whole(&facts()));
        let encrypted = Facts {
            host: Host::new("fd00::10").unwrap(),
            port: 2222,
            fingerprint: None,
            encryption: Encryption::KeyfileBlake2,
            prune_every: 37,
            ..facts()
        };
        golden("encrypted.txt", &whole(&encrypted));
    }

    #[test]
    fn the_host_key_is_pinned_for_every_name() {
        assert_eq!(
            text(&facts(), "known_hosts"),
            format!("strongroom.local,strongroom,192.168.1.10,fd00::10 {KEY}\n")
        );
        let forwarded = Facts {
            port: 2222,
            other_names: Vec::new(),
            ..facts()
        };
        assert_eq!(
            text(&forwarded, "known_hosts"),
            format!("[strongroom.local]:2222,strongroom.local {KEY}\n")
        );
        assert!(text(&forwarded, "ssh_config").contains("    Port 2222\n"));
    }

    proptest! {
        #[test]
        fn no_mark_is_left(client in "[a-z0-9_][a-z0-9_-]{0,30}", port in 1u16.., encryption in 0usize..7, six in any::<bool>()) {
            let facts = Facts {
                client: ClientName::new(&client).unwrap(),
                host: Host::new(if six { "fd00::1" } else { "backup.example" }).unwrap(),
                port,
                encryption: Encryption::value_variants()[encryption],
                ..facts()
            };
            let whole = whole(&facts);
            for line in whole.lines() {
                let parts: Vec<&str> = line.split('@').collect();
                let is_mark = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
                prop_assert!(!inner.iter().any(is_mark), "{}", line);
            }
            prop_assert_eq!(whole.contains("passphrase"), facts.encryption != Encryption::None);
        }
    }
}
