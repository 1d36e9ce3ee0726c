//! The outer layer: what `s3s` does not check, faults to order, and the bandwidth cap.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::{HeaderMap, Method, Request};
use s3s::service::S3Service;
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode};

use crate::faults::{Action, Faults};
use crate::pace::{Limiter, Paced};

/// Checks requests before `s3s` sees them.
#[derive(Clone)]
pub struct Gate {
    pub service: S3Service,
    pub region: String,
    pub faults: Faults,
    pub limiter: Option<Arc<Limiter>>,
    pub latency: Duration,
    pub demand_md5: bool,
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose or after an error")]
pub struct Closed;

impl Gate {
    pub async fn answer(self, request: Request<Incoming>) -> Result<HttpResponse, Closed> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let action = self.faults.on_request(request.method().as_str(), target);
        let _upload = (request.method() == Method::PUT).then(|| self.faults.upload());
        tokio::time::sleep(self.latency).await;
        let cut_after = match action {
            Some(Action::Cut) => return Err(Closed),
            Some(Action::Status(status)) => {
                let mut error = S3Error::with_message(code_of(status), "a fault to order");
                if let Ok(status) = hyper::StatusCode::from_u16(status) {
                    error.set_status_code(status);
                }
                return error.to_http_response().map_err(|_| Closed);
            }
            Some(Action::Busy(status, seconds)) => {
                let mut error = S3Error::with_message(code_of(status), "a fault to order");
                if let Ok(status) = hyper::StatusCode::from_u16(status) {
                    error.set_status_code(status);
                }
                let mut response = error.to_http_response().map_err(|_| Closed)?;
                response
                    .headers_mut()
                    .insert(hyper::header::RETRY_AFTER, seconds.into());
                self.faults.asked_to_wait(Duration::from_secs(seconds));
                return Ok(response);
            }
            Some(Action::CutAfter(bytes)) => Some(bytes),
            Some(Action::DropAnswer | Action::Truncate(_)) | None => None,
        };
        if let Err(refused) = check(request.method(), request.headers(), &self.region) {
            return refused.to_http_response().map_err(|_| Closed);
        }
        if self.demand_md5 && request.method() == Method::PUT && !request.headers().contains_key("content-md5") {
            let refused = S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "Content-MD5 HTTP header is required for Put Object requests with Object Lock parameters",
            );
            return refused.to_http_response().map_err(|_| Closed);
        }
        let limiter = self.limiter.clone();
        let request = request.map(|body| Body::http_body_unsync(Paced::new(body, limiter, cut_after)));
        let response = self.service.call(request).await;
        if matches!(action, Some(Action::CutAfter(_) | Action::DropAnswer)) {
            return Err(Closed);
        }
        let response = response.map_err(|_| Closed)?;
        Ok(match action {
            Some(Action::Truncate(bytes)) => {
                response.map(|body| Body::http_body_unsync(Paced::new(body, None, Some(bytes))))
            }
            _ => response,
        })
    }
}

fn code_of(status: u16) -> S3ErrorCode {
    match status {
        403 => S3ErrorCode::AccessDenied,
        503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    }
}

fn check(method: &Method, headers: &HeaderMap, region: &str) -> Result<(), S3Error> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let payload = text("x-amz-content-sha256");
    if payload.starts_with("STREAMING-") || text("content-encoding").contains("aws-chunked") {
        return Err(S3Error::with_message(
            S3ErrorCode::NotImplemented,
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD is not supported",
        ));
    }
    let checksum = headers.keys().any(|name| name.as_str().starts_with("x-amz-checksum-"));
    if checksum || headers.contains_key("x-amz-sdk-checksum-algorithm") {
        return Err(S3Error::with_message(
            S3ErrorCode::NotImplemented,
            "additional checksums are not supported",
        ));
    }
    if *method == Method::PUT {
        if payload == "UNSIGNED-PAYLOAD" {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "unsigned payloads are refused here",
            ));
        }
        if !headers.contains_key("content-length") {
            return Err(S3Error::with_message(
                S3ErrorCode::MissingContentLength,
                "Content-Length is missing",
            ));
        }
    }
    // Credential=ID/DATE/REGION/s3/aws4_request
    let scope = text("authorization")
        .split("Credential=")
        .nth(1)
        .and_then(|rest| rest.split('/').nth(2));
    if scope.is_some_and(|given| given != region) {
        return Err(S3Error::with_message(
            S3ErrorCode::SignatureDoesNotMatch,
            "The secret key required to complete authentication could not be found. \
             The region must be specified if this is not the home region for the tenancy.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_payloads_and_foreign_regions_are_refused() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.insert(*name, value.parse().unwrap());
            }
            map
        };
        let code = |headers: &HeaderMap| check(&Method::GET, headers, "here").map_err(|e| e.code().as_str().to_owned());
        assert_eq!(
            code(&headers(&[(
                "x-amz-content-sha256",
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            )])),
            Err("NotImplemented".into())
        );
        assert_eq!(
            code(&headers(&[("x-amz-checksum-crc32", "AAAAAA==")])),
            Err("NotImplemented".into())
        );
        let signed = "AWS4-HMAC-SHA256 Credential=ID/20260101/there/s3/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(
            code(&headers(&[("authorization", signed)])),
            Err("SignatureDoesNotMatch".into())
        );
        assert_eq!(
            code(&headers(&[("authorization", &signed.replace("there", "here"))])),
            Ok(())
        );
    }
}
