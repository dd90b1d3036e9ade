// SPDX-License-Identifier: Apache-2.0
//! Where the shards of a volume are, and how large: changed while clients write, and exactly what was announced.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use end_to_end::{
    artifacts::Artifacts,
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    load::Load,
    program::until,
};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 96 * MIB;
/// What the verifying load writes: the first part of the volume. The rest has one pattern.
const LEDGER: u64 = 32 * MIB;
const REST: &str = "-P 0xa5 32M 64M";
const VOLUME: &str = "web";
const NODES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster whose volume serves.
struct Stage {
    cluster: Cluster,
    load: Load,
    room: TempDir,
}

impl Stage {
    fn new(options: &[(&str, &str)]) -> Self {
        let room = tempfile::tempdir().expect("a directory");
        let artifacts = Artifacts::of_this_build().expect("a build");
        let cluster =
            Cluster::start(&artifacts, room.path(), NODES, &[], "healing_pace = \"balanced\"")
                .expect("a host");
        cluster.volume_with(VOLUME, SIZE, options).expect("a volume");
        let uri = cluster.host.uri(VOLUME);
        clients::qemu_io(&uri, &format!("write -f {REST}")).expect("written");
        Self { cluster, load: Load::new(LEDGER / 512, 2, 7), room }
    }

    fn socket(&self) -> PathBuf {
        self.cluster.host.nbd_socket()
    }

    fn node(&self, node: &str) -> PathBuf {
        self.room.path().join(node).join("volumes")
    }

    fn said(&self, words: &str) -> Outcome {
        self.cluster.host.cli().ask().args(words.split(' ')).limit_secs(600).run().map(drop)
    }

    /// Changes options under load, which takes its time, for clients come first.
    fn changes_under_load(&self, options: &str) -> Value {
        self.changes_during(options, |work| self.load.during(&self.socket(), VOLUME, work))
    }

    fn changes(&self, options: &str) -> Value {
        self.changes_during(options, |work| work())
    }

    /// Changes options: what moves is what was announced, and everything is right then.
    fn changes_during(
        &self,
        options: &str,
        during: impl FnOnce(&dyn Fn() -> Outcome) -> Outcome,
    ) -> Value {
        let planned = self.json(&format!("volume set {VOLUME} {options} --plan"));
        let before = self.shards();
        let work = || self.said(&format!("volume set {VOLUME} {options} --rebalance"));
        during(&work).expect(options);
        let moved = gained(&before, &self.shards());
        assert_eq!(planned["bytes"], moved, "{options}: {planned}");
        assert_eq!(self.json(&format!("node plan {VOLUME}"))["total"]["bytes"], 0, "{options}");
        self.is_right();
        planned
    }

    /// No byte is wrong, replicas agree, and no brick occupies more than it holds.
    fn is_right(&self) {
        let host = &self.cluster.host;
        self.load.verify(&mut host.connect(VOLUME).expect("connected")).expect("as written");
        clients::qemu_io(&host.uri(VOLUME), &format!("read {REST}")).expect("the rest");
        self.said(&format!("volume verify {VOLUME}")).expect("replicas agree");
        let held = self.shards();
        for node in (1..=NODES).map(|number| format!("n{number}")) {
            let most: u64 = held.iter().filter(|(_, on)| on.contains(&node)).map(|s| s.0).sum();
            let has = occupied(&self.node(&node));
            assert!(has <= most + (256 << 10), "{node} occupies {has}, and holds {most}");
        }
    }

    /// The length and the nodes of each shard.
    fn shards(&self) -> Vec<(u64, BTreeSet<String>)> {
        let listed = self.json(&format!("volume shards {VOLUME}"));
        let nodes = |shard: &Value| {
            let names = shard["nodes"].as_array().expect("nodes").iter();
            names.map(|node| node.as_str().expect("a name").to_owned()).collect()
        };
        let shards = listed.as_array().expect("shards").iter();
        shards.map(|shard| (shard["len"].as_u64().expect("a length"), nodes(shard))).collect()
    }

