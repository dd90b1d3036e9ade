// SPDX-License-Identifier: Apache-2.0
//! The host's state is deleted while one replica is stale, and again while only the stale one is there: `node recover`
//! makes the right volume anew, or refuses and says what is missing. What is accepted as lost is never seen again.

use std::{fs, path::Path, thread, time::Duration};

use super::Stage;
use crate::{
    clients,
    cluster::{BACKEND, Cluster},
    failure::{Context, Outcome, ensure},
    host::{Host, configuration},
    load::Load,
    program::{Program, Said},
    random::Random,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;
/// What the verifying load writes: the first part of `disk`.
const LEDGER: u64 = 8 * MIB;
/// Ranges that the load leaves alone. What was written before the third node left,
const BEFORE: &str = "-P 0xa1 12M 4M";
/// when it had left for the first time, to a region that nobody had written to, so that no record of its own tells of it,
const AFTER: &str = "-P 0xb2 20M 1M";
/// and when it had left for the second time, over a part of the first range; the rest of that.
const LATER: &str = "-P 0xd4 12M 1M";
const UNTOUCHED: &str = "-P 0xa1 13M 3M";
/// Other numbers than those that the bricks know.
const BACKWARDS: [&str; 5] = ["n5", "n4", "n3", "n2", "n1"];
const WITHOUT_N3: [&str; 4] = ["n5", "n4", "n2", "n1"];
const ONLY_N3: [&str; 1] = ["n3"];
const REFUSED: i32 = 10;
/// After which nothing has intent any more.
const IDLE: Duration = Duration::from_secs(8);

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let rounds = if stage.is_long() { 10 } else { 1 };
    for round in 1..=rounds {
        one_round(stage, &stage.path(&format!("round-{round}")), &mut random)
            .context(format!("round {round}, NOVASTOR_SEED={seed}"))?;
    }
    Ok(())
}

fn one_round(stage: &Stage, room: &Path, random: &mut Random) -> Outcome {
    let mut cluster = Cluster::start(&stage.artifacts, room, BACKWARDS.len(), &[], "")?;
    cluster.volume_with("disk", SIZE, &[("nodes", "n1,n2,n3")])?;
    let wide = [("replication_factor", "2"), ("shard_size", "1MiB")];
    cluster.volume_with("wide", SIZE, &wide)?;
    let uri = cluster.host.uri("wide");
    clients::qemu_io(&uri, "write -P 0xc3 0 24M")?;
    clients::qemu_io(&uri, "flush")?;
    let shards = shards(&cluster)?;
    clients::qemu_io(&cluster.host.uri("disk"), &format!("write -f {BEFORE}"))?;

    let load = Load::new(LEDGER / 512, 2, random.number());
    let mut moment = || Duration::from_millis(random.within(300..900));
    write_until_killed(&mut cluster.host, &load, moment())?;
    lose_n3(&mut cluster, room, &load, AFTER)?;
    write_until_killed(&mut cluster.host, &load, moment())?;
    // What has intent is made equal anyway: only what was forgotten shows whose data counts.
    cluster.host.restart()?;
    load.verify(&mut cluster.host.connect("disk")?)?;
    thread::sleep(IDLE);
    cluster.host.stop()?;
    stage.tell(format!("{} acknowledged flushes; n3 has missed the later ones", load.flushes()));

    start_without_state(&mut cluster.host, room, &BACKWARDS)?;
    recovers_all(&cluster)?;
    right_volume(&cluster, &load, &[BEFORE, AFTER], &shards)?;
    for node in ["n1", "n2", "n3"] {
        cluster.until_replica("disk", node, "in-sync")?;
    }
    cluster.host.stop()?;
    cluster.replicas_agree("disk", 3)?;
    stage.tell("the state was lost, the nodes have other numbers: right volumes, n3 caught up");

    cluster.host.restart()?;
    clients::qemu_io(&cluster.host.uri("disk"), &format!("write -f {BEFORE}"))?;
    write_until_killed(&mut cluster.host, &load, moment())?;
    lose_n3(&mut cluster, room, &load, LATER)?;
    write_until_killed(&mut cluster.host, &load, moment())?;
    let kept = room.with_extension("kept");
    Program::new("cp").args(["-a", "--sparse=always"]).arg(room).arg(&kept).run()?;

    start_without_state(&mut cluster.host, room, &ONLY_N3)?;
    let said = refuses(&cluster.host, &["disk"], "b0")?;
    ensure(said.stderr.contains("--accept-missing"), || said.stderr.clone())?;
    refuses(&cluster.host, &[], "disk")?;
    nothing_is_there(&cluster.host)?;
    stage.tell("only the stale replica is there: refused, and nothing was written");

    cluster.host.stop()?;
    configure(&cluster.host, room, &BACKWARDS)?;
    cluster.host.restart()?;
    recovers_all(&cluster)?;
    right_volume(&cluster, &load, &[LATER, UNTOUCHED, AFTER], &shards)?;
    cluster.until_replica("disk", "n3", "in-sync")?;
    cluster.host.stop()?;
    cluster.replicas_agree("disk", 3)?;
    stage.tell("the newest ones came back before anything was accepted: right volumes");

    fs::remove_dir_all(room).context(room.display())?;
    fs::rename(&kept, room).context(kept.display())?;
    start_without_state(&mut cluster.host, room, &ONLY_N3)?;
    accepted(stage, &mut cluster, room)
}

