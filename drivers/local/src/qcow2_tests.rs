// SPDX-License-Identifier: Apache-2.0
//! What becomes of a volume whose image nobody can trust any more.

use std::{fs, path::Path, process::Command};

use driver_api::{
    Attach, AttachMode, Backend, IoBuf, OpContext, Volume, VolumeSpec, WriteFlags,
    ext::{AllocationMap, Clones, Resize, Snapshots},
};
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::{Config, LocalBackend, LocalVolume};

const CX: OpContext = OpContext::new();
const SIZE: u64 = 8 << 20;

async fn backend(dir: &Path) -> LocalBackend {
    let options = serde_json::json!({ "dir": dir, "format": "qcow2" });
    let config: Config = serde_json::from_value(options).expect("options");
    let backend = LocalBackend::open("test", config).await.expect("opened");
    backend.create(&CX, VolumeSpec::new("v", SIZE)).await.expect("created");
    backend
}

async fn attach(backend: &LocalBackend, mode: AttachMode) -> Result<LocalVolume> {
    backend.attach(&CX, "v", Attach::new(mode, 1, "test")).await
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("volumes/v/disk.qcow2")
}

async fn write(volume: &LocalVolume, offset: u64, byte: u8) -> Result<()> {
    volume.write(&CX, offset, IoBuf::copy_from(&[byte; 4096]), WriteFlags::NONE).await
}

/// Panics in the middle of an operation, which has changed the image in memory if it may write.
fn panic_in(volume: &LocalVolume) -> Receiver<Result<()>> {
    let actor = volume.0.image.as_ref().expect("a qcow2 volume");
    actor.run(|image| {
        let image = image?;
        if image.writable {
            let written = image.runtime.block_on(image.access.write(&[9; 4096][..], 4 << 20));
            written.expect("a write whose metadata is still in memory");
        }
        panic!("on purpose")
    })
}

fn given_up<T>(what: &str, done: Result<T>) {
    let error = done.err().unwrap_or_else(|| panic!("{what} goes on"));
    assert_eq!(error.kind(), ErrorKind::INTERNAL, "{what}: {error:#}");
    assert!(error.message().contains("given up"), "{what}: {error:#}");
    assert!(error.remedy_text().contains("attach it again"), "{what}: {error:#}");
}

async fn everything_fails(volume: &LocalVolume) {
    given_up("read", volume.read(&CX, 0, 4096).await);
    given_up("flush", volume.flush(&CX).await);
    given_up("extents", volume.extents(&CX, 0, SIZE, 10).await);
    given_up("list snapshots", volume.list(&CX).await);
    if !volume.0.writer {
        return;
    }
    given_up("write", write(volume, 0, 2).await);
    let data = IoBuf::copy_from(&[2; 4096]);
    given_up("durable write", volume.write(&CX, 0, data, WriteFlags::FUA).await);
    given_up("discard", volume.discard(&CX, 0, 65536).await);
    given_up("zeroing", volume.write_zeroes(&CX, 0, 65536, WriteFlags::NONE).await);
    given_up("resize", Resize::resize(volume, &CX, 2 * SIZE, false).await);
    given_up("snapshot", volume.create(&CX, "t").await);
    given_up("delete snapshot", volume.delete(&CX, "s").await);
    given_up("roll back", volume.rollback(&CX, "s").await);
}

fn check(image: &Path) {
    let output = Command::new("qemu-img").arg("check").arg(image).output().expect("qemu-img");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // Leaked clusters are waste, anything else is damage.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_only_detaching_works_and_attaching_anew_finds_what_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let volume = attach(&backend, AttachMode::EXCLUSIVE).await.expect("attached");
    let incarnation = volume.incarnation();
    write(&volume, 0, 1).await.expect("written");
    volume.create(&CX, "s").await.expect("a snapshot");
    write(&volume, 1 << 20, 1).await.expect("written, and never flushed");
    // Asked before the panic is over: it must not reach the image either.
    let (panicked, queued) = (panic_in(&volume), write(&volume, 2 << 20, 3));
    let error = panicked.await.expect("an answer").expect_err("failed");
    assert_eq!(error.kind(), ErrorKind::PANIC);
    assert!(error.message().contains("on purpose") && error.context().any(|it| it.1 == "v"));
    given_up("a queued write", queued.await);
    assert_ne!(volume.incarnation(), incarnation);
    let before = fs::read(file(dir.path())).expect("the image");
    everything_fails(&volume).await;
    given_up("clone", backend.clone_volume(&CX, "v", "", VolumeSpec::new("c", SIZE)).await);
    volume.detach(&CX).await.expect("detached");
    assert!(fs::read(file(dir.path())).expect("the image") == before, "the broken image wrote");
    check(&file(dir.path()));
    let volume = attach(&backend, AttachMode::EXCLUSIVE).await.expect("attached anew");
    assert_ne!(volume.incarnation(), incarnation, "it was not left in good order");
    for offset in [0, 1 << 20] {
        let read = volume.read(&CX, offset, 4096).await.expect("read");
        assert_eq!(read[..], [1; 4096], "what was acknowledged");
    }
    assert_eq!(volume.read(&CX, 2 << 20, 4096).await.expect("read")[..], [0; 4096]);
    write(&volume, 4 << 20, 5).await.expect("written");
    assert_eq!(volume.read(&CX, 4 << 20, 4096).await.expect("read")[..], [5; 4096]);
    volume.detach(&CX).await.expect("detached");
    check(&file(dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_given_up_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let volume = attach(&backend, AttachMode::READ_ONLY).await.expect("attached");
    let other = attach(&backend, AttachMode::READ_ONLY).await.expect("attached");
    let error = panic_in(&other).await.expect("an answer").expect_err("failed");
    assert_eq!(error.kind(), ErrorKind::PANIC);
    everything_fails(&other).await;
    given_up("clone", backend.clone_volume(&CX, "v", "", VolumeSpec::new("c", SIZE)).await);
    volume.read(&CX, 0, 4096).await.expect("another attachment has an image of its own");
    other.detach(&CX).await.expect("detached");
    volume.detach(&CX).await.expect("detached");
    attach(&backend, AttachMode::EXCLUSIVE).await.expect("nobody holds it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_new_image_cannot_be_opened_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let volume = attach(&backend, AttachMode::EXCLUSIVE).await.expect("attached");
    write(&volume, 0, 1).await.expect("written");
    volume.create(&CX, "s").await.expect("a snapshot");
    fs::write(dir.path().join("volumes/v/snapshots/s.qcow2"), [7; 1 << 20]).expect("damaged");
    let error = volume.rollback(&CX, "s").await.expect_err("no image");
    assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{error:#}");
    everything_fails(&volume).await;
    volume.detach(&CX).await.expect("detached");
    assert!(fs::read(file(dir.path())).expect("the file") == [7; 1 << 20], "the old image wrote");
}