    fn shard_size(&self) -> u64 {
        let replication = self.json(&format!("volume replicas {VOLUME}"));
        replication["shard_size"].as_u64().expect("a size")
    }

    fn json(&self, words: &str) -> Value {
        let asked = self.cluster.host.cli().ask().args(words.split(' '));
        let said = asked.args(["--output", "json"]).run().expect(words);
        serde_json::from_str(&said.stdout).expect(words)
    }
}

/// Bytes that nodes have and had not.
fn gained(before: &[(u64, BTreeSet<String>)], after: &[(u64, BTreeSet<String>)]) -> u64 {
    let each_mib = |shards: &[(u64, BTreeSet<String>)]| -> Vec<BTreeSet<String>> {
        let mibs = |(len, on): &(u64, BTreeSet<String>)| {
            std::iter::repeat_n(on.clone(), (len / MIB) as usize)
        };
        shards.iter().flat_map(mibs).collect()
    };
    let (before, after) = (each_mib(before), each_mib(after));
    let more = |(then, now): (&BTreeSet<String>, &BTreeSet<String>)| now.difference(then).count();
    MIB * before.iter().zip(&after).map(more).sum::<usize>() as u64
}

/// Bytes that the bricks of a local node occupy.
fn occupied(volumes: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(volumes).into_iter().flatten().flatten();
    let bricks = entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".c"));
    let blocks = bricks.filter_map(|brick| brick.path().join("disk.raw").metadata().ok());
    blocks.map(|data| data.blocks() * 512).sum()
}

#[test]
fn shards_are_split_and_merged_under_a_load() {
    let stage = Stage::new(&[("shard_size", "8MiB"), ("replication_factor", "2")]);
    let split = stage.changes_under_load("shard_size=2MiB");
    assert_eq!((stage.shard_size(), stage.shards().len()), (2 * MIB, 48));
    // One shard of eight MiB is what the parents may have been uneven by.
    assert!(split["bytes"].as_u64() <= Some(8 * MIB), "a split copies: {split}");
    let merged = stage.changes("shard_size=16MiB");
    assert_eq!((stage.shard_size(), stage.shards().len()), (16 * MIB, 6));
    assert!(merged["bytes"].as_u64() > Some(0), "{merged}");
    let refused = stage.cluster.host.cli().ask();
    let refused = refused.args(["volume", "set", VOLUME, "shard_size=24MiB"]).codes(&[2]).run();
    let text = refused.expect("refused").stderr;
    assert!(text.contains("divide"), "{text}");
    // What is chosen for 96 MiB.
    stage.changes("shard_size=auto");
    assert_eq!(stage.shard_size(), 4 * MIB);
}

#[test]
fn a_merge_goes_on_after_the_host_was_killed() {
    let mut stage = Stage::new(&[("shard_size", "1MiB"), ("replication_factor", "2")]);
    let planned = stage.json(&format!("volume set {VOLUME} shard_size=8MiB --plan"));
    let planned = planned["bytes"].as_u64().expect("bytes");
    let before = stage.shards();
    stage.said(&format!("volume set {VOLUME} shard_size=8MiB")).expect("set");
    let socket = stage.socket();
    let starts = stage.cluster.host.cli().ask();
    let starts = starts.args(["volume", "rebalance", VOLUME]).codes(&[]);
    let asks = stage.cluster.host.cli().clone();
    let Stage { cluster, load, .. } = &mut stage;
    let host = &mut cluster.host;
    let killed = load.until_killed_by(&socket, VOLUME, |ends| {
        thread::scope(|scope| {
            let asking = scope.spawn(move || starts.run());
            until(PATIENCE, || {
                let status = asks.ask().args(["volume", "rebalance", VOLUME, "--status"]);
                let said = status.args(["--output", "json"]).run()?;
                let status: Value = serde_json::from_str(&said.stdout).context("status")?;
                ensure(status["copied"].as_u64() > Some(MIB), || format!("not begun: {status}"))
            })?;
            ends.store(true, Ordering::SeqCst);
            host.kill9()?;
            asking.join().map_err(|_| Failure::new("the thread that asks panicked"))?.map(drop)
        })
    });
    killed.expect("killed in the middle");
    stage.cluster.host.restart().expect("started again");
    let jobs = stage.json("job list");
    assert_eq!(jobs[0]["state"], "interrupted", "{jobs}");
    let job = jobs[0]["id"].as_u64().expect("a number");
    let middle = gained(&before, &stage.shards());
    stage.said(&format!("job resume {job}")).expect("resumed");
    assert_eq!((stage.shard_size(), stage.shards().len()), (8 * MIB, 12));
    let moved = gained(&before, &stage.shards());
    assert!(moved <= (planned + planned / 20).max(planned + MIB), "{moved}, {planned} planned");
    assert!(middle < moved, "{middle} of {moved} had moved when the host was killed");
    stage.is_right();
}

