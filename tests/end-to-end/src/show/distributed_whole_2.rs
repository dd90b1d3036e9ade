// SPDX-License-Identifier: Apache-2.0
//! Five nodes, three replicas, and clients that verify what they write, while nodes are killed, hung, filled, emptied and
//! lost at random, one or two at a time, so that a healthy copy of each shard is always left: no client sees an error or a
//! wrong byte, what a lost node had is replicated elsewhere without being asked for, and in the end replicas agree.
//! Then bits flip at rest, see [`flips`].

mod flips;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Stage, verifying};
use crate::{
    artifacts::Artifacts,
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    load::Load,
    program::until,
    random::Random,
    remote::Remote,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;
/// What our own clients write: the first part of the volume. fio has the rest.
const LEDGER: u64 = 16 * MIB;
/// What fio has.
const HALF: [&str; 2] = ["--offset=16M", "--size=16M"];
const NODES: usize = 5;
const VOLUME: &str = "disk";
/// Nodes are judged quickly, and lost some seconds later; but not for what most fates take.
const OPTIONS: &str = "io_timeout_secs = 1\nhealth_check_interval = \"1s\"\nhealing_query_count = 20\n\
                       down_grace = \"4s\"\nhealing_pace = \"balanced\"\n";
/// How long it may take until everything is in sync again: a node that failed several times is on probation.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a cluster is troubled. A node that fails again and again is left alone for longer and longer, so that after a while
/// little would happen to anybody.
const ROUND: Duration = Duration::from_secs(60);

/// What happens to a node.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is killed, and started again.
    Killed,
    /// It stands still for a while, with all that is in its sockets.
    Hung,
    /// It has no room for what it has not.
    Filled,
    /// It is killed, and comes back without anything.
    Emptied,
    /// It is killed, and comes back when what it had is elsewhere.
    Lost,
}

const FATES: [Fate; 5] = [Fate::Killed, Fate::Hung, Fate::Filled, Fate::Emptied, Fate::Lost];

/// Nodes that are processes of their own, and a host with a distributed backend over them.
pub(super) struct Farm {
    pub cluster: Cluster,
    directories: Vec<PathBuf>,
    servers: Vec<Option<Remote>>,
}

impl Farm {
    /// Starts so many nodes. `options` are those of the distributed backend.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start(artifacts: &Artifacts, room: &Path, nodes: usize, options: &str) -> Outcome<Self> {
        let names: Vec<String> = (1..=nodes).map(|node| format!("n{node}")).collect();
        let mut more = options.to_owned();
        let (mut directories, mut servers) = (Vec::new(), Vec::new());
        for name in &names {
            let directory = room.join(name);
            let server = Remote::start(artifacts, &directory)?;
            more += &server.section(name, "fences = true");
            directories.push(directory);
            servers.push(Some(server));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cluster = Cluster::start(artifacts, room, 0, &names, &more)?;
        install(&artifacts.remote()?, &cluster.host.plugins())?;
        Ok(Self { cluster, directories, servers })
    }

    fn server(&self, node: usize) -> Outcome<&Remote> {
        self.servers[node].as_ref().ok_or_else(|| Failure::new("the node does not run"))
    }

    fn kill(&mut self, node: usize) -> Outcome {
        self.servers[node].take().map_or(Ok(()), |mut server| server.kill9())
    }

    /// Something happens to a node.
    fn strike(&mut self, node: usize, fate: Fate) -> Outcome {
        match fate {
            Fate::Hung => self.server(node)?.freeze_all(),
            Fate::Filled => self.server(node)?.fault("full"),
            Fate::Killed | Fate::Emptied | Fate::Lost => self.kill(node),
        }
    }

    /// It is over.
    fn relieve(&mut self, node: usize, fate: Fate, artifacts: &Artifacts) -> Outcome {
        let directory = self.directories[node].clone();
        match fate {
            Fate::Hung => return self.server(node)?.thaw_all(),
            Fate::Filled => return self.server(node)?.no_fault("full"),
            Fate::Emptied => fs::remove_dir_all(&directory).context(directory.display())?,
            Fate::Killed | Fate::Lost => {}
        }
        self.servers[node] = Some(Remote::start(artifacts, &directory)?);
        Ok(())
    }

