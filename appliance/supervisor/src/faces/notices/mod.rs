//! Notices over HTTP for those without MQTT: conditions that begin and end (`[[notify]]`), and backups and pushes that went
//! well or did not (`[[ping]]`).
//!
//! Each URL has a task of its own, so that a server that does not answer holds up no other. What there is to say is decided
//! in [`what`], without I/O: of conditions, the ring of recent events is the queue; of a ping, only the newest outcome
//! counts. So nothing here grows however long a server is away. A URL is a secret: it is never logged, nor told.

pub mod what;

use crate::configuration::seal;
use crate::report::stand;
use reqwest::Client;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{Config, FileName, NotifyForm};
use strongroom_model::status::Status;
use strongroom_offsite::Trust;
use tokio::sync::watch;
use tokio::time::sleep;
use what::{Followed, Outcome, Unsaid};
use zeroize::Zeroizing;

/// Least time between two notices to one URL; what happens meanwhile goes into one.
pub const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause before it is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Failures in a row after which a condition stands; a server may restart.
const TOLERATED: u32 = 3;
/// Bound for reaching a server, and for all of a request.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);

/// Conditions of all of them, by their file's name as the subject.
pub type Conditions = watch::Sender<Vec<Condition>>;

/// Begins to serve every `[[notify]]` and `[[ping]]`. `credentials` is the folder of the secrets; `pause` is the least
/// time between two notices to one URL, [`LEAST_PAUSE`] but for tests.
pub fn start(
    config: &Config,
    credentials: Option<&Path>,
    trust: &Trust,
    pause: Duration,
    status: &watch::Receiver<Arc<Status>>,
    conditions: &Conditions,
) {
    if config.notify.is_empty() && config.ping.is_empty() {
        return;
    }
    let client = match client(trust) {
        Ok(client) => client,
        Err(error) => {
            failed(
                conditions,
                "notices",
                &format!("No notice can be sent: {error}."),
                OFFER,
            );
            return;
        }
    };
    let door = |name: &FileName| {
        let url = url(credentials, name);
        if let Err(why) = &url {
            failed(
                conditions,
                name.as_str(),
                &format!("The URL in `{name}` can't be used: {why}."),
                OFFER,
            );
        }
        Some(Door {
            client: client.clone(),
            url: url.ok()?,
            name: name.to_string(),
            pause,
            conditions: conditions.clone(),
            failures: 0,
        })
    };
    for notify in &config.notify {
        if let Some(door) = door(notify.url.get_ref()) {
            let unsaid = Unsaid::new(notify.least);
            tokio::spawn(notify_for_ever(door, unsaid, notify.form, status.clone()));
        }
    }
    for ping in &config.ping {
        if let Some(door) = door(ping.url.get_ref()) {
            let followed = Followed::new(
                ping.client.clone(),
                ping.target.as_ref().map(|name| name.get_ref().clone()),
            );
            tokio::spawn(ping_for_ever(door, followed, status.clone()));
        }
    }
}

fn client(trust: &Trust) -> Result<Client, reqwest::Error> {
    // Another part of the program may have chosen a provider already; any will do.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let own: Result<Vec<_>, _> = trust.certificates().map(reqwest::Certificate::from_der).collect();
    Client::builder()
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        // A redirection could lead anywhere, with what is told.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .pool_max_idle_per_host(0)
        .tls_certs_merge(own?)
        .build()
}

fn url(credentials: Option<&Path>, name: &FileName) -> Result<Zeroizing<String>, String> {
    let folder = credentials.ok_or("systemd gave no secrets to the supervisor")?;
    let text = seal::given(folder, seal::NOTICES, name).map_err(|error| error.to_string())?;
    // Never the parser's own words, which may hold some of it.
    let good = reqwest::Url::parse(text.trim()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if good {
        Ok(Zeroizing::new(text.trim().to_owned()))
    } else {
        Err("it is not one line with an http:// or https:// URL".into())
    }
}

/// One URL, and how it is doing.
struct Door {
    client: Client,
    url: Zeroizing<String>,
    name: String,
    pause: Duration,
    conditions: Conditions,
    failures: u32,
}

impl Door {
    /// Sends, and waits as long as has to be waited before the next time. Returns whether it was taken.
    async fn send(&mut self, request: reqwest::RequestBuilder) -> bool {
        let answer = request.send().await.map_err(|error| why(&error));
        let taken = answer.and_then(|answer| match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answers {status}")),
        });
        let pause = match &taken {
            Ok(()) => {
                self.failures = 0;
                set(&self.conditions, &self.name, None);
                self.pause
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == TOLERATED {
                    let text = format!("The server whose URL is in `{}` can't be told: {why}.", self.name);
                    failed(&self.conditions, &self.name, &text, RETRIED);
                }
                let doubled = self.pause.saturating_mul(1 << self.failures.min(10));
                doubled.min(LONGEST_PAUSE)
            }
        };
        sleep(pause).await;
        taken.is_ok()
    }
}

/// Why a request failed, without the URL.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "it does not answer in time".into()
    } else if error.is_connect() {
        let mut source = std::error::Error::source(error);
        let mut last = String::new();
        while let Some(cause) = source {
            last = cause.to_string();
            source = cause.source();
        }
        format!("no connection ({last})")
    } else {
        "the connection broke".into()
    }
}

const OFFER: &str =
    "Offer the configuration again, with a good file of that name beside it, on a USB stick labelled STRONGROOM.";
const RETRIED: &str = "It is tried again, at least every quarter of an hour. Check that its server runs, and that the file holds the right URL.";

fn failed(conditions: &Conditions, name: &str, text: &str, advice: &str) {
    let condition = Condition::new(ConditionId::NoticeFailed, Severity::Warning, name, text, advice);
    set(conditions, name, Some(condition));
}

fn set(conditions: &Conditions, name: &str, new: Option<Condition>) {
    stand(conditions, ConditionId::NoticeFailed, name, new);
}

async fn notify_for_ever(
    mut door: Door,
    mut unsaid: Unsaid,
    form: NotifyForm,
    mut status: watch::Receiver<Arc<Status>>,
) {
    loop {
        let now = status.borrow_and_update().clone();
        let Some(notice) = unsaid.notice(&now) else {
            if status.changed().await.is_err() {
                return;
            }
            continue;
        };
        let request = door.client.post(door.url.as_str());
        let request = match form {
            NotifyForm::Json => json(request, notice.json()),
            NotifyForm::Ntfy => {
                let (title, priority, text) = notice.ntfy();
                request.header("Title", title).header("Priority", priority).body(text)
            }
            NotifyForm::Gotify => json(request, notice.gotify()),
        };
        let upto = notice.upto;
        if door.send(request).await {
            unsaid.said(upto);
        }
    }
}

fn json(request: reqwest::RequestBuilder, body: serde_json::Value) -> reqwest::RequestBuilder {
    request
        .header("Content-Type", "application/json")
        .body(body.to_string())
}

async fn ping_for_ever(mut door: Door, mut followed: Followed, mut status: watch::Receiver<Arc<Status>>) {
    loop {
        let now = status.borrow_and_update().clone();
        let Some(outcome) = followed.outcome(&now) else {
            if status.changed().await.is_err() {
                return;
            }
            continue;
        };
        // healthchecks.io, "Pinging API": the URL for success, `/fail` behind it for failure.
        let url = match outcome {
            Outcome::Good => door.url.clone(),
            Outcome::Bad => Zeroizing::new(format!("{}/fail", door.url.trim_end_matches('/'))),
        };
        let request = door.client.get(url.as_str());
        if door.send(request).await {
            followed.told(outcome);
        }
    }
}
