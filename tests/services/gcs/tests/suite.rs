// SPDX-License-Identifier: Apache-2.0
//! object_store's own suite for stores, through its client of Google Cloud Storage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod fixture;

use std::time::Duration;

use fixture::{BUCKET, Fixture};
use http::Method;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::integration::*;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, ObjectStoreExt, PutPayload};

fn store_of(fixture: &Fixture, bucket: &str) -> GoogleCloudStorage {
    GoogleCloudStorageBuilder::new()
        .with_service_account_key(fixture.account.to_string())
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .build()
        .unwrap()
}

/// Plays one function of the suite with a bucket of its own.
macro_rules! play {
    ($name:ident, |$store:ident| $body:expr) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let fixture = Fixture::start().await;
            let $store = store_of(&fixture, BUCKET);
            $body
        }
    };
}

play!(objects_are_put_got_listed_and_deleted, |store| put_get_delete_list(&store).await);
play!(attributes_come_back, |store| put_get_attributes(&store).await);
play!(writes_have_conditions, |store| put_opts(&store, true).await);
play!(objects_are_streamed, |store| stream_get(&store).await);
play!(directories_are_seen_as_such, |store| list_uses_directories_correctly(&store).await);
play!(listings_have_delimiters, |store| list_with_delimiter(&store).await);
play!(listings_have_offsets, |store| list_with_offset_exclusivity(&store).await);
play!(listings_have_pages, |store| list_paginated(&store, &store).await);
play!(objects_are_renamed_and_copied, |store| rename_and_copy(&store).await);
play!(copies_can_refuse_to_overwrite, |store| copy_if_not_exists(&store).await);
play!(what_is_not_there_cannot_be_copied, |store| copy_rename_nonexistent_object(&store).await);
play!(parts_make_an_object, |store| multipart(&store, &store).await);
play!(parts_make_an_object_with_attributes, |store| multipart_with_opts(&store, &store).await);
play!(parts_come_in_any_order, |store| {
    multipart_put_part_out_of_order(&store, &store).await;
    multipart_out_of_order(&store).await;
});
play!(the_last_of_two_uploads_wins, |store| multipart_race_condition(&store, true).await);

#[tokio::test(flavor = "multi_thread")]
async fn reads_have_conditions_ranges_and_generations() {
    let fixture = Fixture::start().await;
    // The suite reads a generation that it has replaced.
    let change = serde_json::json!({ "versioning": { "enabled": true } });
    let (status, said) =
        fixture.json("PATCH", &format!("/storage/v1/b/{BUCKET}"), Some(change)).await;
    assert_eq!(status, 200, "{said}");
    get_opts(&store_of(&fixture, BUCKET)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told() {
    let fixture = Fixture::start().await;
    for bucket in [BUCKET, "nowhere"] {
        let store = store_of(&fixture, bucket);
        let location = Path::from("nothing");
        let error = get_nonexistent_object(&store, Some(location.clone())).await.unwrap_err();
        assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
        let error = store.delete(&location).await.unwrap_err();
        assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
    }
    let error = store_of(&fixture, "nowhere")
        .put(&Path::from("a"), PutPayload::from("a"))
        .await
        .unwrap_err();
    assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_urls_let_strangers_in_until_they_are_tampered_with() {
    let fixture = Fixture::start().await;
    let store = store_of(&fixture, BUCKET);
    let path = Path::from("a folder/what is signed");
    let hour = Duration::from_secs(3600);
    let send = |method: Method, url: url::Url, body: &'static str| {
        // The client signs the public name of the service, whatever address it was given.
        let request =
            fixture.client.request(method, url).header("Host", "storage.googleapis.com").body(body);
        async move { request.send().await.unwrap() }
    };
    let put = store.signed_url(Method::PUT, &path, hour).await.unwrap();
    assert_eq!(send(Method::PUT, put.clone(), "data").await.status(), 200);
    let get = store.signed_url(Method::GET, &path, hour).await.unwrap();
    let answer = send(Method::GET, get.clone(), "").await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "data"));
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "data");

    for (what, method, url) in [
        ("another method", Method::DELETE, get.to_string()),
        ("another object", Method::GET, get.as_str().replace("signed?", "meant?")),
        ("another parameter", Method::GET, format!("{get}&generation=1")),
        ("a longer life", Method::GET, get.as_str().replace("Expires=3600", "Expires=3601")),
        (
            "another signature",
            Method::GET,
            get.as_str().replace("Goog-Signature=", "Goog-Signature=00"),
        ),
    ] {
        let answer = send(method, url.parse().unwrap(), "").await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 403, "{what}: {text}");
        assert!(text.contains("<Code>SignatureDoesNotMatch</Code>"), "{what}: {text}");
    }
    let answer = fixture.client.get(get).send().await.unwrap();
    assert_eq!(answer.status(), 403, "the host that was signed is another");
    let brief = store.signed_url(Method::GET, &path, Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let answer = send(Method::GET, brief, "").await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("<Code>ExpiredToken</Code>"));
}