    /// Waits until every replica that the volume has on other nodes than these is in sync, and it has as many as it should.
    fn until_whole(&self, volume: &str, without: &[usize]) -> Outcome {
        let out: BTreeSet<String> = without.iter().map(|node| format!("n{}", node + 1)).collect();
        until(PATIENCE, || {
            let replicas = self.cluster.replicas(volume)?;
            let well = |(node, (state, _)): (&String, &(String, u64))| {
                !out.contains(node) && state == "in-sync"
            };
            ensure(replicas.len() >= 3 && replicas.iter().all(well), || format!("{replicas:?}"))
        })
    }
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    for round in 1..=if stage.is_long() { 10 } else { 1 } {
        let room = stage.path(&format!("round-{round}"));
        under_load(stage, &room, &mut random)
            .context(format!("round {round}, NOVASTOR_SEED={seed}"))?;
    }
    flips::play(stage, &stage.path("flips"), &mut random)
        .context(format!("flips, NOVASTOR_SEED={seed}"))
}

fn under_load(stage: &Stage, room: &Path, random: &mut Random) -> Outcome {
    let mut farm = Farm::start(&stage.artifacts, room, NODES, OPTIONS)?;
    let options = [("shard_size", "1MiB"), ("replication_factor", "3")];
    farm.cluster.volume_with(VOLUME, SIZE, &options)?;
    let uri = farm.cluster.host.uri(VOLUME);
    // What has its place needs no room on a full node.
    clients::qemu_io(&uri, "write -f -P 0xa5 16M 16M")?;
    // Zeros of our clients give room back: their next write may find none.
    let load = Load::new(LEDGER / 512, 2, random.number()).that_may_be_full();
    let socket = farm.cluster.host.nbd_socket();
    let over = AtomicBool::new(false);
    let first_seed = random.within(1..1 << 20);
    thread::scope(|scope| {
        let fio = scope.spawn(|| verifying::client(&uri, &HALF, first_seed, &over));
        let troubled = load.during(&socket, VOLUME, || trouble(stage, &mut farm, random));
        over.store(true, Ordering::SeqCst);
        let rounds = fio.join().map_err(|_| Failure::new("fio's thread panicked"))?;
        troubled?;
        let rounds = rounds.context("fio")?;
        stage.tell(format!("fio wrote and verified its half {rounds} times, without an error"));
        Ok(())
    })?;
    farm.until_whole(VOLUME, &[])?;
    load.verify(&mut farm.cluster.host.connect(VOLUME)?)?;
    farm.cluster.host.cli().ask().args(["volume", "verify", VOLUME]).run()?;
    stage.tell(format!(
        "{} flushes acknowledged, {} writes found a node full; no wrong byte, replicas agree",
        load.flushes(),
        load.no_space()
    ));
    farm.cluster.host.stop()
}

/// Has one or two nodes suffer, again and again.
fn trouble(stage: &Stage, farm: &mut Farm, random: &mut Random) -> Outcome {
    let until = Instant::now() + ROUND;
    let (mut fates, mut nodes) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        if fates.is_empty() {
            fates.extend(FATES);
        }
        let mut struck = Vec::new();
        for _ in 0..1 + random.within(0..2) {
            if fates.is_empty() {
                break;
            }
            if nodes.is_empty() {
                nodes.extend(0..NODES);
            }
            let node = draw(&mut nodes, random)?;
            if struck.iter().any(|(other, _)| *other == node) {
                continue;
            }
            let fate = draw(&mut fates, random)?;
            farm.strike(node, fate).context(format!("{fate:?} n{}", node + 1))?;
            struck.push((node, fate));
        }
        let said: Vec<String> =
            struck.iter().map(|(node, fate)| format!("n{} {fate:?}", node + 1)).collect();
        stage.tell(said.join(", "));
        thread::sleep(Duration::from_millis(random.within(1500..4000)));
        let is_lost = |fate: &Fate| matches!(fate, Fate::Lost);
        // The others first: what a lost node had goes to whoever is well.
        for (node, fate) in struck.iter().filter(|(_, fate)| !is_lost(fate)) {
            farm.relieve(*node, *fate, &stage.artifacts)?;
        }
        let lost: Vec<usize> =
            struck.iter().filter(|(_, fate)| is_lost(fate)).map(|(node, _)| *node).collect();
        if !lost.is_empty() {
            let begun = Instant::now();
            farm.until_whole(VOLUME, &lost).context("replicated elsewhere")?;
            stage.tell(format!(
                "what n{} had is elsewhere, {:.1} s later",
                lost[0] + 1,
                begun.elapsed().as_secs_f64()
            ));
            for node in lost {
                farm.relieve(node, Fate::Lost, &stage.artifacts)?;
            }
        }
        farm.until_whole(VOLUME, &[]).context(said.join(", "))?;
    }
    Ok(())
}

/// Takes one of these.
fn draw<T>(from: &mut Vec<T>, random: &mut Random) -> Outcome<T> {
    let index = usize::try_from(random.within(0..from.len() as u64)).context("index")?;
    Ok(from.swap_remove(index))
}
