use super::*;
use crate::config::{Config, Size};
use proptest::prelude::*;
use std::string::ToString;

const KEYS: [&str; 4] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
];
const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";

fn name(text: &str) -> ClientName {
    ClientName::new(text).unwrap()
}

fn key(number: usize) -> SshPublicKey {
    SshPublicKey::parse(&format!("{} \"key\" \\{number}", KEYS[number])).unwrap()
}

fn declared(text: &str) -> Config {
    Config::parse(text).unwrap()
}

/// One client in strongroom.toml.
fn attic() -> Config {
    declared(&format!("[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n", KEYS[0]))
}

fn add(client: &str, number: usize) -> Change {
    Change::Add {
        name: name(client),
        keys: [key(number)].into(),
        restore_keys: Vec::new(),
        settings: Settings::default(),
    }
}

fn after(declared: &Config, changes: &[Change]) -> Registry {
    changes.iter().fold(Registry::default(), |registry, change| {
        registry.changed(declared, change).unwrap().registry
    })
}

fn refused(declared: &Config, changes: &[Change], last: &Change) -> String {
    after(declared, changes)
        .changed(declared, last)
        .unwrap_err()
        .to_string()
}

fn names(config: &Config) -> Vec<&str> {
    config
        .client
        .iter()
        .map(|client| client.name.get_ref().as_str())
        .collect()
}

#[test]
fn an_enrolled_client_stands_beside_those_of_the_file() {
    let registry = after(&attic(), &[add("asus", 1)]);
    let merged = merge(&attic(), &registry);
    assert_eq!(
        (names(&merged.config), merged.notes.len()),
        (["attic", "asus"].into(), 0)
    );
    let client = merged.config.client("asus").unwrap();
    assert_eq!((client.expect_hours, client.paused), (48, false));
    let listed = listing(&attic(), &registry);
    assert!(listed[0].declared && !listed[1].declared);
    assert_eq!(listed[1].keys[0].fingerprint, key(1).fingerprint());
    assert_eq!(listed[1].keys[0].comment, "\"key\" \\1");
}

#[test]
fn what_is_written_can_be_read_and_moved_to_the_file() {
    let everything = Change::Add {
        name: name("asus"),
        keys: [key(1), key(2)].into(),
        restore_keys: [key(3)].into(),
        settings: Settings {
            quota: Size::new("1.5 TB"),
            expect_hours: Some(200),
            from: Some([crate::config::AddressRange::new("fd00::/64").unwrap()].into()),
            compact_after_days: Some(30),
        },
    };
    let changes = [
        everything,
        Change::Pause { name: name("attic") },
        Change::Revoke {
            name: name("attic"),
            fingerprint: None,
        },
        Change::Rename {
            from: name("asus"),
            to: name("asus-2"),
            new_copies: false,
        },
    ];
    let registry = after(&attic(), &changes);
    let text = registry.to_toml();
    assert_eq!(Registry::parse(&text).unwrap(), registry, "{text}");
    assert_eq!(registry.moving.as_ref().unwrap().to, name("asus-2"));
    let only_client = &text[text.find("[[client]]").unwrap()..];
    assert_eq!(Config::parse(only_client).unwrap().client, registry.client);
    for bad in [
        "client = 1",
        "[[client]]\nname = \"a\"\nkeys = []\nroot = true",
        "paused = [\"../x\"]",
        "[network]",
    ] {
        assert!(Registry::parse(bad).is_err(), "{bad}");
    }
    let twice = format!("{only_client}{only_client}");
    assert!(Registry::parse(&twice).unwrap_err().to_string().contains("twice"));
}

