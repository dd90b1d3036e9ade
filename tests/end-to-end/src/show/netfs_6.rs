// SPDX-License-Identifier: Apache-2.0
//! A distributed volume over a share by NFS, a share by SMB and a local disk: the servers are killed and hung in turn, and so is
//! the disk, under a client that verifies what it writes.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Stage, ceph_2::Disk, verifying};
use crate::{
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    nbd::Command,
    netfs::{Netfs, Server, Way},
    program::until,
    random::Random,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const VOLUME: &str = "mixed";
/// A node that does not answer is left behind, and fetches what it missed.
const OPTIONS: &str = "io_timeout_secs = 4\nhealth_check_interval = \"1s\"\ndown_grace = \"10m\"\n\
                       healing_pace = \"urgent\"\n";
/// Shorter than what the servers are away: what they miss is an error of theirs, and the other nodes' business.
const SHARES: &str =
    "operation_timeout_secs = 8\nsilence_timeout_secs = 3\nmount_timeout_secs = 3\n";
/// How long a node that failed several times is on probation, and then needs until it is in sync.
const PROBATION: Duration = Duration::from_secs(240);

/// A node of the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Share(Server),
    Disk,
}

/// What happens to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Killed,
    Hung,
}

const NODES: [Node; 3] = [Node::Share(Server::Ganesha), Node::Share(Server::Samba), Node::Disk];

impl Node {
    fn name(self) -> &'static str {
        match self {
            Self::Share(Server::Ganesha) => "nfs",
            Self::Share(Server::Samba) => "smb",
            Self::Disk => "frail",
        }
    }
}

impl Fault {
    fn other(self) -> Self {
        match self {
            Self::Killed => Self::Hung,
            Self::Hung => Self::Killed,
        }
    }
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    // Nodes that never failed before: one that fails again and again is on probation for twice as long each time.
    for round in 1..=if stage.is_long() { 3 } else { 1 } {
        let room = stage.path(&format!("round-{round}"));
        mixed(stage, &room, &mut random).context(format!("round {round}, NOVASTOR_SEED={seed}"))?;
    }
    Ok(())
}

struct Field<'s> {
    servers: &'s Netfs,
    cluster: Cluster,
    disk: Disk,
}

fn mixed(stage: &Stage, room: &Path, random: &mut Random) -> Outcome {
    fs::create_dir(room).context(room.display())?;
    let servers = Netfs::start(&room.join("servers"))?;
    let disk = Disk::new(&room.join("disk"))?;
    let more = format!(
        "{OPTIONS}{}{}{}\n[backends.frail]\ndriver = \"local\"\ndir = \"{}\"\nreserve_percent = 0\n",
        servers.section("nfs", Way::Nfs41, SHARES)?,
        servers.section("smb", Way::Smb, SHARES)?,
        servers.secrets(),
        disk.path().display()
    );
    let names = NODES.map(Node::name);
    let cluster = Cluster::start(&stage.artifacts, &room.join("nodes"), 0, &names, &more)?;
    install(&stage.artifacts.netfs()?, &cluster.host.plugins())?;
    for node in names {
        let open = || cluster.host.cli().ask().args(["backend", "open", node]).run();
        until(Duration::from_secs(60), open)?;
    }
    cluster.volume_with(VOLUME, SIZE, &[("replication_factor", "3")])?;
    let uri = cluster.host.uri(VOLUME);
    for node in names {
        cluster.until_replica(VOLUME, node, "in-sync")?;
    }
    let mut field = Field { servers: &servers, cluster, disk };
    let (over, first_seed) = (AtomicBool::new(false), random.within(1..1 << 20));
    thread::scope(|scope| {
        let client = scope.spawn(|| verifying::client(&uri, &["--size=16M"], first_seed, &over));
        let troubled = faults(stage.is_long(), random)
            .into_iter()
            .try_for_each(|(node, fault)| field.strike(stage, node, fault, random));
        over.store(true, Ordering::SeqCst);
        let verified = client.join().map_err(|_| Failure::new("the client's thread panicked"))?;
        troubled?;
        stage.tell(format!(
            "the client wrote and verified 16 MiB of it {} times, without an error",
            verified?
        ));
        Ok(())
    })?;
    // Whatever fails: the host leaves the disk before that is taken away.
    let disk = field.disk;
    let mut cluster = field.cluster;
    cluster.host.cli().ask().args(["volume", "verify", VOLUME]).run()?;
    stage.tell("the replicas on NFS, on SMB and on the disk agree");
    cluster.host.stop()?;
    drop(cluster);
    disk.close()
}

