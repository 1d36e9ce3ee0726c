//! The whole job, once through: consent, array, client, power cut, the other firmware, push, killed push, restore, status.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use image::loopback::{ACCOUNT, BUCKET, StoreOptions};
use image::qemu::{Firmware, HOST, Machine};
use image::ssh;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::client::{Client, assert_same, local_borg, make_files, random};
use crate::damage::{self, Byte};
use crate::faces;
use crate::{SOON, STOP, Starts, console, folder, is_sound, start, start_on, started_by};

/// A push under emulation: RSA or Curve25519, AES and SHA without the processor's help.
const PUSH: Duration = Duration::from_secs(240);
/// A second client, whose repository the first must not reach.
const OTHER: &str = "attic";

/// Waits until the status satisfies `check`, and returns it.
pub fn wait_for_status(
    trial: &Trial,
    machine: &mut Machine,
    otherwise: &str,
    within: Duration,
    check: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    let waited = machine.wait_until(otherwise, within, |machine| {
        let output = trial.admin(machine).output("strongroom status --json")?;
        last = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(check(&last))
    });
    if let Err(error) = waited {
        panic!("{error}\n{last:#}");
    }
    last
}

/// The number of the first client's last transaction.
pub fn number(status: &serde_json::Value) -> Option<u64> {
    status["clients"][0]["transaction"].as_u64()
}

/// Whether a transaction of the first client later than `earlier` is the last one, and was looked at.
pub fn looked_at(status: &serde_json::Value, earlier: Option<u64>) -> bool {
    number(status) > earlier && status["clients"][0]["last_change"]["transaction"].as_u64() == number(status)
}

/// Ids of the standing conditions.
pub fn conditions(status: &serde_json::Value) -> Vec<String> {
    let standing = status["conditions"]["standing"].as_array().cloned().unwrap_or_default();
    standing
        .iter()
        .filter_map(|c| c["id"].as_str().map(str::to_owned))
        .collect()
}

fn two_clients(trial: &Trial) -> String {
    let key = ssh::key(&trial.folder.join("other_key"), "other@trial").unwrap();
    format!(
        "{}\n[[client]]\nname = \"{OTHER}\"\nkeys = [\"{key}\"]\n",
        trial.default_config()
    )
}

/// A client's login with another key of the trial's folder.
pub fn login(trial: &Trial, machine: &Machine, key: &str) -> ssh::Login {
    ssh::Login {
        key: trial.folder.join(key),
        ..trial.client(machine)
    }
}