#[test]
fn of_a_damaged_registry_what_was_forbidden_stays_forbidden() {
    let revoke = Change::Revoke {
        name: name("asus"),
        fingerprint: Some(key(2).fingerprint()),
    };
    let both = Change::Rotate {
        name: name("asus"),
        keys: [key(2)].into(),
        restore_keys: Vec::new(),
        keep_old: true,
    };
    let changes = [add("asus", 1), both, revoke, Change::Pause { name: name("attic") }];
    let registry = after(&attic(), &changes);
    let only = Registry {
        paused: registry.paused.clone(),
        revoked: registry.revoked.clone(),
        ..Registry::default()
    };
    let text = registry.to_toml();
    assert_eq!(only.revoked[0], key(2));
    assert_eq!(Registry::salvaged(&text), only);
    // As a newer release may have written it, and with a torn end.
    for damaged in [
        format!("root = true\n{text}"),
        text.replace("[[client]]", "[[client"),
        text[..text.find("[[client]]").unwrap() + 3].to_string(),
        text.replace("keys = [", "keys = [\n    \"\u{0}\","),
    ] {
        assert!(Registry::parse(&damaged).is_err(), "{damaged}");
        assert_eq!(Registry::salvaged(&damaged), only, "{damaged}");
    }
    let one = text.replace(KEYS[2], "ssh-ed25519 AAAA");
    assert_eq!(Registry::salvaged(&one).revoked, []);
}

proptest! {
    #[test]
    fn nothing_is_made_of_noise(noise in "[\\PC\n\"\\\\\\[\\]=]{0,300}") {
        let rest = Registry::salvaged(&noise);
        prop_assert!(rest.client.is_empty() && rest.moving.is_none());
        prop_assert_eq!(Registry::parse(&rest.to_toml()).unwrap(), rest);
    }
}

#[test]
fn what_the_file_declares_is_changed_there() {
    let file = attic();
    for change in [
        add("attic", 1),
        Change::Set {
            name: name("attic"),
            settings: Settings {
                expect_hours: Some(5),
                ..Settings::default()
            },
        },
        Change::Rename {
            from: name("attic"),
            to: name("cellar"),
            new_copies: false,
        },
        Change::Rotate {
            name: name("attic"),
            keys: [key(1)].into(),
            restore_keys: Vec::new(),
            keep_old: true,
        },
        Change::Remove {
            name: name("attic"),
            delete_repository: true,
        },
    ] {
        let told = refused(&file, &[], &change);
        assert!(told.contains("declared in strongroom.toml"), "{change:?}: {told}");
    }
    assert!(
        Registry::default()
            .may_pair(&file, &name("attic"), &Settings::default())
            .is_err()
    );
    // What must work at once does, for any client.
    let pause = Change::Pause { name: name("attic") };
    let changed = Registry::default().changed(&file, &pause).unwrap();
    assert_eq!(changed.end_sessions, Some(name("attic")));
    assert!(merge(&file, &changed.registry).config.client[0].paused);
    let resumed = changed
        .registry
        .changed(&file, &Change::Resume { name: name("attic") })
        .unwrap();
    assert!(!merge(&file, &resumed.registry).config.client[0].paused);
}

#[test]
fn keys_are_one_clients_only() {
    let file = declared(&format!(
        "[admin]\nkeys = [\"{}\"]\n[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n",
        KEYS[3], KEYS[0]
    ));
    assert!(refused(&file, &[], &add("asus", 0)).contains("client `attic`"));
    assert!(refused(&file, &[], &add("asus", 3)).contains("administrator"));
    assert!(refused(&file, &[add("asus", 1)], &add("other", 1)).contains("client `asus`"));
    let none = Change::Add {
        name: name("asus"),
        keys: Vec::new(),
        restore_keys: [key(1)].into(),
        settings: Settings::default(),
    };
    assert!(refused(&file, &[], &none).contains("needs a key"));
    let twice = Change::Add {
        name: name("asus"),
        keys: [key(1)].into(),
        restore_keys: [key(1)].into(),
        settings: Settings::default(),
    };
    assert!(refused(&file, &[], &twice).contains("this client"));
}

