//! The S3 operations, for `s3s`.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use md5::{Digest, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
    DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, MultipartUpload, Object,
    ObjectStorageClass, Part as ListedPart, PutObjectInput, PutObjectOutput, RestoreObjectInput, RestoreObjectOutput,
    StorageClass, StreamingBlob, Timestamp, TimestampFormat, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::settings::Lists;
use crate::store::{Meta, Part, Store, StoreError, Tier, Upload};

/// The operations over a store.
pub struct Service {
    pub store: Arc<Store>,
    pub minimum_part: u64,
    pub page: usize,
    pub restore_delay: Duration,
    pub lists: Lists,
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBucket => Self::new(S3ErrorCode::NoSuchBucket),
            StoreError::NoSuchKey => Self::new(S3ErrorCode::NoSuchKey),
            StoreError::Io(error) => Self::internal_error(error),
        }
    }
}

fn io_error(error: io::Error) -> S3Error {
    S3Error::internal_error(error)
}

fn payload_mismatch() -> S3Error {
    let code = S3ErrorCode::from_bytes(b"XAmzContentSHA256Mismatch").unwrap_or(S3ErrorCode::BadDigest);
    let mut error = S3Error::with_message(code, "The payload does not match x-amz-content-sha256");
    error.set_status_code(hyper::StatusCode::BAD_REQUEST);
    error
}

fn timestamp(milliseconds: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(milliseconds)).into()
}

/// The header `x-amz-restore` of what can be read until then.
fn restored(until: u64) -> String {
    let mut date = Vec::new();
    // Writing to memory does not fail.
    let _ = timestamp(until).format(TimestampFormat::HttpDate, &mut date);
    let date = String::from_utf8_lossy(&date);
    format!("ongoing-request=\"false\", expiry-date=\"{date}\"")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sign = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { char::from(sign) } else { '=' });
        }
    }
    out
}

impl Service {
    /// Writes a body to a file; checks length and MD5. `s3s` has checked the payload's SHA-256 when the stream ends well.
    async fn receive(
        &self,
        mut file: std::fs::File,
        path: &Path,
        body: Option<StreamingBlob>,
        length: Option<i64>,
        md5: Option<&str>,
    ) -> S3Result<Part> {
        let result = async {
            let mut hash = Md5::new();
            let mut size = 0_u64;
            if let Some(mut body) = body {
                while let Some(chunk) = body.next().await {
                    let chunk: Bytes = chunk.map_err(|error| {
                        let text = error.to_string();
                        if text.contains("Sha256Mismatch") {
                            payload_mismatch()
                        } else {
                            s3_error!(IncompleteBody, "The body ended early")
                        }
                    })?;
                    hash.update(&chunk);
                    size += chunk.len() as u64;
                    file.write_all(&chunk).map_err(io_error)?;
                }
            }
            if length.is_some_and(|length| u64::try_from(length) != Ok(size)) {
                return Err(s3_error!(
                    IncompleteBody,
                    "The body is not as long as Content-Length said"
                ));
            }
            let md5_found: [u8; 16] = hash.finalize().into();
            if md5.is_some_and(|wanted| wanted != base64(&md5_found)) {
                return Err(s3_error!(
                    BadDigest,
                    "The Content-MD5 you specified did not match what we received"
                ));
            }
            Ok(Part { size, md5: md5_found })
        }
        .await;
        if result.is_err() {
            let _ = std::fs::remove_file(path);
        }
        result
    }

    fn upload(&self, id: &str, bucket: &str, key: &str) -> S3Result<Upload> {
        let uploads = self.store.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        match uploads.get(id) {
            Some(upload) if upload.bucket == bucket && upload.key == key => Ok(upload.clone()),
            _ => Err(s3_error!(NoSuchUpload)),
        }
    }

    fn forget_upload(&self, id: &str) -> S3Result<()> {
        let removed = self
            .store
            .uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        if let Some(upload) = removed {
            for number in upload.parts.keys() {
                std::fs::remove_file(self.store.part_path(&upload.bucket, id, *number)).map_err(io_error)?;
            }
        }
        Ok(())
    }

