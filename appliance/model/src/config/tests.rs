use super::*;
use proptest::prelude::*;
use std::format;

const KEY_A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO a";
const KEY_B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBbGCnrVR+MkRRvhHF3kdfCGBuDsyP5ArmEVCOcyFJWY b";

fn full() -> String {
    format!(
        r#"
[network]
hostname = "backup"
[admin]
keys = []
[array]
system_disk = "SYS-1"
data_disks = ["DATA-1"]
create = true
[mqtt]
host = "10.0.2.2"
[[offsite.recipient]]
name = "owner"
certificate = "owner.asc"
[[offsite.target]]
name = "oracle"
endpoint = "https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com"
region = "eu-frankfurt-1"
bucket = "borgbackup"
access_key_id = "abc"
secret_key = "oracle.secret"
recipients = ["owner"]
[[client]]
name = "asus_home"
keys = ["{KEY_A}"]
[[client]]
name = "laptop"
keys = ["{KEY_B}"]
[schedule]
push = "*-*-* 04:00"
"#
    )
}

fn bucket(config: &Config) -> &AtService {
    config.offsite.target[0].bucket().unwrap()
}

fn line_containing(text: &str, needle: &str) -> usize {
    text.lines().position(|line| line.contains(needle)).unwrap() + 1
}

#[track_caller]
fn refused(text: &str, line_with: &str, message: &str, remedy: &str) {
    let error = Config::parse(text).unwrap_err();
    assert_eq!(error.line, Some(line_containing(text, line_with)), "{error}");
    assert!(error.message.contains(message), "{error}");
    assert!(error.remedy.contains(remedy), "{error}");
}

#[test]
fn a_proof_is_advised_and_may_be_required() {
    let parse = |text: &str| Config::parse(&format!("[offsite]\n{text}\n"));
    assert_eq!(Config::default().offsite.proof, Proof::Advised);
    let fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567";
    let config = parse(&format!("proof = \"required\"\nsigner = \"{fingerprint}\"")).unwrap();
    assert_eq!(config.offsite.proof, Proof::Required);
    assert_eq!(config.offsite.signer.unwrap().as_str(), fingerprint);
    assert!(parse("proof = \"never\"").is_err());
    let error = parse("signer = \"0123 4567\"").unwrap_err();
    assert!(error.message.contains("40 hexadecimal digits"), "{error}");
}

#[test]
fn a_full_configuration() {
    let config = Config::parse(&full()).unwrap();
    assert_eq!(config.client.len(), 2);
    assert_eq!(config.targets_of(&config.client[0]).count(), 1);
    assert_eq!(config.mqtt.as_ref().unwrap().port(), 1883);
    assert_eq!(
        config.offsite.target[0]
            .prefix
            .get_ref()
            .for_client(config.client[0].name.get_ref()),
        "asus_home"
    );
    assert_eq!(config.public_files().len(), 1);
}

#[test]
fn an_empty_file_is_a_configuration() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let text = full().replace("bucket =", "buckett =");
    refused(&text, "buckett", "unknown field `buckett`", "Did you mean `bucket`?");
}

#[test]
fn bad_toml_names_the_line() {
    let text = full().replace("host = \"10.0.2.2\"", "host = \"10.0.2.2");
    refused(&text, "host = \"10.0.2.2", "", "");
}

#[test]
fn a_duplicate_client() {
    let text = full().replace("name = \"laptop\"", "name = \"asus_home\" # again");
    refused(&text, "# again", "two clients named `asus_home`", "name of its own");
}

#[test]
fn a_path_as_a_client_name() {
    let text = full().replace("name = \"laptop\"", "name = \"../laptop\"");
    refused(&text, "../laptop", "is not a name", "");
}

#[test]
fn a_bad_key_line() {
    let text = full().replace(KEY_B, "ssh-ed25519 AAAA");
    refused(&text, "ssh-ed25519 AAAA\"", "base64", "");
}

#[test]
fn one_key_for_two_clients() {
    let text = full().replace(KEY_B, &format!("{KEY_A} again"));
    refused(&text, "again", "already belongs to client `asus_home`", "ssh-keygen");
}

