//! The unit of a session: its name, and all that systemd is told of it. Pure; whoever may ask for a session decides about
//! nothing here but the client, the right and how much Borg tells.

use super::accounts::Account;
use crate::paths::{ARRAY_MOUNT, repository_name};
use std::fmt;
use std::str::FromStr;
use strongroom_model::name::ClientName;
use zbus::Variant;

/// What the unit's root looks like, made by tmpfiles.d: empty folders and links into /usr.
const ROOT: &str = "/run/strongroom/session";
/// Holds all sessions together within the machine's memory.
pub const SLICE: &str = "strongroom-sessions.slice";
/// Our program in the unit.
pub const HELPER: &str = "/usr/lib/strongroom/strongroom-session";
/// Most memory of one session. Borg keeps the repository's index in memory: some 50 bytes for each chunk.
const MEMORY_MAX: u64 = 1 << 30;
/// Most processes and threads of one session; Borg is one.
const TASKS_MAX: u64 = 16;
/// Most open files; Borg keeps up to some hundred segments open.
const FILES_MAX: u64 = 4096;
/// Share of the disks among what wants them at once; 100 is the usual one.
const IO_WEIGHT: u64 = 50;
/// How long Borg has to end when it is told to, in microseconds.
const STOP_US: u64 = 10_000_000;

/// What a key permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To add, and to mark as deleted; never to erase.
    Append,
    /// To read, for restores.
    Read,
}

/// How much Borg tells the client's user. The only thing that the client's own command decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `--critical`
    Critical,
    /// `--error`
    Error,
    /// `--warning`, Borg's default.
    #[default]
    Warning,
    /// `--info`
    Info,
    /// `--debug`
    Debug,
}

impl Level {
    /// All, from quiet to loud.
    pub const ALL: [Self; 5] = [Self::Critical, Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// Borg's option.
    pub fn option(self) -> &'static str {
        match self {
            Self::Critical => "--critical",
            Self::Error => "--error",
            Self::Warning => "--warning",
            Self::Info => "--info",
            Self::Debug => "--debug",
        }
    }
}

/// Which session: the client's name and a number that no other session of this start of the machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// The client.
    pub client: ClientName,
    /// The number.
    pub number: u64,
}

const UNIT_START: &str = "strongroom-session@";
const UNIT_END: &str = ".service";

/// What the units of all sessions match.
pub const UNIT_PATTERN: &str = "strongroom-session@*.service";

impl SessionId {
    /// Name of its unit.
    pub fn unit(&self) -> String {
        format!("{UNIT_START}{self}{UNIT_END}")
    }

    /// The session of a unit; `None` when it is not one of ours.
    pub fn of_unit(unit: &str) -> Option<Self> {
        unit.strip_prefix(UNIT_START)?.strip_suffix(UNIT_END)?.parse().ok()
    }

    /// The unit's object.
    pub fn object_path(&self) -> String {
        object_path(&self.unit())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client, self.number)
    }
}

/// Not the id of a session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a session; `strongroom sessions` lists them, as in `asus_home-3`")]
pub struct NoSession;

impl FromStr for SessionId {
    type Err = NoSession;

    fn from_str(text: &str) -> Result<Self, NoSession> {
        let (client, number) = text.rsplit_once('-').ok_or(NoSession)?;
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        match (ClientName::new(client), number.parse()) {
            (Ok(client), Ok(number)) if plain => Ok(Self { client, number }),
            _ => Err(NoSession),
        }
    }
}

/// What a session is to be.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which one.
    pub id: SessionId,
    /// As whom.
    pub account: Account,
    /// With which right.
    pub right: Right,
    /// How much Borg tells.
    pub level: Level,
    /// How many bytes the repository may hold.
    pub quota: Option<u64>,
    /// What Borg takes for this machine's name in its locks, so that one left by a power cut is known to be stale.
    pub host: String,
}

impl Session {
    /// The repository, in the unit as outside of it.
    fn repository(&self) -> String {
        format!("{ARRAY_MOUNT}/{}", repository_name(&self.id.client))
    }

