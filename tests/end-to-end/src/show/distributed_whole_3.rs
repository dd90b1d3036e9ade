// SPDX-License-Identifier: Apache-2.0
//! An asynchronous volume on three storages in other processes. Under load, with slow followers, none is ever further
//! behind than the bound; sessions read what they wrote. The acknowledging node is killed and another promoted: what is
//! printed as lost is exactly what is missing afterwards, and the rest is a prefix of what was acknowledged. By the clock
//! of the client that wrote it what is lost was acknowledged within the bound.

mod journal;
mod promotions;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::journal::{Journal, content};
use super::Stage;
use crate::{
    cluster::{BACKEND, Cluster},
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    program::{Program, until},
    remote::{Remote, Session},
};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const SIZE: u64 = 64 * MIB;
const BLOCK: u64 = 4 * KIB;
const BLOCKS: u64 = SIZE / BLOCK;
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The bound.
const MOST_BYTES: u64 = 512 * KIB;
const MOST_SECS: f64 = 1.0;
/// A clock is read later than it was.
const LATE_SECS: f64 = 0.5;
/// How long no write is acknowledged when they are held back, and after how long beyond the bound they surely are.
const STILL: Duration = Duration::from_millis(150);
const MOST_LATE_SECS: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(20);
/// A block of its own for what is read in sessions: the last one but one, and the last.
const DECOY: u64 = BLOCKS - 2;
const MARK: u64 = BLOCKS - 1;
const INVALID: i32 = 2;

pub(super) fn play(stage: &Stage) -> Outcome {
    for round in 1..=if stage.is_long() { 10 } else { 1 } {
        one_round(stage, &format!("round-{round}")).context(format!("round {round}"))?;
    }
    Ok(())
}

/// The storages of the nodes, in the order of [`NODES`], and where their directories are.
struct Storages(Vec<Remote>, PathBuf);

impl Storages {
    fn start(stage: &Stage, room: PathBuf) -> Outcome<Self> {
        let start = |node: &&str| Remote::start(&stage.artifacts, &room.join(node));
        Ok(Self(NODES.iter().map(start).collect::<Outcome<_>>()?, room))
    }

    fn of(&self, node: &str) -> Outcome<&Remote> {
        let place = NODES.iter().position(|name| *name == node);
        let storage = place.and_then(|place| self.0.get(place));
        storage.ok_or_else(|| Failure::new(format!("no storage of {node}")))
    }

    fn of_mut(&mut self, node: &str) -> Outcome<&mut Remote> {
        let place = NODES.iter().position(|name| *name == node);
        let storage = place.and_then(|place| self.0.get_mut(place));
        storage.ok_or_else(|| Failure::new(format!("no storage of {node}")))
    }

    /// One that was killed, with what it has.
    fn start_again(&mut self, stage: &Stage, node: &str) -> Outcome {
        let storage = Remote::start(&stage.artifacts, &self.1.join(node))?;
        *self.of_mut(node)? = storage;
        Ok(())
    }

    /// Where the followers' journals go, which comes first: their bricks can still be read when these stand still.
    fn journals(&self, volume: &Volume) -> Outcome<Vec<Session>> {
        let journal =
            |(node, brick): &(String, String)| self.of(node)?.session(&format!("{brick}.c"));
        volume.followers.iter().map(journal).collect()
    }
}

/// What the host says of a volume's replicas.
struct Volume {
    head: String,
    /// Nodes that follow, and their bricks.
    followers: Vec<(String, String)>,
    /// The most that one of them is behind.
    bytes: u64,
    secs: f64,
}

fn look(cluster: &Cluster, name: &str) -> Outcome<Volume> {
    let said = cluster.host.cli().ask().args(["volume", "replicas", name, "--output", "json"]);
    let answer: Value = serde_json::from_str(&said.run()?.stdout).context("replicas")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut volume = Volume {
        head: text(&answer["mode"]["acknowledging"]),
        followers: Vec::new(),
        bytes: 0,
        secs: 0.0,
    };
    for replica in answer["replicas"].as_array().into_iter().flatten() {
        let lag = &replica["lag"];
        if replica["state"] == "following" {
            volume.followers.push((text(&replica["node"]), text(&replica["brick"])));
            volume.bytes = volume.bytes.max(lag["bytes"].as_u64().unwrap_or(u64::MAX));
            volume.secs = volume.secs.max(lag["secs"].as_f64().unwrap_or(f64::MAX));
        }
    }
    Ok(volume)
}

/// The volume once it has so many followers that lack nothing.
fn settled(cluster: &Cluster, name: &str, followers: usize) -> Outcome<Volume> {
    until(PATIENCE, || {
        let volume = look(cluster, name)?;
        ensure(volume.followers.len() == followers && volume.bytes == 0, || {
            format!("{} follow, {} bytes behind", volume.followers.len(), volume.bytes)
        })?;
        Ok(volume)
    })
}

