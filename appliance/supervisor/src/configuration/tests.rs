use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO root@asus";

fn files(config: &Config) -> Vec<generate::Generated> {
    generate::files(config, "strongroom_1", &Trust::default())
}

fn content<'a>(files: &'a [generate::Generated], path: &str) -> &'a str {
    &files.iter().find(|file| file.path.ends_with(path)).unwrap().content
}

#[test]
fn a_client_key_admits_one_command_only() {
    let config = Config::parse(&format!("[[client]]\nname = \"asus\"\nkeys = [\"{KEY}\"]\n")).unwrap();
    let files = files(&config);
    let keys = content(&files, "authorized_keys/borgbackup");
    let lines: Vec<&str> = keys.lines().filter(|line| !line.starts_with('#')).collect();
    let key = KEY.rsplit_once(' ').unwrap().0;
    assert_eq!(
        lines,
        [format!(
            "restrict,command=\"/usr/lib/strongroom/strongroom-serve asus SHA256:Pc1/JGh4iN3i6tWuNUUT6mkd/yiapqWo1vok87uKLl0\" {key}"
        )]
    );
}

#[test]
fn addresses_and_the_right_of_a_key_stand_in_its_line() {
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBbGCnrVR+MkRRvhHF3kdfCGBuDsyP5ArmEVCOcyFJWY";
    let config = Config::parse(&format!(
        "[[client]]\nname = \"asus\"\nkeys = [\"{KEY}\"]\nrestore_keys = [\"{other} me\"]\nfrom = [\"192.168.1.20\", \"fd00::/64\"]\n"
    ));
    let files = files(&config.unwrap());
    let lines: Vec<&str> = content(&files, "authorized_keys/borgbackup").lines().skip(1).collect();
    let start = "restrict,from=\"192.168.1.20/32,fd00::/64\",command=\"/usr/lib/strongroom/strongroom-serve asus";
    let key = KEY.rsplit_once(' ').unwrap().0;
    assert_eq!(
        lines,
        [
            format!("{start} SHA256:Pc1/JGh4iN3i6tWuNUUT6mkd/yiapqWo1vok87uKLl0\" {key}"),
            format!("{start} restore SHA256:B16d+/F55iP1480TIRfcOPPHv/Z7rUxtxt/mCSDWpA0\" {other}")
        ]
    );
}

#[test]
fn addresses_are_fixed_or_by_dhcp() {
    assert!(content(&files(&Config::default()), "10-strongroom.network").contains("DHCP=yes"));
    let config =
        Config::parse("[network]\naddress = \"192.168.1.5/24\"\ngateway = \"192.168.1.1\"\ndns = [\"192.168.1.1\"]\n");
    let files = files(&config.unwrap());
    let network = content(&files, "10-strongroom.network");
    assert!(
        network.contains("Address=192.168.1.5/24\nGateway=192.168.1.1\nDNS=192.168.1.1\n"),
        "{network}"
    );
    assert!(!network.contains("DHCP=yes"));
}

#[test]
fn a_refused_configuration_leaves_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    fs::create_dir_all(paths.owner_config()).unwrap();
    durable::write(&paths.config(), b"[network]\nhostname = \"good\"\n", 0o644).unwrap();
    for bad in [
        "[network]\nhostnam = \"x\"\n",
        "[[client]]\nname = \"../x\"\nkeys = []\n",
        "\u{0}",
    ] {
        fs::write(paths.owner_config().join(CONFIG_NAME), bad).unwrap();
        run_at_start(&paths).unwrap();
        assert_eq!(
            fs::read_to_string(paths.config()).unwrap(),
            "[network]\nhostname = \"good\"\n"
        );
        let report: Vec<Condition> = serde_json::from_slice(&fs::read(paths.config_report()).unwrap()).unwrap();
        assert_eq!(report[0].id, ConditionId::ConfigRefused);
        assert!(report[0].text.contains("line"), "{report:?}");
        assert!(paths.at("/run/strongroom/authorized_keys/admin").exists());
    }
}

#[test]
fn a_missing_secret_or_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let refused = |text: &str| {
        let incoming = Incoming {
            text: text.into(),
            config: Config::parse(text).unwrap(),
            files: Default::default(),
        };
        take_over(&paths, &incoming).unwrap_err().to_string()
    };
    let message = refused("[mqtt]\nhost = \"broker\"\npassword = \"mqtt-password\"\n");
    assert!(message.contains("secret `mqtt-password`"), "{message}");
    let message = refused("[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n");
    assert!(
        message.contains("certificate `owner.asc`") && message.contains("gpg --export"),
        "{message}"
    );
    let tls = "[mqtt]\nhost = \"broker\"\ntls = true\n";
    let message = refused(&format!("{tls}ca = \"ca.pem\"\n"));
    assert!(
        message.contains("the file `ca.pem` of [mqtt]") && message.contains("your authority's certificate"),
        "{message}"
    );
    durable::write(&paths.config_files().join("own.pem"), b"nothing", 0o644).unwrap();
    let own = format!("{tls}certificate = \"own.pem\"\nkey = \"own.key\"\n");
    let message = refused(&own);
    assert!(message.contains("there is no certificate in it"), "{message}");
    durable::write(
        &paths.config_files().join("own.pem"),
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        0o644,
    )
    .unwrap();
    assert!(refused(&own).contains("secret `own.key`"));
    assert!(refused("[[notify]]\nurl = \"phone\"\n").contains("secret `phone`"));
}

