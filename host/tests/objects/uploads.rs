// SPDX-License-Identifier: Apache-2.0
//! Uploads that a client steers.

use serde_json::{Value, json};

use super::house::{BUCKETS, House, at, content, part};

async fn begin(house: &House, key: &str, mark: &str) -> (String, String) {
    let body = json!({ "key": key, "content_type": "a/b", "mark": mark, "tags": { "t": "1" } });
    let begun = house.post(&format!("{BUCKETS}/box/uploads"), body).await.ok().json();
    assert_eq!((&begun["bucket"], &begun["key"]), (&json!("box"), &json!(key)));
    let id = begun["id"].as_str().unwrap();
    let base = format!("{BUCKETS}/box/uploads/{}", part(id));
    (base, format!("key={}&mark={mark}", part(key)))
}

async fn put(house: &House, upload: &(String, String), number: u32, data: Vec<u8>) -> Value {
    let path = format!("{}/parts/{number}?{}", upload.0, upload.1);
    let put = house.put(&path, data).await.ok();
    let told = put.json();
    assert_eq!(put.header("etag"), format!("\"{}\"", told["etag"].as_str().unwrap()));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_in_any_order_become_one_object() {
    let house = House::new().await;
    let upload = begin(&house, "a/b", "0f").await;
    let second = put(&house, &upload, 7, content(2000)).await;
    put(&house, &upload, 2, content(10)).await;
    let first = put(&house, &upload, 2, content(1024)).await;
    let listed = house.get(&format!("{}?{}&limit=1", upload.0, upload.1)).await.ok().json();
    assert_eq!(listed, json!({ "parts": [first], "more": true }));
    let listed = house.get(&format!("{}?{}&after=2", upload.0, upload.1)).await.ok().json();
    assert_eq!(listed, json!({ "parts": [second], "more": false }));
    let uploads = house.get(&format!("{BUCKETS}/box/uploads?prefix=a")).await.ok().json();
    assert_eq!(uploads["uploads"][0]["key"], "a/b");
    // An empty page with more behind it would be asked for again and again.
    for path in [format!("{}?{}", upload.0, upload.1), format!("{BUCKETS}/box/uploads?prefix=a")] {
        house.get(&format!("{path}&limit=0")).await.refused(400, "InvalidArgument");
    }
    house.get(&at("a/b")).await.refused(404, "NotFound");

    let complete = format!("{}/complete?{}", upload.0, upload.1);
    let wrong = json!({ "parts": [second, first] });
    house.post(&complete, wrong).await.refused(400, "InvalidArgument");
    let parts = json!({ "parts": [first, second] });
    let done = house.post(&complete, parts.clone()).await.ok();
    let again = house.post(&complete, parts).await.ok();
    assert_eq!(done.header("etag"), again.header("etag"), "said again");
    let read = house.get(&at("a/b")).await.ok();
    assert_eq!(read.header("content-type"), "a/b");
    assert!(read.body == [content(1024), content(2000)].concat());
    assert_eq!(house.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_belong_to_the_completion() {
    let house = House::new().await;
    let upload = begin(&house, "a", "").await;
    let part = put(&house, &upload, 1, content(5)).await;
    house.put(&at("a"), "first").await.ok();
    let complete = format!("{}/complete?{}", upload.0, upload.1);
    let body = json!({ "parts": [part] }).to_string();
    let only = [("if-none-match", "*")];
    house.send("POST", &complete, &only, body.clone()).await.refused(412, "AlreadyExists");
    assert_eq!(house.get(&at("a")).await.ok().body, "first");
    assert_eq!(house.open_uploads().await, 1, "the client decides what becomes of it");
    let etag = house.get(&at("a")).await.header("etag").to_owned();
    house.send("POST", &complete, &[("if-match", etag.as_str())], body).await.ok();
    assert!(house.get(&at("a")).await.ok().body == content(5));
}

/// What the completion would refuse is refused at the begin, and before the host makes an upload of a long body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_that_would_be_ignored_begins_nothing() {
    for option in ["without", "late"] {
        let house = House::with(json!({ option: "update-complete" })).await;
        let body = json!({ "key": "a" }).to_string();
        let begin = async |header: (&str, &str)| {
            let headers = [header, ("content-type", "application/json")];
            house.send("POST", &format!("{BUCKETS}/box/uploads"), &headers, body.clone()).await
        };
        begin(("if-match", "\"e\"")).await.refused(501, "Unsupported");
        let put = house.send("PUT", &at("a"), &[("if-none-match", "*")], content(200_000)).await;
        let etag = put.ok().header("etag").to_owned();
        let sent = house.figure("put_part_total").await;
        let put = house.send("PUT", &at("a"), &[("if-match", &etag)], content(200_000)).await;
        put.refused(501, "Unsupported");
        assert_eq!(house.figure("put_part_total").await, sent, "nothing was sent");
        assert_eq!(house.open_uploads().await, 0);
        begin(("if-none-match", "*")).await.ok();
        assert_eq!(house.open_uploads().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_given_up_and_bad_parts_are_refused() {
    let house = House::new().await;
    let upload = begin(&house, "a", "").await;
    for (number, len) in [(0, 5), (1001, 5), (1, 65537)] {
        let path = format!("{}/parts/{number}?{}", upload.0, upload.1);
        house.put(&path, content(len)).await.refused(400, "InvalidArgument");
    }
    let path = format!("{}/parts/x?{}", upload.0, upload.1);
    house.put(&path, content(1)).await.refused(400, "InvalidArgument");
    let abort = format!("{}?{}", upload.0, upload.1);
    house.delete(&abort).await.ok();
    house.delete(&abort).await.ok();
    let path = format!("{}/parts/1?{}", upload.0, upload.1);
    house.put(&path, content(5)).await.refused(404, "NotFound");
    house.get(&abort).await.refused(404, "NotFound");
    assert_eq!(house.open_uploads().await, 0);
}
