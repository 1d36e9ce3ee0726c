//! An S3 server over TLS that takes everything and keeps nothing but names and sizes: what it costs is the same for all.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::run as run_command;

type Objects = Arc<Mutex<BTreeMap<String, u64>>>;

/// ca.pem, and server.pem with server.key, signed by it for localhost.
pub fn certificates(folder: &Path) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650";
    for arguments in [
        format!("{new} -keyout ca.key -out ca.pem -subj /CN=Bench"),
        format!(
            "{new} -keyout server.key -out server.pem -subj /CN=sink -CA ca.pem -CAkey ca.key \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost"
        ),
    ] {
        let output = run_command(
            Command::new("openssl")
                .current_dir(folder)
                .args(arguments.split_whitespace()),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Serves until it is killed. Its port is the first line that it prints.
pub fn run(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&read("server.pem")).unwrap()],
                PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        io::stdout().flush().unwrap();
        let objects = Objects::default();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, objects) = (acceptor.clone(), objects.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    // A connection that breaks is its client's business.
                    let _ = serve(stream, &objects).await;
                }
            });
        }
    });
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, objects: &Objects) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let (mut length, mut expects) = (0_u64, false);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            expects |= line.starts_with("expect:");
        }
        if expects {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            stream.flush().await?;
        }
        let mut left = length;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = stream.read(&mut buffer[..most]).await?;
            if read == 0 {
                return Ok(());
            }
            left -= read as u64;
        }
        let answer = answer(&first, length, objects);
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// Under which name the parts of an object are counted until they are one.
fn parts_of(path: &str) -> String {
    format!("{path}?parts")
}

fn answer(first: &str, length: u64, objects: &Objects) -> String {
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut objects = objects.lock().unwrap();
    // An ETag that is no MD5: nobody compares it with anything.
    let etag = "ETag: \"00000000000000000000000000000000-1\"\r\n";
    let xml = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    match method {
        "PUT" => {
            if query.contains("partNumber") {
                *objects.entry(parts_of(path)).or_default() += length;
            } else {
                objects.insert(path.into(), length);
            }
            format!("HTTP/1.1 200 OK\r\n{etag}Content-Length: 0\r\n\r\n")
        }
        "POST" if query.contains("uploads") => xml(
            "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>one</UploadId></InitiateMultipartUploadResult>",
        ),
        "POST" => {
            let size = objects.remove(&parts_of(path)).unwrap_or_default();
            objects.insert(path.into(), size);
            xml(
                "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><ETag>\"0-1\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        "HEAD" => match objects.get(path) {
            Some(size) => format!(
                "HTTP/1.1 200 OK\r\n{etag}Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {size}\r\n\r\n"
            ),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
        },
        "GET" if query.contains("uploads") => {
            xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
        }
        "GET" => xml("<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>"),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".into(),
    }
}
