use super::*;
use generate::files;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO root@asus";

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
            "restrict,command=\"/usr/lib/strongroom/strongroom-serve asus\" {key}"
        )]
    );
    assert!(
        content(&files, "repositories.conf").contains("d /mnt/raid/asus_repository 0700 borgbackup borgbackup -\n")
    );
}

#[test]
fn addresses_are_fixed_or_by_dhcp() {
    assert!(content(&files(&Config::default()), ".network").contains("DHCP=yes"));
    let config =
        Config::parse("[network]\naddress = \"192.168.1.5/24\"\ngateway = \"192.168.1.1\"\ndns = [\"192.168.1.1\"]\n");
    let files = files(&config.unwrap());
    let network = content(&files, ".network");
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
        run(&paths).unwrap();
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
}
