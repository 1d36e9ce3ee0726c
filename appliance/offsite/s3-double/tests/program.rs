//! The program: its first line is its address, and it listens on loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

fn start(listen: &str, dir: &std::path::Path) -> Child {
    std::fs::write(dir.join("secret"), "s3cret\n").unwrap();
    Command::new(env!("CARGO_BIN_EXE_s3-double"))
        .args([
            "--listen",
            listen,
            "--region",
            "here",
            "--access-key",
            "ID",
            "--bucket",
            "b",
            "--bucket",
            "c:archive",
        ])
        .args(["--bandwidth", "1000000", "--permissions", "create,inspect"])
        .arg("--dir")
        .arg(dir.join("store"))
        .arg("--secret-key-file")
        .arg(dir.join("secret"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn says_where_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start("127.0.0.1:0", dir.path());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    TcpStream::connect(address).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn refuses_other_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let output = start("0.0.0.0:0", dir.path()).wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
}
