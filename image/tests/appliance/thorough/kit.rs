//! A client's kit, as it comes out of the running appliance, set up and run against it; and a quota that is nearly used up.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{conditions, wait_for_status};
use crate::client::{assert_same, make_files, random};
use crate::{SOON, STOP, folder, is_sound, start};

/// A client on this machine, with an /etc, /usr/local/sbin, home and environment of its own.
struct Place {
    folder: PathBuf,
    client: &'static str,
}

impl Place {
    const ENTER: &str = "mount --bind \"$1/etc\" /etc && mount --bind \"$1/sbin\" /usr/local/sbin \
                         && mount -t tmpfs none /run && shift && exec \"$@\"";

    fn new(folder: PathBuf, client: &'static str) -> Self {
        std::fs::create_dir_all(folder.join("sbin")).unwrap();
        std::fs::create_dir_all(folder.join("home")).unwrap();
        // Not all of it may be read by an ordinary user.
        let mut copy = Command::new("cp");
        let _ = copy.args(["-a", "/etc"]).arg(folder.join("etc")).output().unwrap();
        let own = folder.join("etc/strongroom-backup");
        let _ = std::fs::remove_dir_all(&own);
        std::fs::create_dir(own).unwrap();
        Self { folder, client }
    }

    /// A file of the client's settings.
    fn setting(&self, name: &str) -> PathBuf {
        self.folder.join("etc/strongroom-backup").join(name)
    }

    fn output(&self, words: &[&str]) -> Output {
        Command::new("unshare")
            .args(["-rm", "sh", "-c", Self::ENTER, "sh"])
            .arg(&self.folder)
            .args(words)
            .current_dir(self.folder.join(format!("strongroom-{}", self.client)))
            .env_clear()
            .env("HOME", self.folder.join("home"))
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {}\n{said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn archives(&self) -> Vec<String> {
        let list = self.run(&["strongroom-backup", "borg", "list", "--short"]);
        list.lines().map(str::to_owned).collect()
    }
}

fn unpack(archive: &[u8], into: &Path) {
    let file = into.join("kit.tar");
    std::fs::write(&file, archive).unwrap();
    let mut tar = Command::new("tar");
    let output = tar.arg("-C").arg(into).arg("-xf").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn a_kit_of_the_appliance_backs_up_to_it_and_a_quota_is_told_in_time() {
    let trial = Trial::new(&Workspace::here(), &folder("kit"), &StoreOptions::default()).unwrap();
    let client = format!("name = \"{CLIENT}\"");
    let with_quota = trial
        .default_config()
        .replace(&client, &format!("{client}\nquota = \"20 MB\""));
    trial.configure(&with_quota).unwrap();
    trial.flash().unwrap();
    let mut machine = start(&trial, "first", Firmware::Bios);
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    let admin = trial.admin(&machine);

    // What to paste names the appliance as its neighbours find it.
    let pasted = admin.run(&format!("strongroom client kit {CLIENT}")).unwrap();
    assert!(
        pasted.contains(&format!("borgbackup@strongroom.local:/mnt/raid/{CLIENT}_repository")),
        "{pasted}"
    );
    let key = admin.run("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null").unwrap();
    let key = key.lines().last().unwrap().split_once(' ').unwrap().1.to_owned();
    assert!(pasted.contains(&key), "{key} in {pasted}");
    let stranger = admin.output("strongroom client kit nobody").unwrap();
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("is not a client of this appliance yet"));

    // The kit itself, for a client that comes by a forwarded port and whose key is known already.
    let place = Place::new(trial.folder.join("client"), CLIENT);
    let port = machine.ssh_port();
    let take = |place: &Place| {
        let kit = format!(
            "strongroom client kit {} --host 127.0.0.1 --port {port} --output -",
            place.client
        );
        let kit = admin.output(&kit).unwrap();
        assert!(kit.status.success(), "{}", String::from_utf8_lossy(&kit.stderr));
        unpack(&kit.stdout, &place.folder);
    };
    take(&place);
    std::fs::copy(trial.folder.join("client_key"), place.setting("id_ed25519")).unwrap();
    std::fs::copy(trial.folder.join("client_key.pub"), place.setting("id_ed25519.pub")).unwrap();
    std::fs::set_permissions(place.setting("id_ed25519"), PermissionsExt::from_mode(0o600)).unwrap();
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 1 << 20);
    let source = files.to_str().unwrap();
    std::fs::write(place.setting("patterns"), format!("R {source}\n")).unwrap();

    place.run(&["./install"]);
    place.run(&["strongroom-backup"]);
    assert_eq!(place.archives().len(), 1);
    let backed_up = |status: &serde_json::Value| {
        let client = &status["clients"][0];
        client["archives"] == 1 && client["quota_bytes"] == 20_000_000 && client["quota_used_bytes"].is_u64()
    };
    let status = wait_for_status(&trial, &mut machine, "the backup was not seen", SOON, backed_up);
    assert!(
        !conditions(&status).contains(&"quota-nearly-reached".to_owned()),
        "{status:#}"
    );

    // 17 of 20 MB.
    std::fs::write(files.join("film"), random(16_000_000)).unwrap();
    place.run(&["strongroom-backup"]);
    let archives = place.archives();
    let nearly = |status: &serde_json::Value| conditions(status).contains(&"quota-nearly-reached".to_owned());
    wait_for_status(&trial, &mut machine, "the quota was not told", SOON, nearly);
    let into = trial.folder.join("extracted");
    let _ = std::fs::remove_dir_all(&into);
    std::fs::create_dir_all(&into).unwrap();
    let newest = archives.iter().max().unwrap();
    let extract = format!("cd '{}' && strongroom-backup borg extract '::{newest}'", into.display());
    place.run(&["sh", "-c", &extract]);
    assert_same(&files, &into.join(source.trim_start_matches('/')));

    // A machine that nobody has enrolled yet, by the code of a pairing.
    let pairing = admin.run("strongroom client pair workshop").unwrap();
    let code = pairing
        .split("pair@")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap();
    let workshop = Place::new(trial.folder.join("workshop"), "workshop");
    take(&workshop);
    workshop.run(&["./install", code]);
    assert!(workshop.archives().is_empty());

    // Somebody else in the appliance's place.
    let known = std::fs::read_to_string(place.setting("known_hosts")).unwrap();
    let other = known.replace(&key, &trial.admin_key);
    assert_ne!(other, known);
    std::fs::write(place.setting("known_hosts"), other).unwrap();
    let refused = place.output(&["strongroom-backup"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("shows another key than the one"), "{said}");

    is_sound(&trial, &machine);
    machine.shut_down(STOP).unwrap();
}
