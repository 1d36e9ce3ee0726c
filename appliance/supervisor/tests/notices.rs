//! Notices and pings, as a server gets them: over real HTTP on loopback, by a server that answers what it is told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Conditions, Health, Severity};
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::status::{Client, RepositoryState, Status};
use strongroom_offsite::Trust;
use strongroom_supervisor::faces::notices;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// Gives every request out, head and body, and answers with the next of `answers`, or 200.
struct Server {
    port: u16,
    requests: mpsc::Receiver<(String, String)>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Server {
    async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel(64);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers.to_vec())));
        let left = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let code = left.lock().unwrap().pop_front().unwrap_or(200);
                let request = serve(stream, code).await;
                sender.send(request).await.unwrap();
            }
        });
        Self {
            port,
            requests,
            answers,
        }
    }

    async fn next(&mut self) -> (String, String) {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await;
        next.expect("no request came").unwrap()
    }

    fn failures_left(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    async fn nothing_more(&mut self) {
        let more = tokio::time::timeout(20 * PAUSE, self.requests.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

async fn serve(mut stream: TcpStream, code: u16) -> (String, String) {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                let answer = format!("HTTP/1.1 {code} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                return (head.to_owned(), body.to_owned());
            }
        }
        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "cut short: {text}");
    }
}

struct Bench {
    status: watch::Sender<Arc<Status>>,
    conditions: watch::Receiver<Vec<Condition>>,
    _secrets: tempfile::TempDir,
}

impl Bench {
    /// `urls` are the secrets by name, as systemd gives them.
    fn start(config: &str, urls: &[(&str, String)]) -> Self {
        let secrets = tempfile::tempdir().unwrap();
        for (name, url) in urls {
            std::fs::write(secrets.path().join(format!("notices_{name}")), url).unwrap();
        }
        let mut first = Status {
            health: Health::Good,
            ..Status::default()
        };
        first.appliance.hostname = "backup".into();
        let client = Client {
            name: ClientName::new("asus").unwrap(),
            repository: RepositoryState::Present,
            last_backup: Some(5),
            ..Client::default()
        };
        first.clients.push(client).unwrap();
        let (status, statuses) = watch::channel(Arc::new(first));
        let (sender, conditions) = watch::channel(Vec::new());
        let config = Config::parse(config).unwrap();
        notices::start(
            &config,
            Some(secrets.path()),
            &Trust::default(),
            PAUSE,
            &statuses,
            &sender,
        );
        Self {
            status,
            conditions,
            _secrets: secrets,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| {
            let old = status.clone();
            let new = Arc::make_mut(status);
            change(new);
            let mut events = old.events.clone();
            events.note(&old, new, Some(1_700_000_000));
            new.events = events;
        });
    }

    fn raise(&self, severity: Severity, text: &str) {
        self.change(|status| {
            let condition = Condition::new(ConditionId::RepositoryDamaged, severity, "asus", text, "advice");
            status.conditions.raise(condition);
        });
    }

    async fn conditions(&mut self, wanted: impl FnMut(&Vec<Condition>) -> bool) -> Vec<Condition> {
        let found = tokio::time::timeout(PATIENCE, self.conditions.wait_for(wanted)).await;
        found.expect("no such condition").unwrap().clone()
    }
}

#[tokio::test]
async fn a_condition_is_told_when_it_begins_and_when_it_ends() {
    let mut server = Server::start(&[]).await;
    let url = format!("http://127.0.0.1:{}/topic?auth=x\n", server.port);
    let bench = Bench::start("[[notify]]\nurl = \"phone\"\nform = \"ntfy\"\n", &[("phone", url)]);
    server.nothing_more().await;
    bench.raise(Severity::Info, "mild");
    bench.change(|status| status.conditions = Conditions::default());
    bench.raise(Severity::Alarm, "Zwei Segmente sind beschädigt.");
    let (head, body) = server.next().await;
    assert!(head.starts_with("POST /topic?auth=x HTTP/1.1"), "{head}");
    let head = head.to_lowercase();
    assert!(
        head.contains("title: backup: alarm") && head.contains("priority: 5"),
        "{head}"
    );
    assert_eq!(body, "Zwei Segmente sind beschädigt.");
    bench.change(|status| status.conditions = Conditions::default());
    let (_, body) = server.next().await;
    assert_eq!(body, "No longer: Zwei Segmente sind beschädigt.");
    server.nothing_more().await;
}

