// SPDX-License-Identifier: Apache-2.0
//! `novastor node` and its resources.

use driver_api::ErrorKind;
use novastor::{api::types::NodeView, cli::Client};
use serde_json::json;

use super::house::{Ground, MIB, mirrored, new, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_change_and_go() {
    let house = mirrored(json!({})).await;
    let add = ["node", "add", "n4", "--backend", "m", "--zone", "east", "--weight", "50"];
    let facts = ["--role", "archive", "--address", "10.0.0.4", "--port", "6789"];
    let card = house.say(&[&add[..], &facts].concat()).await;
    assert!(card.contains("east") && card.contains("10.0.0.4, port 6789"), "{card}");
    let list = house.say(&["node", "list", "--backend", "m"]).await;
    for text in ["NAME", "PROVISIONED", "n1", "n4", "archive", "healthy", "50"] {
        assert!(list.contains(text), "{text:?} is not in:\n{list}");
    }
    // There is one backend with nodes: it need not be named.
    let node = house.json(&["node", "show", "n4"]).await;
    assert_eq!(
        (&node["id"], &node["weight"], &node["available"]),
        (&json!(4), &json!(50), &json!(true))
    );
    let set = ["node", "set", "n4", "--available", "false", "--weight", "0", "--zone", ""];
    let node = house.json(&set).await;
    assert_eq!((&node["weight"], &node["available"]), (&json!(0), &json!(false)));
    assert_eq!((&node["zone"], &node["role"]), (&json!(""), &json!("archive")), "the rest stays");
    house.say(&["node", "remove", "n4"]).await;
    let (code, text) = house.refuse(&["node", "show", "n4"]).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("try: novastor node list --backend m"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_with_nodes_is_refused_with_what_to_do() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", MIB)).await.unwrap();
    house.volumes.create(new("b", MIB)).await.unwrap();
    let (code, text) = house.refuse(&["node", "remove", "n2"]).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("volumes: a, b"), "{text}");
    assert_eq!(house.volumes.nodes("m").await.unwrap().len(), 3);

    let (code, text) = house.refuse(&["node", "set", "n2"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--weight"), "{text}");
    for command in ["set", "remove", "show"] {
        let mut arguments = vec!["node", command, "n9"];
        arguments.extend((command == "set").then_some(["--weight", "1"]).into_iter().flatten());
        let (code, text) = house.refuse(&arguments).await;
        assert_eq!(code, 3, "{command}: {text}");
    }
    let (code, text) = house.refuse(&["node", "add", "n1", "--weight", "7"]).await;
    assert_eq!(code, 4, "another n1: {text}");
    house.say(&["node", "add", "n1"]).await;
    let (code, text) = house.refuse(&["node", "add", "m"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("node of its own"), "{text}");
    let (code, text) = house.refuse(&["node", "add", "../n"]).await;
    assert_eq!(code, 2, "{text}");
    let (code, text) = house.refuse(&["node", "list", "--backend", "plain"]).await;
    assert_eq!(code, 14, "{text}");
    assert!(text.contains("novastor backend list"), "{text}");
    let (code, text) = house.refuse(&["node", "list", "--backend", "none"]).await;
    assert_eq!(code, 3, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_named_where_it_is_not_clear() {
    let nodes = json!({ "nodes": "n1,n2,n3" });
    let two = Ground::new(&[("m", "mirror", nodes.clone()), ("m2", "mirror", nodes)]);
    let (code, text) = start(&two).await.refuse(&["node", "list"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("m, m2") && text.contains("--backend"), "{text}");
    let none = Ground::new(&[("plain", "faulty", json!({}))]);
    let (code, text) = start(&none).await.refuse(&["node", "list"]).await;
    assert_eq!(code, 3, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_resources_and_strange_requests_are_answered_with_problems() {
    let house = mirrored(json!({})).await;
    let client = Client::new(&house.socket, None).unwrap();
    let nodes: Vec<NodeView> = client.get("/v1/backends/m/nodes").await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    assert_eq!(
        (nodes[0].weight, nodes[0].role.as_str(), nodes[0].available),
        (100, "storage", true)
    );
    let changed: NodeView =
        client.patch("/v1/backends/m/nodes/n1", &json!({ "weight": 3 })).await.unwrap();
    assert_eq!(changed.weight, 3);
    for body in [json!({ "wait": 3 }), json!({ "weight": -1 })] {
        let client = Client::new(&house.socket, None).unwrap();
        let refused = client.patch::<NodeView>("/v1/backends/m/nodes/n1", &body).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{body}");
    }
    let refused = client.get::<NodeView>("/v1/backends/m/nodes/n9").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND);
    let refused = client.get::<Vec<NodeView>>("/v1/backends/plain/nodes").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cannot_recover_says_so() {
    let house = mirrored(json!({})).await;
    for words in [&["node", "recover"][..], &["node", "recover", "a", "--dry-run"]] {
        let (code, text) = house.refuse(words).await;
        assert_eq!(code, 14, "{text}");
        assert!(text.contains("driver-api 1.3"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cannot_move_shards_says_so() {
    let house = mirrored(json!({})).await;
    house.volumes.create(new("a", MIB)).await.unwrap();
    for words in [
        &["node", "plan"][..],
        &["node", "plan", "a", "--add", "n4:zone=east", "--drain", "n1", "--weight", "n2=7"],
        &["node", "drain", "n1"],
        &["volume", "rebalance", "a"],
        &["volume", "rebalance", "a", "--status"],
        &["volume", "set", "a", "replication_factor=2"],
    ] {
        let (code, text) = house.refuse(words).await;
        assert_eq!(code, 14, "{text}");
        assert!(text.contains("driver-api 1.3"), "{text}");
    }
    assert!(house.jobs.list().await.unwrap().is_empty(), "what cannot be planned is no job");
    for (words, code) in [
        (&["node", "drain", "n9"][..], 3),
        (&["node", "plan", "nothing"], 3),
        (&["node", "plan", "--backend", "plain"], 14),
        (&["node", "plan", "--add", "n4:colour=red"], 2),
        (&["volume", "set", "a"], 2),
        (&["volume", "set", "a", "replication_factor"], 2),
    ] {
        assert_eq!(house.refuse(words).await.0, code, "{words:?}");
    }
}