    /// The program and its arguments, as started in the unit.
    fn command(&self) -> Vec<String> {
        let right = match self.right {
            Right::Append => "append",
            Right::Read => "read",
        };
        let repository = self.repository();
        let mut words: Vec<String> = [HELPER, right, &repository, "/usr/bin/borg", "serve", "--append-only"]
            .map(String::from)
            .into();
        words.extend(
            [
                "--umask=077",
                self.level.option(),
                "--restrict-to-repository",
                &repository,
            ]
            .map(String::from),
        );
        if let Some(bytes) = self.quota {
            words.push(format!("--storage-quota={bytes}"));
        }
        words
    }
}

/// systemd's flag for binding what is mounted beneath as well is not among these: nothing is.
const BIND_PLAIN: u64 = 0;

/// What runs in a unit that sees Borg, and one repository.
pub struct Confined<'a> {
    /// What the unit is, for people.
    pub description: String,
    /// As whom.
    pub account: Account,
    /// The repository's path, in the unit as outside of it.
    pub repository: &'a str,
    /// Whether it may be written to.
    pub writable: bool,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What Borg takes for this machine's name in its locks.
    pub host: &'a str,
}

/// Everything about the unit of a session but its file descriptors.
pub fn properties(session: &Session) -> Vec<(&'static str, Variant<'static>)> {
    let mut all = confined(&Confined {
        description: format!("Strongroom: session {} of client {}", session.id, session.id.client),
        account: session.account,
        repository: &session.repository(),
        writable: session.right == Right::Append,
        command: session.command(),
        host: &session.host,
    });
    all.push(("IOWeight", Variant::from(IO_WEIGHT)));
    all
}

