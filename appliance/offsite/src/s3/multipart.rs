//! Uploads in parts.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::Method;

use super::S3Error;
use super::client::{Client, Payload, content_md5, md5_of};
use super::http::{Call, EMPTY_SHA256};
use super::xml::{
    CompleteMultipartUploadResult, ErrorBody, InitiateMultipartUploadResult, ListMultipartUploadsResult,
    ListPartsResult, complete, parse,
};

/// A part that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Size in bytes.
    pub size: u64,
    /// Without quotes; usually the MD5 in hexadecimal.
    pub etag: String,
}

/// An unfinished multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Full key.
    pub key: String,
    /// The service's id for it.
    pub id: String,
}

impl Client {
    /// Starts a multipart upload and gives its id. Once: after a broken connection an upload may exist
    /// whose id nobody knows, which [`Client::clear_multipart`] finds.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn create_multipart_once(&self, key: &str) -> Result<String, S3Error> {
        let operation = format!("POST {key}?uploads");
        let call = Call {
            method: Method::POST,
            key: Some(key),
            query: &[("uploads", "")],
            sha256: EMPTY_SHA256,
            md5: None,
            length: 0,
            body: None,
        };
        let response = self.sender.send(call).await?;
        let body = self.xml(&operation, response).await?;
        let started: InitiateMultipartUploadResult =
            parse(&body).map_err(|why| S3Error::BadAnswer { operation, why })?;
        Ok(started.upload_id)
    }

    /// Drops all unfinished uploads of this very key.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn clear_multipart(&self, key: &str) -> Result<(), S3Error> {
        for upload in self.list_multipart(key).await? {
            if upload.key == key {
                self.abort_multipart(&upload.key, &upload.id).await?;
            }
        }
        Ok(())
    }

    /// Sends part `number` (from 1), again if need be, and gives its ETag.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn upload_part(
        &self,
        key: &str,
        id: &str,
        number: u32,
        bytes: Bytes,
        payload: &Payload,
    ) -> Result<String, S3Error> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", id)];
        let mut payload = payload.clone();
        let mut failed = 0;
        loop {
            match self.put_body(key, &query, &payload, bytes.clone().into()).await {
                Ok(etag) => return Ok(etag),
                // Some services demand it for a bucket with a retention rule.
                Err(S3Error::Refused { message, .. }) if payload.md5.is_none() && message.contains("Content-MD5") => {
                    payload.md5 = Some(md5_of(&bytes));
                }
                Err(error) => {
                    failed += 1;
                    let Some(wait) = self.retry().wait(failed, &error) else {
                        return Err(error);
                    };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Makes the parts one object, once: after a broken connection the caller looks whether it was done.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn complete_multipart_once(
        &self,
        key: &str,
        id: &str,
        parts: &[(u32, String)],
    ) -> Result<String, S3Error> {
        let operation = format!("POST {key}?uploadId");
        let body = Bytes::from(complete(parts));
        let payload = Payload::of(&body);
        let md5 = payload.md5.map(content_md5);
        let call = Call {
            method: Method::POST,
            key: Some(key),
            query: &[("uploadId", id)],
            sha256: &payload.sha256.to_string(),
            md5: md5.as_deref(),
            length: payload.size,
            body: Some(body.into()),
        };
        let response = self.sender.send(call).await?;
        let body = self.xml(&operation, response).await?;
        // A failure can come with status 200, since the answer is started before the work is done.
        if let Some(error) = ErrorBody::parse(&body) {
            let (status, code) = (200, error.code);
            return Err(S3Error::Unavailable {
                operation,
                status,
                code,
                retry_after: None,
            });
        }
        let done: CompleteMultipartUploadResult = parse(&body).map_err(|why| S3Error::BadAnswer { operation, why })?;
        Ok(done.etag.trim_matches('"').to_owned())
    }

    /// Drops an unfinished upload. One that is gone already is fine.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn abort_multipart(&self, key: &str, id: &str) -> Result<(), S3Error> {
        match self.repeat(Method::DELETE, Some(key), &[("uploadId", id)], None).await {
            Ok(_) | Err(S3Error::NoSuchUpload { .. } | S3Error::NoSuchKey { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The parts of an unfinished upload that have arrived, by number.
    ///
    /// # Errors
    /// [`S3Error`]; [`S3Error::NoSuchUpload`] when it was completed or dropped.
    pub async fn list_parts(&self, key: &str, id: &str) -> Result<BTreeMap<u32, Arrived>, S3Error> {
        let operation = format!("LIST {key}?uploadId");
        let mut all = BTreeMap::new();
        let mut after: Option<u32> = None;
        loop {
            let marker = after.map(|number| number.to_string());
            let mut query = vec![("uploadId", id)];
            query.extend(marker.as_deref().map(|marker| ("part-number-marker", marker)));
            let response = self.repeat(Method::GET, Some(key), &query, None).await?;
            let body = self.xml(&operation, response).await?;
            let page: ListPartsResult = parse(&body).map_err(|why| S3Error::BadAnswer {
                operation: operation.clone(),
                why,
            })?;
            all.extend(page.parts.into_iter().map(|part| {
                let etag = part.etag.trim_matches('"').to_owned();
                let size = part.size;
                (part.number, Arrived { size, etag })
            }));
            let next = page.next.and_then(|next| next.parse().ok());
            match next.filter(|_| page.is_truncated) {
                Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
                Some(_) => {
                    return Err(S3Error::BadAnswer {
                        operation,
                        why: "its pages repeat".into(),
                    });
                }
                None => return Ok(all),
            }
        }
    }

    /// Unfinished uploads of keys that start with `prefix`.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn list_multipart(&self, prefix: &str) -> Result<Vec<Upload>, S3Error> {
        let operation = format!("LIST {prefix}?uploads");
        let mut all = Vec::new();
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut query = vec![("uploads", ""), ("prefix", prefix)];
            if let Some((key, upload)) = &marker {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", upload.as_str())]);
            }
            let response = self.repeat(Method::GET, None, &query, None).await?;
            let body = self.xml(&operation, response).await?;
            let page: ListMultipartUploadsResult = parse(&body).map_err(|why| S3Error::BadAnswer {
                operation: operation.clone(),
                why,
            })?;
            all.extend(page.uploads.into_iter().map(|found| Upload {
                key: found.key,
                id: found.upload_id,
            }));
            match page.next_key.zip(page.next_upload).filter(|_| page.is_truncated) {
                Some(next) if marker.as_ref() != Some(&next) => marker = Some(next),
                Some(_) => {
                    return Err(S3Error::BadAnswer {
                        operation,
                        why: "its pages repeat".into(),
                    });
                }
                None => return Ok(all),
            }
        }
    }
}
