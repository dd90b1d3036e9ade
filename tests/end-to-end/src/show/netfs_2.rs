// SPDX-License-Identifier: Apache-2.0
//! A filesystem goes onto a volume on each protocol and back; an image that lies on the share already is served as it is, and
//! is what it was when it is given back. So are images in qcow2: qemu-img finds no error in those that the driver wrote, and
//! those that qemu-img made are served.

use std::{fs, os::unix::fs::MetadataExt};

use super::{
    Stage,
    round_trip::{self, Image, Place},
};
use crate::{
    clients,
    failure::{Context, Outcome, ensure},
    host::Host,
    netfs::{Netfs, Server, WAYS, Way},
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let servers = Netfs::start(&stage.path("servers"))?;
    let image = Image::small(stage)?;
    // The short form takes one version of each protocol for images in qcow2.
    let in_images: &[Way] =
        if stage.is_long() { &WAYS } else { &[Way::Nfs3, Way::Nfs41, Way::Smb] };
    let mut host = servers.host(&stage.artifacts, &WAYS, "")?;
    for way in WAYS {
        let place = Place { name: way.name(), backend: Some(way.name()), options: &[] };
        round_trip::there_and_back(stage, &host, &image, &place).context(way.name())?;
        adopted(stage, &servers, &host, &image, way).context(way.name())?;
        if in_images.contains(&way) {
            written_in_qcow2(stage, &servers, &host, &image, way).context(way.name())?;
            made_by_qemu(stage, &servers, &host, &image, way).context(way.name())?;
        }
        clear(&servers, way)?;
    }
    host.stop()
}

/// A volume in a qcow2 image: qemu-img finds no error in what the driver wrote, and the same content.
fn written_in_qcow2(
    stage: &Stage,
    servers: &Netfs,
    host: &Host,
    image: &Image,
    way: Way,
) -> Outcome {
    let name = format!("image-{}", way.name());
    let file = servers.files(way)?.join(format!("{name}.qcow2"));
    let format = [("format", "qcow2")];
    host.cli().create_volume(&name, image.size(), Some(way.name()), &format)?;
    host.cli().add_export(&name)?;
    clients::image_to_export(image.path(), &host.uri(&name))?;
    clients::compare(image.path(), &host.uri(&name))?;
    host.cli().ask().args(["export", "remove", &name]).run()?;
    clients::sound_qcow2_of(image.path(), &file)?;
    stage.tell(format!("{}: qemu-img finds no error in a qcow2 image of ours", way.name()));
    Ok(())
}

/// An image that qemu-img made becomes a volume in place, serves its content, and stays sound when it is written.
fn made_by_qemu(stage: &Stage, servers: &Netfs, host: &Host, image: &Image, way: Way) -> Outcome {
    let name = format!("made-{}", way.name());
    let file = servers.files(way)?.join(format!("{name}.qcow2"));
    clients::qcow2_of(image.path(), &file)?;
    host.cli().ask().args(["volume", "adopt", &name, "--backend", way.name()]).run()?;
    host.cli().add_export(&name)?;
    clients::compare(image.path(), &host.uri(&name))?;
    for command in ["write -P 0x5a 1M 64k", "discard 4M 1M", "flush"] {
        clients::qemu_io(&host.uri(&name), command)?;
    }
    let changed = stage.path("changed.img");
    clients::export_to_image(&host.uri(&name), &changed)?;
    host.cli().ask().args(["export", "remove", &name]).run()?;
    clients::sound_qcow2_of(&changed, &file)?;
    let written = fs::read(&changed).context(changed.display())?;
    let there = written[1 << 20..(1 << 20) + (64 << 10)].iter().all(|byte| *byte == 0x5a);
    ensure(there, || format!("{name} has not what was written to it"))?;
    fs::remove_file(&changed).context(changed.display())?;
    stage.tell(format!("{}: an image of qemu-img's was served and stayed sound", way.name()));
    Ok(())
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
    // By SMB the server is tried out behind the end of the file: no byte changes, but the time does.
    let is_untouched = before.mtime() == after.mtime() || way.server() == Server::Samba;
    let same = before.ino() == after.ino() && before.len() == after.len() && is_untouched;
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
        if path.extension().is_some_and(|kind| kind == "raw" || kind == "qcow2") {
            fs::remove_file(&path).context(path.display())?;
        }
    }
    Ok(())
}
