// SPDX-License-Identifier: Apache-2.0
//! An asynchronous volume, which is what a volume is by default, on nodes that leave: it follows them elsewhere while
//! clients write, and is asynchronous again then.

use std::{collections::BTreeSet, path::Path, time::Duration};

use end_to_end::{
    artifacts::Artifacts,
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    load::Load,
    program::until,
    remote::Remote,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;
/// What the verifying load writes: the first part of the volume. The rest has one pattern.
const LEDGER: u64 = 8 * MIB;
const REST: &str = "-P 0x5a 8M 24M";
const VOLUME: &str = "web";
const OPTIONS: [(&str, &str); 2] =
    [("synchronous_replication", "false"), ("consistency_protocol", "strong")];
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const PATIENCE: Duration = Duration::from_secs(120);

fn json(cluster: &Cluster, words: &str) -> Outcome<Value> {
    let asked = cluster.host.cli().ask().args(words.split(' ')).limit_secs(120);
    serde_json::from_str(&asked.args(["--output", "json"]).run()?.stdout).context(words)
}

/// Who acknowledges, and who follows.
fn replicas(cluster: &Cluster) -> Outcome<(String, BTreeSet<String>)> {
    let said = json(cluster, &format!("volume replicas {VOLUME}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = said["replicas"].as_array().cloned().unwrap_or_default();
    let follow = listed.iter().filter(|replica| replica["state"] == "following");
    Ok((text(&said["mode"]["acknowledging"]), follow.map(|r| text(&r["node"])).collect()))
}

/// One acknowledges, and two follow it, none of them on this node.
fn settled_without(cluster: &Cluster, gone: &str) -> Outcome<(String, BTreeSet<String>)> {
    until(PATIENCE, || {
        let (head, followers) = replicas(cluster)?;
        let is_whole = !head.is_empty() && followers.len() == 2;
        ensure(is_whole && head != gone && !followers.contains(gone), || {
            format!("{head} acknowledges, {followers:?} follow, {gone} is to be gone")
        })?;
        Ok((head, followers))
    })
}

fn is_right(cluster: &Cluster, load: &Load) -> Outcome {
    load.verify(&mut cluster.host.connect(VOLUME)?)?;
    clients::qemu_io(&cluster.host.uri(VOLUME), &format!("read {REST}"))
}

fn begun(room: &Path, nodes: usize, others: &[&str], more: &str) -> Cluster {
    let artifacts = Artifacts::of_this_build().expect("a build");
    let cluster = Cluster::start(&artifacts, room, nodes, others, more).expect("a host");
    install(&artifacts.remote().expect("built"), &cluster.host.plugins()).expect("installed");
    cluster.volume_with(VOLUME, SIZE, &OPTIONS).expect("a volume");
    clients::qemu_io(&cluster.host.uri(VOLUME), &format!("write -f {REST}")).expect("written");
    cluster
}

#[test]
fn every_node_is_drained_in_turn_under_a_load_and_a_snapshot_stays() {
    let room = tempfile::tempdir().expect("a directory");
    let cluster = begun(room.path(), NODES.len(), &[], "healing_pace = \"urgent\"");
    let run = |words: &str| {
        let asked = cluster.host.cli().ask().args(words.split(' ')).limit_secs(300);
        asked.run().unwrap_or_else(|error| panic!("{words}: {error}"));
    };
    run(&format!("snapshot create {VOLUME} before"));
    let load = Load::new(LEDGER / 512, 2, 11);
    let socket = cluster.host.nbd_socket();
    for node in NODES {
        let work = || -> Outcome {
            run(&format!("node drain {node}"));
            run(&format!("volume rebalance {VOLUME}"));
            settled_without(&cluster, node).map(drop)
        };
        load.during(&socket, VOLUME, work).expect(node);
        let plan = json(&cluster, &format!("node plan {VOLUME}")).expect("a plan");
        assert_eq!(plan["total"]["bytes"], 0, "{node}: {plan}");
        is_right(&cluster, &load).expect(node);
        run(&format!("node drain {node} --undo"));
    }
    run(&format!("volume clone {VOLUME} then --snapshot before"));
    // It begins with those replicas that the snapshot has.
    let clone = json(&cluster, "volume replicas then").expect("replicas");
    assert_eq!(clone["replicas"].as_array().map(Vec::len), Some(3), "{clone}");
    cluster.host.cli().add_export("then").expect("exported");
    clients::qemu_io(&cluster.host.uri("then"), &format!("read {REST}")).expect("as before");
    clients::qemu_io(&cluster.host.uri("then"), "read -P 0 0 8M").expect("as before");
}

#[test]
fn another_node_takes_the_place_of_a_lost_follower() {
    let room = tempfile::tempdir().expect("a directory");
    let artifacts = Artifacts::of_this_build().expect("a build");
    let mut more = "io_timeout_secs = 1\nhealth_check_interval = \"1s\"\nhealing_query_count = 2\n\
                    down_grace = \"2s\"\nhealing_pace = \"urgent\"\n"
        .to_owned();
    let mut servers = Vec::new();
    for node in NODES {
        let server = Remote::start(&artifacts, &room.path().join(node)).expect("a node");
        more += &server.section(node, "fences = true");
        servers.push(server);
    }
    let cluster = begun(room.path(), 0, &NODES, &more);
    let (head, followers) = settled_without(&cluster, "").expect("whole");
    let lost = followers.first().expect("a follower").clone();
    let load = Load::new(LEDGER / 512, 2, 12);
    let place = NODES.iter().position(|node| *node == lost).expect("known");
    let replaced = load.during(&cluster.host.nbd_socket(), VOLUME, || {
        servers[place].kill9()?;
        let (acknowledges, now) = settled_without(&cluster, &lost)?;
        let new: Vec<&String> = now.iter().filter(|node| !followers.contains(*node)).collect();
        ensure(acknowledges == head || new.is_empty(), || format!("{acknowledges}, {now:?}"))?;
        ensure(!now.contains(&lost), || Failure::new("it is still there").to_string())
    });
    replaced.expect("replaced");
    is_right(&cluster, &load).expect("as written");
}