/// The first retained payload on a topic, read by a real client.
fn retained(trial: &Trial, topic: &str) -> String {
    let mut command = trial.broker.client("mosquitto_sub");
    command.args(["-t", topic, "-C", "1", "-W", "10", "--retained-only"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "nothing is retained on {topic}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn a_backup_survives_a_power_cut_and_comes_back_from_far_away() {
    // A line of 3 MB/s: slow enough for a push to be met half-way.
    let slow = StoreOptions {
        bandwidth: Some(3_000_000),
        ..StoreOptions::default()
    };
    let trial = Trial::new(&Workspace::here(), &folder("backup"), &slow).unwrap();
    trial.configure(&two_clients(&trial)).unwrap();
    trial.flash().unwrap();
    let mut starts = Starts::none_yet(&trial);
    let mut machine = start(&trial, "first", Firmware::Bios);
    is_sound(&trial, &machine);
    console::over_ssh(&trial.admin(&machine));

    // The first start created the array, on the disks that the consent names.
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    let first = wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    assert_eq!(first["array"]["members"].as_array().unwrap().len(), 2, "{first:#}");
    let admin = trial.admin(&machine);
    let details = admin
        .run("cat /proc/mdstat; findmnt -no FSTYPE,OPTIONS /mnt/raid")
        .unwrap();
    assert!(
        details.contains("raid0") && details.contains("512k chunks") && details.contains("super 1.2"),
        "{details}"
    );
    assert!(details.contains("ext4"), "{details}");
    eprintln!("{}", admin.run("ps -o rss,comm -C strongroomd; free -m").unwrap());

    // Secrets are sealed and gone from the ESP once they were taken over.
    assert!(trial_secrets_are_sealed(&admin));
    the_secret_key_is_shown(&trial, &mut machine);

    // The original recipe, unchanged but for the host.
    let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 3 << 20);
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "--compression", "auto,zlib", "::one", source]);
    std::fs::write(files.join("added later"), random(1 << 20)).unwrap();
    client.borg(&["create", "--compression", "auto,zlib", "::two", source]);
    client.borg(&["create", "::three", source]);
    client.borg(&["prune", "--keep-last", "2"]);
    assert_eq!(client.archives(), ["two", "three"]);

    damage::nothing_is_wrong(&trial, &mut machine, 2);
    the_key_decides(&trial, &machine);

    // The power goes without warning; the other firmware starts the same disks.
    let identity = identity(&admin, "bios");
    machine.cut_power();
    starts.one_more(&trial);
    assert_eq!(
        retained(&trial, &availability(&trial)),
        "offline",
        "the will was not published"
    );
    let mut hardware = trial.hardware("again", Firmware::Uefi);
    hardware.processors = 2;
    let mut machine = start_on(&trial, &hardware);
    is_sound(&trial, &machine);
    assert_eq!(self::identity(&trial.admin(&machine), "uefi"), identity);
    wait_for_status(&trial, &mut machine, "the array was not assembled", SOON, mounted);
    let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    assert_eq!(client.archives(), ["two", "three"]);
    assert_same(&files, &client.extract("two").join(source.trim_start_matches('/')));

    // A push, encrypted, manifest last; then nothing is left to do.
    let admin = trial.admin(&machine);
    let pushed = admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    assert!(pushed.contains("transaction"), "{pushed}");
    eprintln!("{pushed}{}", admin.run("ps -o rss,comm -C strongroomd").unwrap());
    let before = objects(&trial);
    assert!(before.iter().any(|name| name.contains("/manifest/")), "{before:?}");
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    assert_eq!(objects(&trial), before, "a push with nothing to do sent something");
    faces::jobs_and_logs_are_told(&admin);
    // The bucket is tried out with the push's own credentials, and nothing stays in it.
    let tried = admin.run("strongroom target probe trial").unwrap();
    assert!(tried.contains("good ") && !tried.contains("WRONG"), "{tried}");
    assert_eq!(objects(&trial), before, "{tried}");

    // A push that dies with the whole machine half-way, after a larger backup.
    std::fs::write(files.join("film"), random(48 << 20)).unwrap();
    client.borg(&["create", "::four", source]);
    let mut push = admin.command(&format!("strongroom push {CLIENT}"));
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let stored = bytes_in(&trial.store.objects);
    machine
        .wait_until("the push did not begin to send", PUSH, |_| {
            Ok(bytes_in(&trial.store.objects) > stored + (12 << 20))
        })
        .unwrap();
    machine.cut_power();
    starts.one_more(&trial);
    let _ = push.wait();
    let half_way = objects(&trial);
    let manifests = |names: &[String]| names.iter().filter(|name| name.ends_with(".json.gpg")).count();
    assert_eq!(
        manifests(&half_way),
        manifests(&before),
        "the push was over before the power went"
    );
    // What is there is still restorable to the state before.
    restored_with_gpg_alone(&trial, "half-way", &["two", "three"]);

    // While it is off, a byte turns that was pushed before.
    let photo = std::fs::read(files.join("photo")).unwrap();
    Byte::of(&trial, &photo[1 << 20..][..64]).turn();

    let mut machine = start(&trial, "third", Firmware::Bios);
    wait_for_status(&trial, &mut machine, "the array was not assembled", SOON, mounted);
    let admin = trial.admin(&machine);
    damage::is_told_with_its_archives(&trial, &mut machine, &["two", "three", "four"]);
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    assert!(manifests(&objects(&trial)) > manifests(&before));

    // It comes back: with gpg and an S3 program alone, and with our own command.
    let repository = restored_with_gpg_alone(&trial, "gpg", &["two", "three", "four"]);
    let out = trial.folder.join("from-gpg");
    std::fs::create_dir_all(&out).unwrap();
    local_borg(
        &repository,
        &trial.folder.join("caches-gpg"),
        &out,
        &["extract", "::four"],
    );
    assert_same(&files, &out.join(source.trim_start_matches('/')));
    restored_with_our_command(&trial, &admin, &["two", "three", "four"]);
    a_drill_is_noted(&trial, &mut machine);
    damage::is_repaired_from_off_site(&trial, &mut machine);

    status_is_told(&trial, &mut machine);
    the_report_holds_no_secret(&trial, &machine);
    machine.screenshot(&trial.folder.join("console.png")).unwrap();
    machine.shut_down(STOP).unwrap();
    assert_eq!(retained(&trial, &availability(&trial)), "offline");
}