    /// The parts in the order given, checked against what was received.
    fn chosen(&self, upload: &Upload, input: &CompleteMultipartUploadInput) -> S3Result<BTreeMap<i32, Part>> {
        let listed = input
            .multipart_upload
            .as_ref()
            .and_then(|list| list.parts.as_deref())
            .unwrap_or_default();
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "No part is listed"));
        }
        let mut chosen = BTreeMap::new();
        let mut last = 0;
        for part in listed {
            let number = part.part_number.unwrap_or_default();
            if number <= last {
                return Err(s3_error!(InvalidPartOrder));
            }
            last = number;
            let have = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().map(ETag::value) != Some(hex(&have.md5).as_str()) {
                return Err(s3_error!(InvalidPart));
            }
            chosen.insert(number, have.clone());
        }
        if chosen
            .iter()
            .any(|(number, part)| *number != last && part.size < self.minimum_part)
        {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        Ok(chosen)
    }

    fn page_of(&self, bucket: &str, asked: &Asked<'_>) -> S3Result<Page> {
        let limit = asked
            .limit
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(self.page)
            .min(self.page);
        let mut page = Page::default();
        let mut after = asked.after.to_owned();
        // A group of keys up to the delimiter counts as one line, and is skipped as one.
        'lines: while page.objects.len() + page.prefixes.len() < limit {
            let left = limit - page.objects.len() - page.prefixes.len();
            let found = self.store.list(bucket, asked.prefix, &after, left)?;
            if found.is_empty() {
                return Ok(page);
            }
            for (key, meta, tier) in found.into_iter().take(left) {
                let rest = key.get(asked.prefix.len()..).unwrap_or_default();
                // An empty delimiter groups nothing: rclone sends one where it wants none.
                if let Some(end) = asked
                    .delimiter
                    .filter(|delimiter| !delimiter.is_empty())
                    .and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()))
                {
                    let group = format!("{}{}", asked.prefix, rest.get(..end).unwrap_or_default());
                    after = format!("{group}\u{10ffff}");
                    page.prefixes.push(CommonPrefix { prefix: Some(group) });
                    continue 'lines;
                }
                after.clone_from(&key);
                page.objects.push(listed(key, &meta, tier));
            }
        }
        if !self.store.list(bucket, asked.prefix, &after, 0)?.is_empty() {
            page.next = Some(after);
        }
        Ok(page)
    }
}

/// What a list asks for.
struct Asked<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    after: &'a str,
    limit: Option<i32>,
}

/// One page of a list.
#[derive(Default)]
struct Page {
    objects: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    next: Option<String>,
}

