//! Figures, printed and not judged: `cargo test --release -p strongroom-offsite --test figures -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Instant, SystemTime};

use strongroom_model::config::Multipart;
use strongroom_offsite::openpgp::{Mode, Recipients};
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::system_clock;
use strongroom_offsite::target::Target;
use strongroom_offsite::{Encryption, Limits, PushRequest, Tuning, push};
use support::{Gpg, HASTY, at_mut, credentials, noise, server, target};

const MIB: usize = 1024 * 1024;

/// A repository of raw segments: `sizes`, then a commit.
fn repository(path: &Path, sizes: &[usize]) {
    fs::create_dir_all(path.join("data/0")).unwrap();
    fs::write(
        path.join("config"),
        format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32)),
    )
    .unwrap();
    let block = noise(MIB, 3);
    for (number, size) in sizes.iter().enumerate() {
        let directory = path.join(format!("data/{}", number / 1000));
        fs::create_dir_all(&directory).unwrap();
        let mut file = fs::File::create(directory.join(number.to_string())).unwrap();
        let mut left = *size;
        while left > 0 {
            let piece = left.min(block.len());
            file.write_all(&block[..piece]).unwrap();
            left -= piece;
        }
    }
    let mut commit = b"BORG_SEG".to_vec();
    commit.extend([0x40, 0xf4, 0x3c, 0x25, 0x09, 0, 0, 0, 0x02]);
    let directory = path.join(format!("data/{}", sizes.len() / 1000));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(sizes.len().to_string()), commit).unwrap();
}

fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    text.lines()
        .find(|line| line.starts_with(key))
        .unwrap_or_default()
        .to_owned()
}

/// Without `multipart` it goes to a directory.
async fn measure(sizes: &[usize], multipart: Option<Multipart>, label: &str) {
    let gpg = Gpg::new();
    gpg.generate("owner", "future-default", "0", "");
    let dir = tempfile::tempdir().unwrap();
    repository(&dir.path().join("repository"), sizes);
    let store = dir.path().join("store");
    let server = server(&store, |_| {}).await;
    let target = match multipart {
        Some(multipart) => {
            let mut target = target(&server, "plain");
            at_mut(&mut target).multipart = multipart;
            target
        }
        None => Target::in_directory("disk".into(), dir.path().join("disk"), "asus_home".into()),
    };
    let request = PushRequest {
        repository: dir.path().join("repository"),
        target,
        credentials: credentials("ALL"),
        recipients: vec![gpg.export("owner")],
        encryption: Encryption::Auto,
        signer: None,
        limits: Limits::default(),
        retirement: Rules::default(),
        ledger: dir.path().join("ledger"),
        now: 1_800_000_000,
    };
    let tuning = Tuning {
        retry: HASTY,
        clock: system_clock(),
    };
    // Starts the peak of memory anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let started = Instant::now();
    let report = push(&request, &tuning, &mut |_| {}).await.unwrap();
    let took = started.elapsed();
    println!(
        "{label}: {} objects, {} MB in {took:.2?} ({:.0} MB/s, what it is sent to in this process)",
        report.objects,
        report.bytes / 1_000_000,
        report.bytes as f64 / 1e6 / took.as_secs_f64()
    );
    let started = Instant::now();
    assert!(push(&request, &tuning, &mut |_| {}).await.unwrap().nothing_to_do);
    let ledger = fs::metadata(request.ledger.join("ledger.jsonl")).unwrap().len();
    println!(
        "{label}: nothing to do in {:.0?}; ledger {ledger} bytes; {}",
        started.elapsed(),
        status("VmHWM")
    );
}

#[tokio::test]
#[ignore = "prints figures; takes minutes"]
async fn large_in_parts() {
    measure(&[500 * MIB, 500 * MIB, 50 * MIB], Some(Multipart::Auto), "in parts").await;
}

#[tokio::test]
#[ignore = "prints figures; takes minutes"]
async fn large_in_one_piece() {
    measure(
        &[500 * MIB, 500 * MIB, 50 * MIB],
        Some(Multipart::Never),
        "in one piece, two passes",
    )
    .await;
}

#[tokio::test]
#[ignore = "prints figures; takes minutes"]
async fn large_to_a_directory() {
    measure(&[500 * MIB, 500 * MIB, 50 * MIB], None, "to a directory").await;
}

#[tokio::test]
#[ignore = "prints figures; takes minutes"]
async fn many_segments() {
    measure(&vec![17; 20_000], Some(Multipart::Auto), "20,000 segments").await;
}

#[test]
#[ignore = "prints figures; takes minutes"]
fn sealing() {
    let gpg = Gpg::new();
    gpg.generate("owner", "future-default", "0", "");
    let recipients = Recipients::parse(&[gpg.export("owner")], SystemTime::now()).unwrap();
    let data = noise(300 * MIB, 5);
    for mode in Mode::ALL {
        let started = Instant::now();
        let sealed = recipients.seal(mode).unwrap().seal(&data).unwrap();
        println!(
            "sealing, {mode:?}: {:.0} MB/s on one core",
            sealed.len() as f64 / 1e6 / started.elapsed().as_secs_f64()
        );
    }
}