#[tokio::test]
async fn what_could_not_be_told_is_told_later_in_one_and_meanwhile_a_condition_stands() {
    let mut server = Server::start(&[500, 500, 500, 500]).await;
    let secret = format!("http://127.0.0.1:{}/hook/s3cret", server.port);
    let mut bench = Bench::start("[[notify]]\nurl = \"hook\"\n", &[("hook", secret)]);
    bench.raise(Severity::Alarm, "one");
    server.next().await;
    bench.change(|status| status.conditions = Conditions::default());
    let told = bench.conditions(|conditions| !conditions.is_empty()).await;
    assert_eq!(told[0].id, ConditionId::NoticeFailed);
    assert!(
        told[0].text.contains("`hook`") && told[0].text.contains("500"),
        "{told:?}"
    );
    assert!(!format!("{told:?}").contains("s3cret"), "{told:?}");
    // All that was unsaid is in the one that was taken: what is sent before it holds at least as little.
    let last = loop {
        let (head, body) = server.next().await;
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        if body["events"].as_array().unwrap().len() == 2 && server.failures_left() == 0 {
            break body;
        }
    };
    bench.conditions(Vec::is_empty).await;
    assert_eq!(last["appliance"], "backup");
    assert_eq!(last["events"][0]["event"], "condition-began");
    assert_eq!(last["events"][1]["event"], "condition-ended");
    assert_eq!(last["events"][1]["severity"], "alarm");
}

#[tokio::test]
async fn a_backup_is_pinged_and_an_alarm_about_the_client_is_a_failure() {
    let mut server = Server::start(&[]).await;
    let url = format!("http://127.0.0.1:{}/ping/0b1c", server.port);
    let bench = Bench::start("[[ping]]\nurl = \"asus\"\nclient = \"asus\"\n", &[("asus", url)]);
    server.nothing_more().await;
    bench.change(|status| status.clients[0].last_backup = Some(6));
    assert!(server.next().await.0.starts_with("GET /ping/0b1c HTTP/1.1"));
    bench.raise(Severity::Alarm, "damaged");
    assert!(server.next().await.0.starts_with("GET /ping/0b1c/fail HTTP/1.1"));
    bench.change(|status| {
        status.conditions = Conditions::default();
        status.clients[0].last_backup = Some(7);
    });
    assert!(server.next().await.0.starts_with("GET /ping/0b1c HTTP/1.1"));
    server.nothing_more().await;
}

#[tokio::test]
async fn a_url_that_is_missing_or_none_is_told_without_it() {
    let config = "[[notify]]\nurl = \"one\"\n[[ping]]\nurl = \"two\"\nclient = \"asus\"\n";
    let mut bench = Bench::start(config, &[("one", "ftp://s3cret".into())]);
    let told = bench.conditions(|conditions| conditions.len() == 2).await;
    assert!(told.iter().all(|condition| condition.id == ConditionId::NoticeFailed));
    assert!(!format!("{told:?}").contains("s3cret"), "{told:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_without_its_url() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut bench = Bench::start(
        "[[notify]]\nurl = \"hook\"\n",
        &[("hook", format!("http://127.0.0.1:{port}/s3cret"))],
    );
    bench.raise(Severity::Alarm, "one");
    let told = bench.conditions(|conditions| !conditions.is_empty()).await;
    assert!(told[0].text.contains("no connection"), "{told:?}");
    assert!(!format!("{told:?}").contains("s3cret"), "{told:?}");
}