#[test]
fn keys_are_rotated_with_and_without_the_old_ones() {
    let file = attic();
    let rotate = |keep_old| Change::Rotate {
        name: name("asus"),
        keys: [key(2)].into(),
        restore_keys: Vec::new(),
        keep_old,
    };
    let count = |changes: &[Change]| {
        merge(&file, &after(&file, changes))
            .config
            .client("asus")
            .unwrap()
            .keys
            .len()
    };
    assert_eq!(count(&[add("asus", 1), rotate(true)]), 2);
    assert_eq!(count(&[add("asus", 1), rotate(false)]), 1);
    // The same key again takes the place of itself.
    assert_eq!(count(&[add("asus", 2), rotate(false)]), 1);
    assert!(refused(&file, &[add("asus", 2)], &rotate(true)).contains("client `asus`"));
    let other_kind = Change::Rotate {
        name: name("asus"),
        keys: Vec::new(),
        restore_keys: [key(1)].into(),
        keep_old: false,
    };
    assert!(refused(&file, &[add("asus", 1)], &other_kind).contains("client `asus`"));
}

#[test]
fn a_revoked_key_never_comes_back() {
    let file = attic();
    let revoke = |client: &str, key: Option<&SshPublicKey>| Change::Revoke {
        name: name(client),
        fingerprint: key.map(SshPublicKey::fingerprint),
    };
    let registry = after(
        &file,
        &[add("asus", 1), revoke("asus", None), revoke("attic", Some(&key(0)))],
    );
    let merged = merge(&file, &registry);
    assert_eq!(merged.notes, [Note::Revoked(name("attic"))]);
    assert!(merged.config.client.iter().all(|client| client.keys.is_empty()));
    assert!(
        registry
            .changed(&file, &add("new", 1))
            .unwrap_err()
            .to_string()
            .contains("revoked")
    );
    // Without its line the file is as good as any.
    assert!(merge(&Config::default(), &registry).notes.is_empty());
    assert!(registry.changed(&file, &add("new", 2)).is_ok());
    assert!(refused(&file, &[], &revoke("attic", Some(&key(2)))).contains("has no key"));
    assert!(refused(&file, &[], &revoke("nobody", None)).contains("no client"));
    assert!(refused(&file, &[revoke("attic", None)], &revoke("attic", None)).contains("nothing to revoke"));
}

#[test]
fn a_new_file_wins_over_the_registry_and_nothing_is_lost() {
    let registry = after(&Config::default(), &[add("attic", 1), add("asus", 2)]);
    let file = declared(&format!(
        "[[client]]\nname = \"attic\"\nkeys = [\"{}\", \"{}\"]\n",
        KEYS[0], KEYS[2]
    ));
    let merged = merge(&file, &registry);
    assert_eq!(names(&merged.config), ["attic", "asus"]);
    assert_eq!(merged.config.client[0], file.client[0]);
    assert_eq!(
        merged.notes,
        [
            Note::Shadowed(name("attic")),
            Note::KeyTaken(name("asus"), "client `attic`".into())
        ]
    );
    assert!(merged.config.client[1].keys.is_empty());
    // Taken out again, all is as before.
    assert!(merge(&Config::default(), &registry).notes.is_empty());
    // The enrolled one can be forgotten, with no word of its repository.
    let remove = |delete_repository| Change::Remove {
        name: name("attic"),
        delete_repository,
    };
    assert!(registry.changed(&file, &remove(true)).is_err());
    let forgotten = registry.changed(&file, &remove(false)).unwrap();
    assert!(forgotten.registry.client(&name("attic")).is_none() && forgotten.end_sessions.is_none());
}

#[test]
fn there_are_64_at_most() {
    let many: String = (0..64)
        .map(|number| format!("[[client]]\nname = \"c{number}\"\nkeys = [\"{}\"]\n", numbered(number)))
        .collect();
    let file = declared(&many);
    let told = Registry::default()
        .changed(&file, &add("asus", 1))
        .unwrap_err()
        .to_string();
    assert!(told.contains("64 clients already"), "{told}");
    assert!(
        Registry::default()
            .may_pair(&file, &name("asus"), &Settings::default())
            .is_err()
    );
    let merged = merge(&file, &after(&Config::default(), &[add("asus", 1)]));
    assert_eq!((merged.config.client.len(), merged.notes.len()), (64, 1));
}

