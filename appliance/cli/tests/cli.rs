//! `strongroom` as it is typed, without an appliance: what it prints, what its exit codes are, and what it hands over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use strongroom_model::offer::{Answer, Offer};

fn strongroom(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .args(words)
        // No bus is there, whatever this computer has.
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read what it has no use for.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn exit_codes_are_as_documented() {
    let page = include_str!("../../../docs/cli.md");
    for (words, code, told) in [
        (&["config", "check", "-"][..], 0, ""),
        (&["config", "check", "/nonexistent/strongroom.toml"], 1, "No such file"),
        (&["config", "chekc"], 2, "unrecognized"),
        (&["status"], 4, "no system bus"),
        (&["jobs", "--json"], 4, "no system bus"),
        (&["push", "asus"], 4, "no system bus"),
        (
            &["config", "apply", "-", "--socket", "/nonexistent/sock"],
            4,
            "can't be asked",
        ),
    ] {
        let (_, stderr, ended) = said(&strongroom(words, ""));
        assert_eq!(ended, Some(code), "{words:?}: {stderr}");
        assert!(stderr.contains(told), "{words:?}: {stderr}");
        assert!(page.contains(&format!("\n| {code} | ")), "{code}");
    }
    let (help, _, _) = said(&strongroom(&["--help"], ""));
    assert!(
        help.contains("Exit codes:") && help.contains("4  the appliance can't be asked"),
        "{help}"
    );
}

#[test]
fn a_wrong_configuration_is_told_with_its_line_and_a_suggestion() {
    let (_, stderr, code) = said(&strongroom(&["config", "check", "-"], "[network]\nhostnam = \"x\"\n"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("line 2") && stderr.contains("hostname"), "{stderr}");
    let (stdout, _, code) = said(&strongroom(
        &["config", "check", "-", "--json"],
        "[network]\nhostnam = \"x\"\n",
    ));
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &told["good"], &told["line"]),
        (Some(1), &false.into(), &2.into())
    );
}

#[test]
fn the_real_bash_completes_verbs_and_options() {
    let (script, _, code) = said(&strongroom(&["completions", "bash"], ""));
    assert_eq!(code, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completion");
    fs::write(&file, script).unwrap();
    let completed = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let quoted = words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" ");
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let run = format!(
            ". {}; COMP_WORDS=({quoted}); COMP_CWORD={}; _strongroom strongroom '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\"",
            file.display(),
            words.len() - 1
        );
        let (stdout, stderr, _) = said(&Command::new("bash").args(["-c", &run]).output().unwrap());
        assert_eq!(stderr, "");
        stdout.trim().to_string()
    };
    assert_eq!(completed("strongroom sta"), "status");
    assert_eq!(completed("strongroom config app"), "apply");
    assert_eq!(completed("strongroom jobs --js"), "--json");

    // As on the appliance: made at the first Tab.
    let profile = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../rootfs-overlay/etc/profile.d/strongroom.sh"
    );
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().unwrap();
    let run = format!(
        "PATH={}:$PATH; . {profile}; complete -p strongroom; _strongroom_first; echo $?; complete -p strongroom",
        bin.display()
    );
    let (stdout, stderr, _) = said(&Command::new("bash").args(["-c", &run]).output().unwrap());
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(stderr, "");
    assert!(lines[0].contains("_strongroom_first") && lines[1] == "124", "{stdout}");
    assert!(
        lines[2].contains("-F _strongroom ") && !lines[2].contains("first"),
        "{stdout}"
    );
}

#[test]
fn there_is_a_manual_page_for_each_verb() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man1");
    let (_, stderr, code) = said(&strongroom(&["man", man.to_str().unwrap()], ""));
    assert_eq!(code, Some(0), "{stderr}");
    let top = fs::read_to_string(man.join("strongroom.1")).unwrap();
    assert!(top.contains("Exit codes"), "{top}");
    for verb in [
        "status",
        "jobs",
        "logs",
        "config",
        "config-apply",
        "client-kit",
        "restore",
    ] {
        let page = fs::read_to_string(man.join(format!("strongroom-{verb}.1"))).unwrap();
        assert!(page.contains(".SH"), "{verb}");
    }
}

/// What is sent, and what is made of the answers. What the appliance makes of it is tried in the supervisor's tests.
#[test]
fn a_configuration_is_handed_over_once_it_is_agreed_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        let mut offers = Vec::new();
        for answer in [
            Answer::Would {
                changes: vec!["host name: strongroom -> attic".into()],
                consent: "abcd".into(),
            },
            Answer::Would {
                changes: vec!["host name: strongroom -> attic".into()],
                consent: "abcd".into(),
            },
            Answer::Taken {
                changes: Vec::new(),
                later: vec!["the network: busy".into()],
            },
            Answer::Refused { why: "no".into() },
        ] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            connection.read_to_end(&mut request).unwrap();
            offers.push(serde_json::from_slice::<Offer>(&request).unwrap());
            connection.write_all(&serde_json::to_vec(&answer).unwrap()).unwrap();
        }
        offers
    });
    let text = "[network]\nhostname = \"attic\"\n";
    let apply = |more: &[&str]| {
        let words = ["config", "apply", "-", "--socket", socket.to_str().unwrap()];
        said(&strongroom(&[&words[..], more].concat(), text))
    };
    let (stdout, stderr, code) = apply(&[]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("- host name: strongroom -> attic"), "{stdout}");
    assert!(
        stderr.contains("nothing was changed") && stderr.contains("config apply - --yes"),
        "{stderr}"
    );
    let (stdout, _, code) = apply(&["--yes"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("It is in force.") && stdout.contains("the network: busy"),
        "{stdout}"
    );
    let (_, stderr, code) = apply(&["--yes"]);
    assert_eq!((stderr.as_str(), code), ("strongroom: no\n", Some(1)));
    let offers = answering.join().unwrap();
    assert!(offers.iter().all(|offer| offer.text == text));
    let consents: Vec<Option<&str>> = offers.iter().map(|offer| offer.consent.as_deref()).collect();
    assert_eq!(consents, [None, None, Some("abcd"), None]);
}
