// SPDX-License-Identifier: Apache-2.0
//! Verify and repair as jobs: what they find, how they end, how they go on.

use std::time::Duration;

use driver_api::{ErrorKind, OpContext};
use novastor::{
    jobs::{JobState, JobView},
    volumes::Access,
};
use serde_json::json;

use super::house::{Ground, House, MIB, mirrored, new, start};

async fn repaired_bytes(house: &House) -> u64 {
    let stats = house.ground.backend("m").stats().unwrap();
    let named = stats.metrics.iter().find(|metric| metric.name == "repaired_bytes_total");
    named.expect("the counter").value as u64
}

/// Waits until a walk is past `place`.
async fn past(house: &House, job: &JobView, place: u64) -> JobView {
    for _ in 0..1000 {
        let now = house.jobs.show(job.id).await.unwrap();
        if now.done > place {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the walk does not get past {place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_replicas_are_found_equal() {
    let house = mirrored(json!({ "shard_size": 3 * MIB / 2 })).await;
    house.volumes.create(new("a", 7 * MIB / 2)).await.unwrap();
    let text = house.say(&["volume", "verify", "a"]).await;
    assert!(text.contains("done: 3.5 MiB compared, none differ"), "{text}");
    let job = house.json(&["volume", "verify", "a"]).await;
    assert_eq!((&job["kind"], &job["state"]), (&json!("verify"), &json!("done")));
    assert_eq!(job["walk"]["next"], 7 * MIB / 2);
    assert_eq!(house.json(&["volume", "replicas", "a"]).await["state"], "detached", "given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_named_and_the_exit_code_is_corrupted() {
    let house = mirrored(json!({ "shard_size": 8 * MIB })).await;
    house.volumes.create(new("a", 8 * MIB)).await.unwrap();
    // Two pieces side by side, alike; one alone, of another node.
    house.ground.damage("a", "n2", 3 * MIB + 5, MIB).await;
    house.ground.damage("a", "n3", 6 * MIB, 1).await;
    let (code, text) = house.refuse(&["volume", "verify", "a"]).await;
    assert_eq!(code, 12, "Corrupted: {text}");
    assert!(text.contains("2 ranges, 3 MiB in all; the first: 2 MiB at 3145728"), "{text}");
    assert!(text.contains("try: novastor volume repair a --source NODE"), "{text}");
    let job = house.jobs.list().await.unwrap().remove(0);
    assert_eq!(job.record.state, JobState::Failed);
    let walk = job.record.walk.unwrap();
    assert_eq!((walk.differing, walk.compared, walk.repaired), (3 * MIB, 8 * MIB, 0));
    let ranges: Vec<_> =
        walk.ranges.iter().map(|range| (range.offset, range.len, range.nodes.join(","))).collect();
    let both = [(3 * MIB, 2 * MIB, "n2".to_owned()), (6 * MIB, MIB, "n3".to_owned())];
    assert_eq!(ranges, both);
    let card = house.say(&["job", "show", &job.id.to_string()]).await;
    assert!(card.contains("differs") && card.contains("1 MiB at 6291456"), "{card}");
    assert_eq!(repaired_bytes(&house).await, 0, "a verify changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_changes_only_what_differs_and_believes_its_source() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", 4 * MIB)).await.unwrap();
    let data = vec![9; 4 * MIB as usize];
    assert!(house.novastor(&["volume", "write", "a"], &data).await.status.success());
    // The wrong one is the first of its shard: what most reads see.
    house.ground.damage("a", "n2", MIB, 100).await;
    let wrong = house.novastor(&["volume", "read", "a"], b"").await.stdout;
    assert_ne!(wrong, data, "the damage shows");
    let text = house.say(&["volume", "repair", "a", "--source", "n1"]).await;
    assert!(text.contains("1 MiB repaired, none differ"), "{text}");
    assert_eq!(repaired_bytes(&house).await, MIB);
    assert_eq!(house.novastor(&["volume", "read", "a"], b"").await.stdout, data);
    house.say(&["volume", "verify", "a"]).await;
    house.say(&["volume", "repair", "a", "--source", "n1"]).await;
    assert_eq!(repaired_bytes(&house).await, MIB, "there was nothing left to repair");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_does_not_hold_a_range_leaves_it_and_says_so() {
    let house = mirrored(json!({ "nodes": "n1,n2,n3,n4", "factor": 2 })).await;
    house.volumes.create(new("a", 4 * MIB)).await.unwrap();
    house.ground.damage("a", "n1", 0, 1).await;
    house.ground.damage("a", "n3", 2 * MIB, 1).await;
    let (code, text) = house.refuse(&["volume", "repair", "a", "--source", "n2"]).await;
    assert_eq!(code, 12, "{text}");
    assert!(text.contains("1 range, 1 MiB") && text.contains("another --source"), "{text}");
    assert_eq!(repaired_bytes(&house).await, MIB, "the range that it holds");
    house.say(&["volume", "repair", "a", "--source", "n4"]).await;
    house.say(&["volume", "verify", "a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_in_sync_is_left_out_and_no_source() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", 2 * MIB)).await.unwrap();
    house.ground.damage("a", "n3", 0, 1).await;
    house.ground.put("a", "n3", 2).await;
    let text = house.say(&["volume", "verify", "a"]).await;
    assert!(text.contains("not in sync, and left out: n3"), "{text}");
    let (code, text) = house.refuse(&["volume", "repair", "a", "--source", "n3"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("is stale") && text.contains("n1, n2"), "{text}");
    let (code, text) = house.refuse(&["volume", "repair", "a", "--source", "n9"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no replica on `n9`"), "{text}");
    assert_eq!(house.jobs.list().await.unwrap().len(), 1, "refused before a job began");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_walk_goes_on_where_it_was() {
    let house = mirrored(json!({ "verify_ms": 20 })).await;
    house.volumes.create(new("a", 32 * MIB)).await.unwrap();
    house.ground.damage("a", "n2", 0, 1).await;
    house.ground.damage("a", "n2", 30 * MIB, 1).await;
    let job = house.replicas.verify("a").await.unwrap();
    past(&house, &job, 2 * MIB).await;
    let in_use = house.volumes.delete("a", false).await.unwrap_err();
    assert!(in_use.message().contains(&format!("job {}", job.id)), "{in_use}");
    let running = house.replicas.resume(job.id).await.unwrap_err();
    assert_eq!(running.kind(), ErrorKind::IN_USE);
    house.jobs.cancel(job.id).await.unwrap();
    let ended = house.end(job.clone()).await;
    assert_eq!(ended.record.state, JobState::Cancelled);
    let place = ended.record.walk.unwrap().next;
    assert!((3 * MIB..30 * MIB).contains(&place), "{place}");

    // What the first half has seen is not looked at again.
    house.ground.damage("a", "n3", 0, 1).await;
    let (code, text) = house.refuse(&["job", "resume", &job.id.to_string()]).await;
    assert_eq!(code, 12, "{text}");
    let ended = house.jobs.show(job.id).await.unwrap();
    let walk = ended.record.walk.unwrap();
    let ranges: Vec<_> =
        walk.ranges.iter().map(|range| (range.offset, range.nodes.join(","))).collect();
    assert_eq!(ranges, [(0, "n2".to_owned()), (30 * MIB, "n2".to_owned())]);
    assert_eq!(walk.compared, 32 * MIB, "each piece once");
    let over = house.replicas.resume(job.id).await.unwrap_err();
    assert_eq!(over.kind(), ErrorKind::INVALID_ARGUMENT);
    assert_eq!(over.remedy_text(), "novastor volume verify a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_that_failed_can_be_resumed() {
    let house = mirrored(json!({ "verify_ms": 5 })).await;
    house.volumes.create(new("a", 16 * MIB)).await.unwrap();
    let job = house.replicas.verify("a").await.unwrap();
    past(&house, &job, 2 * MIB).await;
    for node in ["n1", "n2", "n3"] {
        house.ground.put("a", node, 1).await;
    }
    let ended = house.end(job.clone()).await;
    assert_eq!(ended.record.error.unwrap().code, ErrorKind::UNAVAILABLE.code());
    for node in ["n1", "n2", "n3"] {
        house.ground.put("a", node, 0).await;
    }
    let text = house.say(&["job", "resume", &job.id.to_string()]).await;
    // While one node after the other left, pieces may have been compared on those that were left.
    assert!(text.contains("none differ"), "{text}");
    let job = house.jobs.show(job.id).await.unwrap();
    assert_eq!((job.record.state, job.record.error), (JobState::Done, None));
    assert_eq!(job.record.walk.unwrap().next, 16 * MIB);
}

#[test]
fn an_interrupted_walk_goes_on_after_a_restart() {
    let options = json!({ "nodes": "n1,n2,n3", "verify_ms": 50 });
    let ground = Ground::new(&[("m", "mirror", options)]);
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let first = runtime();
    let id = first.block_on(async {
        let house = start(&ground).await;
        house.volumes.create(new("a", 60 * MIB)).await.unwrap();
        house.ground.damage("a", "n3", 0, 1).await;
        let job = house.replicas.verify("a").await.unwrap();
        // Its place is noted every second.
        tokio::time::sleep(Duration::from_millis(1600)).await;
        past(&house, &job, 0).await;
        job.id
    });
    first.shutdown_background();
    runtime().block_on(async {
        let house = start(&ground).await;
        house.ground.run("m", "free", json!({ "volume": "a" })).await;
        let found = house.jobs.show(id).await.unwrap();
        assert_eq!(found.record.state, JobState::Interrupted);
        let walk = found.record.walk.unwrap();
        assert!(walk.next >= 4 * MIB, "{walk:?}");
        assert_eq!(walk.differing, MIB);
        let resumed = house.replicas.resume(id).await.unwrap();
        assert!(resumed.done >= 4 * MIB, "{resumed:?}");
        let ended = house.end(resumed).await;
        assert_eq!(ended.record.state, JobState::Failed, "the first half's difference counts");
        let walk = ended.record.walk.unwrap();
        assert_eq!((walk.next, walk.compared, walk.differing), (60 * MIB, 60 * MIB, MIB));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_jobs_are_not_resumed() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", MIB)).await.unwrap();
    let image = tempfile::tempdir().unwrap();
    let file = image.path().join("a.raw");
    house.say(&["volume", "export", "a", file.to_str().unwrap()]).await;
    let (code, text) = house.refuse(&["job", "resume", "1"]).await;
    assert_eq!(code, 14, "{text}");
    assert_eq!(house.refuse(&["job", "resume", "99"]).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_attached_read_only_is_verified_and_not_repaired() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", MIB)).await.unwrap();
    let reader = house.volumes.acquire("a", Access::Read, "a reader").await.unwrap();
    house.say(&["volume", "verify", "a"]).await;
    let (code, text) = house.refuse(&["volume", "repair", "a", "--source", "n1"]).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("a reader"), "{text}");
    reader.volume().read(&OpContext::new(), 0, 512).await.unwrap();
    house.volumes.release(reader).await.unwrap();
}
