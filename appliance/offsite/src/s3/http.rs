//! One signed HTTP request, and the patience between attempts. Knows nothing of what is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use super::S3Error;
use super::error::{Context, explain};
use super::pace::{Pace, Paced};
use super::patience::{Pause, retry_after};
use super::sign::{Request, amz_date, authorization, canonical_query, encode};
use super::xml::ErrorBody;
use crate::target::{AtService, BadTarget, Credentials};

/// Where the time of signatures comes from.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// SHA-256 of nothing.
pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The slowest line that a request's time limit allows for, in bytes per second: several share it.
const SLOWEST: u64 = 8 * 1024;
const LONGEST_ANSWER: Duration = Duration::from_secs(120);

/// One request to be sent.
pub(super) struct Call<'a> {
    pub method: reqwest::Method,
    /// Full key; `None` for the bucket.
    pub key: Option<&'a str>,
    pub query: &'a [(&'a str, &'a str)],
    pub sha256: &'a str,
    /// Base64 MD5 of the payload.
    pub md5: Option<&'a str>,
    pub length: u64,
    pub body: Option<reqwest::Body>,
}

/// Time allowed for a transfer of `length` bytes.
pub(super) fn time_limit(length: u64) -> Duration {
    LONGEST_ANSWER + Duration::from_secs(length / SLOWEST)
}

/// Sends signed requests to one bucket.
#[derive(Clone)]
pub(super) struct Sender {
    http: reqwest::Client,
    origin: String,
    host: String,
    pub bucket: String,
    region: String,
    credentials: Credentials,
    clock: Clock,
    pace: Option<Arc<Pace>>,
    pause: Pause,
    /// How far the service's clock is ahead of ours, in seconds; [`UNKNOWN`] before its first answer.
    ahead: Arc<AtomicI64>,
}

/// Stands for a difference of the clocks that is not known.
const UNKNOWN: i64 = i64::MIN;

