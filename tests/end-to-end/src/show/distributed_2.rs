// SPDX-License-Identifier: Apache-2.0
//! Under a client that verifies what it writes, one node hangs and returns, and another one's bricks are deleted: the
//! client sees no error and no wrong byte, and the node that returned fetches only what it missed.

use std::{fs, thread, time::Duration};

use serde_json::json;

use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    program::Program,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// What the client writes to: a part of the volume.
const TOUCHED: u64 = 16 * MIB;
/// The unit of the write-intent log.
const REGION: u64 = 4 * MIB;
/// The third node: in memory, freezes on command, and keeps deposed attachments away.
const FROZEN: &str = "io_timeout_secs = 1\n\n[backends.n3]\ndriver = \"faulty\"\nfences = true\n";

pub(super) fn play(stage: &Stage) -> Outcome {
    let image = stage.path("image");
    clients::ext4_from_tree(&image, SIZE, "/etc".as_ref())?;
    let mut cluster = Cluster::start(&stage.artifacts, &stage.path("nodes"), 2, &["n3"], FROZEN)?;
    install(&stage.artifacts.faulty()?, &cluster.host.plugins())?;
    cluster.volume("disk", SIZE)?;
    cluster.volume("work", SIZE)?;
    let (disk, work) = (cluster.host.uri("disk"), cluster.host.uri("work"));
    clients::image_to_export(&image, &disk)?;
    clients::compare(&image, &disk)?;
    stage.tell("an ext4 image lies on three replicas");

    let rounds = if stage.is_long() { 10 } else { 1 };
    for round in 1..=rounds {
        let client = {
            let program = busy(&work, round, 8);
            thread::spawn(move || program.run())
        };
        thread::sleep(Duration::from_secs(1));
        freeze(&cluster, true)?;
        cluster.until_replica("work", "n3", "stale")?;
        thread::sleep(Duration::from_secs(1));
        freeze(&cluster, false)?;
        let copied = cluster.until_replica("work", "n3", "in-sync")?;
        client.join().map_err(|_| Failure::new("the client's thread panicked"))??;
        // Reads may not have asked the node that returned.
        cluster.host.cli().ask().args(["volume", "verify", "work"]).run()?;
        ensure(copied > 0 && copied <= TOUCHED + REGION, || {
            format!("the node fetched {copied} bytes, of {TOUCHED} that it can have missed")
        })?;
        stage.tell(format!(
            "n3 hung and returned under load: it fetched {} KiB of {} MiB",
            copied >> 10,
            SIZE / MIB
        ));
    }

    let client = {
        let program = busy(&work, 99, 4);
        thread::spawn(move || program.run())
    };
    thread::sleep(Duration::from_secs(1));
    for brick in cluster.bricks("disk")?.iter().chain(&cluster.bricks("work")?) {
        if brick.components().any(|part| part.as_os_str() == "n2") {
            let directory =
                brick.parent().ok_or_else(|| Failure::new("a brick without a directory"))?;
            fs::remove_dir_all(directory).context(directory.display())?;
        }
    }
    client.join().map_err(|_| Failure::new("the client's thread panicked"))??;
    // The files were open: the node is asked for its bricks again when the host starts, as is n3, which forgets them.
    cluster.host.stop()?;
    cluster.host.restart()?;
    for volume in ["disk", "work"] {
        for node in ["n2", "n3"] {
            cluster.until_replica(volume, node, "in-sync")?;
        }
        cluster.replicas_agree(volume, 2)?;
    }
    let seed = "--randseed=99";
    clients::fio("work", &work, &WRITES).args([seed, "--verify_only"]).run()?;
    clients::compare(&image, &disk)?;
    stage.tell(
        "n2 lost its bricks and has fresh ones, equal to those of n1; no error, no wrong byte",
    );
    cluster.host.stop()
}

/// Each block of the touched part once, in an order of its own.
const WRITES: [&str; 3] = ["--rw=randwrite", "--bs=4k", "--size=16M"];

/// A client that writes for some seconds, reads back, and fails at the first error or wrong byte.
fn busy(uri: &str, seed: u64, secs: u64) -> Program {
    let rate = TOUCHED / 4096 / secs;
    clients::fio("work", uri, &WRITES).args([
        format!("--randseed={seed}"),
        format!("--rate_iops={rate}"),
        "--iodepth=16".into(),
        "--fsync=32".into(),
        "--verify_backlog=64".into(),
    ])
}

fn freeze(cluster: &Cluster, frozen: bool) -> Outcome {
    cluster.host.cli().run_on_backend("n3", "freeze", &json!({ "frozen": frozen })).map(drop)
}
