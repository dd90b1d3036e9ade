// SPDX-License-Identifier: Apache-2.0
use http::Method;
use serde_json::json;

use super::*;

fn account() -> Account {
    let options = json!({"kind": "s3", "access_key": "a", "secret_key": "b", "region": "eu-1"});
    Account::new(serde_json::from_value(options).expect("options")).expect("an account")
}

fn told(status: u16, headers: &[(&'static str, &str)], body: &str) -> Error {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().expect("a header"));
    }
    let ask = Ask::new("get object", Method::GET, "bucket", "key");
    let status = StatusCode::from_u16(status).expect("a status");
    refused(&account(), &ask, status, &map, body.as_bytes())
}

fn xml(code: &str, more: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a &amp; b</Message>{more}</Error>"
    )
}

#[test]
fn codes_come_before_statuses() {
    for (status, code, kind) in [
        (404, "NoSuchBucket", ErrorKind::NOT_FOUND),
        (403, "InvalidAccessKeyId", ErrorKind::UNAUTHENTICATED),
        (403, "SignatureDoesNotMatch", ErrorKind::UNAUTHENTICATED),
        (403, "AccessDenied", ErrorKind::PERMISSION_DENIED),
        (400, "ExpiredToken", ErrorKind::UNAUTHENTICATED),
        (400, "BadDigest", ErrorKind::CORRUPTED),
        (409, "BucketNotEmpty", ErrorKind::IN_USE),
        (409, "BucketAlreadyExists", ErrorKind::ALREADY_EXISTS),
        (400, "InvalidBucketName", ErrorKind::INVALID_ARGUMENT),
        (501, "NotImplemented", ErrorKind::UNSUPPORTED),
        (503, "SlowDown", ErrorKind::UNAVAILABLE),
        (412, "PreconditionFailed", ErrorKind::CONFLICT),
        (418, "Teapot", ErrorKind::INTERNAL),
    ] {
        let error = told(status, &[], &xml(code, ""));
        assert_eq!(error.kind(), kind, "{code}: {error:#}");
        let facts: Vec<&str> = error.context().map(|(key, _)| key).collect();
        assert_eq!(facts, ["bucket", "object", "endpoint"], "{code}");
    }
}

#[test]
fn a_skewed_clock_is_measured() {
    let date = chrono::Utc::now() - chrono::Duration::seconds(3600);
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for code in ["RequestTimeTooSkewed", "AccessDenied"] {
        let error = told(403, &[("date", &date)], &xml(code, ""));
        assert_eq!(error.kind(), ErrorKind::UNAUTHENTICATED);
        let text = format!("{error:#}");
        assert!(
            text.contains("360") && text.contains("ahead") && text.contains("set-ntp"),
            "{text}"
        );
    }
}

#[test]
fn the_right_region_is_named() {
    for (status, code) in [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")] {
        let error = told(status, &[], &xml(code, "<Region>us-9</Region>"));
        let text = format!("{error:#}");
        assert!(text.contains("eu-1") && text.contains("region = \"us-9\""), "{text}");
    }
    let error = told(301, &[("x-amz-bucket-region", "us-9")], "");
    assert!(error.remedy_text().contains("us-9"), "{error:#}");
}

#[test]
fn refusals_are_read_in_every_form() {
    let mut headers = HeaderMap::new();
    headers.insert("x-ms-error-code", "BlobNotFound".parse().expect("a header"));
    assert_eq!(Refusal::read(&headers, b"").code, "BlobNotFound");
    let json =
        br#"{"error": {"code": 404, "message": "No bucket", "errors": [{"reason": "notFound"}]}}"#;
    let refusal = Refusal::read(&HeaderMap::new(), json);
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("notFound", "No bucket"));
    let refusal = Refusal::read(&HeaderMap::new(), xml("Odd", "").as_bytes());
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("Odd", "a & b"));
    assert_eq!(Refusal::read(&HeaderMap::new(), b"<html>\xff"), Refusal::default());
}
