//! The command over SSH, as the account `admin` has it without any set-up: jobs, logs, completion, a configuration.

use std::io::Write;
use std::process::{Output, Stdio};

use image::ssh::Login;
use image::trial::CLIENT;
use serde_json::Value;

/// After a push that succeeded: it is told of as a job, and its log is found by the job and by the client.
pub fn jobs_and_logs_are_told(admin: &Login) {
    let jobs: Value = serde_json::from_str(&admin.run("strongroom jobs --json").unwrap()).unwrap();
    let pushes = |job: &&Value| job["kind"] == "push" && job["subject"] == CLIENT;
    let push = jobs.as_array().unwrap().iter().find(pushes).unwrap();
    assert_eq!(push["state"], "succeeded", "{jobs:#}");
    let id = push["id"].as_str().unwrap();
    let table = admin.run("strongroom jobs").unwrap();
    assert!(table.contains(&id[..8]), "{table}");
    let unit = push["unit"].as_str().unwrap();
    for log in [
        admin.run(&format!("strongroom logs --job {}", &id[..8])).unwrap(),
        admin.run(&format!("strongroom logs --job {id} --json")).unwrap(),
        admin
            .run(&format!("strongroom logs --client {CLIENT} --lines 1000 --json"))
            .unwrap(),
    ] {
        assert!(log.contains(unit) || log.contains("transaction"), "{log}");
    }
    let refused = admin.output(&format!("strongroom jobs stop {id}")).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has ended"));
    let completed = admin.run("bash -lc 'complete -p strongroom'").unwrap();
    assert!(completed.contains("_strongroom_first"), "{completed}");
}

/// Hands a configuration over that changes the schedule: shown first, then taken over.
pub fn a_configuration_is_applied(admin: &Login, in_force: &str) {
    let changed = format!("{in_force}\n[schedule]\npush = \"*-*-* 03:33\"\n");
    let shown = apply(admin, "", &changed);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    assert_eq!(shown.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains("the schedule: changed"), "{stdout}");
    assert!(stderr.contains("nothing was changed"), "{stderr}");
    let taken = apply(admin, "--yes", &changed);
    let stdout = String::from_utf8_lossy(&taken.stdout);
    assert!(taken.status.success() && stdout.contains("It is in force."), "{stdout}");
    let again = apply(admin, "--yes", &changed);
    assert!(String::from_utf8_lossy(&again.stdout).contains("in force already"));
    let kept = admin.run("cat /var/lib/strongroom/config/strongroom.toml").unwrap();
    assert_eq!(kept, changed);
    let wrong = apply(admin, "--yes", &changed.replace("push =", "pusch ="));
    let told = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        told.contains("line ") && told.contains("Did you mean `push`?"),
        "{told}"
    );
}

fn apply(admin: &Login, more: &str, text: &str) -> Output {
    let mut command = admin.command(&format!("strongroom config apply - {more}"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}
