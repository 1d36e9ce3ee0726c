//! Listening and serving. Loopback only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::access::{Guard, Keys};
use crate::faults::Faults;
use crate::gate::Gate;
use crate::pace::Limiter;
use crate::service::Service;
use crate::settings::Settings;
use crate::store::Store;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another address than loopback was asked for.
    #[error("{0} is not a loopback address: this server is for tests and listens on 127.0.0.1 or ::1 only")]
    NotLoopback(SocketAddr),
    /// The directory or the socket could not be opened.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// A running server. It stops when this is dropped.
pub struct Server {
    address: SocketAddr,
    faults: Faults,
    task: JoinHandle<Infallible>,
}

impl Server {
    /// Opens the directory, binds and starts to serve, on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        if !settings.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(settings.listen));
        }
        std::fs::create_dir_all(&settings.directory)?;
        let store = Arc::new(Store::open(&settings.directory, &settings.buckets)?);
        let keys = settings
            .credentials
            .into_iter()
            .map(|c| (c.access_key.clone(), c))
            .collect();
        let keys = Keys(Arc::new(keys));
        let mut builder = S3ServiceBuilder::new(Service {
            store: store.clone(),
            minimum_part: settings.minimum_part,
            page: settings.page,
            restore_delay: settings.restore_delay,
            lists: settings.lists,
        });
        builder.set_auth(keys.clone());
        builder.set_access(Guard {
            keys,
            store,
            retention: settings.retention,
            hides: settings.hides,
        });
        let faults = Faults::default();
        let gate = Gate {
            service: builder.build(),
            region: settings.region,
            faults: faults.clone(),
            limiter: settings.bandwidth.map(|bytes| Arc::new(Limiter::new(bytes))),
            latency: settings.latency,
            demand_md5: settings.demand_md5,
        };
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            address,
            faults,
            task: tokio::spawn(serve(listener, gate)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint's URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Faults to order, and the log of requests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, gate: Gate) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let gate = gate.clone();
                    let service = service_fn(move |request| gate.clone().answer(request));
                    connections.spawn(async move {
                        // A broken connection is the client's business.
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
