// SPDX-License-Identifier: Apache-2.0
//! Hostile sessions without crash, hang, leak or growth; herds of slow clients beside a good one; a volume that hangs
//! beside one that does not.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    hostile::{
        herd::{Habit, Herd},
        play,
        pump::{Pump, median},
        session::Session,
        vitals::Vitals,
    },
    nbd::{Client, Command},
    program::until,
    random::Random,
};

const MIB: u64 = 1 << 20;
/// Sessions that are played before growth counts: memory that is kept for use again is kept once.
const WARM_UP: u64 = 2000;
/// What the host may grow over any number of sessions, in KiB.
const GROWTH_KIB: u64 = 16 << 10;
/// What herds may leave behind, in KiB: the C library keeps 40 MiB of the stacks of threads that ended.
const HERDS_LEAVE_KIB: u64 = 96 << 10;
/// The good client's part of its throughput that it keeps beside a herd.
const KEPT: f64 = 0.8;
/// What a short form asks for: it has no time for medians that mean something, and sees only whether the client starves.
const NOT_STARVED: f64 = 0.2;
/// Connections that are new give back memory once, after two seconds without a request.
const COMING_TO_REST: Duration = Duration::from_millis(2500);
const PATIENCE: Duration = Duration::from_secs(30);
/// Open files that the largest herd needs.
const FILES: u64 = 10_500;
/// How soon a good client must be let in, whatever goes on.
const LET_IN: Duration = Duration::from_secs(2);
/// The log says more about each of these clients than a disk should hold.
const CONFIGURATION: &str = "
[log]
filter = \"error\"

[backends.stuck]
driver = \"faulty\"
hang_in = \"read\"
";

pub(super) fn play(stage: &Stage) -> Outcome {
    allow_files()?;
    let mut host = Host::start(&stage.artifacts, CONFIGURATION)?;
    host.stop()?;
    fs::create_dir(host.path("conf.d")).context("conf.d")?;
    fs::write(host.path("conf.d/nbd.toml"), "[nbd]\nmax_connections = 12000\n")
        .context("conf.d/nbd.toml")?;
    host.restart()?;
    host.volume("good", 64 * MIB, "raw")?;
    host.volume("prey", 64 * MIB, "raw")?;
    let seed = Random::seed();
    stage.tell(format!("NOVASTOR_SEED={seed}"));
    sessions(stage, &host, seed)?;
    herds(stage, &host, seed)?;
    stuck(stage, &host)
}

/// Sees that this process and the host, which inherits it, may open a file for each of the herd's connections.
fn allow_files() -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure(most >= FILES, || format!("{FILES} open files are needed, {most} allowed: ulimit -Hn"))?;
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("open files")
}

/// Plays hostile sessions, with the good client at work in between.
fn sessions(stage: &Stage, host: &Host, seed: u64) -> Outcome {
    let socket = host.nbd_socket();
    let mut good = Pump::connect(&socket, "good", seed)?;
    let mut total = 0;
    let mut play = |first: u64, count: u64| -> Outcome {
        play::all(&socket, count, |number| Session::new(seed, first + number, "prey"))?;
        total += count;
        good.run(Duration::from_millis(50)).map(drop).context(format!("after {total} sessions"))
    };
    play(0, WARM_UP)?;
    let cuts = Session::cut_everywhere("prey");
    play::all(&socket, cuts.len() as u64, |number| cuts[number as usize].clone())?;
    let before = settled(host)?;
    stage.tell(format!("{} cuts, one after every byte; the host has {before}", cuts.len()));
    let (count, at_once) = if stage.is_long() { (1_000_000, 20_000) } else { (20_000, 2000) };
    for first in (WARM_UP..WARM_UP + count).step_by(at_once as usize) {
        play(first, at_once)?;
    }
    let after = before.regained_by(host.id()?, GROWTH_KIB).context("after the sessions")?;
    stage.tell(format!("{total} hostile sessions; the host has {after}"));
    Ok(())
}

/// The vitals once the connections of what was played last are gone.
fn settled(host: &Host) -> Outcome<Vitals> {
    let mut last = Vitals::of(host.id()?)?;
    until(PATIENCE, || {
        thread::sleep(Duration::from_millis(300));
        let now = Vitals::of(host.id()?)?;
        let same = now.threads == last.threads && now.files == last.files;
        last = now;
        ensure(same, || format!("it does not come to rest: {now}"))
    })?;
    Ok(last)
}

