// SPDX-License-Identifier: Apache-2.0
use http::{HeaderMap, Method, Request, header::AUTHORIZATION};
use object_store::client::HttpRequestBody;
use serde_json::{Value, json};

use super::*;

fn account(options: Value) -> Account {
    Account::new(serde_json::from_value(options).expect("options")).expect("an account")
}

fn s3(more: Value) -> Account {
    let mut options = json!({"kind": "s3", "access_key": "a", "secret_key": "b", "endpoint": "http://host:9000/"});
    for (key, value) in more.as_object().expect("an object") {
        options[key] = value.clone();
    }
    account(options)
}

#[test]
fn urls_are_made_of_names_and_queries() {
    let query = [("prefix".to_owned(), "a/b c".to_owned()), ("delete".to_owned(), String::new())];
    let path = s3(json!({}));
    let host = s3(json!({"style": "virtual", "endpoint": "http://host:9000"}));
    for (account, bucket, key, query, expected) in [
        (&path, "", "", &query[..0], "http://host:9000/"),
        (&path, "bucket", "", &query[..0], "http://host:9000/bucket"),
        (&path, "bucket", "a/b c+ü?", &query[..0], "http://host:9000/bucket/a/b%20c%2B%C3%BC%3F"),
        (&path, "bucket", "//x", &query[..0], "http://host:9000/bucket///x"),
        (&path, "bucket", "", &query[..], "http://host:9000/bucket?prefix=a%2Fb%20c&delete="),
        (&host, "", "", &query[..0], "http://host:9000/"),
        (&host, "bucket", "", &query[..1], "http://bucket.host:9000/?prefix=a%2Fb%20c"),
        (&host, "bucket", "a/b", &query[..0], "http://bucket.host:9000/a/b"),
    ] {
        assert_eq!(account.url(bucket, key, query).expect("a URL").to_string(), expected);
    }
    let azure =
        account(json!({"kind": "azure", "emulator": true, "endpoint": "http://127.0.0.1:10000"}));
    let url = azure.url("container", "blob", &[]).expect("a URL");
    assert_eq!(url.to_string(), "http://127.0.0.1:10000/devstoreaccount1/container/blob");
}

#[tokio::test]
async fn requests_are_signed_as_whom_the_options_say() {
    let signed = |account: Account| async move {
        let mut request = Request::new(HttpRequestBody::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = account.url("bucket", "key", &[]).expect("a URL");
        account.authorize(&mut request).await.expect("signed");
        request.headers().clone()
    };
    let shown = |headers: &HeaderMap| {
        headers.get(AUTHORIZATION).map(|value| value.to_str().expect("text").to_owned())
    };
    let headers = signed(s3(json!({"region": "eu-1", "session_token": "t"}))).await;
    let text = shown(&headers).expect("a signature");
    assert!(
        text.starts_with("AWS4-HMAC-SHA256 Credential=a/") && text.contains("/eu-1/s3/"),
        "{text}"
    );
    assert_eq!(headers["x-amz-security-token"], "t");
    let headers = signed(account(json!({"kind": "s3", "credentials": "none"}))).await;
    assert_eq!(shown(&headers), None);
    let headers =
        signed(account(json!({"kind": "azure", "account": "me", "account_key": "a2V5"}))).await;
    assert!(shown(&headers).expect("a signature").starts_with("SharedKey me:"));
}

#[test]
fn encryption_is_in_headers() {
    let key = BASE64.encode([7; 32]);
    let account = s3(json!({"sse_customer_key": key}));
    let names: Vec<&str> = account.customer.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "x-amz-server-side-encryption-customer-algorithm",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-server-side-encryption-customer-key-md5",
        ]
    );
    assert!(account.encrypt.is_empty() && !format!("{:?}", account.customer).contains(&key));
    let account = s3(json!({"server_side_encryption": "aws:kms", "kms_key_id": "k"}));
    assert_eq!(account.encrypt.len(), 2);
    assert_eq!(account.encrypt[0].1, "aws:kms");
}

#[test]
fn a_buckets_store_is_made_once() {
    for account in [
        s3(json!({})),
        account(json!({"kind": "azure", "emulator": true})),
        account(
            json!({"kind": "swift", "auth": "v1", "auth_url": "http://h/auth/v1.0", "user": "u", "password": "p"}),
        ),
    ] {
        let (one, same) = (
            account.bucket_store("one").expect("a store"),
            account.bucket_store("one").expect("it"),
        );
        let other = account.bucket_store("other").expect("a store");
        assert!(
            Arc::ptr_eq(&one.objects, &same.objects) && !Arc::ptr_eq(&one.objects, &other.objects)
        );
    }
}

#[test]
fn a_file_that_is_no_certificate_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "nothing").expect("written");
    for path in [file.path().to_str().expect("a path"), "/no/such/file"] {
        let options = json!({"kind": "s3", "access_key": "a", "secret_key": "b", "ca_file": path});
        let error =
            Account::new(serde_json::from_value(options).expect("options")).expect_err("refused");
        assert!(error.message().contains("ca_file"), "{error:#}");
    }
}