/// The volume comes back from the stale replica alone; when the others return, they get its data.
fn accepted(stage: &Stage, cluster: &mut Cluster, room: &Path) -> Outcome {
    let said = recover(&cluster.host, &["disk", "--accept-missing"]).run()?;
    let tells = said.stderr.contains("is lost") && said.stderr.contains("lost-");
    ensure(tells, || format!("it does not say what may be lost:\n{}", said.stderr))?;
    cluster.host.cli().add_export("disk")?;
    clients::qemu_io(&cluster.host.uri("disk"), &format!("read {BEFORE}"))?;
    stage.tell("accepted: the volume is as it was when n3 left");

    cluster.host.cli().ask().args(["export", "remove", "disk"]).run()?;
    cluster.host.stop()?;
    configure(&cluster.host, room, &BACKWARDS)?;
    cluster.host.restart()?;
    let said = recover(&cluster.host, &["disk"]).run()?;
    let tells = said.stderr.contains("is n1") && said.stderr.contains("is n2");
    ensure(tells, || format!("it does not say who is back:\n{}", said.stderr))?;
    cluster.host.cli().add_export("disk")?;
    for node in ["n1", "n2"] {
        cluster.until_replica("disk", node, "in-sync")?;
    }
    clients::qemu_io(&cluster.host.uri("disk"), &format!("read {BEFORE}"))?;
    cluster.host.cli().ask().args(["volume", "verify", "disk"]).run()?;
    crate::program::until(Duration::from_secs(20), || {
        let bricks = cluster.bricks("disk")?;
        ensure(bricks.len() == 3, || format!("what was given up is still there: {bricks:?}"))
    })?;
    cluster.host.stop()?;
    cluster.replicas_agree("disk", 3)?;
    stage.tell("the others came back afterwards: they got its data, and what they had is deleted");
    Ok(())
}

fn write_until_killed(host: &mut Host, load: &Load, moment: Duration) -> Outcome {
    let socket = host.nbd_socket();
    load.until_killed(&socket, "disk", moment, || host.kill9())
}

/// Starts the host that was killed without the third node, and writes what that node will never have.
fn lose_n3(cluster: &mut Cluster, room: &Path, load: &Load, written: &str) -> Outcome {
    configure(&cluster.host, room, &WITHOUT_N3)?;
    cluster.host.restart()?;
    load.verify(&mut cluster.host.connect("disk")?)?;
    cluster.until_replica("disk", "n3", "stale")?;
    clients::qemu_io(&cluster.host.uri("disk"), &format!("write -f {written}"))
}

fn start_without_state(host: &mut Host, room: &Path, nodes: &[&str]) -> Outcome {
    let state = host.path("state.redb");
    // The scene may come from a host that still runs, or from one that was killed.
    if host.id().is_ok() {
        host.stop()?;
    }
    fs::remove_file(&state).context(state.display())?;
    configure(host, room, nodes)?;
    host.restart()?;
    nothing_is_there(host)
}

/// A configuration with these nodes only, registered in this order.
fn configure(host: &Host, room: &Path, nodes: &[&str]) -> Outcome {
    let mut text = configuration(&host.path(""));
    for node in nodes {
        text += &format!(
            "\n[backends.{node}]\ndriver = \"local\"\ndir = {:?}\nreserve_percent = 0\n",
            room.join(node)
        );
    }
    text += &format!(
        "\n[backends.{BACKEND}]\ndriver = \"distributed\"\nsynchronous_replication = true\nnodes = {nodes:?}\n"
    );
    fs::write(host.config(), text).context("host.toml")
}

fn recover(host: &Host, words: &[&str]) -> Program {
    host.cli().ask().args(["node", "recover"]).args(words)
}

fn recovers_all(cluster: &Cluster) -> Outcome {
    for (words, outcome) in [(&["--dry-run"][..], "would be recovered"), (&[], "recovered")] {
        let said = recover(&cluster.host, words).args(["--output", "json"]).run()?;
        let told: serde_json::Value = serde_json::from_str(&said.stdout).context("recover")?;
        for volume in ["disk", "wide"] {
            let all = told.as_array().into_iter().flatten();
            let one = all.filter(|one| one["name"] == volume && one["outcome"] == outcome);
            ensure(one.count() == 1, || format!("{volume} is not {outcome}: {told}"))?;
        }
        if outcome != "recovered" {
            nothing_is_there(&cluster.host)?;
        }
    }
    for volume in ["disk", "wide"] {
        cluster.host.cli().add_export(volume)?;
    }
    let said = recover(&cluster.host, &[]).run()?;
    ensure(said.stdout.contains("present already"), || said.stdout.clone())
}

fn refuses(host: &Host, words: &[&str], names: &str) -> Outcome<Said> {
    let said = recover(host, words).codes(&[REFUSED]).run()?;
    ensure(said.stdout.contains("refused") && said.stdout.contains(names), || {
        format!("{}\n{}", said.stdout, said.stderr)
    })?;
    Ok(said)
}

fn nothing_is_there(host: &Host) -> Outcome {
    let said = host.cli().ask().args(["volume", "list", "--output", "json"]).run()?;
    ensure(said.stdout.trim() == "[]", || format!("there are volumes: {}", said.stdout))
}

fn right_volume(cluster: &Cluster, load: &Load, reads: &[&str], expected: &str) -> Outcome {
    load.verify(&mut cluster.host.connect("disk")?)?;
    let disk = cluster.host.uri("disk");
    reads.iter().try_for_each(|range| clients::qemu_io(&disk, &format!("read {range}")))?;
    clients::qemu_io(&cluster.host.uri("wide"), "read -P 0xc3 0 24M")?;
    let shards = shards(cluster)?;
    ensure(shards == expected, || format!("the shards were\n{expected}and are\n{shards}"))
}

/// Where the shards of `wide` are.
fn shards(cluster: &Cluster) -> Outcome<String> {
    Ok(cluster.host.cli().ask().args(["volume", "shards", "wide"]).run()?.stdout)
}