/// What stays the same whichever firmware started the machine.
fn identity(admin: &ssh::Login, firmware: &str) -> String {
    assert_eq!(started_by(admin), firmware);
    admin
        .run("cat /etc/machine-id; ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null")
        .unwrap()
}

fn trial_secrets_are_sealed(admin: &ssh::Login) -> bool {
    // The administrator may not look into either place; the log says what became of them.
    let log = admin
        .run("journalctl -b -u strongroom-configure -u strongroomd --no-pager -o cat")
        .unwrap();
    assert!(
        !log.contains("trial-mqtt-password") && !log.contains("trial-s3-secret"),
        "a secret is in the log"
    );
    let refused = admin
        .output("cat /var/lib/strongroom/secrets/offsite/s3-secret")
        .unwrap();
    !refused.status.success()
}

/// Another key reaches its own repository, and that only.
fn the_key_decides(trial: &Trial, machine: &Machine) {
    let other = Client::new(OTHER, login(trial, machine, "other_key"), &trial.folder);
    other.borg(&["init", "--encryption=none", "--append-only"]);
    assert!(other.archives().is_empty());
    let foreign = other.asking_for(&format!("/mnt/raid/{CLIENT}_repository"));
    assert!(!foreign.output(&["list"]).status.success());
    let stranger = ssh::key(&trial.folder.join("stranger_key"), "stranger").unwrap();
    assert!(stranger.starts_with("ssh-ed25519"));
    assert!(
        !login(trial, machine, "stranger_key")
            .output("borg serve")
            .unwrap()
            .status
            .success()
    );
}

/// Names of all objects, by listing with a foreign program.
fn objects(trial: &Trial) -> Vec<String> {
    let mut names: Vec<String> = rclone(trial, &["lsf", "--recursive", "--files-only", &remote()])
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// What a folder holds in all, unfinished parts included. Files may come and go meanwhile.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn remote() -> String {
    format!("trial:{BUCKET}")
}