/// The good client's throughput without and with each herd, in turn.
fn herds(stage: &Stage, host: &Host, seed: u64) -> Outcome {
    let herds = [
        (Habit::Idle, 10_000),
        (Habit::Silent, 10_000),
        (Habit::SlowNegotiation, 300),
        (Habit::SlowWrite, 300),
        (Habit::SlowRead, 100),
    ];
    host.volume("pumped", 64 * MIB, "raw")?;
    let mut good = Pump::connect(&host.nbd_socket(), "pumped", seed)?;
    good.run(Duration::from_secs(1))?;
    let before = settled(host)?;
    for (habit, count) in herds {
        beside(stage, host, &mut good, habit, count)?;
    }
    let after = before.regained_by(host.id()?, HERDS_LEAVE_KIB).context("after the herds")?;
    stage.tell(format!("the herds are gone; the host has {after}, as before: {before}"));
    Ok(())
}

fn beside(stage: &Stage, host: &Host, good: &mut Pump, habit: Habit, count: usize) -> Outcome {
    let socket = host.nbd_socket();
    let (rounds, slice) = if stage.is_long() { (5, 1000) } else { (1, 400) };
    let slice = Duration::from_millis(slice);
    let (mut alone, mut accompanied) = (Vec::new(), Vec::new());
    let mut said = String::new();
    for _ in 0..rounds {
        let before = settled(host)?;
        for _ in 0..3 {
            alone.push(good.run(slice)?);
        }
        let mut herd = Herd::open(&socket, "prey", habit, count)?;
        // Those at the end of the queue are let in, or sent away, after they have connected.
        settled(host)?;
        if habit == Habit::Idle {
            thread::sleep(COMING_TO_REST);
        }
        for _ in 0..3 {
            herd.step();
            accompanied.push(good.run(slice)?);
        }
        let since = Instant::now();
        drop(Client::connect(&socket, "good").context(format!("beside {habit:?}"))?);
        ensure(since.elapsed() < LET_IN, || {
            format!("beside {habit:?} a good client waited {:?}", since.elapsed())
        })?;
        let survivors = herd.survivors()?;
        ensure(habit != Habit::Idle || survivors == count, || {
            format!("of {count} idle connections {survivors} are open")
        })?;
        let now = Vitals::of(host.id()?)?;
        let kib = now.rss_kib.saturating_sub(before.rss_kib) as f64;
        said = format!("{survivors} are served, {:.1} KiB each", kib / survivors.max(1) as f64);
        ensure(kib < (512 << 10) as f64, || format!("{habit:?}: the host has {now}"))?;
    }
    let ratio = median(accompanied.clone()) / median(alone.clone());
    stage.tell(format!(
        "beside {count:>5} {habit:?}: {:.0} requests/s of {:.0}, {:.0} %; {said}",
        median(accompanied),
        median(alone),
        ratio * 100.0
    ));
    let asked = if stage.is_long() { KEPT } else { NOT_STARVED };
    ensure(ratio >= asked, || format!("beside {habit:?} the good client keeps {ratio:.2}"))
}

/// A volume that answers no read, with many clients, beside one that does.
fn stuck(stage: &Stage, host: &Host) -> Outcome {
    install(&stage.artifacts.faulty()?, &host.plugins())?;
    until(PATIENCE, || host.cli().create_volume("stuck", MIB, Some("stuck"), &[]))?;
    host.cli().add_export("stuck")?;
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut client = host.connect("stuck")?;
        for _ in 0..64 {
            client.send(Command::Read, 0, 4096, &[]).context("a read of the stuck volume")?;
        }
        waiting.push(client);
    }
    let since = Instant::now();
    let mut client = host.connect("good")?;
    client.call(Command::Flush, 0, 0, &[]).context("flush")?;
    client.call(Command::Read, 0, 4096, &[]).context("read")?;
    host.cli().status()?;
    let export = crate::clients::nbdinfo(&host.uri("prey"))?;
    ensure(export["export-size"] == 64 * MIB, || export.to_string())?;
    ensure(since.elapsed() < LET_IN, || format!("it took {:?}", since.elapsed()))?;
    stage.tell("12800 reads of a volume that hangs: others connect, read, flush and are described");
    drop(waiting);
    let gone = until(PATIENCE, || {
        let left = Vitals::of(host.id()?)?.threads;
        ensure(left < 100, || format!("{left} threads are left"))
    });
    gone.map_err(|failure| Failure::new(format!("clients of the stuck volume left, but {failure}")))
}
