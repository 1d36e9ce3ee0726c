//! The status for Prometheus: `GET /metrics` over plain HTTP, read-only.
//!
//! Off unless `[metrics]` is configured; the firewall then lets in the LAN only. The server is as small as it can be: one
//! request a connection, a bounded request, a bounded time, few connections at once. What it says is decided in
//! [`text`], without I/O.

pub mod text;

use crate::report::stand;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::status::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Connections served at once; further ones wait to be accepted.
const CONNECTIONS: usize = 4;
/// Largest request, in bytes. One of Prometheus is some 300.
const REQUEST_BYTES_MAX: usize = 4096;
/// Bound for one connection, from its request to the end of its answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// Subject of the condition.
const SUBJECT: &str = "metrics";
/// Pause before the port is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Serves `port` on every address for ever. What keeps it from that is told in `conditions`, with `metrics` as the subject.
pub async fn run(port: u16, status: watch::Receiver<Arc<Status>>, conditions: watch::Sender<Vec<Condition>>) {
    loop {
        match listen(port).await {
            Ok(listener) => {
                tell(&conditions, None);
                serve(listener, status.clone()).await;
            }
            Err(error) => tell(&conditions, Some(failed(port, &error))),
        }
        sleep(RETRY).await;
    }
}

/// On IPv6 and IPv4 alike; on IPv4 alone where there is no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves a listener until it fails.
pub async fn serve(listener: TcpListener, status: watch::Receiver<Arc<Status>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Of the connection, not of the listener: accept(2).
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                eprintln!("metrics: {error}");
                return;
            }
        };
        let status = status.borrow().clone();
        tokio::spawn(async move {
            // Whoever went away, or is too slow, gets nothing: it will ask again.
            let _ = timeout(CONNECTION, answer(stream, &status)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, status: &Status) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    let whole = loop {
        let read = stream.read(&mut piece).await?;
        request.extend_from_slice(piece.get(..read).unwrap_or_default());
        if request.windows(4).any(|end| end == b"\r\n\r\n") {
            break true;
        }
        if read == 0 || request.len() > REQUEST_BYTES_MAX {
            break false;
        }
    };
    let answer = if whole {
        reply(&request, status)
    } else {
        plain("400 Bad Request", "")
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// The answer to a request (RFC 9112): of its first line only.
fn reply(request: &[u8], status: &Status) -> String {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    if !version.starts_with(b"HTTP/1.") || words.next().is_some() {
        return plain("400 Bad Request", "");
    }
    match (method, path) {
        (b"GET", b"/metrics") => {
            let body = text::render(status);
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        }
        (b"GET", _) => plain("404 Not Found", ""),
        _ => plain("405 Method Not Allowed", "Allow: GET\r\n"),
    }
}

fn plain(status: &str, header: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

fn failed(port: u16, error: &io::Error) -> Condition {
    Condition::new(
        ConditionId::MetricsFailed,
        Severity::Warning,
        SUBJECT,
        &format!("The status can't be offered to Prometheus on port {port}: {error}."),
        "Write another `port` in [metrics] of strongroom.toml.",
    )
}

fn tell(conditions: &watch::Sender<Vec<Condition>>, new: Option<Condition>) {
    stand(conditions, ConditionId::MetricsFailed, SUBJECT, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_line(request: &str) -> String {
        let answer = reply(request.as_bytes(), &Status::default());
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn only_metrics_are_given_and_nothing_is_taken() {
        assert_eq!(
            first_line("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        assert_eq!(first_line("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(first_line("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(
            first_line("GET /metrics/../etc HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 404 Not Found"
        );
        assert_eq!(
            first_line("POST /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        for bad in ["", "GET /metrics\r\n\r\n", "GET /metrics HTTP/2 x\r\n\r\n", "\0\0\0"] {
            assert_eq!(first_line(bad), "HTTP/1.1 400 Bad Request", "{bad:?}");
        }
    }

    async fn ask(port: u16, request: &[u8]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A refusal may come while more is being sent: then the connection is reset behind it.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn it_answers_beside_those_who_say_nothing_or_too_much() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_sender, status) = watch::channel(Arc::new(Status::default()));
        let server = tokio::spawn(serve(listener, status));
        let mut silent = Vec::new();
        for _ in 1..CONNECTIONS {
            silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
        }
        let answer = ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("strongroom_health "), "{body}");
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 5000]].concat();
        assert!(ask(port, &long).await.starts_with("HTTP/1.1 400"));
        server.abort();
    }
}