fn rclone(trial: &Trial, arguments: &[&str]) -> String {
    let output = Command::new("rclone")
        .args(arguments)
        // Old builds of rclone fail when the environment names a CA bundle, whether they need one or not.
        .env_remove("AWS_CA_BUNDLE")
        .env("RCLONE_CONFIG", "/dev/null")
        .env("RCLONE_CONFIG_TRIAL_TYPE", "s3")
        .env("RCLONE_CONFIG_TRIAL_PROVIDER", "Other")
        .env(
            "RCLONE_CONFIG_TRIAL_ENDPOINT",
            format!("http://127.0.0.1:{}", trial.store.port),
        )
        .env("RCLONE_CONFIG_TRIAL_REGION", image::loopback::REGION)
        .env("RCLONE_CONFIG_TRIAL_FORCE_PATH_STYLE", "true")
        .env("RCLONE_CONFIG_TRIAL_ACCESS_KEY_ID", ACCOUNT)
        .env("RCLONE_CONFIG_TRIAL_SECRET_ACCESS_KEY", &trial.store.secret)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "rclone {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What RECOVERY.txt says, by hand: copy the bucket, decrypt the files that the newest manifest names, check.
fn restored_with_gpg_alone(trial: &Trial, name: &str, archives: &[&str]) -> std::path::PathBuf {
    let copy = trial.folder.join(format!("copy-{name}"));
    let repository = trial.folder.join(format!("repository-{name}"));
    for folder in [&copy, &repository] {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).unwrap();
    }
    rclone(
        trial,
        &["copy", &format!("{}/{CLIENT}", remote()), copy.to_str().unwrap()],
    );
    let newest = std::fs::read_dir(copy.join("manifest"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(".json.gpg"))
        .max_by_key(|name| name.split('.').next().and_then(|number| number.parse::<u64>().ok()))
        .unwrap();
    let manifest = json(&String::from_utf8(decrypt(trial, &copy.join("manifest").join(newest))).unwrap());
    for file in manifest["files"].as_array().unwrap() {
        let content = decrypt(trial, &copy.join(file["object"].as_str().unwrap()));
        let path = repository.join(file["path"].as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    checked(trial, &repository, name, archives);
    repository
}

/// Opens a file with gpg and the owner's key.
pub fn decrypt(trial: &Trial, file: &Path) -> Vec<u8> {
    let output = Command::new("gpg")
        .arg("--homedir")
        .arg(trial.gnupg())
        .args(["--batch", "--quiet", "--decrypt"])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub fn checked(trial: &Trial, repository: &Path, name: &str, archives: &[&str]) {
    let caches = trial.folder.join(format!("caches-{name}"));
    let _ = std::fs::remove_dir_all(&caches);
    local_borg(repository, &caches, &trial.folder, &["check", "--verify-data"]);
    let listed = local_borg(repository, &caches, &trial.folder, &["list", "--short"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), archives);
}

/// The owner's secret key, in a file.
pub fn secret_key(trial: &Trial) -> std::path::PathBuf {
    let key = trial.folder.join("owner-secret.asc");
    let export = Command::new("gpg")
        .arg("--homedir")
        .arg(trial.gnupg())
        .args(["--batch", "--armor", "--export-secret-keys"])
        .output()
        .unwrap();
    std::fs::write(&key, export.stdout).unwrap();
    key
}

/// Our own command on a workstation, still to be told what to do.
pub fn our_command(trial: &Trial) -> Command {
    let programs = image::programs::build(&Workspace::here()).unwrap();
    let program = programs
        .iter()
        .find(|program| program.place == "usr/bin/strongroom")
        .unwrap();
    let mut command = Command::new(&program.file);
    command
        .env("STRONGROOM_SECRET_KEY", &trial.store.secret)
        .stdin(Stdio::null());
    command
}

/// The same with the owner's key, still to be told what to restore to where.
pub fn restore(trial: &Trial) -> Command {
    restore_from(trial, BUCKET)
}

/// The same from this bucket.
pub fn restore_from(trial: &Trial, bucket: &str) -> Command {
    let mut command = our_command(trial);
    command
        .args(["restore", CLIENT])
        .arg("--key")
        .arg(secret_key(trial))
        .args(["--endpoint", &format!("http://127.0.0.1:{}", trial.store.port)])
        .args([
            "--region",
            image::loopback::REGION,
            "--bucket",
            bucket,
            "--access-key-id",
            ACCOUNT,
        ]);
    command
}

/// The owner decrypts a code that the appliance made, and gives it back: the standing warning goes.
pub fn the_secret_key_is_shown(trial: &Trial, machine: &mut Machine) {
    let unproven = |status: &serde_json::Value| conditions(status).contains(&"recipient-unproven".to_owned());
    wait_for_status(trial, machine, "the appliance does not ask for the key", SOON, unproven);
    let admin = trial.admin(machine);
    let message = trial.folder.join("challenge.asc");
    let challenge = admin.run("strongroom recipient challenge 2>/dev/null").unwrap();
    std::fs::write(&message, challenge).unwrap();
    let code = String::from_utf8(decrypt(trial, &message)).unwrap();
    let wrong = admin
        .output("strongroom recipient prove abcd-efgh-jkmn-pqrs-tuvw-xyz2")
        .unwrap();
    assert!(!wrong.status.success());
    let proven = admin
        .run(&format!("strongroom recipient prove {}", code.trim()))
        .unwrap();
    assert!(proven.contains("`owner` is there"), "{proven}");
    wait_for_status(trial, machine, "the proof is not taken note of", SOON, |status| {
        !unproven(status)
    });
}

/// Taken only if this appliance signed it.
fn restored_with_our_command(trial: &Trial, admin: &ssh::Login, archives: &[&str]) {
    let into = trial.folder.join("repository-ours");
    let _ = std::fs::remove_dir_all(&into);
    let shown = admin.run("strongroom recipient show").unwrap();
    let mut lines = shown
        .lines()
        .skip_while(|line| !line.starts_with("The manifests are signed"));
    let fingerprint = lines
        .nth(1)
        .unwrap_or_else(|| panic!("nobody signs: {shown}"))
        .replace(' ', "");
    let listed = restore(trial).arg("--list").output().unwrap();
    let states = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && states.lines().count() > 2, "{states}");
    let stranger = fingerprint.replace(|digit: char| digit != '0', "0");
    let refused = restore(trial)
        .arg(&into)
        .args(["--signer", &stranger])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "signed by {fingerprint}, not by {stranger}");
    let _ = std::fs::remove_dir_all(&into);
    let output = restore(trial)
        .arg(&into)
        .args(["--signer", &fingerprint])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("signed by {fingerprint}")), "{said}");
    checked(trial, &into, "ours", archives);
}

