//! TLS to the broker.
//!
//! The connection is made here and handed to rumqttc by a socket of this process: rumqttc's own TLS would bring a version
//! of rustls-webpki that is no longer kept, and would not say why a certificate is refused. Owns the reading of the files
//! in PEM; what is secret of them is wiped.

use super::fault::Fault;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strongroom_offsite::Trust;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, rustls};

/// Bound for reaching the broker, and for agreeing with it on a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Who may vouch for the broker.
pub enum Authorities {
    /// These alone.
    Only(Trust),
    /// The public ones and these.
    PublicAnd(Trust),
}

/// How TLS is spoken.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

/// The certificates of a file, one or more. Errors are in words.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => {
            Err("there is no certificate in it (PEM begins with `-----BEGIN CERTIFICATE-----`)".into())
        }
        Ok(all) => Ok(all),
        Err(error) => Err(format!("it can't be read: {error}")),
    }
}

impl Tls {
    /// Believes `authorities`, and shows the broker a certificate with its key (each in PEM) where there is one. Errors
    /// are in words.
    pub fn new(authorities: &Authorities, own: Option<(&[u8], &[u8])>) -> Result<Self, String> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match authorities {
            Authorities::Only(trust) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(der(trust));
                builder.with_root_certificates(roots)
            }
            Authorities::PublicAnd(trust) => {
                let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(der(trust), provider)
                    .map_err(|error| error.to_string())?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                // Never the key's own words: they could hold some of it.
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "the `key` is no private key in PEM")?;
                builder
                    .with_client_auth_cert(chain(certificate)?, key)
                    .map_err(|_| "the `key` does not belong to the `certificate`, or is of an unknown kind")?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Connects to the broker and agrees with it on a connection.
    pub(super) async fn connect(&self, host: &str, place: &str) -> Result<TlsStream<TcpStream>, Fault> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::NameNotFound)?;
        let silent = |_| Fault::Silent;
        let tcp = timeout(CONNECT, TcpStream::connect(place)).await.map_err(silent)?;
        let tcp = tcp.map_err(|error| Fault::from(&error))?;
        // Messages are small, and none waits for another.
        tcp.set_nodelay(true).map_err(|error| Fault::from(&error))?;
        let agreed = timeout(CONNECT, TlsConnector::from(self.0.clone()).connect(name, tcp));
        agreed.await.map_err(silent)?.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Fault::NoTls,
            _ => Fault::from(&error),
        })
    }
}

fn der(trust: &Trust) -> impl Iterator<Item = CertificateDer<'static>> {
    trust.certificates().map(|der| CertificateDer::from(der.to_vec()))
}

/// A socket at which this process, and no other, finds one connection.
pub(super) struct Handover {
    listener: UnixListener,
    path: String,
}

impl Handover {
    pub(super) fn new() -> io::Result<Self> {
        // An abstract name (unix(7)): nothing is left behind in the file system. Others may learn it, so it is not what
        // keeps them out.
        let name = format!("strongroom-mqtt-{}-{:016x}", std::process::id(), super::random());
        let listener = std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            path: format!("\0{name}"),
        })
    }

    /// What to connect to, as tokio takes an abstract name.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Waits for this process to connect, then carries what is said either way until both sides have ended, or one
    /// fails: tells how. Bounded memory: what one side does not take, the other is not asked for.
    pub(super) async fn carry(self, outer: TlsStream<TcpStream>) -> io::Error {
        let ended = self.carry_to_the_end(outer).await.err();
        ended.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn carry_to_the_end(self, mut outer: TlsStream<TcpStream>) -> io::Result<()> {
        let mut inner = loop {
            let (inner, _) = self.listener.accept().await?;
            if inner
                .peer_cred()?
                .pid()
                .is_some_and(|id| id.unsigned_abs() == std::process::id())
            {
                break inner;
            }
        };
        drop(self.listener);
        copy_bidirectional(&mut inner, &mut outer).await.map(drop)
    }
}

/// What went wrong with TLS, if that is what the error is about.
pub(super) fn fault(error: &io::Error) -> Option<Fault> {
    use rustls::CertificateError as Bad;
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        // The latter of an authority that was made anew by the same name.
        InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => Fault::Unknown,
        InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Fault::OtherName,
        InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => Fault::OutOfDate,
        AlertReceived(alert) => Fault::Alert(format!("{alert:?}")),
        InvalidMessage(_) => Fault::NoTls,
        other => Fault::Tls(other.to_string()),
    })
}
