// SPDX-License-Identifier: Apache-2.0
//! What an operator does with volumes in a Ceph cluster, through a real host with clients over NBD. `NOVASTOR_CEPH=DIR` names
//! the cluster; `tests/services/ceph with COMMAND` makes one for a command.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    artifacts::Artifacts,
    failure::Outcome,
    host::{Host, install},
    nbd::{Client, Command},
    program::{Program, Said, until},
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> PathBuf {
    std::env::var_os("NOVASTOR_CEPH").expect("NOVASTOR_CEPH names the cluster's directory").into()
}

fn host() -> Host {
    let artifacts = Artifacts::of_this_build().expect("a build");
    let conf = cluster().join("ceph.conf");
    let more = format!(
        "\n[backends.rack]\ndriver = \"ceph\"\nconf_file = {conf:?}\nuser = \"novastor\"\npool = \"volumes\"\n"
    );
    let mut host = Host::start(&artifacts, &more).expect("a host");
    let driver = artifacts.local().expect("a build").with_file_name("libceph.so");
    install(&driver, &host.plugins()).expect("installed");
    host.stop().expect("stopped");
    host.restart().expect("with both drivers");
    host
}

fn run(host: &Host, words: &str) -> Outcome<Said> {
    host.cli().ask().args(words.split(' ')).run()
}

fn asked(host: &Host, words: &str) -> Value {
    let said = run(host, &format!("{words} --output json")).expect("an answer");
    serde_json::from_str(&said.stdout).expect("JSON")
}

fn refused(host: &Host, words: &str, code: i32) -> String {
    let program = host.cli().ask().args(words.split(' ')).codes(&[code]);
    program.run().expect("refused with its code").stderr
}

/// Ceph's own tool, as the administrator.
fn rbd(words: &str) -> String {
    let conf = cluster().join("ceph.conf");
    let program = Program::new("rbd").arg("-c").arg(conf).args(words.split(' '));
    program.run().expect("done").stdout
}

fn signal_osds(signal: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../services/ceph");
    for osd in ["osd.0", "osd.1", "osd.2"] {
        let program = Program::new(&script).arg("daemon").arg(cluster()).args([osd, signal]);
        program.run().expect("signalled");
    }
}

/// Removes what an earlier run has left, also what its host held when it died.
fn gone(host: &Host, names: &[&str]) {
    for name in names {
        if !rbd("ls volumes").lines().any(|line| line == *name) {
            continue;
        }
        for words in [
            format!("volume adopt {name} --backend rack"),
            format!("volume attach {name} --take-over"),
            format!("volume detach {name}"),
            format!("volume delete {name} --snapshots"),
        ] {
            run(host, &words).expect("what was left can be removed");
        }
    }
}

/// The bytes that belong at an offset.
fn pattern(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).step_by(8).flat_map(|at| (at | 1 << 63).to_le_bytes()).collect()
}

fn fill(client: &mut Client, size: u64) {
    for at in (0..size).step_by(MIB as usize) {
        let data = pattern(at, MIB);
        client.call(Command::Write { fua: false }, at, MIB as u32, &data).expect("written");
    }
}

fn is_filled(client: &mut Client, size: u64, when: &str) {
    for at in (0..size).step_by(MIB as usize) {
        let data = client.call(Command::Read, at, MIB as u32, &[]).expect("read");
        // The first block of each MiB is a client's to write.
        assert!(data[4096..] == pattern(at, MIB)[4096..], "{when}: not what it was at {at}");
    }
}

fn job_of(host: &Host, words: &str) -> u64 {
    asked(host, &format!("{words} --no-wait"))["id"].as_u64().expect("a job")
}

