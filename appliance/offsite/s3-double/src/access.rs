//! Who may do what: a credential's permissions against the operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::settings::{Credential, Permissions};
use crate::store::Store;

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
        let exists = match context.s3_path().as_object() {
            Some((bucket, key)) => self.store.head(bucket, key).is_ok(),
            None => false,
        };
        let operation = context.s3_op().name();
        if allowed(credential.permissions, operation, exists) {
            return Ok(());
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
