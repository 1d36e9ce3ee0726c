//! An S3 server over TLS that takes everything and keeps nothing but names, sizes and times: what it costs is the same for
//! all. It can be as far away and as slow to reach as a provider.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::support::run as run_command;

type Objects = Arc<Mutex<BTreeMap<String, Object>>>;

#[derive(Default)]
struct Object {
    size: u64,
    /// rclone's time of the file.
    mtime: String,
}

/// The line to the sink.
#[derive(Clone, Copy)]
pub struct Line {
    /// There and back, before each answer.
    pub round_trip: Duration,
    /// Bytes in a second, all connections together; 0 for no bound.
    pub rate: u64,
}

impl Line {
    /// Nothing between.
    pub const NONE: Self = Self {
        round_trip: Duration::ZERO,
        rate: 0,
    };
    /// The line of a home: 20 Mbit/s, 80 ms.
    pub const HOME: Self = Self {
        round_trip: Duration::from_millis(80),
        rate: 20_000_000 / 8,
    };
}

/// When the line is free again.
type Free = Arc<Mutex<Instant>>;

impl Line {
    async fn carry(self, bytes: u64, free: &Free) {
        if self.rate == 0 {
            return;
        }
        let until = {
            let mut free = free.lock().unwrap();
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            *free
        };
        tokio::time::sleep_until(until).await;
    }
}

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
pub fn run(folder: &Path, line: Line) {
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
        let free = Free::new(Mutex::new(Instant::now()));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, objects, free) = (acceptor.clone(), objects.clone(), free.clone());
            tokio::spawn(async move {
                // TCP's and TLS's beginning.
                tokio::time::sleep(2 * line.round_trip).await;
                if let Ok(stream) = acceptor.accept(stream).await {
                    // A connection that breaks is its client's business.
                    let _ = serve(stream, &objects, line, &free).await;
                }
            });
        }
    });
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    objects: &Objects,
    line: Line,
    free: &Free,
) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let (mut length, mut mtime, mut expects) = (0_u64, String::new(), false);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            let line = header.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if let Some(value) = line.strip_prefix("x-amz-meta-mtime:") {
                mtime = value.trim().into();
            }
            expects |= line.starts_with("expect:");
        }
        if expects {
            tokio::time::sleep(line.round_trip).await;
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
            line.carry(read as u64, free).await;
        }
        let answer = answer(&first, Object { size: length, mtime }, objects);
        tokio::time::sleep(line.round_trip).await;
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// Under which name the parts of an object are counted until they are one.
fn parts_of(path: &str) -> String {
    format!("{path}?parts")
}

/// A list of what is below a prefix (ListObjectsV2), with what lies deeper than the delimiter as one.
fn list(bucket: &str, query: &str, objects: &BTreeMap<String, Object>) -> String {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == name);
        found.map(|(_, value)| value.replace("%2F", "/")).unwrap_or_default()
    };
    let (prefix, delimiter) = (value("prefix"), value("delimiter"));
    let mut body = String::from("<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>");
    let mut deeper = BTreeSet::new();
    for (path, object) in objects {
        let Some(key) = path.strip_prefix(bucket).and_then(|key| key.strip_prefix('/')) else {
            continue;
        };
        let Some(rest) = key.strip_prefix(&prefix) else {
            continue;
        };
        match rest.find('/').filter(|_| !delimiter.is_empty()) {
            Some(at) => drop(deeper.insert(format!("{prefix}{}", &rest[..=at]))),
            None => {
                let _ = write!(
                    body,
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;00000000000000000000000000000000-1&quot;</ETag><Size>{}</Size></Contents>",
                    object.size
                );
            }
        }
    }
    for prefix in deeper {
        let _ = write!(body, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    body + "</ListBucketResult>"
}

fn answer(first: &str, sent: Object, objects: &Objects) -> String {
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
                objects.entry(parts_of(path)).or_default().size += sent.size;
            } else {
                objects.insert(path.into(), sent);
            }
            format!("HTTP/1.1 200 OK\r\n{etag}Content-Length: 0\r\n\r\n")
        }
        "POST" if query.contains("uploads") => xml(
            "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>one</UploadId></InitiateMultipartUploadResult>",
        ),
        "POST" => {
            let whole = objects.remove(&parts_of(path)).unwrap_or_default();
            objects.insert(path.into(), whole);
            xml(
                "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><ETag>\"0-1\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        "HEAD" => match objects.get(path) {
            Some(Object { size, mtime }) => format!(
                "HTTP/1.1 200 OK\r\n{etag}Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-amz-meta-mtime: {mtime}\r\nContent-Length: {size}\r\n\r\n"
            ),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
        },
        "GET" if query.contains("uploads") => {
            xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
        }
        "GET" => xml(&list(path.trim_end_matches('/'), query, &objects)),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".into(),
    }
}
