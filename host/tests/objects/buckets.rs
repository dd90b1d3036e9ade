// SPDX-License-Identifier: Apache-2.0
use serde_json::json;

use super::house::{BUCKETS, House, at};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_are_made_shown_listed_and_deleted() {
    let house = House::new().await;
    let made = house.post(BUCKETS, json!({ "name": "other", "region": "here" })).await.ok().json();
    assert_eq!((&made["name"], &made["versioning"]), (&json!("other"), &json!("off")));
    assert_eq!(made["objects"], json!(null), "the store did not say");
    let listed = house.get(BUCKETS).await.ok().json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["box", "other"]);
    house.put(&at("a"), "12345").await.ok();
    let shown = house.get(&format!("{BUCKETS}/box")).await.ok().json();
    assert_eq!((&shown["objects"], &shown["bytes"]), (&json!(1), &json!(5)));
    house.delete(&format!("{BUCKETS}/other")).await.ok();
    house.get(&format!("{BUCKETS}/other")).await.refused(404, "NotFound");
    let text = house.delete(&format!("{BUCKETS}/box")).await.refused(409, "InUse");
    assert!(text.contains("objects=true"), "{text}");
    house.post(BUCKETS, json!({ "name": "no" })).await.refused(400, "InvalidArgument");
    house.post(BUCKETS, json!({ "name": "x", "colour": 1 })).await.refused(400, "InvalidArgument");
    house.delete(&format!("{BUCKETS}/box?everything=1")).await.refused(400, "InvalidArgument");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_and_rules_are_kept() {
    let house = House::new().await;
    let policy = format!("{BUCKETS}/box/policy");
    let text = house.get(&policy).await.refused(404, "NotFound");
    assert!(text.contains("policy set box"), "{text}");
    house.put(&policy, "").await.refused(400, "InvalidArgument");
    house.put(&policy, r#"{"Version": "α"}"#).await.ok();
    assert_eq!(house.get(&policy).await.ok().body, r#"{"Version": "α"}"#);
    house.delete(&policy).await.ok();
    house.get(&policy).await.refused(404, "NotFound");

    let lifecycle = format!("{BUCKETS}/box/lifecycle");
    assert_eq!(house.get(&lifecycle).await.ok().json(), json!({ "rules": [] }));
    let rules = json!({ "rules": [
        { "id": "old", "enabled": true, "prefix": "log/", "expire_days": 3 },
        { "id": "cold", "enabled": false, "prefix": "", "transition_days": 9, "transition_class": "ice" },
    ] });
    house.put(&lifecycle, rules.to_string()).await.ok();
    assert_eq!(house.get(&lifecycle).await.ok().json(), rules);
    let idle = json!({ "rules": [{ "id": "idle" }] });
    house.put(&lifecycle, idle.to_string()).await.refused(400, "InvalidArgument");
    assert_eq!(house.get(&lifecycle).await.ok().json(), rules, "a bad rule changed nothing");
    house.put(&lifecycle, json!({ "rules": [] }).to_string()).await.refused(400, "InvalidArgument");
    house.delete(&lifecycle).await.ok();
    assert_eq!(house.get(&lifecycle).await.ok().json(), json!({ "rules": [] }));
    let versioning = format!("{BUCKETS}/box/versioning");
    house.put(&versioning, json!({ "on": true }).to_string()).await.refused(501, "Unsupported");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_has_objects_or_volumes_or_says_which() {
    let house = House::new().await;
    let features = house.get("/v1/backends/-/object-features").await.ok().json();
    assert_eq!((&features["backend"], &features["kind"]), (&json!("o"), &json!("memory")));
    assert_eq!(features["max_piece"], 16384);
    let abilities = features["abilities"].as_array().unwrap();
    assert!(abilities.contains(&json!("create-only")) && !abilities.contains(&json!("versioning")));
    let text = house.get("/v1/backends/f/buckets").await.refused(501, "Unsupported");
    assert!(text.contains("volumes, and no objects"), "{text}");
    house.get("/v1/backends/x/buckets").await.refused(404, "NotFound");

    let volume = json!({ "name": "v", "size": 1 << 20 });
    let text = house.post("/v1/volumes", volume).await.refused(501, "Unsupported");
    assert!(text.contains("`o` has objects, and no volumes"), "{text}");
    let volume = json!({ "name": "v", "size": 1 << 20, "backend": "f" });
    house.post("/v1/volumes", volume).await.ok();
    let listed = house.get("/v1/volumes?all=true").await;
    assert!(listed.status == 200 || listed.status == 400, "{listed:?}");
    let listed = house.get("/v1/volumes").await.ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let shown = house.get("/v1/backends/o").await.ok().json();
    assert_eq!((&shown["state"], &shown["abilities"][1]), (&json!("healthy"), &json!("objects")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_store_is_found_and_two_must_be_told_apart() {
    let none = House::of(&[("f", "faulty", json!({}))]).await;
    let text = none.get("/v1/backends/-/buckets").await.refused(400, "InvalidArgument");
    assert!(text.contains("no backend has objects"), "{text}");
    let two = House::of(&[("o", "objects", json!({})), ("p", "objects", json!({}))]).await;
    let text = two.get("/v1/backends/-/buckets").await.refused(400, "InvalidArgument");
    assert!(text.contains("o, p"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_measured() {
    let house = House::new().await;
    house.put(&at("a"), "123").await.ok();
    house.put(&at("a"), "1234").await.ok();
    let metrics = house.get("/v1/metrics").await.ok().body;
    let text = String::from_utf8(metrics.to_vec()).unwrap();
    let labels = r#"{backend="o",driver="objects"}"#;
    for line in ["backend_put_total", "backend_up", "backend_used_bytes"].map(|name| {
        let value = if name.ends_with("up") {
            1
        } else if name.contains("put") {
            2
        } else {
            4
        };
        format!("novastor_{name}{labels} {value}")
    }) {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}