impl Sender {
    pub fn new(at: &AtService, credentials: Credentials, clock: Clock) -> Result<Self, S3Error> {
        at.check()?;
        let bad = || BadTarget::Endpoint(at.endpoint.clone());
        let url = reqwest::Url::parse(&at.endpoint).map_err(|_| bad())?;
        let plain = matches!(url.scheme(), "https" | "http")
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|_| plain).ok_or_else(bad)?;
        let host = url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // Nearly all that is sent is encrypted already: the cipher that is quickest goes first. Another part of the program
        // may have chosen a provider before; any will do.
        let mut provider = rustls::crypto::ring::default_provider();
        let quickest = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != quickest);
        let _ = provider.install_default();
        let no_tls = |error: reqwest::Error| S3Error::Connect {
            endpoint: at.endpoint.clone(),
            why: causes(&error),
        };
        let http = reqwest::Client::builder()
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(20))
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(30))
            .tls_certs_merge(at.trust.for_http().map_err(no_tls)?)
            .build()
            .map_err(no_tls)?;
        Ok(Self {
            http,
            origin: format!("{}://{host}", url.scheme()),
            host,
            bucket: at.bucket.clone(),
            region: at.region.clone(),
            credentials,
            clock,
            pace: None,
            pause: Pause::default(),
            ahead: Arc::new(AtomicI64::new(UNKNOWN)),
        })
    }

    /// The same for another bucket: same connections, same bandwidth, same waits.
    pub fn of_bucket(&self, bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            ..self.clone()
        }
    }

    /// From now on sends no more than `rate` bytes per second.
    pub fn limit(&mut self, rate: u64) {
        self.pace = Some(Arc::new(Pace::new(rate)));
    }

    /// Sends once. The answer's status is a success, or the error explains.
    pub async fn send(&self, call: Call<'_>) -> Result<reqwest::Response, S3Error> {
        self.pause.over().await;
        let operation = format!("{} {}", call.method, call.key.unwrap_or(&self.bucket));
        let path = match call.key {
            Some(key) => format!("/{}/{}", self.bucket, encode(key, true)),
            None => format!("/{}", self.bucket),
        };
        let date = amz_date((self.clock)());
        let mut headers = vec![
            ("host", self.host.as_str()),
            ("x-amz-content-sha256", call.sha256),
            ("x-amz-date", date.as_str()),
        ];
        headers.extend(call.md5.map(|md5| ("content-md5", md5)));
        let request = Request {
            method: call.method.as_str(),
            path: &path,
            query: call.query,
            headers: &headers,
            payload: call.sha256,
        };
        let authorization = authorization(&request, &self.credentials, &self.region, &date);
        let mut url = format!("{}{path}", self.origin);
        if !call.query.is_empty() {
            url = format!("{url}?{}", canonical_query(call.query));
        }
        let is_head = call.method == reqwest::Method::HEAD;
        let has_payload = matches!(call.method.as_str(), "PUT" | "POST");
        let mut builder = self
            .http
            .request(call.method, url)
            .header("authorization", authorization);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            builder = builder.header(*name, *value);
        }
        if has_payload {
            builder = builder
                .header("content-length", call.length)
                .timeout(time_limit(call.length));
        }
        if let Some(body) = call.body {
            builder = builder.body(match &self.pace {
                Some(pace) => reqwest::Body::wrap(Paced::new(body, pace.clone())),
                None => body,
            });
        }
        let answer = if has_payload {
            builder.send().await
        } else {
            // The body may take longer: its reader has its own limit.
            match tokio::time::timeout(LONGEST_ANSWER, builder.send()).await {
                Ok(answer) => answer,
                Err(_) => {
                    return Err(S3Error::Interrupted {
                        operation,
                        why: "no answer in time".into(),
                    });
                }
            }
        };
        let response = answer.map_err(|error| self.broken(&operation, &error))?;
        self.compare_clocks(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let retry_after = header("retry-after").and_then(|text| retry_after(&text, header("date").as_deref()));
        if let Some(asked) = retry_after {
            // What it asks of one request holds for all: the others would only be refused as well.
            self.pause.until_after(asked);
        }
        let context = Context {
            operation: &operation,
            bucket: &self.bucket,
            region: &self.region,
            status: response.status().as_u16(),
            date: header("date"),
            bucket_region: header("x-amz-bucket-region"),
            retry_after,
        };
        let body = if is_head {
            None
        } else {
            small_body(response).await.and_then(|body| ErrorBody::parse(&body))
        };
        Err(explain(context, body))
    }

    /// Seconds by which the service's clock was ahead of ours at its last answer; `None` before that.
    pub fn clock_ahead(&self) -> Option<i64> {
        Some(self.ahead.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN)
    }

    fn compare_clocks(&self, response: &reqwest::Response) {
        let date = response.headers().get("date").and_then(|value| value.to_str().ok());
        if let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            let seconds = |time: SystemTime| {
                let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_secs()).unwrap_or_default()
            };
            let ahead = seconds(theirs) - seconds((self.clock)());
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    pub fn broken(&self, operation: &str, error: &reqwest::Error) -> S3Error {
        let why = causes(error);
        if error.is_connect() {
            S3Error::Connect {
                endpoint: self.origin.clone(),
                why,
            }
        } else {
            S3Error::Interrupted {
                operation: operation.to_owned(),
                why,
            }
        }
    }
}

/// A body that must be small, or nothing.
async fn small_body(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        all.extend_from_slice(&chunk);
        if all.len() > 64 * 1024 {
            return None;
        }
    }
    Some(all)
}

/// An error with all its causes: reqwest's own text stops at "error sending request".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut parts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        parts.push(cause.to_string());
        next = cause.source();
    }
    parts.dedup();
    if parts.is_empty() {
        error.to_string()
    } else {
        parts.join(": ")
    }
}
