// SPDX-License-Identifier: Apache-2.0
//! Writers at work while a real server is harmed: nothing fails, and nothing that was flushed is lost.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use driver_api::{Backend, Volume, WriteFlags};
use netfs::NetfsVolume;
use serde_json::{Value, json};

use super::{
    CX, KIB, MIB, made, open,
    real::{address, service},
    value,
};

pub const BLOCK: u64 = 4 * KIB;

/// A file of the export, as the server has it.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(address("export")).join(name)
}

/// Writes its own region for as long as it is told to, and remembers what a flush has made durable.
struct Writer {
    first: u64,
    blocks: u64,
    latest: Vec<AtomicU64>,
    flushed: Vec<AtomicU64>,
}

fn stamped(block: u64, version: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(BLOCK as usize);
    while data.len() < BLOCK as usize {
        data.extend_from_slice(&block.to_le_bytes());
        data.extend_from_slice(&version.to_le_bytes());
    }
    data
}

impl Writer {
    fn new(number: u64) -> Self {
        let blocks = 64;
        let zeros = || (0..blocks).map(|_| AtomicU64::new(0)).collect();
        Self { first: number * blocks, blocks, latest: zeros(), flushed: zeros() }
    }

    async fn run(&self, volume: &NetfsVolume, go_on: &AtomicBool, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut version = 0;
        while go_on.load(Ordering::SeqCst) {
            for _ in 0..random.u32(1..20) {
                let at = random.u64(0..self.blocks) as usize;
                version += 1;
                let data = stamped(self.first + at as u64, version);
                let flags = if random.u8(0..16) == 0 { WriteFlags::FUA } else { WriteFlags::NONE };
                let offset = (self.first + at as u64) * BLOCK;
                let data = driver_api::IoBuf::copy_from(&data);
                volume.write(&CX, offset, data, flags).await.expect("written");
                self.latest[at].store(version, Ordering::SeqCst);
                if flags == WriteFlags::FUA {
                    self.flushed[at].store(version, Ordering::SeqCst);
                }
                let seen = volume.read(&CX, offset, BLOCK as u32).await.expect("read");
                assert!(
                    seen[..] == stamped(self.first + at as u64, version)[..],
                    "an acknowledged write is not seen"
                );
            }
            let before: Vec<u64> =
                self.latest.iter().map(|version| version.load(Ordering::SeqCst)).collect();
            volume.flush(&CX).await.expect("flushed");
            for (flushed, before) in self.flushed.iter().zip(before) {
                flushed.fetch_max(before, Ordering::SeqCst);
            }
        }
    }

    /// Compares the server's own file with what was promised: a block is as its last flush left it, or newer.
    fn judge(&self, content: &[u8]) {
        for at in 0..self.blocks {
            let block = self.first + at;
            let begin = (block * BLOCK) as usize;
            let found = &content[begin..begin + BLOCK as usize];
            let version = u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"));
            let flushed = self.flushed[at as usize].load(Ordering::SeqCst);
            assert!(
                version >= flushed,
                "block {block} has version {version}, {flushed} was flushed"
            );
            let wanted =
                if version == 0 { vec![0; BLOCK as usize] } else { stamped(block, version) };
            assert!(found == wanted, "block {block} is torn");
        }
    }
}

/// Writers at work while `harm` is done to the server; nothing fails, and nothing is lost.
pub async fn under_writers(options: Value, name: &str, harm: impl AsyncFnOnce()) {
    let content = || std::fs::read(file(&format!("{name}.raw"))).expect("the server's file");
    under_writers_of(options, name, content, harm).await;
}

/// The same of a volume whose content is found by `content` on the server's disk.
pub async fn under_writers_of(
    mut options: Value,
    name: &str,
    content: impl Fn() -> Vec<u8>,
    harm: impl AsyncFnOnce(),
) {
    options["silence_timeout_secs"] = json!(3);
    options["operation_timeout_secs"] = json!(90);
    let backend = open(options).await;
    let volume = made(&backend, name, 8 * MIB).await;
    let writers: Vec<_> = (0..8).map(|number| Arc::new(Writer::new(number))).collect();
    let go_on = Arc::new(AtomicBool::new(true));
    let running: Vec<_> = writers
        .iter()
        .enumerate()
        .map(|(seed, writer)| {
            let (writer, volume, go_on) = (Arc::clone(writer), volume.clone(), Arc::clone(&go_on));
            tokio::spawn(async move { writer.run(&volume, &go_on, seed as u64).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    harm().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    go_on.store(false, Ordering::SeqCst);
    for running in running {
        running.await.expect("no writer failed");
    }
    // A crash of the server at the very end, which takes what was not flushed along.
    service("daemon", &["ganesha", "KILL"]);
    let content = content();
    let flushed: u64 = writers
        .iter()
        .flat_map(|writer| &writer.flushed)
        .map(|version| version.load(Ordering::SeqCst))
        .sum();
    assert!(flushed > 0, "nothing was written");
    for writer in &writers {
        writer.judge(&content);
    }
    service("again", &["ganesha"]);
    volume.detach(&CX).await.expect("detached");
    eprintln!(
        "{name}: lost {} mounts, sent {} calls again, wrote {} bytes again",
        value(&backend.stats(), "mount_lost_total"),
        value(&backend.stats(), "mount_retransmits_total"),
        value(&backend.stats(), "mount_replayed_bytes_total"),
    );
    backend.delete(&CX, name).await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}