/// The walls: names and values as in org.freedesktop.systemd1(5); what they mean is in systemd.exec(5) and
/// systemd.resource-control(5).
pub fn confined(what: &Confined<'_>) -> Vec<(&'static str, Variant<'static>)> {
    let text = |text: &str| Variant::from(text.to_string());
    let texts = |all: &[&str]| Variant::from(all.iter().map(|text| text.to_string()).collect::<Vec<_>>());
    let bind = |path: &str| (path.to_string(), path.to_string(), false, BIND_PLAIN);
    let command = |words: Vec<String>| Variant::from(vec![(HELPER.to_string(), words, false)]);
    let allow = |all: &[&str]| Variant::from((true, all.iter().map(|text| text.to_string()).collect::<Vec<_>>()));
    let deny = |all: &[&str]| Variant::from((false, all.iter().map(|text| text.to_string()).collect::<Vec<_>>()));
    let account = what.account.id().to_string();
    let repository = what.repository;
    let mut all = vec![
        ("Description", text(&what.description)),
        ("Type", text("exec")),
        // It goes by itself, however it ended; the broker holds on to it until it has read how.
        ("CollectMode", text("inactive-or-failed")),
        ("AddRef", Variant::from(true)),
        ("RequiresMountsFor", texts(&[ARRAY_MOUNT])),
        ("ExecStart", command(what.command.clone())),
        // As whom.
        ("User", text(&account)),
        ("Group", text(&account)),
        ("NoNewPrivileges", Variant::from(true)),
        ("CapabilityBoundingSet", Variant::from(0_u64)),
        ("AmbientCapabilities", Variant::from(0_u64)),
        ("UMask", Variant::from(0o077_u32)),
        // What it sees: Borg, and one repository.
        ("RootDirectory", text(ROOT)),
        ("MountAPIVFS", Variant::from(false)),
        ("BindLogSockets", Variant::from(false)),
        ("ProtectSystem", text("strict")),
        ("PrivateDevices", Variant::from(true)),
        ("PrivateIPC", Variant::from(true)),
        (
            "TemporaryFileSystem",
            Variant::from(vec![
                (ARRAY_MOUNT.to_string(), "size=64k,nr_inodes=16,mode=755".to_string()),
                ("/tmp".to_string(), "size=8M,nr_inodes=256,mode=1777".to_string()),
            ]),
        ),
        ("WorkingDirectory", text("/tmp")),
        (
            "Environment",
            texts(&[
                "PATH=/usr/bin",
                "LANG=C.UTF-8",
                "HOME=/tmp",
                "BORG_BASE_DIR=/tmp",
                &format!("BORG_HOST_ID={}", what.host),
                // Nothing could be kept.
                "PYTHONDONTWRITEBYTECODE=1",
            ]),
        ),
        // What it may do.
        ("PrivateNetwork", Variant::from(true)),
        ("RestrictAddressFamilies", allow(&["AF_UNIX"])),
        ("RestrictNamespaces", Variant::from(0_u64)),
        ("RestrictRealtime", Variant::from(true)),
        ("RestrictSUIDSGID", Variant::from(true)),
        ("LockPersonality", Variant::from(true)),
        ("MemoryDenyWriteExecute", Variant::from(true)),
        ("SystemCallArchitectures", texts(&["native"])),
        ("SystemCallErrorNumber", Variant::from(1_i32)), // EPERM
        ("SystemCallFilter", allow(&["@system-service", "@sandbox"])),
        ("SystemCallFilter", deny(&["@privileged", "@resources", "@keyring"])),
        // How much it may take.
        ("Slice", text(SLICE)),
        ("MemoryMax", Variant::from(MEMORY_MAX)),
        ("TasksMax", Variant::from(TASKS_MAX)),
        ("LimitNOFILE", Variant::from(FILES_MAX)),
        ("LimitCORE", Variant::from(0_u64)),
        ("IOAccounting", Variant::from(true)),
        // Before anything of the appliance's own.
        ("OOMScoreAdjust", Variant::from(500_i32)),
        ("TimeoutStopUSec", Variant::from(STOP_US)),
    ];
    if what.writable {
        all.push(("BindPaths", Variant::from(vec![bind(repository)])));
        all.push(("BindReadOnlyPaths", Variant::from(vec![bind("/usr")])));
        let settle = [HELPER, "settle", repository].map(String::from).into();
        all.push(("ExecStopPost", command(settle)));
    } else {
        all.push(("BindReadOnlyPaths", Variant::from(vec![bind("/usr"), bind(repository)])));
    }
    all
}