#[test]
fn encryption_of_a_target() {
    let with = |line: &str| {
        let text = full().replace("recipients = [\"owner\"]", &format!("recipients = [\"owner\"]\n{line}"));
        Config::parse(&text).map(|config| config.offsite.target[0].encryption)
    };
    assert_eq!(with("").unwrap(), Encryption::Auto);
    for (value, encryption) in [
        ("auto", Encryption::Auto),
        ("cfb", Encryption::Cfb),
        ("ocb", Encryption::Ocb),
    ] {
        assert_eq!(with(&format!("encryption = \"{value}\"")).unwrap(), encryption);
    }
    assert!(with("encryption = \"aes\"").is_err());
}

#[test]
fn how_much_a_push_may_take() {
    let with = |line: &str| full().replace("recipients = [\"owner\"]", &format!("recipients = [\"owner\"]\n{line}"));
    let target = |line: &str| bucket(&Config::parse(&with(line)).unwrap()).clone();
    let usual = target("");
    assert_eq!((*usual.uploads.get_ref(), usual.bandwidth), (3, None));
    let limited = target("uploads = 1\nbandwidth = \"20 Mbit/s\"");
    assert_eq!(*limited.uploads.get_ref(), 1);
    assert_eq!(limited.bandwidth.unwrap().get_ref().bytes(), 2_500_000);
    for wrong in ["0", "5"] {
        refused(
            &with(&format!("uploads = {wrong}")),
            "uploads",
            "`uploads` is",
            "3 is usual",
        );
    }
    refused(
        &with("bandwidth = \"400 kbit/s\""),
        "bandwidth",
        "400 kbit/s",
        "500 kbit/s",
    );
    refused(
        &with("bandwidth = \"20 MB/s\""),
        "bandwidth",
        "not a rate such as `20 Mbit/s`",
        "",
    );
}

#[test]
fn manifests_may_have_a_bucket_of_their_own() {
    let with = |line: &str| full().replace("recipients = [\"owner\"]", &format!("recipients = [\"owner\"]\n{line}"));
    let config = Config::parse(&with("manifest_bucket = \"small\"")).unwrap();
    let target = bucket(&config);
    assert_eq!(target.manifest_bucket.as_ref().unwrap().get_ref().as_str(), "small");
    let same = format!("manifest_bucket = \"{}\"", target.bucket);
    refused(&with(&same), "manifest_bucket", "`bucket` itself", "standard tier");
}

/// [`full`], with a disk in the bucket's place.
fn with_disk(lines: &str) -> String {
    let text = full();
    let (before, rest) = text.split_once("endpoint").unwrap();
    let (_, after) = rest.split_once("recipients").unwrap();
    format!("{before}{lines}\nrecipients{after}")
}

#[test]
fn a_target_may_be_a_disk() {
    let config = Config::parse(&with_disk("disk = \"BACKUP\"")).unwrap();
    let target = &config.offsite.target[0];
    let disk = target.disk().unwrap();
    assert!(target.bucket().is_none() && config.secrets().is_empty());
    assert_eq!((disk.folder.as_str(), *disk.remind_days.get_ref()), ("strongroom", 14));
    let (label, uuid) = (Some("BACKUP"), Some("0a1b2c3d-0000-4000-8000-00000000abcd"));
    assert!(disk.disk.get_ref().is_of(label, uuid));
    assert!(!disk.disk.get_ref().is_of(Some("backup"), uuid) && !disk.disk.get_ref().is_of(None, uuid));
    for named in ["0A1B2C3D-0000-4000-8000-00000000ABCD", "12AB-34CD"] {
        let volume = Volume::new(named).unwrap();
        assert!(
            volume.is_uuid()
                && volume.is_of(None, Some(&named.to_ascii_lowercase()))
                && !volume.is_of(Some(named), None)
        );
    }
    assert!(!Volume::new("my-disk-2026").unwrap().is_uuid());
    let said = Config::parse(&with_disk("disk = \"BACKUP\"\nfolder = \"a/b\"\nremind_days = 60")).unwrap();
    let said = said.offsite.target[0].disk().unwrap();
    assert_eq!((said.folder.as_str(), *said.remind_days.get_ref()), ("a/b", 60));
}

