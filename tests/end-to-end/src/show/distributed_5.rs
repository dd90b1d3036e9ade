// SPDX-License-Identifier: Apache-2.0
//! A brick of a fully replicated volume is a plain image: with the host stopped, qemu-img opens it, and it is the volume.
//! What somebody changes in it behind the volume's back is found, and repaired from another replica.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    program::Program,
};

const MIB: u64 = 1 << 20;
/// Shards are as large as an operator asks.
const SHARD: u64 = 64 * MIB;
/// The exit code of a command that found damage.
const CORRUPTED: i32 = 12;
/// Where bytes are changed behind the volume's back: within a piece that is compared, and across two, also of two shards.
const DAMAGE: [u64; 3] = [5 * MIB + 77, 64 * MIB - 40, 130 * MIB - 2000];

pub(super) fn play(stage: &Stage) -> Outcome {
    let size = if stage.is_long() { 1024 * MIB } else { 192 * MIB };
    let (image, back) = (stage.path("image"), stage.path("back"));
    clients::ext4_from_tree(&image, size, "/usr/share/doc".as_ref())?;
    let mut cluster = Cluster::start(&stage.artifacts, &stage.path("nodes"), 3, &[], "")?;
    cluster.volume_with("disk", size, &[("shard_size", "64MiB")])?;
    let uri = cluster.host.uri("disk");
    clients::image_to_export(&image, &uri)?;
    clients::compare(&image, &uri)?;
    clients::export_to_image(&uri, &back)?;
    clients::same_bytes(&image, &back)?;
    clients::fsck_clean(&back)?;
    stage.tell(format!(
        "an ext4 image of {} MiB went onto three replicas and came back",
        size / MIB
    ));

    cluster.host.stop()?;
    cluster.replicas_agree("disk", 3)?;
    for brick in cluster.bricks("disk")? {
        let said = Program::new("qemu-img").args(["info", "--output=json"]).arg(&brick).run()?;
        let info: serde_json::Value =
            serde_json::from_str(&said.stdout).context("qemu-img info")?;
        ensure(info["virtual-size"] == size, || format!("qemu-img says {info}"))?;
        clients::same_bytes(&image, &brick)?;
        clients::fsck_clean(&brick)?;
        let used = info["actual-size"].as_u64().unwrap_or(u64::MAX);
        stage.tell(format!("{}: the image, {} MiB on disk", brick.display(), used / MIB));
    }
    shards_are_the_volume(stage, &mut cluster, &image, size)?;
    damage_is_found(stage, &mut cluster, &image)
}

/// Reads the volume shard by shard, and writes into one; leaves the image as the volume is then.
fn shards_are_the_volume(stage: &Stage, cluster: &mut Cluster, image: &Path, size: u64) -> Outcome {
    cluster.host.restart()?;
    let (read, new) = (stage.path("shards"), stage.path("new"));
    let shards = size.div_ceil(SHARD);
    for shard in 0..shards {
        let ask = cluster.host.cli().ask().args(["shard", "read", "disk", &shard.to_string()]);
        ask.appending(&read)?.run()?;
    }
    clients::same_bytes(image, &read)?;

    let bytes: Vec<u8> = (0..3 * MIB).map(|index| (index % 251) as u8).collect();
    fs::write(&new, &bytes).context(new.display())?;
    let offset = 9 * MIB + 512;
    let ask = ["shard", "write", "disk", "1", "--offset", &offset.to_string()];
    cluster.host.cli().ask().args(ask).reading(&new)?.run()?;
    let file = File::options().write(true).open(image).context(image.display())?;
    file.write_all_at(&bytes, SHARD + offset).context(image.display())?;
    clients::compare(image, &cluster.host.uri("disk"))?;
    stage.tell(format!("{shards} shards read one by one are the volume; one was written into"));
    cluster.host.stop()?;
    cluster.replicas_agree("disk", 3)
}

/// Changes bytes in each brick in turn, has them found and repaired.
fn damage_is_found(stage: &Stage, cluster: &mut Cluster, image: &Path) -> Outcome {
    for (damaged, source) in [("n2", "n1"), ("n1", "n3")] {
        let bricks = cluster.bricks("disk")?;
        let is_on = |brick: &&std::path::PathBuf| {
            brick.components().any(|part| part.as_os_str() == damaged)
        };
        let brick = bricks.iter().find(is_on);
        let brick = brick.ok_or_else(|| Failure::new(format!("no brick on {damaged}")))?;
        let file = File::options().read(true).write(true).open(brick).context(brick.display())?;
        for offset in DAMAGE {
            let mut bytes = [0; 100];
            file.read_exact_at(&mut bytes, offset).context(brick.display())?;
            file.write_all_at(&bytes.map(|byte| !byte), offset).context(brick.display())?;
        }
        cluster.host.restart()?;
        let ask = |words: &[&str]| cluster.host.cli().ask().args(["volume"]).args(words);
        let verify = || ask(&["verify", "disk"]);
        let found = verify().codes(&[CORRUPTED]).run()?;
        let text = found.stdout + &found.stderr;
        ensure(text.contains(damaged), || {
            format!("{damaged} was damaged, and verify says {text}")
        })?;
        stage.tell(format!(
            "bytes of {damaged} were changed; verify: {}",
            text.lines().next().unwrap_or_default()
        ));
        ask(&["repair", "disk", "--source", source]).run()?;
        verify().run()?;
        clients::compare(image, &cluster.host.uri("disk"))?;
        cluster.host.stop()?;
        cluster.replicas_agree("disk", 3)?;
        clients::same_bytes(image, brick)?;
        stage.tell(format!(
            "repaired from {source}: verify is clean, and every brick is the volume"
        ));
    }
    Ok(())
}
