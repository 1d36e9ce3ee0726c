//! What an S3 service can answer, in words that say what to do.

use std::time::Duration;

use super::xml::ErrorBody;

/// Why a request failed. `operation` is such as `PUT data/0/17.gpg`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum S3Error {
    /// No connection: name, route, port or TLS.
    #[error("cannot reach {endpoint}: {why}; check the endpoint, the network and DNS")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// The reason given.
        why: String,
    },
    /// The connection broke, or the answer did not come in time. What was asked may have been done.
    #[error("{operation}: the connection broke ({why}); it will be tried again")]
    Interrupted {
        /// What was asked.
        operation: String,
        /// The reason given.
        why: String,
    },
    /// The clocks differ by more than the service allows (15 minutes).
    #[error(
        "the service refuses requests because the clocks differ too much{}; check the appliance's clock",
        server_time.as_ref().map(|time| format!(" (its time is {time})")).unwrap_or_default()
    )]
    ClockSkew {
        /// The service's time, from its answer's `Date`.
        server_time: Option<String>,
    },
    /// Wrong secret, or wrong region.
    #[error(
        "the service does not accept the signature for region {region} ({message}); {}",
        hint.as_ref().map_or_else(
            || "check the secret key, and that the region is the bucket's own".to_owned(),
            |region| format!("the bucket's region is {region}: set it in the target"),
        )
    )]
    SignatureDoesNotMatch {
        /// The region that was signed for.
        region: String,
        /// The region that the service named, if any.
        hint: Option<String>,
        /// The service's words.
        message: String,
    },
    /// The access key is not known.
    #[error("the service does not know the access key; check it (a new one can take minutes to become active)")]
    UnknownAccessKey,
    /// The bucket is not there.
    #[error("there is no bucket {bucket} at this endpoint; create it, or correct the name or the region")]
    NoSuchBucket {
        /// Its name.
        bucket: String,
    },
    /// The object is not there.
    #[error("{operation}: there is no such object")]
    NoSuchKey {
        /// What was asked.
        operation: String,
    },
    /// The multipart upload is not there (any more).
    #[error("{operation}: there is no such upload any more")]
    NoSuchUpload {
        /// What was asked.
        operation: String,
    },
    /// The credentials may not do this.
    #[error("{operation}: the credentials may not do this ({message}); see which permissions the target needs")]
    AccessDenied {
        /// What was asked.
        operation: String,
        /// The service's words.
        message: String,
    },
    /// The object is in the archive tier and must be restored first.
    #[error("{operation}: the object is archived and must be restored before it can be read")]
    Archived {
        /// What was asked.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
    },
    /// A restore of the object is under way already.
    #[error("{operation}: a restore is under way already")]
    RestoreInProgress {
        /// What was asked.
        operation: String,
    },
    /// The service received other bytes than were sent.
    #[error("{operation}: the data was damaged on its way ({code}); it will be tried again")]
    Corrupted {
        /// What was asked.
        operation: String,
        /// The service's code.
        code: String,
    },
    /// The service is overloaded or has a fault of its own.
    #[error(
        "{operation}: the service cannot do it now ({status} {code}){}; it will be tried again",
        retry_after.map(|asked| format!(" and asks to wait {} s", asked.as_secs())).unwrap_or_default()
    )]
    Unavailable {
        /// What was asked.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Anything else that the service refused.
    #[error("{operation}: refused with {status} {code}: {message}")]
    Refused {
        /// What was asked.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
        /// The service's words.
        message: String,
    },
    /// An answer that is not S3's.
    #[error("{operation}: the answer is not what an S3 service sends ({why}); check the endpoint")]
    BadAnswer {
        /// What was asked.
        operation: String,
        /// What is wrong with it.
        why: String,
    },
    /// A directory that takes the place of a bucket can't be used so.
    #[error("{operation}: {why}")]
    Directory {
        /// What was done.
        operation: String,
        /// What went wrong, and what to do.
        why: String,
    },
    /// The target itself is not valid.
    #[error(transparent)]
    Target(#[from] crate::target::BadTarget),
}

impl S3Error {
    /// Whether trying again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Interrupted { .. } | Self::Unavailable { .. } | Self::Corrupted { .. }
        )
    }

    /// How long the service asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the service says that it may not be asked this.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::AccessDenied { .. })
    }
}