#[test]
fn what_does_not_go_with_a_disk_is_refused() {
    let told = |text: &str| Config::parse(text).unwrap_err().to_string();
    let both = told(&with_disk("disk = \"BACKUP\"\nbucket = \"b\""));
    assert!(both.contains("`bucket` does not go"), "{both}");
    let alone = told(&full().replace("region =", "folder = \"x\"\nregion ="));
    assert!(alone.contains("`folder`, which goes with a `disk` alone"), "{alone}");
    let nothing = told(&with_disk(""));
    assert!(
        nothing.contains("missing field `endpoint` in target `oracle`"),
        "{nothing}"
    );
    for disk in ["", "../x", "a b", ".hidden", "/dev/sdb1"] {
        let refused = told(&with_disk(&format!("disk = \"{disk}\"")));
        assert!(refused.contains("label or the UUID"), "{refused}");
    }
    for folder in ["", "/a", "a/", "a/../b", ".a"] {
        let refused = told(&with_disk(&format!("disk = \"D\"\nfolder = \"{folder}\"")));
        assert!(refused.contains("a folder on the disk"), "{refused}");
    }
    refused(
        &with_disk("disk = \"Strongroom\""),
        "Strongroom",
        "stick with a configuration",
        "BACKUP",
    );
    for wrong in ["0", "366"] {
        let text = with_disk(&format!("disk = \"D\"\nremind_days = {wrong}"));
        refused(&text, "remind_days", "`remind_days` is", "14 is usual");
    }
    let twice = with_disk("disk = \"D\"").replace(
        "[[client]]\nname = \"asus_home\"",
        "[[offsite.target]]\nname = \"again\"\ndisk = \"D\"\nrecipients = [\"owner\"]\n[[client]]\nname = \"asus_home\"",
    );
    refused(&twice, "again", "same folder of the same disk", "own `folder`");
    assert!(Config::parse(&twice.replace("name = \"again\"", "name = \"again\"\nfolder = \"other\"")).is_ok());
}

#[test]
fn what_is_retired_when() {
    let with = |line: &str| full().replace("recipients = [\"owner\"]", &format!("recipients = [\"owner\"]\n{line}"));
    let target = |text: &str| Config::parse(text).unwrap().offsite.target.remove(0);
    let usual = target(&with(""));
    assert_eq!((usual.retire, *usual.keep_days.get_ref()), (false, 90));
    let said = target(&with("retire = true\nkeep_days = 365\nminimum_age_days = 31"));
    assert_eq!(
        (
            said.retire,
            *said.keep_days.get_ref(),
            said.bucket().unwrap().minimum_age()
        ),
        (true, 365, 31)
    );
    for (endpoint, days) in [
        ("https://ns.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", 90),
        (
            "https://ns.compat.objectstorage.eu-frankfurt-1.oci.customer-oci.com:443/",
            90,
        ),
        ("https://s3.example.org", 0),
        ("https://oraclecloud.com.example.org", 0),
    ] {
        let mut other = usual.bucket().unwrap().clone();
        other.endpoint = super::Endpoint::new(endpoint).unwrap();
        assert_eq!(other.minimum_age(), days, "{endpoint}");
    }
    for wrong in ["0", "6", "3651"] {
        refused(
            &with(&format!("keep_days = {wrong}")),
            "keep_days",
            "`keep_days` is",
            "90 is usual",
        );
    }
    refused(
        &with("minimum_age_days = 366"),
        "minimum_age_days",
        "`minimum_age_days` is",
        "at most 365",
    );
}

#[test]
fn drills_when_it_is_said_or_never() {
    let days = |text: &str| *Config::parse(text).unwrap().offsite.drill_days.get_ref();
    assert_eq!((days(""), days("[offsite]\n")), (180, 180));
    assert_eq!(
        (
            days("[offsite]\ndrill_days = 0\n"),
            days("[offsite]\ndrill_days = 3650\n")
        ),
        (0, 3650)
    );
    refused(
        "[offsite]\ndrill_days = 3651\n",
        "drill_days",
        "`drill_days` is 3651",
        "180 is usual",
    );
}

#[test]
fn checks_within_a_year() {
    let text = full().replace("[schedule]", "[schedule]\ncheck = \"Sun 02:00\"\ncheck_days = 90");
    let schedule = Config::parse(&text).unwrap().schedule;
    assert_eq!(
        (schedule.check.as_str(), *schedule.check_days.get_ref()),
        ("Sun 02:00", 90)
    );
    assert_eq!(*Config::default().schedule.check_days.get_ref(), 30);
    for wrong in ["0", "366"] {
        let text = text.replace("90", wrong);
        refused(&text, "check_days", "`check_days` is", "30 is usual");
    }
}

