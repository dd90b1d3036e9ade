// SPDX-License-Identifier: Apache-2.0
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::*;
use crate::keys;

/// 26 October 2018, 18:13:09.
const BEGINS: i64 = 1_540_577_589;

struct Signer {
    account: Account,
    key: RsaKeyPair,
}

fn signer() -> Signer {
    let dir = tempfile::tempdir().unwrap();
    keys::make(dir.path(), "example", "http://a", "https://a").unwrap();
    let file: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join(keys::ACCOUNT)).unwrap()).unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(file["private_key"].as_str().unwrap().as_bytes())
        .unwrap();
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    Signer { account: Account::load(dir.path()).unwrap(), key }
}

fn call(url: &str, headers: &[(&str, &str)]) -> Call {
    let mut request =
        Request::builder().method("GET").uri(url).header("host", "storage.googleapis.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Call::new(request.body(Body::empty()).unwrap())
}

/// What Google's documentation shows, with another account.
fn unsigned(signer: &Signer, headers: &str) -> String {
    format!(
        "/example-bucket/tabby.jpeg?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={}%2F20181026%2Fus-central1%2F\
         storage%2Fgoog4_request&X-Goog-Date=20181026T181309Z&X-Goog-Expires=900&X-Goog-SignedHeaders={headers}",
        strict(&signer.account.email)
    )
}

fn sign(signer: &Signer, canonical: &str) -> String {
    let scope = "20181026/us-central1/storage/goog4_request";
    let hash = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("GOOG4-RSA-SHA256\n20181026T181309Z\n{scope}\n{hash}");
    let mut signature = vec![0; signer.key.public().modulus_len()];
    signer
        .key
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .unwrap();
    hex(&signature)
}

fn code(result: Result<(), Refusal>) -> (StatusCode, String) {
    let answer = format!("{:?}", result.as_ref().unwrap_err());
    let code = answer.split("code: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    (result.unwrap_err().xml().status(), code)
}

#[test]
fn what_is_signed_is_what_the_documentation_says() {
    let signer = signer();
    let url = unsigned(&signer, "host");
    let expected = format!(
        "GET\n/example-bucket/tabby.jpeg\nX-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={}%2F20181026%2Fus-central1%2F\
         storage%2Fgoog4_request&X-Goog-Date=20181026T181309Z&X-Goog-Expires=900&X-Goog-SignedHeaders=host\n\
         host:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD",
        strict(&signer.account.email)
    );
    assert_eq!(canonical(&call(&url, &[])).unwrap(), expected);
    let good = call(&format!("{url}&X-Goog-Signature={}", sign(&signer, &expected)), &[]);
    assert!(verify(&signer.account, &good, BEGINS).is_ok());
    assert!(verify(&signer.account, &good, BEGINS + 899).is_ok());
    assert!(verify(&signer.account, &good, BEGINS - SKEW).is_ok());
    let expired = code(verify(&signer.account, &good, BEGINS + 900));
    assert_eq!(expired, (StatusCode::BAD_REQUEST, "ExpiredToken".to_owned()));
    let early = code(verify(&signer.account, &good, BEGINS - SKEW - 1));
    assert_eq!(early, (StatusCode::FORBIDDEN, "RequestTimeTooSkewed".to_owned()));
    let other = Account { email: "somebody@else".to_owned(), ..signer.account };
    assert_eq!(code(verify(&other, &good, BEGINS)).1, "SignatureDoesNotMatch");
}

#[test]
fn headers_are_folded_and_parameters_sorted() {
    let signer = signer();
    let url = format!("{}&a=b%20c&A=/", unsigned(&signer, "host%3Bx-goog-meta-a"));
    let text =
        canonical(&call(&url, &[("x-goog-meta-a", "  one   two "), ("x-goog-meta-a", "three")]))
            .unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[2].starts_with("A=%2F&X-Goog-Algorithm="), "{text}");
    assert!(lines[2].ends_with("X-Goog-SignedHeaders=host%3Bx-goog-meta-a&a=b%20c"), "{text}");
    assert_eq!(
        &lines[3..],
        [
            "host:storage.googleapis.com",
            "x-goog-meta-a:one two,three",
            "",
            "host;x-goog-meta-a",
            "UNSIGNED-PAYLOAD"
        ]
    );
}

#[test]
fn headers_of_google_must_be_signed_and_sent() {
    let signer = signer();
    let refused = |url: &str, headers: &[(&str, &str)]| {
        canonical(&call(url, headers)).unwrap_err().xml().status()
    };
    assert_eq!(
        refused(&unsigned(&signer, "host"), &[("x-goog-meta-a", "one")]),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(refused(&unsigned(&signer, "host%3Bx-goog-meta-a"), &[]), StatusCode::BAD_REQUEST);
    assert_eq!(
        refused(&unsigned(&signer, "range"), &[("range", "bytes=0-1")]),
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn malformed_parameters_are_refused() {
    let signer = signer();
    let url = format!("{}&X-Goog-Signature=00", unsigned(&signer, "host"));
    for (good, bad) in [
        ("X-Goog-Expires=900", "X-Goog-Expires=604801"),
        ("X-Goog-Expires=900", "X-Goog-Expires=0"),
        ("X-Goog-Date=20181026T181309Z", "X-Goog-Date=now"),
        ("X-Goog-Date=20181026T181309Z", "X-Goog-Date=20181027T181309Z"),
        ("RSA-SHA256", "HMAC-SHA256"),
        ("goog4_request", "aws4_request"),
        ("X-Goog-Signature=00", "X-Goog-Signature=0"),
        ("X-Goog-Signature=00", "X-Goog-Signature=zz"),
        ("X-Goog-Signature=00", "a=b"),
    ] {
        let changed = url.replace(good, bad);
        assert_ne!(changed, url);
        let refused = code(verify(&signer.account, &call(&changed, &[]), BEGINS));
        assert_eq!(
            refused,
            (StatusCode::BAD_REQUEST, "MalformedSecurityHeader".to_owned()),
            "{bad}"
        );
    }
}
