// SPDX-License-Identifier: Apache-2.0
//! A filesystem made from a real tree goes onto a volume and back, by several clients; a clone taken while a mounted
//! filesystem is written is what a power cut would have left.

mod cut;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use super::Stage;
use crate::{
    clients,
    failure::{Context, Outcome, ensure},
    host::Host,
    mount::{ExportFile, Mounted},
    program::{Program, until},
};

const MIB: u64 = 1 << 20;
const TREE: &str = "/usr/share";
/// How much of the tree the short form takes, and the size of its image at least.
const SHORT: [u64; 2] = [120 * MIB, 200 * MIB];
/// The same for scenes that take it to many places.
const SMALL: [u64; 2] = [40 * MIB, 96 * MIB];

/// Where volumes are made.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// What it is called in volumes' names and in what is told.
    pub name: &'a str,
    /// The backend; the active one if none.
    pub backend: Option<&'a str>,
    /// Options of each volume.
    pub options: &'a [(&'a str, &'a str)],
}

impl Place<'_> {
    /// Creates a volume and exports it.
    fn volume(&self, host: &Host, name: &str, size: u64) -> Outcome {
        host.cli().create_volume(name, size, self.backend, self.options)?;
        host.cli().add_export(name)
    }
}

/// A filesystem in an image, made from a real tree.
pub(super) struct Image {
    path: PathBuf,
    size: u64,
}

impl Image {
    /// Makes it, from a part of the tree for the short form.
    pub fn new(stage: &Stage) -> Outcome<Self> {
        Self::made(stage, SHORT)
    }

    /// The same, smaller in the short form.
    pub fn small(stage: &Stage) -> Outcome<Self> {
        Self::made(stage, SMALL)
    }