#[test]
fn a_quarantine_of_a_week_to_a_year() {
    let with = |days: &str| full().replacen("[[client]]", &format!("[[client]]\ncompact_after_days = {days}"), 1);
    let client = &Config::parse(&with("30")).unwrap().client[0];
    assert_eq!(client.compact_after_days.as_ref().map(|days| *days.get_ref()), Some(30));
    for wrong in ["0", "6", "366"] {
        refused(
            &with(wrong),
            "compact_after_days",
            "`compact_after_days` is",
            "7 to 365",
        );
    }
}

#[test]
fn a_missing_serial() {
    let text = full().replace("system_disk = \"SYS-1\"\n", "");
    refused(&text, "data_disks", "names no `system_disk`", "`system_disk`");
    let error = Config::parse("[array]\ncreate = true\n").unwrap_err();
    assert!(error.message.contains("`system_disk`"), "{error}");
}

#[test]
fn a_disk_named_twice() {
    let text = full().replace("DATA-1", "SYS-1");
    refused(&text, "data_disks", "named twice", "once");
}

#[test]
fn consent_to_erase_names_a_disk_of_the_array() {
    let with = |names: &str| full().replace("create = true", &format!("create = true\nerase = [{names}]"));
    let array = Config::parse(&with("\"DATA-1\", \"SYS-1\"")).unwrap().array.unwrap();
    assert_eq!(array.erase.len(), 2);
    refused(
        &with("\"DATA-2\""),
        "erase",
        "neither the system disk nor",
        "exactly as",
    );
}

#[test]
fn an_array_to_adopt_needs_no_disks() {
    let text = "[array]\nadopt = \"0A1B2C3D-0000-0000-1111-1111DEADBEEF\"\n";
    let array = Config::parse(text).unwrap().array.unwrap();
    assert_eq!(array.adopt.unwrap().as_str(), "0a1b2c3d:00000000:11111111:deadbeef");
    refused("[array]\nadopt = \"old\"\n", "adopt", "UUID of an array", "");
}

#[test]
fn a_target_without_recipient_and_with_an_unknown_one() {
    refused(
        &full().replace("recipients = [\"owner\"]", "recipients = []"),
        "\"oracle\"",
        "no recipient",
        "recipients",
    );
    refused(
        &full().replace("recipients = [\"owner\"]", "recipients = [\"me\"]"),
        "\"me\"",
        "does not exist",
        "recipient",
    );
}

#[test]
fn clients_may_not_share_a_prefix() {
    let text = full().replace("region =", "prefix = \"all\"\nregion =");
    refused(&text, "prefix", "share one prefix", "{client}");
}

#[test]
fn a_file_name_is_no_path() {
    refused(
        &full().replace("owner.asc", "../owner.asc"),
        "owner.asc",
        "is not the name of a file",
        "",
    );
}

