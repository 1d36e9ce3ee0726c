//! Keys made and taken over by the real program, and given back by the real gpg: from the file, from the codes, as text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use strongroom_offsite::openpgp::{Encryption, Keyring, Mode, Recipients, certificate};
use zeroize::Zeroizing;

const PASSPHRASE: &str = "correct horse battery staple";

fn strongroom(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeeds(output: &Output) -> String {
    let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{out}{errors}");
    out
}

fn fails(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A GnuPG home of its own, with the agent that gpg starts for it.
struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    fn new() -> Self {
        // The agent's socket needs a short path.
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
        Self { home }
    }

    fn try_run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args([
                "--batch",
                "--yes",
                "--pinentry-mode",
                "loopback",
                "--trust-model",
                "always",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("missing `gpg`: run `cargo image test`, which installs it");
        // A gpg that fails early reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.try_run(arguments, input);
        assert!(
            output.status.success(),
            "gpg {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn decrypt(&self, passphrase: &str, message: &[u8]) -> Option<Vec<u8>> {
        let output = self.try_run(&["--passphrase", passphrase, "--decrypt"], message);
        output.status.success().then_some(output.stdout)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // Ends the agent of this home only.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "gpg-agent"])
            .status();
    }
}

struct Made {
    folder: tempfile::TempDir,
    kit: PathBuf,
    certificate: Vec<u8>,
}

fn made(arguments: &[&str]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let new = ["recipient", "new", "owner", "--passphrase-file", "passphrase"];
    let told = succeeds(&strongroom(folder.path(), &[&new, arguments].concat()));
    assert!(
        !told.contains(PASSPHRASE) && told.contains("certificate = \"owner.asc\""),
        "{told}"
    );
    Made {
        kit: folder.path().join("owner-recovery.html"),
        certificate: fs::read(folder.path().join("owner.asc")).unwrap(),
        folder,
    }
}

/// A message of ours, as a push makes it.
fn sealed(certificate: &[u8], mode: Mode, plain: &[u8]) -> Vec<u8> {
    let recipients = Recipients::parse(&[certificate], std::time::SystemTime::now()).unwrap();
    recipients.seal(mode).unwrap().seal(plain).unwrap()
}

/// Draws a code of the kit, eight pixels a module, and reads it as a camera's picture is read.
fn scanned(svg: &str) -> String {
    const SCALE: usize = 8;
    let number = |text: &str| text.parse::<usize>().unwrap();
    let (_, rest) = svg.split_once("viewBox=\"0 0 ").unwrap();
    let side = number(rest.split(' ').next().unwrap());
    let (_, rest) = svg.split_once(" d=\"").unwrap();
    let path = rest.split('"').next().unwrap();
    let mut dark = vec![vec![false; side]; side];
    for square in path.split('M').skip(1) {
        let (x, rest) = square.split_once(' ').unwrap();
        let (y, rest) = rest.split_once('h').unwrap();
        let length = number(rest.split('v').next().unwrap());
        dark[number(y)][number(x)..number(x) + length].fill(true);
    }
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, |x, y| {
        if dark[y / SCALE][x / SCALE] { 20 } else { 240 }
    });
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1);
    let (_, content) = grids[0].decode().unwrap();
    content
}

#[test]
fn a_new_key_comes_back_from_the_file_and_from_the_codes() {
    let made = made(&["--user-id", "Familie Müller <home@example.org>"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&made.kit), 0o600);
    let page = fs::read_to_string(&made.kit).unwrap();
    assert!(!page.contains(PASSPHRASE));
    assert_eq!(fs::read_dir(made.folder.path()).unwrap().count(), 3);

    let mut codes = String::new();
    let drawings: Vec<&str> = page.split("<svg").skip(1).collect();
    assert!(drawings.len() > 1, "several codes are put together again");
    for (number, drawing) in (1..).zip(&drawings) {
        assert!(page.contains(&format!("<figcaption>{number} of {}</figcaption>", drawings.len())));
        codes.push_str(&scanned(drawing));
        codes.push('\n');
    }
    let typed = &page[page.find("-----BEGIN PGP PRIVATE KEY BLOCK-----").unwrap()
        ..page.find("</pre>\n</section>\n</body>").unwrap()];
    assert_eq!(codes, typed);

    for (how, key) in [("codes", codes.as_bytes()), ("file", page.as_bytes())] {
        let gpg = Gpg::new();
        println!(
            "{}",
            String::from_utf8(gpg.run(&["--version"], b""))
                .unwrap()
                .lines()
                .next()
                .unwrap()
        );
        gpg.run(&["--import"], key);
        let listed = String::from_utf8(gpg.run(&["--with-colons", "--list-secret-keys"], b"")).unwrap();
        assert!(listed.contains("Familie Müller <home@example.org>"), "{listed}");
        // Bound, with an encryption subkey, and valid for ever.
        assert!(
            listed
                .lines()
                .any(|line| line.starts_with("ssb:") && line.contains("cv25519")),
            "{listed}"
        );
        for mode in Mode::ALL {
            let message = sealed(&made.certificate, mode, b"hello");
            assert_eq!(
                gpg.decrypt(PASSPHRASE, &message).as_deref(),
                Some(b"hello".as_slice()),
                "{how}, {mode:?}"
            );
        }
        // Before the agent knows the passphrase it takes no other.
        let strict = Gpg::new();
        strict.run(&["--import"], key);
        assert_eq!(
            strict.decrypt("wrong", &sealed(&made.certificate, Mode::Cfb, b"hello")),
            None
        );
        // Our own reader takes both forms too.
        let passphrase = Zeroizing::new(PASSPHRASE.to_owned());
        let ring = Keyring::parse(&[key], &passphrase).unwrap();
        let mut out = Vec::new();
        ring.open(sealed(&made.certificate, Mode::Ocb, b"hello").as_slice(), &mut out)
            .unwrap();
        assert_eq!(out, b"hello", "{how}");
    }
    // What another's gpg encrypts to the certificate alone is opened too, and gpg sees what it may use.
    let gpg = Gpg::new();
    gpg.run(&["--import"], &made.certificate);
    let message = gpg.run(&["--recipient", "home@example.org", "--encrypt"], b"from gpg");
    let owner = Gpg::new();
    owner.run(&["--import"], page.as_bytes());
    assert_eq!(owner.decrypt(PASSPHRASE, &message).unwrap(), b"from gpg");
}

#[test]
fn a_certificate_promises_ocb_only_when_told_or_when_gpg_reads_it() {
    for (ocb, mode) in [("yes", Mode::Ocb), ("no", Mode::Cfb)] {
        let made = made(&["--ocb", ocb]);
        let recipients = Recipients::parse(&[&made.certificate], std::time::SystemTime::now()).unwrap();
        assert_eq!(recipients.mode(Encryption::Auto), mode);
        let shown = succeeds(&strongroom(made.folder.path(), &["recipient", "show", "owner.asc"]));
        assert!(
            shown.contains(if ocb == "yes" { "reads OCB" } else { "reads CFB alone" }),
            "{shown}"
        );
        assert!(shown.contains("cv25519, never expires"), "{shown}");
    }
}

#[test]
fn nothing_is_written_over_and_a_failure_leaves_nothing() {
    let made = made(&[]);
    let before = fs::read(&made.kit).unwrap();
    let again = ["recipient", "new", "owner", "--passphrase-file", "passphrase"];
    assert!(fails(&strongroom(made.folder.path(), &again)).contains("is not written over"));
    assert_eq!(fs::read(&made.kit).unwrap(), before);
    // The kit's name is free, the certificate's is not: neither is taken.
    fs::rename(&made.kit, made.folder.path().join("kept.html")).unwrap();
    assert!(fails(&strongroom(made.folder.path(), &again)).contains("owner.asc"));
    assert!(!made.kit.exists());
    // Without a terminal a passphrase would be shown to nobody.
    let unseen = ["recipient", "new", "other"];
    let output = Command::new("setsid")
        .arg("--wait")
        .arg(env!("CARGO_BIN_EXE_strongroom"))
        .args(unseen)
        .current_dir(made.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(fails(&output).contains("--passphrase-file"));
    fs::write(made.folder.path().join("passphrase"), "short\n").unwrap();
    let easy = ["recipient", "new", "other", "--passphrase-file", "passphrase"];
    assert!(fails(&strongroom(made.folder.path(), &easy)).contains("fewer than 12"));
    let bad = [
        "recipient",
        "new",
        "other",
        "--passphrase-file",
        "kept.html",
        "--user-id",
        " ",
    ];
    assert!(fails(&strongroom(made.folder.path(), &bad)).contains("user id"));
    assert!(!made.folder.path().join("other.asc").exists() && !made.folder.path().join("other-recovery.html").exists());
}

/// On a terminal of its own, as `script` of util-linux gives one.
#[test]
fn the_passphrase_is_shown_once_and_has_to_be_typed() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_strongroom");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!("{program} recipient new owner > out"))
        .arg("/dev/null")
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("missing `script` of util-linux");
    let mut keyboard = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut seen = String::new();
    let mut until = |seen: &mut String, text: &str| {
        let mut chunk = [0; 4096];
        let from = seen.len();
        while !seen[from..].contains(text) {
            let read = std::io::Read::read(&mut screen, &mut chunk).unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    };
    until(&mut seen, "shows it again): ");
    let is_group =
        |group: &str| group.len() == 4 && group.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let shown = |text: &str| -> Vec<String> {
        let words = text
            .split_whitespace()
            .filter(|word| word.split('-').count() == 6 && word.split('-').all(is_group));
        words.map(str::to_owned).collect()
    };
    let [passphrase] = <[String; 1]>::try_from(shown(&seen)).unwrap();
    keyboard.write_all(b"something-else\n").unwrap();
    until(&mut seen, "shows it again): ");
    assert!(seen.contains("That is not it"));
    keyboard.write_all(format!("{passphrase}\n").as_bytes()).unwrap();
    until(&mut seen, "The passphrase is right.");
    assert!(child.wait().unwrap().success());
    assert!(shown(&seen).iter().all(|word| *word == passphrase));
    let out = fs::read_to_string(folder.path().join("out")).unwrap();
    let page = fs::read_to_string(folder.path().join("owner-recovery.html")).unwrap();
    assert!(!out.contains(&passphrase) && !page.contains(&passphrase));
    let gpg = Gpg::new();
    gpg.run(&["--import"], page.as_bytes());
    let certificate = fs::read(folder.path().join("owner.asc")).unwrap();
    let message = sealed(&certificate, Mode::Cfb, b"hello");
    assert_eq!(gpg.decrypt(&passphrase, &message).unwrap(), b"hello");
}

#[test]
fn certificates_of_gpg_are_taken_and_stripped_of_what_is_secret() {
    let gpg = Gpg::new();
    let folder = tempfile::tempdir().unwrap();
    let generate = |name: &str, kind: &str, usage: &str| {
        gpg.run(
            &["--passphrase", "", "--quick-generate-key", name, kind, usage, "2d"],
            b"",
        );
    };
    generate("modern", "future-default", "default");
    generate("rsa", "rsa2048", "encr,sign,cert");
    generate("weak", "rsa1024", "encr,sign,cert");
    generate("signs", "ed25519", "default");
    let export = |name: &str, verb: &str| {
        let armoured = gpg.run(&["--armor", verb, name], b"");
        fs::write(folder.path().join(format!("{name}.txt")), &armoured).unwrap();
        armoured
    };
    let import = |name: &str| strongroom(folder.path(), &["recipient", "import", &format!("{name}.txt")]);
    let written = |name: &str| fs::read(folder.path().join(format!("{name}.asc"))).unwrap();

    export("modern", "--export-secret-keys");
    let told = succeeds(&import("modern"));
    assert!(
        told.contains("This is a secret key") && told.contains("cv25519, until 20"),
        "{told}"
    );
    let public = String::from_utf8(written("modern")).unwrap();
    assert!(public.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    // gpg sees no secret key in it, and it is the same certificate.
    let other = Gpg::new();
    other.run(&["--import"], public.as_bytes());
    assert!(other.run(&["--with-colons", "--list-secret-keys"], b"").is_empty());
    let fingerprint = certificate::describe(public.as_bytes(), None).unwrap().fingerprint;
    assert!(
        String::from_utf8(other.run(&["--with-colons", "--list-keys"], b""))
            .unwrap()
            .contains(&fingerprint)
    );
    assert_eq!(
        gpg.decrypt("", &sealed(public.as_bytes(), Mode::Cfb, b"hello"))
            .unwrap(),
        b"hello"
    );

    export("rsa", "--export");
    assert!(succeeds(&import("rsa")).contains("rsa2048"));
    let other = ["recipient", "import", "modern.txt", "--name", "rsa"];
    assert!(fails(&strongroom(folder.path(), &other)).contains("is not written over"));
    // The file that is there already, as it is.
    let same = strongroom(folder.path(), &["recipient", "import", "rsa.asc"]);
    assert!(succeeds(&same).contains("holds it already"));

    export("weak", "--export");
    assert!(fails(&import("weak")).contains("rsa1024"));
    export("signs", "--export");
    assert!(fails(&import("signs")).contains("no usable encryption key"));
    let both = gpg.run(&["--armor", "--export", "modern", "rsa"], b"");
    fs::write(folder.path().join("both.txt"), both).unwrap();
    assert!(fails(&import("both")).contains("2 certificates"));
    for name in ["weak", "signs", "both"] {
        assert!(!folder.path().join(format!("{name}.asc")).exists());
    }
    fs::write(folder.path().join("My Key.txt"), export("rsa", "--export")).unwrap();
    assert!(fails(&import("My Key")).contains("--name NAME"));

    let config = "[[offsite.recipient]]\nname = \"rsa\"\ncertificate = \"rsa.asc\"\n[[offsite.recipient]]\nname = \"gone\"\ncertificate = \"gone.asc\"\n";
    fs::write(folder.path().join("strongroom.toml"), config).unwrap();
    let list = ["recipient", "list", "--config", "strongroom.toml"];
    let listed = succeeds(&strongroom(folder.path(), &list));
    assert!(
        listed.contains("rsa2048") && listed.contains("nothing is encrypted to it"),
        "{listed}"
    );
    assert!(listed.contains("gone: can't be used: gone.asc: "), "{listed}");
    let json = succeeds(&strongroom(folder.path(), &[list.as_slice(), &["--json"]].concat()));
    assert!(json.contains("\"algorithm\": \"rsa2048\""), "{json}");
}
