// SPDX-License-Identifier: Apache-2.0
//! Replicas and shards of a volume, and bytes of one shard.

use std::time::Duration;

use driver_api::{ErrorKind, OpContext};
use novastor::{
    api::types::{ReplicationView, ShardView},
    cli::Client,
    volumes::Access,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::house::{MIB, mirrored, new};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_and_shards_are_shown() {
    let house = mirrored(json!({ "nodes": "n1,n2,n3,n4" })).await;
    house.volumes.create(new("a", 5 * MIB / 2)).await.unwrap();
    house.ground.put("a", "n2", 2).await;
    let text = house.say(&["volume", "replicas", "a"]).await;
    for word in ["detached", "3 of 1 MiB", "NODE", "in-sync", "stale", "a.n2", "it was told to be"]
    {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    let json = house.json(&["volume", "replicas", "a"]).await;
    assert_eq!(json["replicas"][1]["state"], "stale");
    house.volumes.attach("a", false, false).await.unwrap();
    assert_eq!(house.json(&["volume", "replicas", "a"]).await["state"], "serving");

    let shards = house.json(&["volume", "shards", "a"]).await;
    assert_eq!(shards.as_array().unwrap().len(), 3);
    assert_eq!(
        shards[2],
        json!({ "index": 2, "offset": 2 * MIB, "len": MIB / 2, "nodes": ["n3", "n4", "n1"] })
    );
    let output =
        house.novastor(&["volume", "shards", "a", "--first", "1", "--limit", "1"], b"").await;
    let (table, hint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("n2, n3, n4"), "{table}");
    assert!(hint.contains("--first 2"), "{hint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_a_shard_are_those_of_the_volume() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", 4 * MIB)).await.unwrap();
    let data: Vec<u8> = (0..300_000).map(|index| (index % 241) as u8).collect();
    let written = house.novastor(&["shard", "write", "a", "2", "--offset", "4096"], &data).await;
    assert!(written.status.success(), "{written:?}");
    let read = ["shard", "read", "a", "2", "--offset", "4096", "--length", "300000"];
    assert_eq!(house.novastor(&read, b"").await.stdout, data);
    let place = (2 * MIB + 4096).to_string();
    let read = ["volume", "read", "a", "--offset", &place, "--length", "300000"];
    assert_eq!(house.novastor(&read, b"").await.stdout, data, "it is the same place");
    let whole = house.novastor(&["shard", "read", "a", "2"], b"").await.stdout;
    assert_eq!((whole.len() as u64, &whole[4096..304_096]), (MIB, &data[..]));
    assert_eq!(house.json(&["volume", "replicas", "a"]).await["state"], "detached", "given back");

    let used = house.volumes.acquire("a", Access::Write, "a client").await.unwrap();
    let written = house.novastor(&["shard", "write", "a", "1"], b"beside a client").await;
    assert!(written.status.success(), "one attachment serves all");
    let seen = used.volume().read(&OpContext::new(), MIB, 15).await.unwrap();
    assert_eq!(&seen[..], b"beside a client");
    house.volumes.release(used).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_outside_a_shard_is_refused() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", 5 * MIB / 2)).await.unwrap();
    let (code, text) = house.refuse(&["shard", "read", "a", "3"]).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("try: novastor volume shards a"), "{text}");
    let beyond = ["shard", "read", "a", "2", "--offset", "512KiB", "--length", "1"];
    let (code, text) = house.refuse(&beyond).await;
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("the shard's 524288 bytes"), "{text}");
    let output =
        house.novastor(&["shard", "write", "a", "2", "--offset", "511KiB"], &[1; 2048]).await;
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let (code, text) = house.refuse(&["volume", "shards", "a", "--limit", "0"]).await;
    assert_eq!(code, 2, "{text}");
    assert_eq!(house.refuse(&["volume", "replicas", "none"]).await.0, 3);
    for text in ["replicas", "shards", "shards/0/data"] {
        let client = Client::new(&house.socket, None).unwrap();
        let path = format!("/v1/volumes/plain/{text}");
        let refused = client.get::<serde_json::Value>(&path).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_without_replicas_says_so() {
    let house = mirrored(json!({})).await;
    let plain = novastor::volumes::NewVolume { backend: Some("plain".to_owned()), ..new("p", MIB) };
    house.volumes.create(plain).await.unwrap();
    for arguments in [
        &["volume", "replicas", "p"][..],
        &["volume", "shards", "p"],
        &["volume", "verify", "p"],
        &["volume", "repair", "p", "--source", "n1"],
        &["shard", "read", "p", "0"],
        &["shard", "write", "p", "0"],
    ] {
        let (code, text) = house.refuse(arguments).await;
        assert_eq!(code, 14, "{arguments:?}: {text}");
        assert!(text.contains("backend `plain` has no nodes, shards and replicas"), "{text}");
    }
    assert!(house.jobs.list().await.unwrap().is_empty(), "no job was begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_and_shards_are_resources() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", 3 * MIB)).await.unwrap();
    let client = Client::new(&house.socket, None).unwrap();
    let replication: ReplicationView = client.get("/v1/volumes/a/replicas").await.unwrap();
    assert_eq!((replication.shards, replication.shard_size, replication.size), (3, MIB, 3 * MIB));
    let shards: Vec<ShardView> = client.get("/v1/volumes/a/shards?first=2").await.unwrap();
    assert_eq!((shards.len(), shards[0].index), (1, 2));
    for query in ["limit=0", "limit=10001", "last=1"] {
        let path = format!("/v1/volumes/a/shards?{query}");
        assert!(client.get::<Vec<ShardView>>(&path).await.is_err(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_may_send_on_and_hears_why() {
    let house = mirrored(json!({})).await;
    let mut stream = UnixStream::connect(&house.socket).await.unwrap();
    let head = format!(
        "PUT /v1/volumes/nobody/data HTTP/1.1\r\nHost: novastor\r\nContent-Length: {MIB}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stream.write_all(&vec![1; MIB as usize / 16]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("nobody"), "{answer}");
}