fn listed(key: String, meta: &Meta, tier: Tier) -> Object {
    let class = if tier == Tier::Standard {
        ObjectStorageClass::STANDARD
    } else {
        ObjectStorageClass::GLACIER
    };
    Object {
        key: Some(key),
        size: i64::try_from(meta.size).ok(),
        e_tag: Some(ETag::Strong(meta.etag.clone())),
        last_modified: Some(timestamp(meta.modified)),
        storage_class: Some(ObjectStorageClass::from_static(class)),
        ..Object::default()
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let (file, path) = self.store.temporary(&input.bucket)?;
        let part = self
            .receive(
                file,
                &path,
                input.body,
                input.content_length,
                input.content_md5.as_deref(),
            )
            .await?;
        let meta = self.store.publish(&input.bucket, &input.key, &path, hex(&part.md5))?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(meta.etag)),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let (meta, tier) = self.store.head(&input.bucket, &input.key)?;
        if matches!(tier, Tier::Archived | Tier::Restoring) {
            return Err(s3_error!(
                InvalidObjectState,
                "The object is in Archive tier and needs to be restored before it can be read"
            ));
        }
        let mut file = self.store.open_object(&input.bucket, &input.key)?;
        let (start, length, range) = match input.range {
            None => (0, meta.size, None),
            Some(range) => {
                let range = range.check(meta.size).map_err(|_| s3_error!(InvalidRange))?;
                let text = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), meta.size);
                (range.start, range.end - range.start, Some(text))
            }
        };
        file.seek(SeekFrom::Start(start)).map_err(io_error)?;
        let stream = futures_util::stream::unfold((file, length), |(mut file, left)| async move {
            if left == 0 {
                return None;
            }
            let mut chunk = vec![0; usize::try_from(left.min(64 * 1024)).unwrap_or(64 * 1024)];
            Some(match file.read_exact(&mut chunk) {
                Ok(()) => {
                    let left = left - chunk.len() as u64;
                    (Ok(Bytes::from(chunk)), (file, left))
                }
                Err(error) => (Err(error), (file, 0)),
            })
        });
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(stream)),
            content_length: i64::try_from(length).ok(),
            content_range: range,
            e_tag: Some(ETag::Strong(meta.etag)),
            last_modified: Some(timestamp(meta.modified)),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let (meta, tier) = self.store.head(&req.input.bucket, &req.input.key)?;
        let restore = match tier {
            Tier::Standard | Tier::Archived => None,
            Tier::Restoring => Some("ongoing-request=\"true\"".to_owned()),
            Tier::Restored(until) => Some(restored(until)),
        };
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(meta.size).ok(),
            e_tag: Some(ETag::Strong(meta.etag)),
            last_modified: Some(timestamp(meta.modified)),
            storage_class: (tier != Tier::Standard).then(|| StorageClass::from_static(StorageClass::GLACIER)),
            restore,
            ..Default::default()
        }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.check_bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store.delete(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        if self.lists == Lists::First {
            return Err(s3_error!(NotImplemented, "ListObjectsV2 is not supported"));
        }
        let after = input
            .continuation_token
            .clone()
            .or(input.start_after.clone())
            .unwrap_or_default();
        let page = self.page_of(
            &input.bucket,
            &Asked {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref(),
                after: &after,
                limit: input.max_keys,
            },
        )?;
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            is_truncated: Some(page.next.is_some()),
            // A server that takes it for the first version names no token.
            next_continuation_token: page.next.filter(|_| self.lists == Lists::Both),
            continuation_token: input.continuation_token,
            ..Default::default()
        }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let input_delimiter = input.delimiter.is_some();
        let page = self.page_of(
            &input.bucket,
            &Asked {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref(),
                after: input.marker.as_deref().unwrap_or_default(),
                limit: input.max_keys,
            },
        )?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            contents: Some(page.objects),
            common_prefixes: Some(page.prefixes),
            is_truncated: Some(page.next.is_some()),
            // Only with a delimiter, as S3 does it.
            next_marker: page.next.filter(|_| input_delimiter),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        self.store.check_bucket(&input.bucket)?;
        let id = format!("upload-{}", self.store.unique());
        let upload = Upload {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            started: SystemTime::now(),
            parts: BTreeMap::new(),
        };
        self.store
            .uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        self.upload(&input.upload_id, &input.bucket, &input.key)?;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be between 1 and 10000"));
        }
        let (file, path) = self.store.temporary(&input.bucket)?;
        let part = self
            .receive(
                file,
                &path,
                input.body,
                input.content_length,
                input.content_md5.as_deref(),
            )
            .await?;
        let place = self.store.part_path(&input.bucket, &input.upload_id, input.part_number);
        let etag = hex(&part.md5);
        let mut uploads = self.store.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        // Aborted while the part was on its way.
        let Some(upload) = uploads.get_mut(&input.upload_id) else {
            let _ = std::fs::remove_file(path);
            return Err(s3_error!(NoSuchUpload));
        };
        std::fs::rename(path, place).map_err(io_error)?;
        upload.parts.insert(input.part_number, part);
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let upload = self.upload(&input.upload_id, &input.bucket, &input.key)?;
        let chosen = self.chosen(&upload, &input)?;
        let (mut file, path) = self.store.temporary(&input.bucket)?;
        let mut hash = Md5::new();
        for (number, part) in &chosen {
            let from = self.store.part_path(&input.bucket, &input.upload_id, *number);
            io::copy(&mut std::fs::File::open(from).map_err(io_error)?, &mut file).map_err(io_error)?;
            hash.update(part.md5);
        }
        let etag = format!("{}-{}", hex(&hash.finalize()), chosen.len());
        let meta = self.store.publish(&input.bucket, &input.key, &path, etag)?;
        self.forget_upload(&input.upload_id)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(meta.etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.upload(&req.input.upload_id, &req.input.bucket, &req.input.key)?;
        self.forget_upload(&req.input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let upload = self.upload(&input.upload_id, &input.bucket, &input.key)?;
        let after = input.part_number_marker.unwrap_or_default();
        let asked = input.max_parts.and_then(|most| usize::try_from(most).ok());
        let page = asked.map_or(self.page, |most| most.min(self.page));
        let left: Vec<_> = upload.parts.range(after.saturating_add(1)..).collect();
        let parts: Vec<ListedPart> = left
            .iter()
            .take(page)
            .map(|(number, part)| ListedPart {
                part_number: Some(**number),
                size: i64::try_from(part.size).ok(),
                e_tag: Some(ETag::Strong(hex(&part.md5))),
                ..Default::default()
            })
            .collect();
        let is_truncated = parts.len() < left.len();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            next_part_number_marker: parts.last().and_then(|part| part.part_number).filter(|_| is_truncated),
            is_truncated: Some(is_truncated),
            parts: Some(parts),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.store.check_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let uploads = self.store.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let found = uploads
            .iter()
            .filter(|(_, upload)| upload.bucket == input.bucket && upload.key.starts_with(&prefix))
            .map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.started.into()),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            uploads: Some(found),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }

    async fn restore_object(&self, req: S3Request<RestoreObjectInput>) -> S3Result<S3Response<RestoreObjectOutput>> {
        let input = req.input;
        let (_, tier) = self.store.head(&input.bucket, &input.key)?;
        let days = input.restore_request.and_then(|request| request.days).unwrap_or(1);
        let days = u64::try_from(days).ok().filter(|days| (1..=10).contains(days));
        let Some(days) = days else {
            return Err(s3_error!(InvalidArgument, "Days must be between 1 and 10"));
        };
        match tier {
            Tier::Standard => return Err(s3_error!(InvalidObjectState, "The object is not archived")),
            Tier::Restoring => return Err(s3_error!(RestoreAlreadyInProgress)),
            Tier::Restored(_) => {}
            Tier::Archived => {
                self.store
                    .restore(&input.bucket, &input.key, self.restore_delay, days)?;
            }
        }
        Ok(S3Response::new(RestoreObjectOutput::default()))
    }
}
