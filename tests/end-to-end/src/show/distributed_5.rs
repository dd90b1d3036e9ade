// SPDX-License-Identifier: Apache-2.0
//! A brick of a fully replicated volume is a plain image: with the host stopped, qemu-img opens it, and it is the volume.

use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Outcome, ensure},
    program::Program,
};

const MIB: u64 = 1 << 20;

pub(super) fn play(stage: &Stage) -> Outcome {
    let size = if stage.is_long() { 1024 * MIB } else { 192 * MIB };
    let (image, back) = (stage.path("image"), stage.path("back"));
    clients::ext4_from_tree(&image, size, "/usr/share/doc".as_ref())?;
    let mut cluster = Cluster::start(&stage.artifacts, &stage.path("nodes"), 3, &[], "")?;
    cluster.volume("disk", size)?;
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
    Ok(())
}
