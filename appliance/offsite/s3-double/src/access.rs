//! Who may do what: a credential's permissions against the operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::settings::{Credential, Permissions};
use crate::store::{Meta, Store, now};

/// The credentials known to the server.
#[derive(Clone)]
pub struct Keys(pub Arc<BTreeMap<String, Credential>>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.get(access_key) {
            Some(credential) => Ok(SecretKey::from(credential.secret_key.as_str())),
            None => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

/// Checks permissions. Needs the store to tell creation from overwriting.
pub struct Guard {
    pub keys: Keys,
    pub store: Arc<Store>,
    pub retention: Option<Duration>,
    pub hides: bool,
}

impl Guard {
    /// Whether a retention rule keeps the object from being replaced or deleted.
    fn retained(&self, operation: &str, meta: Option<&Meta>) -> bool {
        let changes = matches!(
            operation,
            "PutObject" | "CompleteMultipartUpload" | "DeleteObject" | "DeleteObjects"
        );
        changes
            && meta.zip(self.retention).is_some_and(|(meta, retention)| {
                now().saturating_sub(meta.modified) < u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

#[async_trait::async_trait]
impl S3Access for Guard {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let known = context
            .credentials()
            .and_then(|given| self.keys.0.get(&given.access_key));
        let Some(credential) = known else {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        };
        let object = context.s3_path().as_object();
        let meta = object.and_then(|(bucket, key)| self.store.head(bucket, key).ok());
        let operation = context.s3_op().name();
        if allowed(credential.permissions, operation, meta.is_some()) {
            if self.retained(operation, meta.as_ref().map(|(meta, _)| meta)) {
                return Err(s3_error!(
                    AccessDenied,
                    "The object is protected by a retention rule of the bucket"
                ));
            }
            return Ok(());
        }
        if self.hides {
            return Err(s3_error!(
                NoSuchBucket,
                "Either the bucket does not exist in the namespace or you are not authorized to access it"
            ));
        }
        let mut error = S3Error::new(S3ErrorCode::AccessDenied);
        error.set_message(format!("{operation} is not permitted to this credential"));
        Err(error)
    }
}

/// Oracle's rules, as in FACTS.md.
fn allowed(may: Permissions, operation: &str, exists: bool) -> bool {
    match operation {
        "PutObject" => {
            if exists {
                may.overwrite
            } else {
                may.create
            }
        }
        "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" | "ListParts" => may.create && may.overwrite,
        "AbortMultipartUpload" | "DeleteObject" | "DeleteObjects" => may.delete,
        "GetObject" => may.read,
        "HeadObject"
        | "HeadBucket"
        | "ListObjects"
        | "ListObjectsV2"
        | "ListMultipartUploads"
        | "ListBuckets"
        | "GetBucketLocation" => may.inspect,
        "RestoreObject" => may.restore,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_only_can_put_once_and_nothing_else() {
        let may = Permissions::CREATE_ONLY;
        assert!(allowed(may, "PutObject", false));
        assert!(!allowed(may, "PutObject", true));
        for operation in [
            "CreateMultipartUpload",
            "HeadObject",
            "GetObject",
            "ListObjectsV2",
            "AbortMultipartUpload",
        ] {
            assert!(!allowed(may, operation, false), "{operation}");
        }
    }
}
