// SPDX-License-Identifier: Apache-2.0
//! Jobs that delete many objects.

use serde_json::json;

use super::house::{BUCKETS, House, at};

async fn fill(house: &House, prefix: &str, count: usize) {
    for number in 0..count {
        house.put(&at(&format!("{prefix}{number:03}")), "x").await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_goes_with_what_one_consents_to() {
    let house = House::new().await;
    fill(&house, "a", 120).await;
    house.post(&format!("{BUCKETS}/box/uploads"), json!({ "key": "u" })).await.ok();
    let told = house.delete(&format!("{BUCKETS}/box?objects=true")).await.ok().json();
    let ended = house.ended(&told["job"]).await;
    assert_eq!((&ended["state"], &ended["kind"]), (&json!("failed"), &json!("empty-bucket")));
    assert_eq!(
        (&ended["done"], &ended["total"], &ended["unit"]),
        (&json!(120), &json!(120), &json!("objects"))
    );
    assert_eq!(ended["error"]["kind"], "InUse", "there is an upload");
    assert!(house.keys().await.is_empty());
    assert_eq!(house.open_uploads().await, 1);
    let all = "objects=true&uploads=true&versions=true";
    let told = house.delete(&format!("{BUCKETS}/box?{all}")).await.ok().json();
    let ended = house.ended(&told["job"]).await;
    assert_eq!(ended["state"], "done", "{ended}");
    house.get(&format!("{BUCKETS}/box")).await.refused(404, "NotFound");
    let told = house.delete(&format!("{BUCKETS}/box?{all}")).await;
    told.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_a_prefix_goes_and_nothing_else() {
    let house = House::with(json!({ "without": "list-uploads" })).await;
    fill(&house, "log/", 30).await;
    fill(&house, "logs", 5).await;
    let objects = format!("{BUCKETS}/box/objects");
    house.delete(&objects).await.refused(400, "InvalidArgument");
    let job = house.delete(&format!("{objects}?prefix=log%2F&uploads=true")).await.ok().json();
    let ended = house.ended(&job).await;
    assert_eq!((&ended["state"], &ended["done"]), (&json!("done"), &json!(30)), "{ended}");
    assert_eq!(house.keys().await.len(), 5);
    let job = house.delete(&format!("{objects}?prefix=")).await.ok().json();
    assert_eq!(house.ended(&job).await["state"], "done");
    assert!(house.keys().await.is_empty());
    house.get(&format!("{BUCKETS}/box")).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_failed_is_resumed_with_what_is_left() {
    let house = House::new().await;
    fill(&house, "a", 30).await;
    fill(&house, "stays", 1).await;
    let told = house.delete(&format!("{BUCKETS}/box?objects=true")).await.ok().json();
    let ended = house.ended(&told["job"]).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["error"]["kind"], "PermissionDenied", "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains("it stays"), "{ended}");
    assert_eq!(house.keys().await, ["stays000"]);
    house.delete(&at("stays000")).await.ok();
    let resume = format!("/v1/jobs/{}/resume", told["job"]["id"]);
    let ended = house.ended(&house.post(&resume, json!({})).await.ok().json()).await;
    assert_eq!(ended["state"], "done", "{ended}");
    house.post(&resume, json!({})).await.refused(400, "InvalidArgument");
    house.get(&format!("{BUCKETS}/box")).await.refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_cancelled_and_resumed_by_another_life_of_the_host() {
    let mut house = House::with(json!({ "max_page": 5 })).await;
    fill(&house, "a", 60).await;
    house.fault(json!({ "call": "delete_many", "wait_ms": 50, "times": 1000 })).await;
    let told = house.delete(&format!("{BUCKETS}/box?objects=true")).await.ok().json();
    let id = &told["job"]["id"];
    house.post(&format!("/v1/jobs/{id}/cancel"), json!({})).await.ok();
    let ended = house.ended(&told["job"]).await;
    assert_eq!(ended["state"], "cancelled", "{ended}");
    let left = house.keys().await.len();
    assert!(left > 0, "it was cancelled before its end");
    house.restart().await;
    let ended = house
        .ended(&house.post(&format!("/v1/jobs/{id}/resume"), json!({})).await.ok().json())
        .await;
    assert_eq!((&ended["state"], &ended["done"]), (&json!("done"), &json!(60)), "{ended}");
}