fn until_some_is_done(host: &Host, job: u64) {
    let begun = Instant::now();
    while asked(host, &format!("job show {job}"))["done"] == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is copied");
    }
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_host_that_was_killed_serves_its_exports_again_at_once_and_another_one_waits() {
    // A volume whose holder died is free after 30 s.
    const AT_ONCE: Duration = Duration::from_secs(15);
    const SIZE: u64 = 16 * MIB;
    let (mut host, mut other) = (host(), host());
    gone(&host, &["e2e-again"]);
    host.cli().create_volume("e2e-again", SIZE, Some("rack"), &[]).expect("a volume");
    host.cli().add_export("e2e-again").expect("exported");
    let mut client = host.connect("e2e-again").expect("a client");
    fill(&mut client, SIZE);
    client.call(Command::Flush, 0, 0, &[]).expect("flushed");
    run(&other, "volume adopt e2e-again --backend rack").expect("adopted");
    for round in 0..2 {
        let killed = Instant::now();
        host.kill9().expect("killed");
        let text = refused(&other, "volume attach e2e-again", 5);
        assert!(text.contains("is attached by novastor on"), "{text}");
        host.restart().expect("again");
        let mut client = host.connect("e2e-again").expect("it is exported");
        is_filled(&mut client, SIZE, "after the host was killed");
        let first = vec![round; 4096];
        client.call(Command::Write { fua: true }, 0, 4096, &first).expect("written");
        let took = killed.elapsed();
        println!("served again {took:?} after it was killed");
        assert!(took < AT_ONCE, "it waited for the cluster to notice: {took:?}");
        let found = client.call(Command::Read, 0, 4096, &[]).expect("read");
        assert!(found == first, "an acknowledged write is lost");
    }
    let text = refused(&other, "volume attach e2e-again", 5);
    assert!(text.contains("--take-over"), "{text}");
    other.stop().expect("stopped");
    run(&host, "export remove e2e-again").expect("removed");
    run(&host, "volume delete e2e-again").expect("deleted");
    host.stop().expect("stopped");
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_clone_is_flattened_under_its_client_across_a_killed_host_and_its_source_goes() {
    const SIZE: u64 = 192 * MIB;
    let mut host = host();
    gone(&host, &["e2e-copy", "e2e-mother"]);
    host.cli().create_volume("e2e-mother", SIZE, Some("rack"), &[]).expect("a volume");
    host.cli().add_export("e2e-mother").expect("exported");
    fill(&mut host.connect("e2e-mother").expect("a client"), SIZE);
    run(&host, "export remove e2e-mother").expect("removed");
    run(&host, "snapshot create e2e-mother day").expect("taken");
    run(&host, "snapshot protect e2e-mother day").expect("protected");
    run(&host, "volume clone e2e-mother e2e-copy --snapshot day").expect("cloned");

    let text = refused(&host, "snapshot delete e2e-mother day", 5);
    assert!(text.contains("novastor snapshot protect e2e-mother day --undo"), "{text}");
    let text = refused(&host, "volume delete e2e-mother --snapshots", 5);
    assert!(text.contains("e2e-copy"), "{text}");

    // Killed in the middle, the job goes on.
    let job = job_of(&host, "volume flatten e2e-copy");
    until_some_is_done(&host, job);
    host.kill9().expect("killed");
    host.restart().expect("again");
    assert_eq!(asked(&host, &format!("job show {job}"))["state"], "interrupted");
    assert!(rbd("info volumes/e2e-copy").contains("parent"), "it came to its end before");
    // The cluster thinks that the dead one has it still.
    run(&host, "export add e2e-copy").expect("exported");

    let ends = AtomicBool::new(false);
    let (writes, longest) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = host.connect("e2e-copy").expect("a client");
            let (mut writes, mut longest) = (0_u64, Duration::ZERO);
            while !ends.load(Ordering::Relaxed) {
                let (begun, at) = (Instant::now(), writes * 37 % (SIZE / MIB) * MIB);
                let data = writes.to_le_bytes().repeat(64);
                client.call(Command::Write { fua: true }, at, 512, &data).expect("written");
                let read = client.call(Command::Read, at, 512, &[]).expect("read");
                assert!(read == data, "it reads what it did not write");
                longest = longest.max(begun.elapsed());
                writes += 1;
            }
            (writes, longest)
        });
        let begun = Instant::now();
        run(&host, &format!("job resume {job}")).expect("it comes to its end");
        println!("flattened within {:?}", begun.elapsed());
        ends.store(true, Ordering::Relaxed);
        writer.join().expect("it wrote")
    });
    println!("{writes} writes of a client meanwhile, the longest took {longest:?}");
    assert!(!rbd("info volumes/e2e-copy").contains("parent"));
    let shown = asked(&host, &format!("job show {job}"));
    assert_eq!((&shown["state"], &shown["done"]), (&"done".into(), &shown["total"]), "{shown}");
    let text = refused(&host, "volume delete e2e-mother --snapshots", 5);
    assert!(text.contains("protected"), "{text}");
    run(&host, "snapshot protect e2e-mother day --undo").expect("freed");
    run(&host, "volume delete e2e-mother --snapshots").expect("nobody needs it any more");
    let mut client = host.connect("e2e-copy").expect("a client");
    is_filled(&mut client, SIZE, "without its source");
    drop(client);
    run(&host, "export remove e2e-copy").expect("removed");
    run(&host, "volume delete e2e-copy").expect("deleted");
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn what_changed_is_what_an_incremental_copy_needs() {
    const SIZE: u64 = 64 * MIB;
    let host = host();
    gone(&host, &["e2e-changes"]);
    host.cli().create_volume("e2e-changes", SIZE, Some("rack"), &[]).expect("a volume");
    host.cli().add_export("e2e-changes").expect("exported");
    let mut client = host.connect("e2e-changes").expect("a client");
    fill(&mut client, SIZE);
    let mut copy = read_all(&mut client, SIZE);
    run(&host, "snapshot create e2e-changes one").expect("taken");
    for (at, len) in [(0, 4096), (5 * MIB - 512, 1024), (40 * MIB, MIB)] {
        let data = vec![7; len as usize];
        client.call(Command::Write { fua: false }, at, len as u32, &data).expect("written");
    }
    for (at, len) in [(8 * MIB, 4 * MIB), (30 * MIB + 4096, 8192)] {
        client.call(Command::Trim, at, len as u32, &[]).expect("trimmed");
    }
    run(&host, "snapshot create e2e-changes two").expect("taken");
    let wanted = read_all(&mut client, SIZE);
    // What comes after the second snapshot is not in the answer.
    client.call(Command::Write { fua: false }, 20 * MIB, 4096, &[9; 4096]).expect("written");
    let told = asked(&host, "volume changes e2e-changes --since one --until two");
    assert_eq!(told["size"], SIZE);
    let mut bytes = 0;
    for extent in told["extents"].as_array().expect("extents") {
        let (at, len) =
            (extent["offset"].as_u64().expect("at"), extent["len"].as_u64().expect("len"));
        let range = at as usize..(at + len) as usize;
        match extent["kind"].as_str() {
            Some("zero") => copy[range].fill(0),
            _ => copy[range.clone()].copy_from_slice(&wanted[range]),
        }
        bytes += len;
    }
    assert!(copy == wanted, "the copy is not what the second snapshot holds");
    println!("{bytes} bytes of {SIZE} told: {told}");
    assert!(bytes < 8 * MIB, "more is told than changed: {told}");
    let now = asked(&host, "volume changes e2e-changes --since two");
    assert_eq!(now["extents"][0]["offset"], 20 * MIB, "{now}");
    let text = refused(&host, "volume changes e2e-changes --since none", 3);
    assert!(text.contains("novastor snapshot list e2e-changes"), "{text}");
    drop(client);
    run(&host, "export remove e2e-changes").expect("removed");
    run(&host, "volume delete e2e-changes --snapshots").expect("deleted");
}