/// What happens in turn: in the short form each node is struck once, two of them in one way and the one between in the other;
/// in the long form each in both ways.
fn faults(long: bool, random: &mut Random) -> Vec<(Node, Fault)> {
    let one = if random.once_in(2) { Fault::Killed } else { Fault::Hung };
    let rounds = if long { vec![one, one.other()] } else { vec![one] };
    let mut all = Vec::new();
    for first in rounds {
        all.extend(NODES.into_iter().zip([first, first.other(), first]));
    }
    all
}

impl Field<'_> {
    /// Harms a node until it is left behind, heals it, and waits until it is in sync again.
    fn strike(&mut self, stage: &Stage, node: Node, fault: Fault, random: &mut Random) -> Outcome {
        thread::sleep(Duration::from_millis(random.within(300..1000)));
        let began = Instant::now();
        self.harm(node, fault)?;
        let noticed = self.cluster.until_replica(VOLUME, node.name(), "stale");
        let left_behind = began.elapsed();
        let missed = noticed.and_then(|_| self.write_beside(random.number()));
        thread::sleep(Duration::from_millis(random.within(500..1500)));
        self.heal(node, fault)?;
        missed.context(format!("{node:?} {fault:?}"))?;
        let healed = Instant::now();
        let copied = until(PROBATION, || match self.replica(node)? {
            (state, copied) if state == "in-sync" => Ok(copied),
            (state, _) => Err(Failure::new(format!("{} is {state}", node.name()))),
        })?;
        ensure(copied > 0, || format!("{} fetched nothing of what it missed", node.name()))?;
        let how = match (node, fault) {
            (Node::Disk, Fault::Killed) => "was pulled out and put in again",
            (_, Fault::Killed) => "was killed and came back",
            (_, Fault::Hung) => "hung and went on",
        };
        stage.tell(format!(
            "{} {how}: left behind after {:.1} s; {:.1} s after its return it had fetched {} KiB and was in sync",
            node.name(),
            left_behind.as_secs_f64(),
            healed.elapsed().as_secs_f64(),
            copied >> 10
        ));
        Ok(())
    }

    /// Writes where the verifying client does not: that one may be reading just then, and who is left behind misses nothing.
    fn write_beside(&self, seed: u64) -> Outcome {
        let mut client = self.cluster.host.connect(VOLUME)?;
        let byte = seed.to_le_bytes()[0];
        let write = client.call(Command::Write { fua: true }, SIZE - MIB, 512, &[byte; 512]);
        write.map(drop).context("a write that is missed")
    }

    fn harm(&mut self, node: Node, fault: Fault) -> Outcome {
        match (node, fault) {
            (Node::Share(server), Fault::Killed) => self.servers.signal_all(server, "KILL"),
            (Node::Share(server), Fault::Hung) => self.servers.signal_all(server, "STOP"),
            (Node::Disk, Fault::Killed) => self.disk.pull_out(),
            (Node::Disk, Fault::Hung) => self.disk.hang(true),
        }
    }

    fn heal(&mut self, node: Node, fault: Fault) -> Outcome {
        match (node, fault) {
            (Node::Share(server), Fault::Killed) => self.servers.again(server),
            (Node::Share(server), Fault::Hung) => self.servers.signal_all(server, "CONT"),
            (Node::Disk, Fault::Killed) => self.disk.put_in(),
            (Node::Disk, Fault::Hung) => self.disk.hang(false),
        }
    }

    /// The state of a node's replica, and the bytes copied to it since its resync began.
    fn replica(&self, node: Node) -> Outcome<(String, u64)> {
        let mut replicas = self.cluster.replicas(VOLUME)?;
        let found = replicas.remove(node.name());
        found.ok_or_else(|| Failure::new(format!("{} has no replica", node.name())))
    }
}
