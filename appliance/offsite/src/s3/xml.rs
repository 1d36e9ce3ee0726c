//! The few XML documents that are read and written.

use serde::Deserialize;

/// `<Error>`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(rename = "Code", default)]
    pub code: String,
    #[serde(rename = "Message", default)]
    pub message: String,
    #[serde(rename = "Region")]
    pub region: Option<String>,
    #[serde(rename = "ServerTime")]
    pub server_time: Option<String>,
}

impl ErrorBody {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let body: Self = parse(bytes).ok()?;
        (!body.code.is_empty()).then_some(body)
    }
}

/// `<ListBucketResult>`.
#[derive(Debug, Deserialize)]
pub(super) struct ListBucketResult {
    #[serde(rename = "IsTruncated", default)]
    pub is_truncated: bool,
    #[serde(rename = "NextContinuationToken")]
    pub next: Option<String>,
    #[serde(rename = "Contents", default)]
    pub contents: Vec<Contents>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Contents {
    #[serde(rename = "Key")]
    pub key: String,
    #[serde(rename = "Size")]
    pub size: u64,
    #[serde(rename = "ETag", default)]
    pub etag: String,
}

/// `<InitiateMultipartUploadResult>`.
#[derive(Debug, Deserialize)]
pub(super) struct InitiateMultipartUploadResult {
    #[serde(rename = "UploadId")]
    pub upload_id: String,
}

/// `<CompleteMultipartUploadResult>`, or an `<Error>` with status 200.
#[derive(Debug, Deserialize)]
pub(super) struct CompleteMultipartUploadResult {
    #[serde(rename = "ETag")]
    pub etag: String,
}

/// `<ListMultipartUploadsResult>`.
#[derive(Debug, Deserialize)]
pub(super) struct ListMultipartUploadsResult {
    #[serde(rename = "IsTruncated", default)]
    pub is_truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    pub next_key: Option<String>,
    #[serde(rename = "NextUploadIdMarker")]
    pub next_upload: Option<String>,
    #[serde(rename = "Upload", default)]
    pub uploads: Vec<ListedUpload>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListedUpload {
    #[serde(rename = "Key")]
    pub key: String,
    #[serde(rename = "UploadId")]
    pub upload_id: String,
}

pub(super) fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    quick_xml::de::from_str(text).map_err(|error| error.to_string())
}

/// The list of parts that completes an upload, in ascending order. ETags come without quotes.
pub(super) fn complete(parts: &[(u32, String)]) -> String {
    let mut out = String::from("<CompleteMultipartUpload>");
    for (number, etag) in parts {
        let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
        out.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
        ));
    }
    out.push_str("</CompleteMultipartUpload>");
    out
}

/// Asks for `days` of availability.
pub(super) fn restore(days: u32) -> String {
    format!("<RestoreRequest><Days>{days}</Days></RestoreRequest>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let page: ListBucketResult = parse(
            b"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
              <Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;</NextContinuationToken>\
              <Contents><Key>a</Key><ETag>&quot;x&quot;</ETag><Size>3</Size></Contents><MaxKeys>2</MaxKeys>\
              <Contents><Key>b</Key><Size>4</Size></Contents></ListBucketResult>",
        )
        .unwrap();
        assert!(page.is_truncated);
        assert_eq!(page.next.as_deref(), Some("t&"));
        assert_eq!(page.contents.len(), 2);
        assert_eq!(page.contents[0].etag, "\"x\"");
    }
}