/// What is known of a refusal besides its body.
pub(super) struct Context<'a> {
    pub operation: &'a str,
    pub bucket: &'a str,
    pub region: &'a str,
    pub status: u16,
    pub date: Option<String>,
    pub retry_after: Option<Duration>,
    /// The bucket's region, as some services name it in a header.
    pub bucket_region: Option<String>,
}

/// Turns a refusal into an error. A HEAD has no body, so the status must do.
pub(super) fn explain(context: Context<'_>, body: Option<ErrorBody>) -> S3Error {
    let Context {
        status, retry_after, ..
    } = context;
    let operation = context.operation.to_owned();
    let body = body.unwrap_or_default();
    let (code, message) = (body.code, body.message);
    // Oracle does not tell what is not there from what may not be seen: 404, and "does not exist … or you are not
    // authorized to access it".
    if message.contains("not authorized") {
        return S3Error::AccessDenied { operation, message };
    }
    match code.as_str() {
        "RequestTimeTooSkewed" => S3Error::ClockSkew {
            server_time: body.server_time.or(context.date),
        },
        "SignatureDoesNotMatch" | "AuthorizationHeaderMalformed" | "PermanentRedirect" => {
            let hint = body
                .region
                .or(context.bucket_region)
                .filter(|region| region != context.region);
            S3Error::SignatureDoesNotMatch {
                region: context.region.to_owned(),
                hint,
                message,
            }
        }
        "InvalidAccessKeyId" => S3Error::UnknownAccessKey,
        "NoSuchBucket" => S3Error::NoSuchBucket {
            bucket: context.bucket.to_owned(),
        },
        "NoSuchKey" => S3Error::NoSuchKey { operation },
        "NoSuchUpload" => S3Error::NoSuchUpload { operation },
        "InvalidObjectState" => S3Error::Archived {
            operation,
            status,
            code,
        },
        "RestoreAlreadyInProgress" => S3Error::RestoreInProgress { operation },
        "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" => S3Error::Corrupted { operation, code },
        // Oracle answers some refusals with its own words only.
        _ if message.contains("Archive tier") => S3Error::Archived {
            operation,
            status,
            code,
        },
        "AccessDenied" | "Forbidden" | "NotAuthorizedOrNotFound" => S3Error::AccessDenied { operation, message },
        "" if status == 404 => S3Error::NoSuchKey { operation },
        "" if status == 403 || status == 401 => S3Error::AccessDenied {
            operation,
            message: format!("status {status}"),
        },
        _ if matches!(status, 408 | 429 | 500 | 502 | 503 | 504) => S3Error::Unavailable {
            operation,
            status,
            code,
            retry_after,
        },
        _ => S3Error::Refused {
            operation,
            status,
            code,
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, xml: &str) -> S3Error {
        let context = Context {
            operation: "PUT x",
            bucket: "b",
            region: "here",
            status,
            date: Some("Mon, 01 Jan 2026 00:00:00 GMT".into()),
            retry_after: None,
            bucket_region: None,
        };
        explain(context, ErrorBody::parse(xml.as_bytes()))
    }

    #[test]
    fn refusals_are_explained() {
        let wrong_region = error(
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>there</Region></Error>",
        );
        assert!(wrong_region.to_string().contains("the bucket's region is there"));
        let skew = error(
            403,
            "<?xml version=\"1.0\"?><Error><Code>RequestTimeTooSkewed</Code></Error>",
        );
        assert!(skew.to_string().contains("01 Jan 2026"), "{skew}");
        let archived = error(
            409,
            "<Error><Code>X</Code><Message>The object is in Archive tier and …</Message></Error>",
        );
        assert!(matches!(archived, S3Error::Archived { .. }));
        assert!(matches!(
            error(503, "<Error><Code>SlowDown</Code></Error>"),
            S3Error::Unavailable { .. }
        ));
        assert!(matches!(error(502, "<html>"), S3Error::Unavailable { .. }));
        assert!(matches!(error(404, ""), S3Error::NoSuchKey { .. }));
        assert!(error(403, "").is_denied());
        let hidden = "<Error><Code>NoSuchBucket</Code><Message>Either the bucket named 'b' does not exist in the \
                      namespace 'n' or you are not authorized to access it</Message></Error>";
        assert!(error(404, hidden).is_denied());
    }
}
