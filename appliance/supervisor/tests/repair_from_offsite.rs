//! The whole way of a repair: a repository of the real `borg` is pushed to the strict double, a segment that was never checked
//! here is damaged, fetched back with the key that the real `gpg` made, and put in its place by what the push wrote down.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "../../offsite/tests/support/mod.rs"]
mod far;
mod support;

use std::fs::{self, File};
use std::io::Seek;

use far::{Gpg, HASTY, credentials, opener, server, target};
use strongroom_borg::SegmentNumber;
use strongroom_model::config::Config;
use strongroom_model::name::TargetName;
use strongroom_model::upkeep::Work;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::system_clock;
use strongroom_offsite::{Encryption, Limits, PushRequest, RestoreRequest, Tuning, push, restore_segment};
use strongroom_supervisor::upkeep::{begin, hold, repair_job};
use strongroom_supervisor::watch::verify_job::ALL;
use support::repository::{Appliance, noise};

const CONFIG: &str = r#"
[[offsite.recipient]]
name = "owner"
certificate = "owner.asc"
[[offsite.target]]
name = "double"
endpoint = "https://s3.example.org"
region = "eu-frankfurt-1"
bucket = "plain"
access_key_id = "ALL"
secret_key = "double.secret"
recipients = ["owner"]
[[client]]
name = "asus"
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO a"]
"#;

#[tokio::test]
async fn what_was_pushed_comes_back_as_it_was() {
    let appliance = Appliance::new("repokey-blake2");
    let (paths, name) = (&appliance.paths, &appliance.name);
    let config = Config::parse(CONFIG).unwrap();
    appliance.write("a", 300_000, 1);
    appliance.create("one");
    appliance.look();
    let folder = appliance.repository().join("data/0");
    let (segment, path) = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::metadata(path).unwrap().len() > 300_000)
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap(),
                path,
            )
        })
        .unwrap();
    let good = fs::read(&path).unwrap();

    let gpg = Gpg::new();
    gpg.generate("owner", "future-default", "0", "");
    let store = tempfile::tempdir().unwrap();
    let server = server(store.path(), |_| {}).await;
    let target = target(&server, "plain");
    let tuning = Tuning {
        retry: HASTY,
        clock: system_clock(),
    };
    let request = PushRequest {
        repository: appliance.repository(),
        target: target.clone(),
        credentials: credentials("ALL"),
        recipients: vec![gpg.export("owner")],
        encryption: Encryption::Auto,
        signer: None,
        limits: Limits::default(),
        retirement: Rules::default(),
        ledger: paths.ledger(name, &TargetName::new("double").unwrap()),
        now: 1_800_000_000,
    };
    push(&request, &tuning, &mut |_| {}).await.unwrap();

    let mut bytes = good.clone();
    bytes[150_000] ^= 1;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, &bytes).unwrap();
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(appliance.verify(ALL).damages[0].segment, Some(segment));

    // Without the copy's ledger nobody would know what the segment was.
    assert!(repair_job::need(paths, &Config::default(), name, segment).is_err());
    let content = repair_job::need(paths, &config, name, segment).unwrap();
    let mut sent = tempfile::tempfile().unwrap();
    let opener = opener(&gpg.export_secret("owner", ""));
    let from = RestoreRequest::new(target, credentials("ALL"), opener, "standard output".into());
    restore_segment(&from, SegmentNumber(segment), &sent, &tuning, &mut |_| {})
        .await
        .unwrap();
    sent.rewind().unwrap();
    repair_job::receive(paths, name, segment, &content, &sent).unwrap();
    let begun = begin::begin(paths, &config, name, Work::Repair { segment }, &[]).unwrap();
    assert!(repair_job::put(paths, name, &begun.journal, &mut || true).unwrap());
    let outcome = repair_job::finish(paths, name, &begun).unwrap();
    hold::release(paths, name, &outcome).unwrap();
    drop(begun);
    assert_eq!(outcome.error, "");
    assert!(fs::read(&path).unwrap() == good);
    assert_eq!(appliance.conditions(), []);
    assert!(appliance.verify(ALL).damages.is_empty());
    appliance.borg(&["check", "--verify-data"]);
    // The next push has nothing to say against it, and the client goes on.
    assert!(push(&request, &tuning, &mut |_| {}).await.unwrap().nothing_to_do);
    fs::write(appliance.folder.path().join("files/b"), noise(10_000, 2)).unwrap();
    appliance.create("two");
    assert!(!push(&request, &tuning, &mut |_| {}).await.unwrap().nothing_to_do);
}