#[test]
fn a_huge_file_is_refused_unread() {
    assert!(
        Config::parse(&"#".repeat(CONFIG_BYTES_MAX + 1))
            .unwrap_err()
            .message
            .contains("larger")
    );
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "\\PC{0,200}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn damage_is_reported_or_harmless(at in 0usize..900, byte in 0u8..128) {
        let mut bytes = full().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        if let Err(error) = Config::parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

/// The parser's own bounds (arrays, inline tables and dotted keys, each 80 deep) hold together: the deepest file that it
/// takes needs far less than the smallest stack that anything here runs on (2 MiB, a thread's).
#[test]
fn no_nesting_overflows_the_stack() {
    let dotted = |parts: usize| ["a"; 80][..parts.min(80)].join(".");
    let mut hostile: Vec<String> = [
        "[".repeat(100_000),
        "a = ".to_string() + &"[".repeat(100_000),
        "a = ".to_string() + &"{a=".repeat(60_000),
        ["a"; 100_000].join(".") + " = 1",
        alloc::format!("[{}]", ["a"; 100_000].join(".")),
        alloc::format!("[[{}]]", ["\"a\""; 50_000].join(".")),
        "a = '''".to_string() + &"[".repeat(100_000),
    ]
    .into();
    for (keys, tables) in [(79, 79), (70, 40), (79, 30), (40, 79)] {
        let opened = alloc::format!("{{{} = ", dotted(keys)).repeat(tables);
        hostile.push(alloc::format!(
            "[{0}]\n{0} = {opened}1{1}",
            dotted(keys),
            "}".repeat(tables)
        ));
        let opened = alloc::format!("[{{{} = ", dotted(keys)).repeat(tables / 2);
        hostile.push(alloc::format!(
            "[[{0}]]\n{0} = {opened}1{1}",
            dotted(keys),
            "}]".repeat(tables / 2)
        ));
    }
    // Under a known key, so that nothing is refused by its name before it is read.
    let known: Vec<String> = hostile
        .iter()
        .map(|text| text.replacen('a', "network.dns", 1))
        .collect();
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for text in hostile
            .iter()
            .chain(&known)
            .filter(|text| text.len() <= CONFIG_BYTES_MAX)
        {
            assert!(Config::parse(text).is_err());
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn several_addresses_a_vlan_and_a_packet_size() {
    let config = Config::parse(
        "[network]\naddress = [\"192.168.1.10/24\", \"fd00::10/64\"]\ngateway = [\"192.168.1.1\", \"fe80::1\"]\nvlan = 20\nmtu = 9000\n",
    );
    let network = config.unwrap().network;
    assert_eq!(network.addresses().len(), 2);
    assert_eq!(network.gateways().len(), 2);
    assert_eq!(network.addresses()[1].to_string(), "fd00::10/64");
    for good in [
        "address = \"10.0.0.0/31\"",
        "address = \"10.0.0.7/32\"",
        "address = \"10.1.255.255/8\"\ngateway = \"10.0.0.1\"",
    ] {
        Config::parse(&format!("[network]\n{good}\n")).unwrap();
    }
}

#[test]
fn a_network_that_can_not_work_is_refused_with_its_line() {
    for (wrong, message, remedy) in [
        ("address = \"192.168.1.10\"", "is not an address with its prefix", ""),
        ("address = \"192.168.1.10/33\"", "is not an address with its prefix", ""),
        ("address = \"192.168.1.10/0\"", "is not an address with its prefix", ""),
        ("address = 7", "an address, or a list of addresses", ""),
        ("address = []", "between 1 and 8", "DHCP"),
        ("address = \"192.168.1.0/24\"", "first or last", "between them"),
        ("address = \"192.168.1.255/24\"", "first or last", "between them"),
        ("address = \"127.0.0.1/8\"", "own address", "free address"),
        ("address = \"224.0.0.1/8\"", "own address", "free address"),
        ("address = \"ff02::1/64\"", "own address", "free address"),
        ("address = [\"10.0.0.1/8\", \"10.0.0.1/24\"]", "twice", "once"),
        ("gateway = \"192.168.1.1\"", "no address", "DHCP"),
        ("dns = [\"0.0.0.0\"]", "name server", "router"),
        ("vlan = 0", "not the number of a VLAN", "4094"),
        ("vlan = 4095", "not the number of a VLAN", "4094"),
        ("vlan = -1", "", ""),
        ("mtu = 100", "not possible", "1280"),
    ] {
        let text = format!("[network]\n{wrong} # here\n");
        refused(&text, "# here", message, remedy);
    }
    for (gateway, message) in [
        ("\"192.168.2.1\"", "not within the network of 192.168.1.10/24"),
        ("\"192.168.1.10\"", "both the appliance's own"),
        ("\"192.168.1.255\"", "can't be a router"),
        ("\"fd00::1\"", "not within"),
        ("[\"192.168.1.1\", \"192.168.1.2\"]", "one gateway for IPv4"),
    ] {
        let text = format!("[network]\naddress = \"192.168.1.10/24\"\ngateway = {gateway} # here\n");
        refused(&text, "# here", message, "");
    }
}

#[test]
fn what_changes_is_told_and_nothing_else() {
    let old = Config::parse(&full()).unwrap();
    assert_eq!(changes(&old, &old), [] as [String; 0]);
    let moved = Config::parse(&format!("# a remark\n\n{}", full())).unwrap();
    assert_eq!(changes(&old, &moved), [] as [String; 0], "a remark is no change");
    let text = full()
        .replace("\"backup\"", "\"attic\"\naddress = \"10.0.0.2/24\"\nvlan = 7")
        .replace("name = \"laptop\"", "name = \"tower\"")
        .replace("04:00", "05:00");
    let told = changes(&old, &Config::parse(&text).unwrap());
    assert_eq!(
        told,
        [
            "host name: backup -> attic",
            "address: DHCP -> 10.0.0.2/24",
            "VLAN: none -> 7",
            "client tower: added",
            "client laptop: removed (its backups stay)",
            "the schedule: changed",
        ]
    );
}

#[test]
fn a_client_has_a_quota_addresses_and_keys_for_restores() {
    const KEY_C: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDHXFPVLhMdWHvtCZJDNGFUMsPhDDTwXWzvVUSH7kMNw c";
    let with = |lines: &str| full().replace("name = \"laptop\"", &format!("name = \"laptop\"\n{lines} # here"));
    let config = Config::parse(&with(&format!(
        "quota = \"1.5 TB\"\nfrom = [\"192.168.1.20\", \"10.0.0.0/8\", \"fd00::/64\"]\nrestore_keys = [\"{KEY_C}\"]"
    )))
    .unwrap();
    let laptop = config.client("laptop").unwrap();
    assert_eq!(laptop.quota.as_ref().unwrap().get_ref().bytes(), 1_500_000_000_000);
    let from: Vec<String> = laptop.from.iter().map(|range| range.get_ref().to_string()).collect();
    assert_eq!(from, ["192.168.1.20/32", "10.0.0.0/8", "fd00::/64"]);
    assert_eq!(laptop.restore_keys.len(), 1);
    for (lines, message, remedy) in [
        ("quota = \"500\"", "is not a size such as `500 GB`", ""),
        ("quota = 500", "", ""),
        ("quota = \"9 MB\"", "quota of 9 MB is too small", "500 GB"),
        (
            "from = [\"192.168.1.20/24\"]",
            "write `192.168.1.0/24` for the network",
            "",
        ),
        ("from = [\"laptop.local\"]", "neither an address nor a network", ""),
        (
            "from = [\"10.0.0.1,!10.0.0.2\"]",
            "neither an address nor a network",
            "",
        ),
        ("restore_keys = [\"ssh-dss AAAAB3NzaC1kc3M=\"]", "DSA", ""),
    ] {
        refused(&with(lines), "# here", message, remedy);
    }
    // One key, one right: not to another client, nor both to write and to read.
    let again = with(&format!("restore_keys = [\"{KEY_A} again\"]"));
    refused(&again, "again", "already belongs to client `asus_home`", "ssh-keygen");
    let both = with(&format!("restore_keys = [\"{KEY_B} again\"]"));
    refused(&both, "again", "already belongs to client `laptop`", "ssh-keygen");
}

#[test]
fn the_broker_by_tls() {
    let mqtt = |lines: &str| Config::parse(&format!("[mqtt]\nhost = \"broker\"\n{lines}"));
    let config =
        mqtt("tls = true\nca = \"ca.pem\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\nversion = \"5\"\n").unwrap();
    let parsed = config.mqtt.as_ref().unwrap();
    assert_eq!((parsed.port(), parsed.version), (8883, MqttVersion::V5));
    assert_eq!(
        config
            .public_files()
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>(),
        ["ca.pem", "own.pem"]
    );
    assert_eq!(parsed.secrets().map(FileName::as_str).collect::<Vec<_>>(), ["own.key"]);
    for (lines, wrong) in [
        ("ca = \"ca.pem\"\n", "TLS is off"),
        ("tls = true\ncertificate = \"own.pem\"\n", "without its `key`"),
        ("tls = true\nkey = \"own.key\"\n", "without its `certificate`"),
        ("version = 5\n", ""),
        ("version = \"4\"\n", "3.1.1"),
    ] {
        let error = mqtt(lines).unwrap_err().to_string();
        assert!(
            error.contains(wrong) && error.contains("strongroom.toml, line "),
            "{error}"
        );
    }
}

#[test]
fn exits_name_what_is_there() {
    let config = Config::parse(
        "[metrics]\n[[notify]]\nurl = \"phone\"\nform = \"ntfy\"\nleast = \"info\"\n[[ping]]\nurl = \"asus\"\nclient = \"asus\"\n",
    )
    .unwrap();
    assert_eq!(config.metrics.map(|metrics| *metrics.port.get_ref()), Some(9633));
    assert_eq!(config.notify[0].form, NotifyForm::Ntfy);
    for (text, wrong) in [
        ("[metrics]\nport = 22\n", "`port` in [metrics] is 22"),
        ("[[ping]]\nurl = \"x\"\n", "neither a client nor a target"),
        (
            "[[ping]]\nurl = \"x\"\ntarget = \"far\"\n",
            "a target `far` that does not exist",
        ),
        (
            "[[notify]]\nurl = \"x\"\n[[notify]]\nurl = \"x\"\n",
            "name the file `x`",
        ),
        ("[[notify]]\nurl = \"https://ntfy.sh/x\"\n", "the name of a file"),
    ] {
        let error = Config::parse(text).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
}
