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
    /// In the first version of the list; many services leave it out, and mean the last key.
    #[serde(rename = "NextMarker")]
    pub marker: Option<String>,
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
    #[serde(rename = "LastModified")]
    pub last_modified: Option<String>,
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

/// `<ListPartsResult>`.
#[derive(Debug, Deserialize)]
pub(super) struct ListPartsResult {
    #[serde(rename = "IsTruncated", default)]
    pub is_truncated: bool,
    /// A number, or nothing.
    #[serde(rename = "NextPartNumberMarker")]
    pub next: Option<String>,
    #[serde(rename = "Part", default)]
    pub parts: Vec<ListedPart>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListedPart {
    #[serde(rename = "PartNumber")]
    pub number: u32,
    #[serde(rename = "Size")]
    pub size: u64,
    #[serde(rename = "ETag", default)]
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

/// A document that is read, by the name of its root. A sign-in page of some network is not one.
pub(super) trait Document: for<'de> Deserialize<'de> {
    const ROOT: &'static str;
    /// What some services call it.
    const OTHER_ROOT: &'static str = Self::ROOT;
}

impl Document for ErrorBody {
    const ROOT: &'static str = "Error";
}

impl Document for ListBucketResult {
    const ROOT: &'static str = "ListBucketResult";
}

impl Document for InitiateMultipartUploadResult {
    const ROOT: &'static str = "InitiateMultipartUploadResult";
}

impl Document for CompleteMultipartUploadResult {
    const ROOT: &'static str = "CompleteMultipartUploadResult";
    // moto.
    const OTHER_ROOT: &'static str = "CompleteMultipartUploadResponse";
}

impl Document for ListPartsResult {
    const ROOT: &'static str = "ListPartsResult";
    // moto.
    const OTHER_ROOT: &'static str = "ListPartsResponse";
}

impl Document for ListMultipartUploadsResult {
    const ROOT: &'static str = "ListMultipartUploadsResult";
}

pub(super) fn parse<T: Document>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| error.to_string())?
        .trim_start();
    let body = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").map_or("", |(_, body)| body).trim_start(),
        None => text,
    };
    let is_named = |name| {
        let named = body.strip_prefix('<').and_then(|rest| rest.strip_prefix(name));
        named.is_some_and(|rest| rest.starts_with([' ', '>', '/', '\t', '\r', '\n']))
    };
    if !is_named(T::ROOT) && !is_named(T::OTHER_ROOT) {
        return Err(format!("it is not a <{}>", T::ROOT));
    }
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

/// Reads a time as S3 writes it, `2026-11-26T15:46:43.000Z`, in Unix seconds; `None` for anything else or before 1970.
pub(super) fn unix_seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 0000-03-01, in which a leap day comes last in its year (the proleptic Gregorian calendar).
    let year = if month < 3 { year - 1 } else { year };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?;
    let all: Option<Vec<u64>> = text.split(between).map(digits).collect();
    all?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:01.999Z", Some(951_825_601)),
            ("2026-11-26T15:46:43.000Z", Some(1_795_708_003)),
            ("2026-13-26T15:46:43Z", None),
            ("2026-11-26 15:46:43", None),
            ("99999999999999999999-01-01T00:00:00Z", None),
            ("2026-11-26T15:46Z", None),
            ("+026-11-26T15:46:43Z", None),
        ] {
            assert_eq!(unix_seconds(text), unix, "{text}");
        }
    }

    #[test]
    fn other_pages_are_not_taken_for_empty_lists() {
        for page in [
            "",
            "<html></html>",
            "<?xml version=\"1.0\"?><ListBucketResults/>",
            "<?xml",
        ] {
            assert!(parse::<ListBucketResult>(page.as_bytes()).is_err(), "{page}");
        }
        assert!(parse::<ListBucketResult>(b"\n<?xml version=\"1.0\"?>\n<ListBucketResult/>").is_ok());
    }

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
        assert_eq!(page.contents[0].last_modified, None);
    }
}