/// A unit's object (sd_bus_path_encode(3)).
pub fn object_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for byte in unit.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(right: Right) -> Session {
        Session {
            id: "asus_home-3".parse().unwrap(),
            account: Account::of_owner(705).unwrap(),
            right,
            level: Level::Info,
            quota: Some(500_000_000_000),
            host: "0123@strongroom".into(),
        }
    }

    fn value(session: &Session, name: &str) -> String {
        let found: Vec<String> = properties(session)
            .iter()
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| format!("{value:?}"))
            .collect();
        assert!(!found.is_empty(), "{name} is not set");
        found.join(" ")
    }

    #[test]
    fn borg_gets_its_own_repository_and_our_options_only() {
        let words = session(Right::Append).command();
        assert_eq!(
            words.join(" "),
            "/usr/lib/strongroom/strongroom-session append /mnt/raid/asus_home_repository /usr/bin/borg serve --append-only \
             --umask=077 --info --restrict-to-repository /mnt/raid/asus_home_repository --storage-quota=500000000000"
        );
        let mut without = session(Right::Read);
        without.quota = None;
        let words = without.command();
        assert_eq!(words[1], "read");
        assert!(words.contains(&"--append-only".to_string()));
        assert!(!words.iter().any(|word| word.contains("quota")));
    }

    #[test]
    fn the_walls_stand() {
        let session = session(Right::Append);
        for (name, expected) in [
            ("User", "705"),
            ("Group", "705"),
            ("NoNewPrivileges", "true"),
            ("CapabilityBoundingSet", "U64(0)"),
            ("RootDirectory", "/run/strongroom/session"),
            ("ProtectSystem", "strict"),
            ("PrivateNetwork", "true"),
            ("PrivateDevices", "true"),
            ("RestrictNamespaces", "U64(0)"),
            ("SystemCallFilter", "@system-service"),
            ("SystemCallFilter", "@privileged"),
            ("MemoryMax", "1073741824"),
            ("TasksMax", "16"),
            ("Slice", "strongroom-sessions.slice"),
            ("CollectMode", "inactive-or-failed"),
            ("ExecStopPost", "settle"),
        ] {
            let value = value(&session, name);
            assert!(value.contains(expected), "{name}: {value}");
        }
    }

    #[test]
    fn the_only_writable_place_is_the_repository_and_none_for_a_key_that_reads() {
        let append = session(Right::Append);
        let writable = value(&append, "BindPaths");
        assert_eq!(
            writable.matches("/mnt/raid/asus_home_repository").count(),
            2,
            "{writable}"
        );
        assert!(!value(&append, "BindReadOnlyPaths").contains("/mnt"));
        let read = session(Right::Read);
        assert!(
            properties(&read)
                .iter()
                .all(|(name, _)| *name != "BindPaths" && *name != "ExecStopPost")
        );
        assert!(value(&read, "BindReadOnlyPaths").contains("/mnt/raid/asus_home_repository"));
    }

    #[test]
    fn every_property_has_the_type_that_systemd_expects() {
        for (name, value) in properties(&session(Right::Append)) {
            let expected = match name {
                "ExecStart" | "ExecStopPost" => "a(sasb)",
                "BindPaths" | "BindReadOnlyPaths" => "a(ssbt)",
                "TemporaryFileSystem" => "a(ss)",
                "RestrictAddressFamilies" | "SystemCallFilter" => "(bas)",
                "Environment" | "RequiresMountsFor" | "SystemCallArchitectures" => "as",
                "UMask" => "u",
                "OOMScoreAdjust" | "SystemCallErrorNumber" => "i",
                "CapabilityBoundingSet"
                | "AmbientCapabilities"
                | "RestrictNamespaces"
                | "MemoryMax"
                | "TasksMax"
                | "LimitNOFILE"
                | "LimitCORE"
                | "IOWeight"
                | "TimeoutStopUSec" => "t",
                "Description" | "Type" | "CollectMode" | "User" | "Group" | "RootDirectory" | "ProtectSystem"
                | "WorkingDirectory" | "Slice" => "s",
                _ => "b",
            };
            assert_eq!(value.value_signature().to_string(), expected, "{name}");
        }
    }

    #[test]
    fn a_session_is_known_by_its_unit() {
        let id: SessionId = "asus_home-3".parse().unwrap();
        assert_eq!(id.unit(), "strongroom-session@asus_home-3.service");
        assert_eq!(SessionId::of_unit(&id.unit()), Some(id.clone()));
        assert_eq!(
            id.object_path(),
            "/org/freedesktop/systemd1/unit/strongroom_2dsession_40asus_5fhome_2d3_2eservice"
        );
        for bad in [
            "",
            "asus",
            "asus-",
            "-3",
            "asus-03",
            "asus-+3",
            "asus-x",
            "../x-3",
            "asus-3.service",
            "A-3",
        ] {
            assert_eq!(bad.parse::<SessionId>(), Err(NoSession), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip(client in "[a-z0-9_][a-z0-9_-]{0,30}", number in 1u64..) {
            let id = SessionId { client: ClientName::new(&client).unwrap(), number };
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id.clone()));
            prop_assert_eq!(SessionId::of_unit(&id.unit()), Some(id));
        }

        #[test]
        fn nothing_but_a_repository_of_the_array_is_ever_bound(client in "[a-z0-9_][a-z0-9_-]{0,30}") {
            let mut session = session(Right::Append);
            session.id.client = ClientName::new(&client).unwrap();
            prop_assert_eq!(session.repository(), format!("/mnt/raid/{client}_repository"));
        }
    }
}