#[test]
fn the_firewall_opens_for_metrics_only_when_they_are_on_and_to_the_lan_only() {
    let door = |text: &str| {
        let files = files(&Config::parse(text).unwrap());
        let made = files.into_iter().find(|file| file.path == generate::METRICS);
        made.map(|file| file.content)
    };
    assert_eq!(door(""), None);
    let rules = door("[metrics]\nport = 9100\n").unwrap();
    let rules: Vec<&str> = rules.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(
        rules
            .iter()
            .all(|rule| rule.contains("saddr") && rule.ends_with("tcp dport 9100 accept")),
        "{rules:?}"
    );
    assert_eq!(rules.len(), 2);
}

#[test]
fn a_vlan_carries_the_addresses_and_the_port_only_the_vlan() {
    let config =
        Config::parse("[network]\nvlan = 20\nmtu = 9000\naddress = [\"10.0.0.5/24\", \"fd00::5/64\"]\n").unwrap();
    let files = files(&config);
    let port = content(&files, "10-strongroom.network");
    assert!(
        port.contains("VLAN=vlan20\n") && port.contains("[Link]\nRequiredForOnline=no\nMTUBytes=9000\n"),
        "{port}"
    );
    assert!(!port.contains("\nAddress") && !port.contains("DHCP"), "{port}");
    assert!(content(&files, "05-strongroom.netdev").contains("Name=vlan20\nKind=vlan\n\n[VLAN]\nId=20\n"));
    let vlan = content(&files, "05-strongroom.network");
    assert!(
        vlan.starts_with("# Made by") && vlan.contains("[Match]\nName=vlan20\n"),
        "{vlan}"
    );
    assert!(
        vlan.contains("Address=10.0.0.5/24\nAddress=fd00::5/64\n") && vlan.contains("DHCP=no"),
        "{vlan}"
    );
}

#[test]
fn a_missing_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let text = "[trust]\ncertificates = [\"home-ca.pem\"]\n";
    let refused = |files: &[(&str, &[u8])]| {
        let incoming = Incoming {
            text: text.into(),
            config: Config::parse(text).unwrap(),
            files: files
                .iter()
                .map(|(name, bytes)| (FileName::new(name).unwrap(), bytes.to_vec()))
                .collect(),
        };
        take_over(&paths, &incoming).unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("`home-ca.pem` of [trust] is neither"));
    assert!(refused(&[("home-ca.pem", b"hello")]).contains("no certificate in it"));
    assert!(!paths.config().exists());
}

#[test]
fn what_was_offered_last_is_in_force_and_stays_so_over_restarts() {
    command::run("systemd-analyze", &["calendar", "daily"], "")
        .unwrap_or_else(|error| panic!("{error}: run `cargo image test`, which installs systemd"));
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let stick = tempfile::tempdir().unwrap();
    fs::create_dir_all(paths.owner_config()).unwrap();
    let named = |name: &str| format!("[network]\nhostname = \"{name}\"\n");
    let esp = |name: &str| fs::write(paths.owner_config().join(CONFIG_NAME), named(name)).unwrap();
    let in_force = || in_force(&paths).network.hostname.to_string();
    let from_stick = |plugged: bool| {
        let source = Source::Stick {
            id: "1".into(),
            plugged,
        };
        match incoming::read(stick.path()) {
            Ok(incoming) => take_incoming(&paths, &source, &incoming.unwrap()).unwrap(),
            Err(error) => conclude(&paths, &source, Outcome::Refused(error.into())).unwrap(),
        }
    };
    let esp_report = || fs::read_to_string(paths.owner_config().join(REPORT_NAME)).unwrap();

    esp("one");
    run_at_start(&paths).unwrap();
    assert_eq!(in_force(), "one");
    assert!(esp_report().contains("host name: strongroom -> one"));

    // A stick is plugged in: taken over. The same again changes nothing.
    fs::write(stick.path().join(CONFIG_NAME), named("two")).unwrap();
    assert!(matches!(from_stick(true), Outcome::Taken { .. }));
    assert!(matches!(from_stick(true), Outcome::InForce));
    assert_eq!(in_force(), "two");

    // A restart with the stick still in: neither medium has anything new.
    run_at_start(&paths).unwrap();
    assert!(matches!(from_stick(false), Outcome::Old));
    assert_eq!(in_force(), "two");
    assert!(
        esp_report().contains("taken over and is in force"),
        "nothing else was to be said"
    );

    // CONFIG is changed; at the next start it counts, and a stick that stayed in does not bring its own back.
    esp("three");
    run_at_start(&paths).unwrap();
    assert!(matches!(from_stick(false), Outcome::Old));
    assert_eq!(in_force(), "three");
    // Plugged in again, it does.
    assert!(matches!(from_stick(true), Outcome::Taken { .. }));
    assert_eq!(in_force(), "two");

    // A wrong one changes nothing and is told; a good one takes the condition away.
    fs::write(stick.path().join(CONFIG_NAME), "[network]\nhostnam = 1\n").unwrap();
    assert!(matches!(from_stick(true), Outcome::Refused(_)));
    assert_eq!(in_force(), "two");
    let conditions = || fs::read_to_string(paths.config_report()).unwrap();
    assert!(conditions().contains("hostnam") && conditions().contains("plug the stick in again"));
    fs::write(stick.path().join(CONFIG_NAME), named("two")).unwrap();
    assert!(matches!(from_stick(true), Outcome::InForce));
    assert_eq!(conditions(), "[]");
}
