// SPDX-License-Identifier: Apache-2.0
//! Signed URLs, which plain curl uses.

use std::{fs, process::Command};

use driver_api::{
    ErrorKind,
    ext::{Conditions, ObjectAbilities, SignRequest, SignedMethod, SignedUrl},
};

use super::{
    can, content, now, sleep,
    support::{Addresses, Stage, cx, noise, refused},
    uploads::begin,
};

/// What plain curl makes of a signed URL: the status and the body.
fn curl(
    stage: &Stage,
    url: &str,
    method: &str,
    headers: &SignedUrl,
    body: Option<&[u8]>,
) -> (u16, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (answer, data) = (dir.path().join("answer"), dir.path().join("data"));
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--noproxy",
        "*",
        "--write-out",
        "%{http_code}",
    ]);
    command.arg("--output").arg(&answer);
    match method {
        "HEAD" => command.arg("--head"),
        _ => command.args(["--request", method]),
    };
    if let Some(body) = body {
        fs::write(&data, body).expect("a file");
        command.arg("--data-binary").arg(format!("@{}", data.display()));
        command.args(["--header", "Content-Type:"]);
    }
    for header in &headers.headers {
        command.arg("--header").arg(format!("{}: {}", header.0, header.1));
    }
    if stage.objects.features().kind == "gcs" {
        // The signature is for Google's host.
        let at = Addresses::read();
        let server = at.get("gcs_tls").trim_start_matches("https://").to_owned();
        command
            .arg("--connect-to")
            .arg(format!("storage.googleapis.com:443:{server}"))
            .arg("--insecure");
    }
    let output = command.arg(url).output().expect("curl");
    let status = String::from_utf8_lossy(&output.stdout)
        .parse()
        .unwrap_or_else(|_| panic!("curl: {output:?}"));
    (status, fs::read(&answer).unwrap_or_default())
}

async fn signed(stage: &Stage, method: SignedMethod, key: &str, secs: u64) -> SignedUrl {
    let request = SignRequest {
        method,
        object: stage.object(key),
        expire_secs: secs,
        ..SignRequest::default()
    };
    stage.objects.sign(&cx(), request).await.unwrap_or_else(|error| panic!("{key}: {error:#}"))
}

pub async fn signatures(stage: &Stage) {
    if stage.name == "gcs" {
        // The URL is for HTTPS, behind which the fake keeps other buckets.
        let ca = Addresses::read().get("ca").to_owned();
        return signed_urls(&Stage::with("gcs_tls", serde_json::json!({"ca_file": ca})).await)
            .await;
    }
    signed_urls(stage).await;
}

async fn signed_urls(stage: &Stage) {
    let key = "signed/a b+c ü";
    let data = noise(5000);
    let put = signed(stage, SignedMethod::PUT, key, 600).await;
    assert!(put.expires >= now() + 590 && put.expires <= now() + 600);
    let (status, body) = curl(stage, &put.url, "PUT", &put, Some(&data));
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    assert_eq!(content(stage, key).await, data);
    let get = signed(stage, SignedMethod::GET, key, 600).await;
    let (status, body) = curl(stage, &get.url, "GET", &get, None);
    assert!(status == 200 && body == data, "{status} {}", String::from_utf8_lossy(&body));
    let head = signed(stage, SignedMethod::HEAD, key, 600).await;
    assert_eq!(curl(stage, &head.url, "HEAD", &head, None).0, 200);

    // moto checks no signatures.
    let checks = !stage.name.starts_with("moto");
    let refuses = |url: &str, method: &str, headers: &SignedUrl, body: Option<&[u8]>, why: &str| {
        let (status, _) = curl(stage, url, method, headers, body);
        assert!(!checks || matches!(status, 400 | 401 | 403), "{why}: {status}");
    };
    if checks {
        refuses(&get.url, "DELETE", &get, None, "wrong method");
        refuses(&get.url, "PUT", &put, Some(b"forged"), "wrong method");
        let other = get.url.replacen("signed/", "singed/", 1);
        assert_ne!(other, get.url.as_str());
        refuses(&other, "GET", &get, None, "another object");
        let longer = tampered(&get.url);
        refuses(&longer, "GET", &get, None, "tampered");
        assert_eq!(content(stage, key).await, data);
        let short = signed(stage, SignedMethod::GET, key, 1).await;
        sleep(2500);
        refuses(&short.url, "GET", &short, None, "expired");
    }
    let delete = signed(stage, SignedMethod::DELETE, key, 60).await;
    let (status, body) = curl(stage, &delete.url, "DELETE", &delete, None);
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let most = stage.objects.features().max_sign_secs;
    for expire_secs in [0, most + 1, u64::MAX] {
        let request =
            SignRequest { object: stage.object(key), expire_secs, ..SignRequest::default() };
        refused(stage.objects.sign(&cx(), request).await, ErrorKind::INVALID_ARGUMENT);
    }
    signed(stage, SignedMethod::GET, key, most).await;
    if can(stage, ObjectAbilities::SIGN_PARTS) {
        signed_parts(stage, &data).await;
    }
}

/// The URL with a later expiry, or else with another last digit of its signature.
fn tampered(url: &str) -> String {
    for name in ["X-Amz-Expires=600", "X-Goog-Expires=600"] {
        if url.contains(name) {
            return url.replacen(name, &name.replace("600", "6000"), 1);
        }
    }
    for name in ["se=", "temp_url_expires="] {
        if let Some(at) = url.find(name).map(|at| at + name.len()) {
            // The first digit of a year, or of the seconds since 1970.
            let digit = if name == "se=" { "3" } else { "9" };
            return format!("{}{digit}{}", &url[..at], &url[at + 1..]);
        }
    }
    panic!("nothing to tamper with in {url}");
}

async fn signed_parts(stage: &Stage, data: &[u8]) {
    let upload = begin(stage, "signed/parts", "bb01").await;
    let request = SignRequest {
        method: SignedMethod::PUT_PART,
        object: stage.object("signed/parts"),
        expire_secs: 600,
        upload: upload.id.clone(),
        part: 1,
        ..SignRequest::default()
    };
    for bad in [
        SignRequest { part: 0, ..request.clone() },
        SignRequest { upload: "".into(), ..request.clone() },
    ] {
        refused(stage.objects.sign(&cx(), bad).await, ErrorKind::INVALID_ARGUMENT);
    }
    let url = stage.objects.sign(&cx(), request).await.expect("a URL");
    let (status, body) = curl(stage, &url.url, "PUT", &url, Some(data));
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    let parts = stage.objects.parts(&cx(), upload.clone(), 0, 10).await.expect("parts").parts;
    assert_eq!(parts.len(), 1);
    stage
        .objects
        .complete_upload(&cx(), upload, parts, Conditions::default())
        .await
        .expect("complete");
    assert_eq!(content(stage, "signed/parts").await, data);
}