fn read_all(client: &mut Client, size: u64) -> Vec<u8> {
    let pieces = (0..size).step_by(MIB as usize);
    pieces.flat_map(|at| client.call(Command::Read, at, MIB as u32, &[]).expect("read")).collect()
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_volume_has_one_name_after_its_host_was_killed_while_renaming_it() {
    let mut host = host();
    gone(&host, &["e2e-old", "e2e-new"]);
    host.cli().create_volume("e2e-old", 8 * MIB, Some("rack"), &[]).expect("a volume");
    host.cli().add_export("e2e-old").expect("exported");
    let mut client = host.connect("e2e-old").expect("a client");
    client.call(Command::Write { fua: true }, 0, 512, &[5; 512]).expect("written");
    drop(client);
    let text = refused(&host, "volume rename e2e-old e2e-new", 5);
    assert!(text.contains("novastor export remove e2e-old"), "{text}");
    run(&host, "export remove e2e-old").expect("removed");
    let mut names = ["e2e-old", "e2e-new"];
    for wait_ms in [0, 20, 60, 150, 1000] {
        let [from, to] = names;
        // With the cluster standing still the host dies before librbd is done, otherwise perhaps after.
        let stands_still = wait_ms == 1000;
        if stands_still {
            signal_osds("STOP");
        }
        let mut renaming = host.cli().ask().args(["volume", "rename", from, to]);
        renaming = renaming.codes(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let mut renaming = renaming.start(&host.path("rename.log")).expect("started");
        thread::sleep(Duration::from_millis(wait_ms));
        host.kill9().expect("killed");
        if stands_still {
            signal_osds("CONT");
        }
        renaming.wait(PATIENCE).expect("it ended");
        host.restart().expect("again");
        let found = until(PATIENCE, || {
            let listed = asked(&host, "volume list --unmanaged");
            let listed = listed.as_array().expect("a list").clone();
            let mut its = listed.into_iter().filter(|one| {
                let name = one["name"].as_str().unwrap_or_default();
                names.contains(&name)
            });
            let one = its.next().expect("the volume is lost");
            assert!(its.next().is_none(), "it has two names");
            end_to_end::failure::ensure(one["state"] == "available", || one.to_string())?;
            Ok(one)
        });
        let found = found.expect("a volume that can be used");
        let name = found["name"].as_str().expect("a name").to_owned();
        assert_eq!(found["inner_name"], name.as_str());
        let there: Vec<_> = rbd("ls volumes").lines().map(str::to_owned).collect();
        let there: Vec<_> = there.iter().filter(|one| names.contains(&one.as_str())).collect();
        assert_eq!(there, [&name], "killed after {wait_ms} ms");
        println!("killed after {wait_ms} ms: {name}, was {from}");
        // The lock under which the dead one renamed is given up once the cluster misses its client.
        until(PATIENCE, || host.cli().add_export(&name)).expect("it can be used");
        let mut client = host.connect(&name).expect("a client");
        assert_eq!(client.call(Command::Read, 0, 512, &[]).expect("read"), [5; 512]);
        drop(client);
        run(&host, &format!("export remove {name}")).expect("removed");
        if name == to {
            names = [to, from];
        }
    }
    // An image is not deleted while the cluster takes a client of it for alive, such as one of a host that was killed.
    let delete = format!("volume delete {}", names[0]);
    until(2 * PATIENCE, || run(&host, &delete)).expect("deleted");
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_host_starts_and_serves_although_a_cluster_stands_still() {
    let mut host = host();
    gone(&host, &["e2e-still"]);
    host.cli().create_volume("e2e-still", 8 * MIB, Some("rack"), &[]).expect("a volume");
    host.cli().create_volume("e2e-here", 8 * MIB, Some("disk"), &[]).expect("another");
    for name in ["e2e-still", "e2e-here"] {
        host.cli().add_export(name).expect("exported");
    }
    let mut client = host.connect("e2e-still").expect("a client");
    client.call(Command::Write { fua: true }, 0, 512, &[5; 512]).expect("written");
    host.kill9().expect("killed");
    drop(client);
    signal_osds("STOP");
    let begun = Instant::now();
    let started = host.restart();
    let (took, here) = (begun.elapsed(), host.connect("e2e-here"));
    signal_osds("CONT");
    started.expect("it starts");
    assert!(took > Duration::from_secs(9), "nothing held its start up: {took:?}");
    let mut here = here.expect("the volume that is not in the cluster");
    here.call(Command::Write { fua: true }, 0, 512, &[6; 512]).expect("written");
    let mut client = until(2 * PATIENCE, || host.connect("e2e-still")).expect("when it goes on");
    assert_eq!(client.call(Command::Read, 0, 512, &[]).expect("read"), [5; 512]);
    drop(client);
    run(&host, "export remove e2e-still").expect("removed");
    until(2 * PATIENCE, || run(&host, "volume delete e2e-still")).expect("deleted");
}
