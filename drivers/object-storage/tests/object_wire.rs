// SPDX-License-Identifier: Apache-2.0
//! How requests get to the store: by the bucket's own name, through proxies, to authorities that nobody else trusts; and
//! encryption by the store. `tests/services/object with` starts the stores.

mod support;

use std::process::Command;

use driver_api::{Backend, ErrorKind, HealthState, ext::Conditions};
use serde_json::{Value, json};
use support::{
    Addresses, Stage, body, buf, cx, open, options, played::tunnel, proxy::Proxy, refused,
};

/// moto, asked by names that lead to it through the proxy only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn buckets_are_hosts_in_virtual_style() {
    let at = Addresses::read();
    let proxy = Proxy::before(at.get("moto"));
    let proxy_url = proxy.url(at.get("moto"));
    let style = json!({
        "endpoint": "http://s3.amazonaws.com", "style": "virtual", "proxy": proxy_url,
    });
    let stage = Stage::with("moto", style).await;
    body::round_trip(&stage).await;
    body::ranges(&stage).await;
    body::copies(&stage).await;
    body::deletes(&stage).await;
    body::listings(&stage).await;
    body::uploads(&stage).await;
    // object_store's own client takes the same way.
    let store = stage.backend.bucket_store(&stage.bucket).expect("a bucket");
    let path = object_store::path::Path::from("theirs");
    store.objects.put_opts(&path, "x".into(), Default::default()).await.expect("put");
    let host = format!("http://{}.s3.amazonaws.com/", stage.bucket);
    assert!(proxy.count("PUT", &format!("{host}one")) > 0, "{host}");
    assert!(proxy.count("PUT", &format!("{host}theirs")) > 0, "{host}");
    assert_eq!(proxy.count("", &format!("s3.amazonaws.com/{}", stage.bucket)), 0, "in the path");
    let seen = open(options("moto"), json!({})).objects().expect("objects");
    let name = stage.object("theirs");
    seen.head(&cx(), name, Conditions::default()).await.expect("the same by path style");
}

/// The certificate is for `*.s3.localhost`; each name is asked of a proxy that leads to the store, and the proxy wants a password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn tls_goes_through_a_proxy_to_an_authority_of_one_s_own() {
    let at = Addresses::read();
    let (proxy, seen) = tunnel(at.get("moto_tls"));
    let port = at.get("moto_tls").rsplit(':').next().expect("a port");
    let endpoint = format!("https://s3.localhost:{port}");
    let more = json!({
        "endpoint": endpoint, "ca_file": at.get("ca"),
        "proxy": proxy, "proxy_user": "me", "proxy_password": "s3cr3t", "style": "virtual",
    });
    let stage = Stage::with("moto_tls", more.clone()).await;
    body::round_trip(&stage).await;
    let host = format!("CONNECT {}.s3.localhost:{port} ", stage.bucket);
    // "me:s3cr3t" in base64.
    let password = "Basic bWU6czNjcjN0";
    let seen = seen.lock().expect("seen").clone();
    assert!(seen.iter().any(|line| line.starts_with(&host)), "{seen:?}");
    assert!(seen.iter().all(|line| line.ends_with(password)), "{seen:?}");

    // Without its authority, and by a name that the certificate has not: the cause, and that at once.
    for (more, word) in [
        (json!({"endpoint": endpoint, "ca_file": null}), "UnknownIssuer"),
        (json!({"endpoint": format!("https://else.where:{port}")}), "not valid for name"),
    ] {
        let mut all = options("moto_tls");
        for source in [&json!({"ca_file": at.get("ca"), "proxy": proxy}), &more] {
            for (key, value) in source.as_object().expect("an object") {
                all[key] = value.clone();
            }
        }
        let objects = open(all, json!({})).objects().expect("objects");
        let error = refused(objects.buckets(&cx()).await, ErrorKind::UNAVAILABLE);
        let text = format!("{error:#}");
        assert!(text.contains("certificate") && text.contains(word), "{text}");
        assert!(error.remedy_text().contains("`ca_file`"), "{text}");
    }
}

