// SPDX-License-Identifier: Apache-2.0
//! Objects as a client of HTTP has them.

use serde_json::{Value, json};

use super::house::{BUCKETS, House, at, content, part};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_survives() {
    let house = House::new().await;
    let keys = [
        "plain",
        "a/b/c",
        "/",
        "//",
        "..",
        "../../etc/passwd",
        ".",
        "a b",
        "a+b",
        "100%",
        "%2F",
        "α/βγ",
        "info",
        "data",
        "?query=1",
        "#part",
        "with\nline",
        "\u{1F980}",
        "trailing/",
    ];
    for (number, key) in keys.iter().enumerate() {
        house.put(&at(key), format!("content {number}")).await.ok();
    }
    let mut expected: Vec<_> = keys.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(house.keys().await, expected);
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(house.get(&at(key)).await.ok().body, format!("content {number}"), "{key:?}");
        let info = house.get(&format!("{}/info", at(key))).await.ok().json();
        assert_eq!(info["key"], *key);
        house.delete(&at(key)).await.ok();
        house.get(&at(key)).await.refused(404, "NotFound");
    }
    house.put(&at(&"k".repeat(1025)), "x").await.refused(400, "InvalidArgument");
    house.put(&format!("{BUCKETS}/box/objects/%FF"), "x").await.refused(400, "InvalidArgument");
    assert!(house.keys().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_around_every_limit_come_back_as_they_were() {
    for without in ["", "stream"] {
        sizes(House::with(json!({ "without": without })).await).await;
    }
}

async fn sizes(house: House) {
    for len in [0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 131_072, 131_073, 1_000_000] {
        let data = content(len);
        let written = house.put(&at("a"), data.clone()).await.ok();
        assert_eq!(written.json()["size"], len, "{len}");
        let read = house.get(&at("a")).await.ok();
        assert_eq!(read.header("content-length"), len.to_string());
        assert_eq!(read.header("etag"), written.header("etag"));
        assert!(read.body == data, "{len} bytes");
        let head = house.send("HEAD", &at("a"), &[], "").await.ok();
        assert_eq!(head.header("content-length"), len.to_string());
    }
    assert_eq!(house.open_uploads().await, 0);
    assert!(house.figure("put_part_total").await > 15, "the larger ones were uploads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_an_object_is_told_again() {
    let house = House::new().await;
    for len in [5, 200_000] {
        let said = [
            ("content-type", "text/plain"),
            ("cache-control", "max-age=9"),
            ("novastor-meta-Colour", "bl%C3%BC, 50%25"),
            ("novastor-meta-empty-not", "x"),
            ("novastor-tags", "team=a%26b&x=1"),
            ("novastor-storage-class", "cold"),
            ("novastor-expire-after", "3600"),
        ];
        house.send("PUT", &at("a"), &said, content(len)).await.ok();
        let read = house.get(&at("a")).await.ok();
        assert_eq!(read.header("content-type"), "text/plain");
        assert_eq!(read.header("cache-control"), "max-age=9");
        assert_eq!(read.header("novastor-meta-colour"), "bl%C3%BC, 50%25");
        assert_eq!(read.header("novastor-storage-class"), "cold");
        assert!(read.header("last-modified").ends_with("GMT"));
        let expires: u64 = read.header("novastor-expires-ms").parse().unwrap();
        assert!(expires > 1_700_000_000_000);
        let info = house.get(&format!("{}/info", at("a"))).await.ok().json();
        assert_eq!(info["metadata"]["colour"], "blü, 50%");
        let tags = house.get(&format!("{}/tags", at("a"))).await.ok().json();
        assert_eq!(tags, json!({ "tags": { "team": "a&b", "x": "1" } }));
    }
    let tags = json!({ "tags": { "y": "ü" } });
    house.put(&format!("{}/tags", at("a")), tags.to_string()).await.ok();
    assert_eq!(house.get(&format!("{}/tags", at("a"))).await.ok().json(), tags);
    let change = json!({ "content_type": "image/png", "metadata": { "Mood": "ok" }, "expire_after_secs": 0 });
    let changed = house.post(&format!("{}/change", at("a")), change).await.ok().json();
    assert_eq!(
        (&changed["content_type"], &changed["metadata"]),
        (&json!("image/png"), &json!({ "mood": "ok" }))
    );
    assert_eq!(changed["expires_ms"], json!(null));
    house.post(&format!("{}/change", at("a")), json!({})).await.refused(400, "InvalidArgument");
    for bad in [("novastor-expire-after", "soon"), ("novastor-mark", "xyz"), ("if-match", "*")] {
        house.send("PUT", &at("b"), &[bad], "x").await.refused(400, "InvalidArgument");
    }
    house.get(&at("b")).await.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_exact() {
    for without in ["", "stream"] {
        exact(House::with(json!({ "without": without })).await).await;
    }
}

async fn exact(house: House) {
    let data = content(100_000);
    house.put(&at("a"), data.clone()).await.ok();
    let range = async |text: &str| house.send("GET", &at("a"), &[("range", text)], "").await;
    for (text, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=16380-16390", 16380, 16390),
        ("bytes=5-99999", 5, 99_999),
        ("bytes=99999-", 99_999, 99_999),
        ("bytes=0-", 0, 99_999),
        ("bytes=99990-200000", 99_990, 99_999),
        ("bytes=-7", 99_993, 99_999),
        ("bytes=-500000", 0, 99_999),
    ] {
        let part = range(text).await;
        assert_eq!(part.status, 206, "{text}");
        assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/100000"));
        assert!(part.body == data[first..=last], "{text}");
    }
    for outside in ["bytes=100000-", "bytes=100000-100001", "bytes=-0"] {
        let refused = range(outside).await;
        refused.refused(416, "OutOfRange");
        assert_eq!(refused.header("content-range"), "bytes */100000", "{outside}");
    }
    for wrong in ["bytes=5-4", "bytes=a-b", "bytes=0-1,3-4"] {
        range(wrong).await.refused(400, "InvalidArgument");
    }
    assert_eq!(range("lines=1-2").await.status, 200);
    let etag = house.get(&at("a")).await.header("etag").to_owned();
    let resumed = [("range", "bytes=5-9"), ("if-range", etag.as_str())];
    assert_eq!(house.send("GET", &at("a"), &resumed, "").await.status, 206);
    for of in ["\"another\"", "Wed, 21 Oct 2026 07:28:00 GMT"] {
        let resumed = [("range", "bytes=5-9"), ("if-range", of)];
        let whole = house.send("GET", &at("a"), &resumed, "").await;
        assert_eq!((whole.status, whole.body.len()), (200, 100_000), "{of}");
    }
    house.put(&at("empty"), "").await.ok();
    let refused = house.send("GET", &at("empty"), &[("range", "bytes=0-")], "").await;
    refused.refused(416, "OutOfRange");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_or_nothing_is_done() {
    let house = House::new().await;
    let only = [("if-none-match", "*")];
    // Small objects are written at once, large ones by an upload; early refusals and late ones are alike.
    for len in [3, 150_000] {
        let (path, data) = (at(&format!("c{len}")), content(len));
        let parts = house.figure("put_part_total").await;
        let first = house.send("PUT", &path, &only, data.clone()).await.ok();
        let etag = first.header("etag").to_owned();
        let again = house.send("PUT", &path, &only, "other").await;
        again.refused(412, "AlreadyExists");
        house
            .send("PUT", &path, &[("if-match", "\"no\"")], data.clone())
            .await
            .refused(412, "Conflict");
        let uploads = house.figure("put_part_total").await - parts;
        assert!(house.get(&path).await.ok().body == data);
        assert_eq!(uploads, if len > 65536 { 3 } else { 0 }, "the refused were not sent");
        house.send("PUT", &path, &[("if-match", &etag)], content(len + 1)).await.ok();
        house.send("PUT", &at("none"), &[("if-match", &etag)], data).await.refused(412, "Conflict");
        for refused in
            [("if-match", etag.as_str()), ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:09 GMT")]
        {
            house.send("GET", &path, &[refused], "").await.refused(412, "Conflict");
            assert_eq!(house.send("HEAD", &path, &[refused], "").await.status, 412);
        }
        house.send("DELETE", &path, &[("if-match", &etag)], "").await.refused(412, "Conflict");
        assert_eq!(house.get(&path).await.ok().body.len(), len + 1);
    }
    assert_eq!(house.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_listed_in_pages_and_under_prefixes() {
    let house = House::new().await;
    for number in 0..25 {
        house.put(&at(&format!("p/{number:02}/x")), "x").await.ok();
        house.put(&at(&format!("q{number:02}")), "x").await.ok();
    }
    let list =
        async |query: &str| house.get(&format!("{BUCKETS}/box/objects?{query}")).await.ok().json();
    let (mut all, mut page, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let listed = list(&format!("limit=7&page={}", part(&page))).await;
        for object in listed["objects"].as_array().unwrap() {
            all.push(object["key"].as_str().unwrap().to_owned());
        }
        pages += 1;
        match listed["next"].as_str() {
            Some(next) => page = next.to_owned(),
            None => break,
        }
    }
    let sorted = {
        let mut sorted = all.clone();
        sorted.sort();
        sorted
    };
    assert_eq!((all.len(), pages, &all), (50, 8, &sorted));
    let listed = list("delimiter=%2F&limit=1000").await;
    assert_eq!(
        (&listed["prefixes"], listed["objects"].as_array().unwrap().len()),
        (&json!(["p/"]), 25)
    );
    let listed = list("prefix=p%2F&delimiter=%2F&limit=10").await;
    assert_eq!(listed["prefixes"].as_array().unwrap().len(), 10);
    let listed = list("after=q23").await;
    assert_eq!(listed["objects"][0]["key"], "q24");
    let accept = [("accept", "application/x-ndjson")];
    for (query, wanted) in [("limit=12", 12), ("", 50), ("after=p%2F05%2Fx", 44)] {
        let at = format!("{BUCKETS}/box/objects?{query}");
        let answer = house.send("GET", &at, &accept, "").await.ok();
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        let text = std::str::from_utf8(&answer.body).unwrap();
        let pages: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, before) = pages.split_last().unwrap();
        assert!(last["next"].is_null() && before.iter().all(|page| page["next"].is_string()));
        let keys = pages.iter().flat_map(|page| page["objects"].as_array().unwrap());
        let keys: Vec<&str> = keys.map(|object| object["key"].as_str().unwrap()).collect();
        let from = if query.starts_with("after") { 6 } else { 0 };
        assert_eq!(keys, all[from..from + wanted], "{query}");
    }
    for wrong in ["limit=0", "after=a&page=b", "colour=1"] {
        let at = format!("{BUCKETS}/box/objects?{wrong}");
        let refused = house.send("GET", &at, &accept, "").await;
        refused.refused(400, "InvalidArgument");
        let refused = house.get(&at).await;
        refused.refused(400, "InvalidArgument");
    }
    house.get(&format!("{BUCKETS}/nobox/objects")).await.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_deleted_with_an_outcome_each() {
    for without in ["", "bulk-delete"] {
        let house = House::with(json!({ "without": without })).await;
        let mut names = Vec::new();
        for number in 0..25 {
            house.put(&at(&format!("k{number}")), "x").await.ok();
            names.push(json!({ "key": format!("k{number}") }));
        }
        names.push(json!({ "key": "never was" }));
        if without.is_empty() {
            house.put(&at("stays"), "x").await.ok();
            names.push(json!({ "key": "stays" }));
        }
        let body = json!({ "delete": names });
        let told = house.post(&format!("{BUCKETS}/box/objects"), body).await.ok().json();
        let outcomes = told["outcomes"].as_array().unwrap();
        assert_eq!(outcomes.len(), names.len());
        for (outcome, name) in outcomes.iter().zip(&names) {
            assert_eq!(outcome["key"], name["key"]);
            assert_eq!(outcome["gone"], name["key"] != "stays", "{outcome}");
        }
        if without.is_empty() {
            assert_eq!(outcomes[26]["kind"], "PermissionDenied");
            assert_eq!(house.keys().await, ["stays"]);
            assert_eq!(house.figure("delete_many_total").await, 3);
        } else {
            assert!(house.keys().await.is_empty());
            assert_eq!(house.figure("delete_total").await, 26);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_and_signed_urls() {
    let house = House::new().await;
    house.post(BUCKETS, json!({ "name": "other" })).await.ok();
    house.send("PUT", &at("a"), &[("content-type", "a/b")], content(99)).await.ok();
    let copy = format!("{}/copy", at("a"));
    let to = json!({ "to_bucket": "other", "to_key": "b c", "create_only": true });
    let made = house.post(&copy, to.clone()).await.ok().json();
    assert_eq!((&made["size"], &made["content_type"]), (&json!(99), &json!("a/b")));
    house.post(&copy, to).await.refused(412, "AlreadyExists");
    let to = json!({ "to_bucket": "other", "to_key": "b c", "source_if_match": "no" });
    house.post(&copy, to).await.refused(412, "Conflict");
    let read = house.get(&format!("{BUCKETS}/other/objects/b%20c")).await.ok();
    assert!(read.body == content(99));

    let sign = format!("{}/sign", at("a"));
    let signed = house.post(&sign, json!({ "method": "PUT", "expire_secs": 60 })).await.ok().json();
    assert_eq!(
        (&signed["url"], &signed["method"]),
        (&json!("memory://box/a?part=0"), &json!("PUT"))
    );
    assert_eq!(signed["headers"]["x-signed"], "yes");
    let part = json!({ "method": "put-part", "expire_secs": 60, "upload": "u", "part": 2 });
    assert_eq!(house.post(&sign, part).await.ok().json()["url"], "memory://box/a?part=2");
    for wrong in [
        json!({ "method": "GET", "expire_secs": 0 }),
        json!({ "method": "GET", "expire_secs": 3601 }),
        json!({ "method": "PATCH", "expire_secs": 5 }),
        json!({ "method": "PUT-PART", "expire_secs": 5 }),
    ] {
        house.post(&sign, wrong).await.refused(400, "InvalidArgument");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_or_a_condition_that_is_empty_is_refused() {
    let house = House::new().await;
    house.put(&at("a"), "content").await.ok();
    house.put(&at("b"), "other").await.ok();
    let a = format!("{}?version=", at("a"));
    house.get(&a).await.refused(400, "InvalidArgument");
    house.delete(&a).await.refused(400, "InvalidArgument");
    let many = json!({ "delete": [{ "key": "a", "version": "" }] });
    house.post(&format!("{BUCKETS}/box/objects"), many).await.refused(400, "InvalidArgument");
    for (field, etag) in [("if_match", ""), ("if_match", "*"), ("source_if_match", "\"\"")] {
        let body = json!({ "to_bucket": "box", "to_key": "b", field: etag });
        let copy = format!("{}/copy", at("a"));
        house.post(&copy, body).await.refused(400, "InvalidArgument");
    }
    assert_eq!(house.get(&at("a")).await.ok().body, "content");
    assert_eq!(house.get(&at("b")).await.ok().body, "other");
}