fn one_round(stage: &Stage, room: &str) -> Outcome {
    let mut storages = Storages::start(stage, stage.path(room))?;
    let section = |(node, storage): (&&str, &Remote)| storage.section(node, "");
    let sections: String = NODES.iter().zip(&storages.0).map(section).collect();
    // Who stands still for a while is late, and not gone.
    let more = format!("io_timeout_secs = 20\nhealth_check_interval = \"1s\"\n{sections}");
    let nodes = stage.path(room).join("nodes");
    let cluster = Cluster::start(&stage.artifacts, &nodes, 0, &NODES, &more)?;
    install(&stage.artifacts.remote()?, &cluster.host.plugins())?;
    options(stage, &cluster)?;
    bounds(stage, &cluster, &storages)?;
    sessions(stage, &cluster, &storages)?;
    promotions::play(stage, &cluster, &mut storages)
}

/// What the driver cannot do is refused, and what a volume is is told.
fn options(stage: &Stage, cluster: &Cluster) -> Outcome {
    let asynchronous = ("synchronous_replication", "false");
    let (bytes, secs) = (MOST_BYTES.to_string(), MOST_SECS.to_string());
    let options = [
        asynchronous,
        ("consistency_protocol", "causal"),
        ("most_behind", bytes.as_str()),
        ("most_behind_secs", secs.as_str()),
    ];
    cluster.volume_with("disk", SIZE, &options)?;
    let alone = ["volume", "create", "alone", "--size", "1MiB", "--backend", BACKEND];
    let alone = cluster.host.cli().ask().args(alone).args([
        "--option",
        "synchronous_replication=false",
        "--option",
        "replication_factor=1",
    ]);
    let refused = alone.codes(&[INVALID]).run()?;
    ensure(refused.stderr.contains("single replica"), || refused.stderr.clone())?;
    let head = look(cluster, "disk")?.head;
    for words in
        [["volume", "show", "disk"], ["volume", "replicas", "disk"], ["export", "show", "disk"]]
    {
        let said = cluster.host.cli().ask().args(words).run()?.stdout;
        ensure(said.contains(&format!("{head} only")), || format!("{words:?} says {said}"))?;
    }
    let client = cluster.host.connect("disk")?;
    ensure(!client.can_multi_conn(), || "several connections are offered".to_owned())?;
    stage.tell(format!("asynchronous: flush is durable on {head} only, as show and export say"));
    Ok(())
}

/// A follower lacked, when asked, something that was written so long before: from the bound on nothing was acknowledged
/// but what was under way. So what would be lost is never of a longer time. Gives for how long this was looked at.
fn held_back(journal: &Journal, asked: Instant, told: Instant, secs: f64) -> Outcome<Duration> {
    let over = Duration::from_secs_f64((secs - MOST_SECS).max(0.0));
    let Some(since) = told.checked_sub(over).filter(|since| *since < asked) else {
        return Ok(Duration::ZERO);
    };
    let count = journal.count_between(since, asked);
    ensure(count <= 1, || {
        format!("{count} writes were acknowledged while one of {secs} s ago was missing")
    })?;
    Ok(asked - since)
}

/// Followers get slow, and the load with them: none is further behind than the bound.
fn bounds(stage: &Stage, cluster: &Cluster, storages: &Storages) -> Outcome {
    let volume = settled(cluster, "disk", 2)?;
    let slow = storages.journals(&volume)?;
    let journal = Journal::default();
    let mut client = cluster.host.connect("disk")?;
    let (mut bytes, mut secs, mut samples) = (0, 0.0_f64, 0);
    let mut held_secs = 0.0;
    let times = thread::scope(|scope| -> Outcome<u64> {
        let writing = scope.spawn(|| journal.write(&mut client));
        let mut measured = || -> Outcome<u64> {
            let slowing = scope.spawn(|| slow_down(&slow, &journal));
            let begun = Instant::now();
            let long = if stage.is_long() { 30 } else { 5 };
            while begun.elapsed() < Duration::from_secs(long) {
                let asked = Instant::now();
                let now = look(cluster, "disk")?;
                held_secs += held_back(&journal, asked, Instant::now(), now.secs)?.as_secs_f64();
                (bytes, secs, samples) = (bytes.max(now.bytes), secs.max(now.secs), samples + 1);
                ensure(now.followers.len() == 2, || "a follower fell out".to_owned())?;
            }
            journal.end();
            slowing.join().map_err(|_| Failure::new("the thread that slows panicked"))?
        };
        let measured = measured();
        journal.end();
        writing.join().map_err(|_| Failure::new("the thread that writes panicked"))??;
        measured
    })?;
    ensure(bytes <= MOST_BYTES, || format!("{bytes} bytes behind, {MOST_BYTES} allowed"))?;
    ensure(bytes > MOST_BYTES / 2 || secs > MOST_SECS / 2.0, || {
        format!("the bound was not reached: {bytes} bytes, {secs} s")
    })?;
    ensure(times > 0, || "writes were never held back".to_owned())?;
    settled(cluster, "disk", 2)?;
    stage.tell(format!(
        "followers slow: at most {bytes} bytes behind in {samples} looks, and writes were held back {times} times; nothing was acknowledged in the {held_secs:.1} s while one lacked what was older than {MOST_SECS} s, at most {secs:.2} s"
    ));
    Ok(())
}