/// The authority counts for whoever gives out credentials, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn credentials_are_fetched_by_the_same_proxy_and_authority() {
    let at = Addresses::read();
    let (proxy, seen) = tunnel(at.get("moto_tls"));
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "a-token").expect("written");
    let port = at.get("moto_tls").rsplit(':').next().expect("a port");
    let identity = |more: Value| {
        let mut all = json!({
            "kind": "s3", "endpoint": at.get("moto"),
            "sts_endpoint": format!("https://s3.localhost:{port}"), "role_arn": "arn:aws:iam::123456789012:role/r",
            "token_file": token.path(),
        });
        for (key, value) in more.as_object().expect("an object") {
            all[key] = value.clone();
        }
        open(all, json!({}))
    };
    let endpoint = format!("https://localhost:{port}");
    let through = json!({"endpoint": endpoint, "proxy": proxy, "ca_file": at.get("ca")});
    let backend = identity(through.clone());
    backend.objects().expect("objects").buckets(&cx()).await.expect("buckets");
    let seen = seen.lock().expect("seen").clone();
    assert!(seen.iter().any(|line| line.starts_with("CONNECT s3.localhost:")), "{seen:?}");
    let backend = identity(json!({"endpoint": endpoint, "proxy": proxy}));
    let listed = backend.objects().expect("objects").buckets(&cx()).await;
    let error = refused(listed, ErrorKind::UNAVAILABLE);
    let text = format!("{error:#}");
    assert!(text.contains("security token service") && text.contains("certificate"), "{text}");
    assert!(error.remedy_text().contains("`ca_file`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_proxy_that_is_not_there_is_named() {
    let more = json!({"proxy": "http://127.0.0.1:1", "proxy_user": "me", "proxy_password": "s3cr3t", "operation_timeout_secs": 1});
    let backend = open(options("moto"), more);
    let listed = backend.objects().expect("objects").buckets(&cx()).await;
    let text = format!("{:#}", refused(listed, ErrorKind::UNAVAILABLE));
    assert!(text.contains("`proxy`") && !text.contains("s3cr3t"), "{text}");
    let health = backend.health(&cx()).await.expect("health");
    assert_eq!(health.state, HealthState::FAILED);
    assert!(!health.reason.contains("s3cr3t"), "{}", health.reason);
}

/// What the store itself tells of an object, to plain curl.
fn told_of(stage: &Stage, key: &str) -> String {
    let url = format!("{}/{}/{key}", Addresses::read().get("moto"), stage.bucket);
    // moto looks who asks, and at no signature.
    let who = "authorization: AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, \
               SignedHeaders=host, Signature=0";
    let mut command = Command::new("curl");
    let output = command.args(["-sI", "--noproxy", "*", "-H", who, &url]).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn the_store_is_told_to_encrypt_however_an_object_comes() {
    for (more, words) in [
        (
            json!({"server_side_encryption": "AES256"}),
            &["x-amz-server-side-encryption: aes256"][..],
        ),
        (
            json!({"server_side_encryption": "aws:kms", "kms_key_id": "key-7"}),
            &["x-amz-server-side-encryption: aws:kms\r", "aws-kms-key-id: key-7"],
        ),
        (
            json!({"server_side_encryption": "aws:kms:dsse", "kms_key_id": "key-7"}),
            // moto tells no key with it.
            &["x-amz-server-side-encryption: aws:kms:dsse\r"],
        ),
    ] {
        let stage = Stage::with("moto", more).await;
        let object = |key: &str| stage.object(key);
        stage.objects.put(&cx(), object("put"), buf(b"x"), Default::default()).await.expect("put");
        let copied = stage.objects.copy(&cx(), object("put"), object("copy"), Default::default());
        copied.await.expect("copy");
        let upload = stage
            .objects
            .begin_upload(&cx(), object("parts"), Default::default())
            .await
            .expect("an upload");
        let part = stage.objects.put_part(&cx(), upload.clone(), 1, buf(b"part"));
        let parts = [part.await.expect("a part")].into_iter().collect();
        let done = stage.objects.complete_upload(&cx(), upload, parts, Conditions::default());
        done.await.expect("completed");
        for key in ["put", "copy", "parts"] {
            let told = told_of(&stage, key);
            assert!(words.iter().all(|word| told.contains(word)), "{key}: {words:?} {told}");
        }
    }
    let stage = Stage::new("moto").await;
    stage
        .objects
        .put(&cx(), stage.object("put"), buf(b"x"), Default::default())
        .await
        .expect("put");
    assert!(!told_of(&stage, "put").contains("server-side-encryption: aws"), "by itself");
}
