// SPDX-License-Identifier: Apache-2.0
//! Snapshots that are there while nodes come and go: what each held when it was taken, and still holds.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{BUSY, STILL, json, known, said};
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Outcome},
    load::Load,
};

/// What is written to the quiet volume before each of its snapshots.
const BETWEEN: [&str; 3] =
    ["write -f -P 0x11 3M 9M", "write -f -P 0x22 8M 9M", "write -f -P 0x33 0 2M"];

/// A snapshot, and what it held.
struct Picture {
    volume: &'static str,
    name: String,
    image: PathBuf,
}

/// All that were taken.
pub(super) struct Pictures(Vec<Picture>);

impl Pictures {
    /// Takes three of the quiet volume, with other content in each, and one of the other under load.
    pub(super) fn take(cluster: &Cluster, room: &Path, load: &Load) -> Outcome<Self> {
        let mut all = Vec::new();
        for (number, write) in (1..).zip(BETWEEN) {
            clients::qemu_io(&cluster.host.uri(STILL.0), write)?;
            all.push(Picture::take(cluster, room, STILL.0, &format!("s{number}"))?);
        }
        load.during(&cluster.host.nbd_socket(), BUSY.0, || {
            all.push(Picture::take(cluster, room, BUSY.0, "under-load")?);
            Ok(())
        })?;
        Ok(Self(all))
    }

    /// Each still reads as it did.
    pub(super) fn are_right(&self, cluster: &Cluster) -> Outcome {
        self.0.iter().try_for_each(|picture| {
            picture.read(cluster, |uri| clients::compare(&picture.image, uri))
        })
    }
}

impl Picture {
    fn take(cluster: &Cluster, room: &Path, volume: &'static str, name: &str) -> Outcome<Self> {
        said(cluster, &["snapshot", "create", volume, name])?;
        let (name, image) = (name.to_owned(), room.join(format!("{volume}-{name}.img")));
        let picture = Self { volume, name, image };
        picture.read(cluster, |uri| clients::export_to_image(uri, &picture.image))?;
        Ok(picture)
    }

    /// Serves a clone of it for a time.
    fn read(&self, cluster: &Cluster, read: impl FnOnce(&str) -> Outcome) -> Outcome {
        let clone = format!("of-{}-{}", self.volume, self.name);
        said(cluster, &["volume", "clone", self.volume, &clone, "--snapshot", &self.name])?;
        cluster.host.cli().add_export(&clone)?;
        read(&cluster.host.uri(&clone)).context(format!("{} at {}", self.volume, self.name))?;
        said(cluster, &["export", "remove", &clone])?;
        said(cluster, &["volume", "delete", &clone])
    }
}

/// The bricks of a volume that hold only snapshots.
pub(super) fn keepers(cluster: &Cluster, volume: &str) -> Outcome<BTreeSet<String>> {
    let replicas = json(cluster.host.cli().ask().args(["volume", "replicas", volume]))?;
    let all = known(replicas["replicas"].as_array(), "no replicas")?.iter();
    let keepers = all.filter(|replica| replica["state"] == "keeper");
    Ok(keepers.filter_map(|replica| Some(replica["brick"].as_str()?.to_owned())).collect())
}
