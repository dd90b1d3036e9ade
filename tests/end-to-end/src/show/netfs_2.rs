// SPDX-License-Identifier: Apache-2.0
//! A filesystem goes onto a volume on each protocol and back; an image that lies on the share already is served as it is, and
//! is what it was when it is given back.

use std::{fs, os::unix::fs::MetadataExt};

use super::{
    Stage,
    round_trip::{self, Image, Place},
};
use crate::{
    clients,
    failure::{Context, Outcome, ensure},
    host::Host,
    netfs::{Netfs, WAYS, Way},
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let servers = Netfs::start(&stage.path("servers"))?;
    let image = Image::new(stage)?;
    let mut host = servers.host(&stage.artifacts, &WAYS, "")?;
    for way in WAYS {
        let place = Place { name: way.name(), backend: Some(way.name()), options: &[] };
        round_trip::there_and_back(stage, &host, &image, &place).context(way.name())?;
        adopted(stage, &servers, &host, &image, way).context(way.name())?;
        clear(&servers, way)?;
    }
    host.stop()
}

/// An image that somebody has put on the share becomes a volume in place, and stays what it is.
fn adopted(stage: &Stage, servers: &Netfs, host: &Host, image: &Image, way: Way) -> Outcome {
    let name = format!("found-{}", way.name());
    let file = servers.files(way)?.join(format!("{name}.raw"));
    fs::copy(image.path(), &file).context(file.display())?;
    let looked = || fs::metadata(&file).context(file.display());
    let before = looked()?;
    let listed = host.cli().ask().args(["volume", "list", "--unmanaged"]).run()?.stdout;
    ensure(listed.contains(&name), || format!("{name} is not listed: {listed}"))?;
    let adopt = ["volume", "adopt", &name, "--backend", way.name()];
    host.cli().ask().args(adopt).run()?;
    host.cli().add_export(&name)?;
    clients::compare(image.path(), &host.uri(&name))?;
    host.cli().ask().args(["export", "remove", &name]).run()?;
    clients::same_bytes(image.path(), &file)?;
    let after = looked()?;
    let same = before.ino() == after.ino() && before.mtime() == after.mtime();
    ensure(same, || format!("{} was written by serving it", file.display()))?;
    // What a client writes to it is in that very file.
    host.cli().add_export(&name)?;
    clients::qemu_io(&host.uri(&name), "write -P 0x5a 1M 64k")?;
    clients::qemu_io(&host.uri(&name), "flush")?;
    host.cli().ask().args(["export", "remove", &name]).run()?;
    let bytes = fs::read(&file).context(file.display())?;
    let written = bytes[1 << 20..(1 << 20) + (64 << 10)].iter().all(|byte| *byte == 0x5a);
    ensure(written, || format!("{} has not what was written to the volume", file.display()))?;
    stage.tell(format!("{}: an image on the share was served in place, unchanged", way.name()));
    Ok(())
}

/// Frees the space that the volumes of a way take on the server.
fn clear(servers: &Netfs, way: Way) -> Outcome {
    let room = servers.files(way)?;
    for entry in fs::read_dir(&room).context(room.display())? {
        let path = entry.context(room.display())?.path();
        if path.extension().is_some_and(|kind| kind == "raw") {
            fs::remove_file(&path).context(path.display())?;
        }
    }
    Ok(())
}