    fn made(stage: &Stage, short: [u64; 2]) -> Outcome<Self> {
        let path = stage.path("tree.img");
        let size = tree_image(stage, &path, short)?;
        stage.tell(format!("an ext4 image of {} MiB made from {TREE}", size / MIB));
        Ok(Self { path, size })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// The image goes onto a volume in this place and back; clients agree on patterns; clones are of one moment.
pub(super) fn play(stage: &Stage, host: &Host, image: &Image, place: &Place<'_>) -> Outcome {
    let name = place.name;
    there_and_back(stage, host, image, place)?;
    cut::clone_is_one_moment(host, place)?;
    stage.tell(format!("{name}: a clone taken under writes is of one moment"));
    clone_under_load(stage, host, place)?;
    stage.tell(format!(
        "{name}: a clone taken under fio needs its journal replayed and nothing else"
    ));
    Ok(())
}

/// The same without clones.
pub(super) fn there_and_back(
    stage: &Stage,
    host: &Host,
    image: &Image,
    place: &Place<'_>,
) -> Outcome {
    round_trip(stage, host, image, place)?;
    patterns(host, place)?;
    stage.tell(format!("{}: nbdinfo, nbdcopy and qemu-io agree", place.name));
    Ok(())
}

/// Makes the image and returns its size.
fn tree_image(stage: &Stage, image: &Path, [most, least]: [u64; 2]) -> Outcome<u64> {
    let tree = if stage.is_long() { PathBuf::from(TREE) } else { part_of_tree(stage, most)? };
    let used = disk_use(&tree)?;
    // Room for inodes and the journal; the long form has a gibibyte at least.
    let least = if stage.is_long() { 1024 * MIB } else { least };
    let size = (used / 10 * 13 + 64 * MIB).next_multiple_of(MIB).max(least);
    clients::ext4_from_tree(image, size, &tree)?;
    clients::fsck_clean(image)?;
    Ok(size)
}

/// A copy of directories of the tree, of so many bytes at most.
fn part_of_tree(stage: &Stage, most: u64) -> Outcome<PathBuf> {
    let part = stage.path("tree");
    fs::create_dir(&part).context(part.display())?;
    let mut rooms = Vec::new();
    for entry in fs::read_dir(TREE).context(TREE)? {
        rooms.push(entry.context(TREE)?.path());
    }
    rooms.sort();
    let mut taken = 0;
    for room in rooms.iter().filter(|room| room.is_dir() && !room.is_symlink()) {
        let size = disk_use(room)?;
        if taken + size <= most {
            Program::new("cp").arg("-a").arg(room).arg(&part).run()?;
            taken += size;
        }
    }
    ensure(taken > MIB, || format!("{TREE} is empty"))?;
    Ok(part)
}

fn disk_use(path: &Path) -> Outcome<u64> {
    let said = Program::new("du").args(["-s", "--block-size=1"]).arg(path).run()?;
    let number = said.stdout.split_whitespace().next().unwrap_or_default().to_owned();
    number.parse().context(format!("du said {number:?}"))
}

fn round_trip(stage: &Stage, host: &Host, image: &Image, place: &Place<'_>) -> Outcome {
    let (name, size, image) = (place.name, image.size, image.path.as_path());
    let volume = format!("tree-{name}");
    place.volume(host, &volume, size)?;
    let uri = host.uri(&volume);
    clients::image_to_export(image, &uri)?;
    clients::compare(image, &uri)?;
    let info = clients::nbdinfo(&uri)?;
    ensure(info["export-size"] == size, || format!("nbdinfo says of {size} bytes: {info}"))?;
    let back = stage.path("back.img");
    for copy in [clients::export_to_image, clients::nbdcopy] {
        copy(&uri, &back)?;
        clients::same_bytes(image, &back)?;
        clients::fsck_clean(&back)?;
        fs::remove_file(&back).context(back.display())?;
    }
    stage.tell(format!("{name}: onto the volume and back is identical, and clean"));
    Ok(())
}

/// Patterns at odd places, written by one client and read by others.
fn patterns(host: &Host, place: &Place<'_>) -> Outcome {
    let name = place.name;
    let volume = format!("patterns-{name}");
    place.volume(host, &volume, 64 * MIB)?;
    let uri = host.uri(&volume);
    for command in [
        "write -P 0xa5 64k 192k",
        "write -P 0x3c -f 1049088 1536",
        "write -z 128k 64k",
        "discard 200k 4k",
        "flush",
        "read -P 0xa5 64k 64k",
        "read -P 0 128k 64k",
        "read -P 0x3c 1049088 1536",
        "read -P 0 1050624 512",
        "read -P 0 32M 1M",
    ] {
        clients::qemu_io(&uri, command)?;
    }
    let place = tempfile::tempdir().context("temporary directory")?;
    let copy = place.path().join("copy.img");
    clients::nbdcopy(&uri, &copy)?;
    let bytes = fs::read(&copy).context(copy.display())?;
    let all =
        |from: usize, len: usize, byte: u8| bytes[from..from + len].iter().all(|b| *b == byte);
    let agree = bytes.len() == 64 << 20
        && all(64 << 10, 64 << 10, 0xa5)
        && all(128 << 10, 64 << 10, 0)
        && all(1_049_088, 1536, 0x3c)
        && all(1_050_624, 512, 0);
    ensure(agree, || format!("{name}: nbdcopy read something else than qemu-io wrote"))
}

fn clone_under_load(stage: &Stage, host: &Host, place: &Place<'_>) -> Outcome {
    let size = 256 * MIB;
    let empty = stage.path("empty.img");
    clients::ext4_empty(&empty, size)?;
    let (volume, clone) = (format!("mounted-{}", place.name), format!("cloned-{}", place.name));
    place.volume(host, &volume, size)?;
    clients::image_to_export(&empty, &host.uri(&volume))?;
    fs::remove_file(&empty).context(empty.display())?;

    let mounted = Mounted::new(&stage.path(&volume), &host.uri(&volume))?;
    let log = stage.path("fio.log");
    // One job writes at random and syncs; the other lets files come and go, so that the journal has something to tell.
    let directory = format!("--directory={}", mounted.path().display());
    let mut fio = Program::as_root("fio")
        .args(["--thread", "--fallocate=none", "--time_based", "--runtime=60", &directory])
        .args([
            "--name=rewrite",
            "--rw=randwrite",
            "--bs=4k-64k",
            "--size=24m",
            "--nrfiles=24",
            "--fsync=32",
        ])
        .args([
            "--name=come-and-go",
            "--rw=write",
            "--bs=4k",
            "--size=48m",
            "--nrfiles=1000",
            "--openfiles=4",
        ])
        .args([
            "--file_service_type=sequential",
            "--create_on_open=1",
            "--unlink_each_loop=1",
            "--fsync_on_close=1",
        ])
        .start(&log)?;
    let at_work = || {
        fio.still_runs()?;
        let used = disk_use(mounted.path())?;
        ensure(used > 8 * MIB, || format!("fio wrote {used} bytes"))
    };
    until(Duration::from_secs(60), at_work)?;
    host.cli().clone_volume(&volume, &clone)?;
    fio.still_runs()?;
    // Interrupted, fio ends its jobs; where only root may interrupt it, it ends in time.
    if fio.signal(Signal::INT).is_err() {
        stage.tell("fio runs to its end");
    }
    fio.wait(Duration::from_secs(90))?;
    mounted.close()?;

    host.cli().add_export(&clone)?;
    let file = ExportFile::new(&stage.path(&clone), &host.uri(&clone))?;
    clients::fsck_preen(&file.path())?;
    clients::fsck_clean(&file.path())?;
    file.close()
}
