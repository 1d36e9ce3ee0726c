//! The owner's own certificate authority: made by OpenSSL, before a real TLS server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use strongroom_offsite::s3::{Client, Payload, system_clock};
use strongroom_offsite::{Trust, TrustError, trust};
use support::{HASTY, at, changed, credentials, run, server, target};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn openssl(folder: &Path, arguments: &str) {
    let output = run(Command::new("openssl")
        .current_dir(folder)
        .args(arguments.split_whitespace()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// ca.pem, and server.pem with server.key, signed by it for localhost.
fn authority(folder: &Path) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650";
    openssl(folder, &format!("{new} -keyout ca.key -out ca.pem -subj /CN=Home"));
    openssl(
        folder,
        &format!(
            "{new} -keyout server.key -out server.pem -subj /CN=store -CA ca.pem -CAkey ca.key \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost"
        ),
    );
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

/// Takes the TLS off in front of a server on loopback, and returns the port.
async fn tls_before(upstream: u16, folder: &Path) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_slice(&read(folder, "server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&read(folder, "server.key")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let (Ok(mut clear), Ok(mut to)) = (
                    acceptor.accept(stream).await,
                    TcpStream::connect(("127.0.0.1", upstream)).await,
                ) {
                    let _ = tokio::io::copy_bidirectional(&mut clear, &mut to).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_of_the_owners_authority_is_believed_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let store = server(&dir.path().join("store"), |_| {}).await;
    let upstream: u16 = store.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let port = tls_before(upstream, dir.path()).await;
    let with = |trust: Trust| {
        let target = changed(&target(&store, "plain"), |at| {
            (at.endpoint, at.trust) = (format!("https://localhost:{port}"), trust);
        });
        Client::new(at(&target), credentials("ALL"), system_clock(), HASTY).unwrap()
    };
    let body = Bytes::from_static(b"hello");
    let payload = Payload::of(&body);

    let refused = with(Trust::default()).put_once("a", body.clone(), &payload).await;
    assert!(refused.unwrap_err().to_string().contains("certificate"));
    let other = tempfile::tempdir().unwrap();
    authority(other.path());
    let others = trust::parse(&read(other.path(), "ca.pem")).unwrap();
    assert!(with(others).put_once("a", body.clone(), &payload).await.is_err());

    let own = trust::parse(&read(dir.path(), "ca.pem")).unwrap();
    with(own).put_once("a", body, &payload).await.unwrap();
    // What is written down for other programs is the same again.
    let own = trust::parse(&read(dir.path(), "ca.pem")).unwrap();
    assert_eq!(trust::parse(own.to_pem().as_bytes()).unwrap(), own);
}

#[test]
fn what_is_no_authority_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let (ca, server) = (read(dir.path(), "ca.pem"), read(dir.path(), "server.pem"));
    assert_eq!(trust::parse(b""), Err(TrustError::Nothing));
    assert_eq!(trust::parse(b"\x00\xff binary"), Err(TrustError::Nothing));
    assert!(matches!(trust::parse(&server), Err(TrustError::NoAuthority(1, _))));
    assert!(matches!(
        trust::parse(&[ca.clone(), server].concat()),
        Err(TrustError::NoAuthority(2, _))
    ));
    let with_key = [ca.clone(), read(dir.path(), "ca.key")].concat();
    assert_eq!(trust::parse(&with_key), Err(TrustError::PrivateKey));
    assert_eq!(trust::parse(&ca.repeat(65)), Err(TrustError::TooMany));
    for at in (60..ca.len() - 40).step_by(37) {
        let mut damaged = ca.clone();
        damaged[at] ^= 1;
        // Either told, or a certificate of other words: a signature is judged by nobody who trusts it already.
        let _ = trust::parse(&damaged);
    }
    openssl(dir.path(), "x509 -in ca.pem -outform DER -out ca.der");
    assert_eq!(trust::parse(&read(dir.path(), "ca.der")), Err(TrustError::Nothing));
}