/// Lets them stand still until writes do, and then do something for a moment; how often.
fn slow_down(sessions: &[Session], journal: &Journal) -> Outcome<u64> {
    let mut times = 0;
    while !journal.has_ended() {
        sessions.iter().try_for_each(Session::freeze)?;
        let is_held = until_held(journal);
        sessions.iter().try_for_each(Session::thaw)?;
        times += u64::from(is_held?);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(times)
}

/// Whether writes stood still before they were ended.
fn until_held(journal: &Journal) -> Outcome<bool> {
    let begun = Instant::now();
    while !journal.has_ended() {
        let before = journal.acknowledged();
        thread::sleep(STILL);
        if journal.acknowledged() == before {
            return Ok(true);
        }
        ensure(begun.elapsed().as_secs_f64() < MOST_SECS + MOST_LATE_SECS, || {
            format!("writes go on {:?} after followers stood still", begun.elapsed())
        })?;
    }
    Ok(false)
}

/// A session reads what it wrote; without a token a read may be older, but not by more than the bound.
fn sessions(stage: &Stage, cluster: &Cluster, storages: &Storages) -> Outcome {
    let volume = settled(cluster, "disk", 2)?;
    let mut token = write_mark(cluster, MARK, 1, "")?;
    settled(cluster, "disk", 2)?;
    let journals = storages.journals(&volume)?;
    let mut older = 0;
    for version in 2..=6 {
        journals.iter().try_for_each(Session::freeze)?;
        // The first write is on its way to the followers; those behind it wait.
        write_mark(cluster, DECOY, version, "")?;
        token = write_mark(cluster, MARK, version, &token)?;
        let (seen, next) = read_mark(cluster, &token)?;
        ensure(seen == version, || format!("with its token a session read {seen}, not {version}"))?;
        token = next;
        let begun = Instant::now();
        let (seen, _) = read_mark(cluster, "")?;
        ensure(seen == version || seen == version - 1, || format!("{seen} after {version}"))?;
        older += u64::from(seen < version);
        if version == 6 {
            thread::sleep(
                Duration::from_secs_f64(MOST_SECS + LATE_SECS).saturating_sub(begun.elapsed()),
            );
            let (seen, _) = read_mark(cluster, "")?;
            ensure(seen == version, || format!("{seen} is older than the bound allows"))?;
        }
        journals.iter().try_for_each(Session::thaw)?;
        settled(cluster, "disk", 2)?;
    }
    ensure(older > 0, || "no read was ever served by a follower".to_owned())?;
    stage.tell(format!("sessions read what they wrote; {older} of 5 reads without a token were older, none than the bound"));
    Ok(())
}

fn in_session(cluster: &Cluster, words: &str, block: u64, token: &str) -> Program {
    let offset = (block * BLOCK).to_string();
    let words = ["volume", words, "disk", "--offset", &offset, "--token", token];
    cluster.host.cli().ask().args(words)
}

fn token_in(stderr: &str) -> Outcome<String> {
    let token = stderr.lines().find_map(|line| line.strip_prefix("token: "));
    token.map(ToOwned::to_owned).ok_or_else(|| Failure::new(format!("no token: {stderr}")))
}

fn write_mark(cluster: &Cluster, block: u64, version: u64, token: &str) -> Outcome<String> {
    let room = tempfile::NamedTempFile::new().context("a file")?;
    std::fs::write(room.path(), content(version - 1)).context("a file")?;
    let said = in_session(cluster, "write", block, token).reading(room.path())?.run()?;
    token_in(&said.stderr)
}

fn read_mark(cluster: &Cluster, token: &str) -> Outcome<(u64, String)> {
    let said = in_session(cluster, "read", MARK, token).args(["--length", "8"]).run()?;
    // The number is small: all of its bytes are text.
    let number = <[u8; 8]>::try_from(said.stdout.as_bytes()).context("a mark")?;
    Ok((u64::from_le_bytes(number), token_in(&said.stderr)?))
}