/// Another key for each number.
fn numbered(number: usize) -> String {
    let blob = [0, 0, 0, 11]
        .iter()
        .chain(b"ssh-ed25519")
        .chain(&[0, 0, 0, 32])
        .copied();
    let blob: Vec<u8> = blob.chain([100; 31]).chain([number as u8]).collect();
    crate::ssh_key::line_of("ssh-ed25519", &blob)
}

#[test]
fn a_target_with_room_for_one_gets_no_second() {
    let file = format!("{TARGET}prefix = \"box\"\n");
    let one = format!("{file}[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n", KEYS[0]);
    let told = Registry::default()
        .changed(&declared(&one), &add("asus", 1))
        .unwrap_err()
        .to_string();
    assert!(told.contains("share one prefix"), "{told}");
    // Enrolled first, and then the file brings another.
    let registry = after(&declared(&file), &[add("asus", 1)]);
    let merged = merge(&declared(&one), &registry);
    assert_eq!(merged.notes.len(), 1);
    let asus = merged.config.client("asus").unwrap();
    assert_eq!(merged.config.targets_of(asus).count(), 0);
    assert_eq!(merged.config.targets_of(&merged.config.client[0]).count(), 1);
    assert!(registry.named_targets(&declared(&file), &name("asus")).is_empty());
    assert_eq!(registry.named_targets(&declared(TARGET), &name("asus")).len(), 1);
}

#[test]
fn a_new_name_keeps_all_but_the_name() {
    let file = attic();
    let rename = |from: &str, to: &str| Change::Rename {
        from: name(from),
        to: name(to),
        new_copies: false,
    };
    let registry = after(
        &file,
        &[
            add("asus", 1),
            Change::Pause { name: name("asus") },
            rename("asus", "laptop"),
        ],
    );
    let client = merge(&file, &registry).config.client[1].clone();
    assert_eq!((client.name.get_ref().as_str(), client.paused), ("laptop", true));
    assert_eq!(client.keys.len(), 1);
    assert!(refused(&file, &[add("asus", 1)], &rename("asus", "attic")).contains("attic"));
    assert!(refused(&file, &[add("asus", 1)], &rename("asus", "asus")).contains("already"));
    assert!(refused(&file, &[], &rename("asus", "laptop")).contains("no client"));
}

#[test]
fn settings_are_bounded() {
    let with = |settings| Change::Add {
        name: name("asus"),
        keys: [key(1)].into(),
        restore_keys: Vec::new(),
        settings,
    };
    let small = Settings {
        quota: Size::new("9 MB"),
        ..Settings::default()
    };
    assert!(refused(&attic(), &[], &with(small.clone())).contains("10 MB"));
    assert!(Registry::default().may_pair(&attic(), &name("asus"), &small).is_err());
    for hours in [0, 8761] {
        let settings = Settings {
            expect_hours: Some(hours),
            ..Settings::default()
        };
        assert!(refused(&attic(), &[], &with(settings)).contains("8760"));
    }
    for (days, kept) in [
        (0, Ok(None)),
        (6, Err(())),
        (7, Ok(Some(7))),
        (365, Ok(Some(365))),
        (366, Err(())),
    ] {
        let settings = Settings {
            compact_after_days: Some(days),
            ..Settings::default()
        };
        let set = Change::Set {
            name: name("asus"),
            settings,
        };
        let changed = after(&attic(), &[add("asus", 1)]).changed(&attic(), &set);
        let registry = changed.map(|changed| changed.registry).map_err(drop);
        let listed = registry.map(|registry| listing(&attic(), &registry)[1].compact_after_days);
        assert_eq!(listed, kept, "{days}");
    }
    let nothing = Change::Set {
        name: name("asus"),
        settings: Settings::default(),
    };
    assert!(refused(&attic(), &[add("asus", 1)], &nothing).contains("nothing to change"));
}

