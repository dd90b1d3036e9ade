// SPDX-License-Identifier: Apache-2.0
//! The power of the servers is cut: they are killed, and with their disk goes what was written to it and not made durable.
//! What they had acknowledged as unstable is really lost then, and has to be written again before a flush is acknowledged.

use std::{thread, time::Duration};

use serde_json::Value;

use super::{LEDGER, OPTIONS, PATIENCE, Stage, all_serve, at_work, kept, volumes};
use crate::{
    failure::{Context, Outcome, ensure},
    host::{Host, install},
    load::Load,
    netfs::{Netfs, Server, Way},
    program::{Program, until},
    random::Random,
    show::ceph_2::Disk,
};

/// Each protocol once.
const WAYS: [Way; 3] = [Way::Nfs3, Way::Nfs41, Way::Smb];
const SERVERS: [Server; 2] = [Server::Ganesha, Server::Samba];

pub(super) fn play(stage: &Stage, servers: &Netfs, random: &mut Random) -> Outcome {
    let mut disk = Disk::new(&stage.path("disk"))?;
    let played = on(stage, servers, &mut disk, random);
    // Whoever uses the disk goes before it does.
    SERVERS.iter().try_for_each(|server| servers.signal_all(*server, "KILL"))?;
    played?;
    disk.close()
}

fn on(stage: &Stage, servers: &Netfs, disk: &mut Disk, random: &mut Random) -> Outcome {
    servers.move_to(&disk.path())?;
    let mut more = servers.secrets();
    for way in WAYS {
        more += &servers.section(way.name(), way, OPTIONS)?;
    }
    let mut host = Host::start(&stage.artifacts, &more)?;
    install(&stage.artifacts.netfs()?, &host.plugins())?;
    volumes(&host, &WAYS)?;
    // Not every server makes names durable; here it is about what is in files.
    Program::new("sync").arg("-f").arg(disk.path()).run()?;
    let loads: Vec<Load> =
        WAYS.iter().map(|_| Load::new(LEDGER / 512, 1, random.number())).collect();
    let (rounds, first_seed) = (if stage.is_long() { 5 } else { 1 }, random.within(1..1 << 20));
    at_work(&host, &WAYS, &loads, first_seed, |all_well| {
        for _ in 0..rounds {
            thread::sleep(Duration::from_millis(random.within(1000..3000)));
            all_well()?;
            SERVERS.iter().try_for_each(|server| servers.signal_all(*server, "KILL"))?;
            disk.pull_out()?;
            disk.put_in()?;
            SERVERS.iter().try_for_each(|server| servers.again(*server))?;
            until(PATIENCE, || all_serve(&host, &WAYS))?;
        }
        Ok(())
    })?;
    let mut again = Vec::new();
    for way in WAYS {
        again.push(format!("{} KiB by {}", replayed(&host, way)? >> 10, way.name()));
    }
    stage.tell(format!(
        "the servers' power was cut {rounds} times, and what they had not made durable lost; written again: {}",
        again.join(", ")
    ));
    kept(stage, &mut host, &WAYS, &loads)
}

/// Bytes that were written again because a server may have lost them.
fn replayed(host: &Host, way: Way) -> Outcome<u64> {
    let shown = host.cli().ask().args(["backend", "show", way.name(), "--output", "json"]).run()?;
    let shown: Value = serde_json::from_str(&shown.stdout).context("backend show")?;
    let stats = shown["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
    let figures = stats.iter().filter(|figure| figure["name"] == "mount_replayed_bytes_total");
    let bytes: f64 = figures.filter_map(|figure| figure["value"].as_f64()).sum();
    ensure(bytes > 0.0, || format!("{}: nothing was written again: {shown}", way.name()))?;
    Ok(bytes as u64)
}
