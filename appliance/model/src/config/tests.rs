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
fn a_full_configuration() {
    let config = Config::parse(&full()).unwrap();
    assert_eq!(config.client.len(), 2);
    assert_eq!(config.targets_of(&config.client[0]).count(), 1);
    assert_eq!(config.mqtt.as_ref().unwrap().port, 1883);
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
fn a_missing_serial() {
    let text = full().replace("system_disk = \"SYS-1\"\n", "");
    refused(&text, "[array]", "missing field `system_disk`", "");
}

#[test]
fn a_disk_named_twice() {
    let text = full().replace("DATA-1", "SYS-1");
    refused(&text, "data_disks", "named twice", "once");
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