#[test]
fn placement_is_another_while_the_volume_serves() {
    let stage = Stage::new(&[("shard_size", "1MiB"), ("replication_factor", "2")]);
    for (number, zone) in (1..=NODES).zip(["a", "a", "b", "b", "c"]) {
        stage.said(&format!("node set n{number} --zone {zone}")).expect("a zone");
    }
    let zones = stage.changes("placement=zone");
    assert!(zones["zone_violations_before"].as_u64() > Some(0), "{zones}");
    assert_eq!(zones["zone_violations_after"], 0, "{zones}");
    assert_eq!(zones["copies"], serde_json::json!([0, 0, 96]), "{zones}");
    stage.changes("placement=locality");
    stage.changes("placement=random");
    let even = stage.changes("placement=balanced");
    assert!(even["worst_before"].as_u64() > even["worst_after"].as_u64(), "{even}");
    assert!(even["worst_after"].as_u64() <= Some(MIB), "{even}");

    let fewer = stage.changes("nodes=n1,n3,n5 drivers=local");
    assert_eq!(fewer["nodes"].as_array().map(Vec::len), Some(NODES), "{fewer}");
    let used: BTreeSet<String> = stage.shards().into_iter().flat_map(|(_, on)| on).collect();
    assert_eq!(used.iter().collect::<Vec<_>>(), ["n1", "n3", "n5"]);
    let more = stage.changes("nodes= replication_factor=3");
    assert!(more["bytes"].as_u64() >= Some(SIZE), "{more}");
    assert!(stage.shards().iter().all(|(_, on)| on.len() == 3));
    for bad in ["drivers=ceph", "nodes=n9", "replication_factor=6", "placement=best"] {
        let words = ["volume", "set", VOLUME, bad, "--plan"];
        let said = stage.cluster.host.cli().ask().args(words).codes(&[2, 3]).run();
        assert!(said.is_ok(), "{bad}: {said:?}");
    }
}

#[test]
fn a_plan_of_nodes_says_what_comes_of_it() {
    let stage = Stage::new(&[("shard_size", "1MiB"), ("replication_factor", "2")]);
    let steps = [
        ("--weight n1=10", "node set n1 --weight 10"),
        ("--drain n2", "node drain n2"),
        ("--remove n2", "node remove n2"),
    ];
    for (thought, done) in steps {
        let planned = stage.json(&format!("node plan {VOLUME} {thought}"))["total"].clone();
        assert!(planned["worst_before"].is_u64() && planned["copies"].is_array(), "{planned}");
        let before = stage.shards();
        stage.said(done).expect(done);
        stage.said(&format!("volume rebalance {VOLUME}")).expect(done);
        assert_eq!(planned["bytes"], gained(&before, &stage.shards()), "{thought}: {planned}");
        stage.is_right();
    }
    // It comes back, empty.
    let planned = stage.json(&format!("node plan {VOLUME} --add n2"))["total"].clone();
    let before = stage.shards();
    stage.said("node add n2").expect("added");
    let moves = || stage.said(&format!("volume rebalance {VOLUME}"));
    stage.load.during(&stage.socket(), VOLUME, moves).expect("moved");
    assert_eq!(planned["bytes"], gained(&before, &stage.shards()), "{planned}");
    stage.is_right();
}
