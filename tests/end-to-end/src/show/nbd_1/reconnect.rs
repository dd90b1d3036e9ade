// SPDX-License-Identifier: Apache-2.0
//! The host is killed and started again under clients that come back: qemu with `reconnect-delay`, nbdkit with its
//! retry filter. Their work goes on and finds what it wrote; name, size and flags of each export are what they were.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{super::Stage, relay::Relay};
use crate::{
    clients,
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    libnbd::Libnbd,
    program::{Program, Said},
    random::Random,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;

pub fn play(stage: &Stage, libnbd: &Libnbd, random: &mut Random) -> Outcome {
    let kills = if stage.is_long() { 15 } else { 3 };
    let mut host = Host::start(&stage.artifacts, "")?;
    for (volume, format) in [("disk", "raw"), ("image", "qcow2")] {
        host.volume(volume, SIZE, format)?;
    }
    host.cli().create_volume("fixed", SIZE, None, &[])?;
    host.cli().ask().args(["export", "add", "fixed", "--name", "other", "--read-only"]).run()?;
    let before = exports(libnbd, &host)?;

    let rounds = 60 * kills;
    let work = background(qemu(&host, rounds));
    kill_often(&mut host, kills, random)?;
    let said = joined(work)?;
    let reads = said.stdout.matches("read 65536/65536").count();
    let text = said.stdout.clone() + &said.stderr;
    ensure(reads == rounds && !text.contains("failed") && !text.contains("error"), || {
        format!("{reads} of {rounds} reads of qemu-io are well:\n{text}")
    })?;
    stage.tell(format!(
        "qemu-io wrote and read {rounds} times over {kills} kills without a failure"
    ));

    through_nbdkit(stage, &mut host, kills, random)?;
    stage.tell(format!(
        "fio verified what it wrote through nbdkit's retry filter over {kills} kills"
    ));

    // A client may also be there before the host.
    host.kill9()?;
    let early = background(qemu(&host, 1));
    thread::sleep(Duration::from_millis(700));
    host.restart()?;
    let said = joined(early)?;
    ensure(said.stdout.contains("read 65536/65536"), || said.stdout + &said.stderr)?;
    let after = exports(libnbd, &host)?;
    ensure(before == after, || format!("the exports were\n{before:#}\nand are\n{after:#}"))?;
    stage.tell("a client that came first waited; names, sizes and flags are what they were");
    Ok(())
}

/// qemu-io with so many writes, each read back at once, in one process.
fn qemu(host: &Host, rounds: usize) -> Program {
    let server = json!({ "type": "unix", "path": host.nbd_socket() });
    let node = json!({
        "driver": "raw",
        "file": {
            "driver": "nbd", "server": server, "export": "disk",
            "reconnect-delay": 30, "open-timeout": 30,
        },
    });
    let mut program = Program::new("qemu-io").limit_secs(120);
    for round in 0..rounds {
        let (pattern, offset) = (round % 255 + 1, (round % 128) * 65536);
        program = program.args(["-c", &format!("write -P {pattern} {offset} 64k")]);
        program = program.args(["-c", "sleep 10"]);
        program = program.args(["-c", &format!("read -P {pattern} {offset} 64k")]);
    }
    program.arg(format!("json:{node}"))
}

type Work = thread::JoinHandle<Outcome<Said>>;

fn background(program: Program) -> Work {
    thread::spawn(move || program.run())
}

fn joined(work: Work) -> Outcome<Said> {
    work.join().map_err(|_| Failure::new("the client's thread panicked"))?
}

fn kill_often(host: &mut Host, kills: usize, random: &mut Random) -> Outcome {
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(random.within(100..600)));
        host.kill9()?;
        thread::sleep(Duration::from_millis(random.within(0..500)));
        host.restart()?;
    }
    Ok(())
}

fn through_nbdkit(stage: &Stage, host: &mut Host, kills: usize, random: &mut Random) -> Outcome {
    let host_socket = format!("socket={}", host.nbd_socket().display());
    let retries = ["retry=30", "retries=30", "retry-delay=1", "retry-exponential=no"];
    let parameters = [&[&*host_socket, "export=image"], &retries[..]].concat();
    let relay = Relay::start(&stage.path("nbdkit.sock"), &["--filter=retry"], &parameters)?;
    let secs = kills * 3;
    let runtime = format!("--runtime={secs}");
    let options = ["--rw=randwrite", "--bs=4k-64k", "--size=24M", "--verify_backlog=32"];
    let work = clients::fio("restless", &relay.uri(), &options).args([
        "--time_based",
        &runtime,
        "--iodepth=4",
        "--randrepeat=0",
    ]);
    let work = background(work);
    kill_often(host, kills, random)?;
    let said = joined(work).context(format!("nbdkit said:\n{}", relay.said()))?;
    clients::fio_saw_no_damage(&said)
}

/// Everything that nbdinfo says of each export, but for what is in it.
fn exports(libnbd: &Libnbd, host: &Host) -> Outcome<Value> {
    let uri = format!("nbd+unix:///?socket={}", host.nbd_socket().display());
    let said = libnbd.program("nbdinfo").args(["--list", "--json"]).arg(uri).run()?;
    let mut told: Value = serde_json::from_str(&said.stdout).context(said.stdout)?;
    let exports = told["exports"].as_array_mut();
    let exports = exports.ok_or_else(|| Failure::new("nbdinfo lists no exports"))?;
    ensure(exports.len() == 3, || format!("{} exports", exports.len()))?;
    for export in exports.iter_mut() {
        if let Some(facts) = export.as_object_mut() {
            facts.remove("content");
        }
    }
    exports.sort_by_key(|export| export["export-name"].to_string());
    Ok(told)
}