#[test]
fn a_paired_key_enrols_or_is_added() {
    let file = attic();
    let new = Registry::default();
    assert_eq!(new.may_pair(&file, &name("asus"), &Settings::default()), Ok(false));
    let enrolled = new
        .changed(&file, &new.paired(&name("asus"), &key(1), &Settings::default()))
        .unwrap()
        .registry;
    assert_eq!(enrolled.may_pair(&file, &name("asus"), &Settings::default()), Ok(true));
    let both = enrolled
        .changed(&file, &enrolled.paired(&name("asus"), &key(2), &Settings::default()))
        .unwrap()
        .registry;
    assert_eq!(both.client[0].keys.len(), 2);
}

#[test]
fn revoked_keys_are_bounded_and_those_of_the_file_stay() {
    let file = attic();
    let mut registry = after(
        &file,
        &[Change::Revoke {
            name: name("attic"),
            fingerprint: None,
        }],
    );
    registry
        .revoked
        .extend((1..=255).map(|number| SshPublicKey::parse(&numbered(number)).unwrap()));
    let registry = registry.changed(&file, &add("asus", 1)).unwrap().registry;
    let registry = registry
        .changed(
            &file,
            &Change::Revoke {
                name: name("asus"),
                fingerprint: None,
            },
        )
        .unwrap()
        .registry;
    assert_eq!(registry.revoked.len(), REVOKED_MAX);
    assert!(registry.is_revoked(&key(0)) && registry.is_revoked(&key(1)));
    assert!(!registry.is_revoked(&SshPublicKey::parse(&numbered(1)).unwrap()));
}

#[test]
fn requests_are_read_back_as_they_were_said() {
    let request = Request::Change(add("asus", 1));
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    for bad in [
        "{\"change\":{\"pause\":{\"name\":\"../x\"}}}",
        "{\"change\":{\"pause\":{\"name\":\"a\",\"root\":true}}}",
        "{\"change\":{\"add\":{\"name\":\"a\",\"keys\":[\"command=\\\"sh\\\" ssh-ed25519 AAAA\"],\"restore_keys\":[],\"settings\":{}}}}",
    ] {
        assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn whatever_is_commanded_the_whole_stays_valid(
        steps in proptest::collection::vec((0usize..8, 0usize..4, 0usize..4), 0..24),
    ) {
        let file = attic();
        let all = ["attic", "asus", "laptop", "nas"];
        let mut registry = Registry::default();
        for (verb, who, number) in steps {
            let (name, keys) = (name(all[who]), [key(number)].into());
            let change = match verb {
                0 | 1 => Change::Add { name, keys, restore_keys: Vec::new(), settings: Settings::default() },
                2 => Change::Rotate { name, keys, restore_keys: Vec::new(), keep_old: number % 2 == 0 },
                3 => Change::Rotate { name, keys: Vec::new(), restore_keys: keys, keep_old: false },
                4 => Change::Revoke { name, fingerprint: None },
                5 => Change::Rename { from: name, to: self::name(all[number]), new_copies: false },
                6 => Change::Remove { name, delete_repository: false },
                _ => Change::Pause { name },
            };
            if let Ok(changed) = registry.changed(&file, &change) {
                registry = changed.registry;
            }
            prop_assert_eq!(&Registry::parse(&registry.to_toml()).unwrap(), &registry);
            let merged = merge(&file, &registry).config;
            let mut seen: Vec<SshPublicKey> = Vec::new();
            for (key, _) in merged.client.iter().flat_map(|client| client.all_keys()) {
                prop_assert!(!seen.iter().any(|other| other.same_key(key)));
                prop_assert!(!registry.is_revoked(key));
                seen.push(key.clone());
            }
        }
    }
}
