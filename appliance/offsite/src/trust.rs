//! Certificate authorities of the owner's own: read strictly, since whoever is in here is believed by all that speaks
//! TLS. The public authorities stay trusted beside them.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// Most certificates in one file.
const CERTIFICATES_MAX: usize = 64;
/// Largest certificate, in bytes of DER.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

// RFC 5280 sections 4.2.1.9 and 4.2.1.3.
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Certificates of authorities, in DER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust(Vec<Vec<u8>>);

/// Why a file of certificates was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No certificate in PEM.
    #[error(
        "there is no certificate in it. Export the authority's certificate as PEM, which begins with `-----BEGIN CERTIFICATE-----`"
    )]
    Nothing,
    /// A secret lies beside the certificate.
    #[error("it holds a private key, which belongs on no other machine. Leave only the certificate in it")]
    PrivateKey,
    /// More than anybody has.
    #[error("it holds more than {CERTIFICATES_MAX} certificates. Leave in only your own authority's")]
    TooMany,
    /// Damaged.
    #[error("certificate {0} in it can't be read: {1}. Export it again")]
    Damaged(usize, String),
    /// A server's own certificate, or an old one.
    #[error(
        "certificate {0} in it ({1}) is not of an authority, so it vouches for nobody. Use the certificate of the authority that signed your server's"
    )]
    NoAuthority(usize, String),
}

/// Reads a file of certificates in PEM. Whether they have expired is judged when they are used: the clock may not be set
/// yet.
pub fn parse(pem: &[u8]) -> Result<Trust, TrustError> {
    let private = b"PRIVATE KEY-----";
    if pem.windows(private.len()).any(|window| window == private) {
        return Err(TrustError::PrivateKey);
    }
    let mut all = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let number = index + 1;
        if number > CERTIFICATES_MAX {
            return Err(TrustError::TooMany);
        }
        let damaged = |error: &dyn std::fmt::Display| TrustError::Damaged(number, error.to_string());
        let certificate = certificate.map_err(|error| damaged(&error))?;
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(damaged(&"it is too large"));
        }
        let read = Certificate::from_der(&certificate).map_err(|error| damaged(&error))?;
        if !is_authority(&read).map_err(|error| damaged(&error))? {
            let subject: String = read.tbs_certificate.subject.to_string().chars().take(80).collect();
            return Err(TrustError::NoAuthority(number, subject.escape_debug().to_string()));
        }
        // What the TLS library will make of it.
        rustls::RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| damaged(&error))?;
        all.push(certificate.to_vec());
    }
    if all.is_empty() {
        return Err(TrustError::Nothing);
    }
    Ok(Trust(all))
}

fn is_authority(certificate: &Certificate) -> Result<bool, x509_cert::der::Error> {
    let (mut authority, mut signs) = (false, true);
    for extension in certificate.tbs_certificate.extensions.iter().flatten() {
        let value = extension.extn_value.as_bytes();
        if extension.extn_id == BASIC_CONSTRAINTS {
            authority = BasicConstraints::from_der(value)?.ca;
        } else if extension.extn_id == KEY_USAGE {
            signs = KeyUsage::from_der(value)?.key_cert_sign();
        }
    }
    Ok(authority && signs)
}

impl Trust {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds another file's.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// All of them as one file, for other programs.
    #[must_use]
    pub fn to_pem(&self) -> String {
        use base64::Engine;
        let mut text = String::new();
        for certificate in &self.0 {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                let (line, more) = rest.split_at(rest.len().min(64));
                text.push_str(line);
                text.push('\n');
                rest = more;
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }

    /// Each of them, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// As the HTTP client wants them.
    pub(crate) fn for_http(&self) -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
        self.0.iter().map(|der| reqwest::Certificate::from_der(der)).collect()
    }
}