/// A restore is tried on a workstation, and the appliance told of it.
fn a_drill_is_noted(trial: &Trial, machine: &mut Machine) {
    let folder = trial.folder.join("drill");
    std::fs::create_dir_all(&folder).unwrap();
    let config = std::fs::read_to_string(trial.config_file()).unwrap();
    let here = config.replace(&format!("//{HOST}:"), "//127.0.0.1:");
    std::fs::write(folder.join("strongroom.toml"), here).unwrap();
    let tried = our_command(trial)
        .args(["drill", CLIENT, "--yes", "--config"])
        .arg(folder.join("strongroom.toml"))
        .arg("--key")
        .arg(secret_key(trial))
        .arg("--scratch")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    let mut record = trial.admin(machine).command("strongroom drill-record");
    let mut record = record.stdin(Stdio::piped()).spawn().unwrap();
    record.stdin.take().unwrap().write_all(&tried.stdout).unwrap();
    assert!(record.wait().unwrap().success());
    wait_for_status(trial, machine, "the drill is not told", SOON, |status| {
        status["clients"][0]["drill"]["whole"].is_u64()
    });
}

fn availability(trial: &Trial) -> String {
    // The identity is made on the appliance; the broker knows it by its topics.
    let mut command = trial.broker.client("mosquitto_sub");
    command.args(["-t", "strongroom/+/availability", "-C", "1", "-W", "10", "-F", "%t"]);
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The same story over D-Bus, over MQTT and on the console.
fn status_is_told(trial: &Trial, machine: &mut Machine) {
    let current = wait_for_status(trial, machine, "the status did not settle", SOON, |status| {
        let client = &status["clients"][0];
        status["clock"]["state"] == "synchronised"
            && client["transaction"].is_u64()
            && client["transaction"] == client["targets"][0]["transaction"]
            && client["targets"][0]["verified"].is_u64()
    });
    assert_eq!(current["clients"][0]["name"], CLIENT);
    // Of the other client; what was damaged was repaired.
    assert_eq!(conditions(&current), ["never-pushed"], "{current:#}");
    let id = current["appliance"]["id"].as_str().unwrap();
    assert_eq!(retained(trial, &format!("strongroom/{id}/availability")), "online");
    let discovery = json(&retained(trial, &format!("homeassistant/device/{id}/config")));
    assert!(discovery["components"].as_object().unwrap().len() > 5, "{discovery:#}");
    assert!(discovery["origin"]["name"].is_string());
    let clock = json(&retained(trial, &format!("strongroom/{id}/clock")));
    assert_eq!(clock["state"], "synchronised", "{clock:#}");
    let client = retained(trial, &format!("strongroom/{id}/client/{CLIENT}"));
    assert!(client.contains("trial"), "{client}");
    assert_eq!(
        (&json(&client)["archives"], &json(&client)["damaged"]),
        (&3.into(), &0.into()),
        "{client}"
    );
    let text = trial.admin(machine).run("strongroom status").unwrap();
    assert!(text.contains(CLIENT) && text.contains("SHA256:"), "{text}");
    machine.wait_for_serial("SHA256:", SOON).unwrap();
    eprintln!("{text}");
}

/// `strongroom report` as its reader sees it, after somebody was so careless as to log what nobody should.
fn the_report_holds_no_secret(trial: &Trial, machine: &Machine) {
    let admin = trial.admin(machine);
    let (mqtt, s3) = (&trial.broker.password, &trial.store.secret);
    let key = std::fs::read_to_string(trial.folder.join("client_key")).unwrap();
    admin
        .run(&format!(
            "logger 'planted: mqtt password={mqtt}'; logger 'secret_access_key: {s3}'; logger 'mqtt://me:{mqtt}@host'; \
             echo '{key}' | logger; logger 'the last line planted'; journalctl --sync || true"
        ))
        .unwrap();
    let output = admin.output("strongroom report").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bundle = trial.folder.join("report.tar.gz");
    std::fs::write(&bundle, &output.stdout).unwrap();
    let unpack = |arguments: &[&str]| {
        let output = Command::new("tar")
            .arg("-xzf")
            .arg(&bundle)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let member = |name: &str| unpack(&["--to-stdout", &format!("strongroom-report/{name}")]);
    let all = unpack(&["--to-stdout"]);
    eprintln!(
        "report: {} KiB, unpacked {} KiB",
        output.stdout.len() >> 10,
        all.len() >> 10
    );
    assert!(all.len() < 16 << 20);
    for secret in [mqtt.as_str(), s3.as_str(), "PRIVATE KEY"] {
        assert!(!all.contains(secret), "a secret is in the report");
    }
    for line in key.lines().filter(|line| line.len() > 20) {
        assert!(!all.contains(line), "a private key is in the report");
    }
    let journal = member("journal.txt");
    assert!(journal.contains("password=(removed)") && journal.contains("the last line planted"));
    assert!(member("journal-before.txt").contains("kernel: Linux version"));
    assert!(json(&member("status.json"))["clients"][0]["name"] == CLIENT);
    let config = member("strongroom.toml");
    assert!(config.contains(CLIENT) && !config.contains("admin@trial"), "{config}");
    for account in ["username", "access_key_id"] {
        assert!(config.contains(&format!("{account} = \"(removed)\"")), "{config}");
    }
    for (name, part) in [
        ("README.txt", "journal-before.txt"),
        ("units.txt", "strongroomd.service"),
        ("disks.txt", "raid0"),
        ("disks.txt", "→ "),
        ("disk-health.json", "days_until_full"),
        ("clock.txt", "Stratum"),
        ("network.txt", "10.0.2.15"),
        ("pushes.txt", CLIENT),
    ] {
        assert!(member(name).contains(part), "{name} lacks {part}:\n{}", member(name));
    }
}
