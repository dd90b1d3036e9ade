// SPDX-License-Identifier: Apache-2.0
//! Reads into buffers that hold somebody else's bytes: every byte of the answer is the volume's.
#![allow(missing_docs)]

mod fixture;

use driver_api::{Backend, IoBuf, IoBufMut, OpContext, Volume, VolumeSpec, WriteFlags};
use fixture::*;
use local::LocalVolume;

extern "C" fn stale(len: usize) -> IoBufMut {
    let mut buffer = IoBufMut::zeroed(len);
    buffer.fill(0xaa);
    buffer
}

const STALE: OpContext = OpContext::new().with_allocator(stale);

/// Reads all of the volume in steps of `step`, and compares.
async fn expect(volume: &LocalVolume, wanted: &[u8], step: usize, when: &str) {
    for (number, part) in wanted.chunks(step).enumerate() {
        let offset = (number * step) as u64;
        let found = volume.read(&STALE, offset, part.len() as u32).await.expect("read");
        assert_eq!(found.len(), part.len(), "{when}, at {offset}, by {step}");
        // Whole slices first: byte by byte takes most of the test's time.
        if found[..] != *part {
            let wrong = found.iter().zip(part).position(|(found, wanted)| found != wanted);
            panic!("{when}, at {offset}, by {step}: byte {wrong:?} is not the volume's");
        }
    }
}

async fn expect_everywhere(volume: &LocalVolume, wanted: &[u8], when: &str) {
    // The second pass finds the pages in the cache.
    for step in [16384, 16384, 3 * 65536 + 4096, wanted.len()] {
        expect(volume, wanted, step, when).await;
    }
}

async fn put(volume: &LocalVolume, wanted: &mut [u8], at: usize, len: usize, byte: u8) {
    let data = IoBuf::copy_from(&vec![byte; len]);
    volume.write(&CX, at as u64, data, WriteFlags::NONE).await.expect("written");
    wanted[at..at + len].fill(byte);
}

async fn every_byte_is_the_volumes(format: &str, preallocation: &str, options: &str) {
    const SIZE: usize = 4 << 20;
    let case = format!("{format}, {preallocation}, {options}");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let backend = backend_with(dir.path(), options).await;
    let spec = VolumeSpec::new("v", SIZE as u64)
        .option("format", format)
        .option("preallocation", preallocation);
    backend.create(&CX, spec).await.expect("created");
    let volume = attach(&backend, "v").await;
    let mut wanted = vec![0; SIZE];
    expect_everywhere(&volume, &wanted, &format!("{case}: new")).await;
    put(&volume, &mut wanted, 4096, 8192, 1).await;
    put(&volume, &mut wanted, 1 << 20, 1 << 20, 2).await;
    put(&volume, &mut wanted, SIZE - 4096, 4096, 3).await;
    expect_everywhere(&volume, &wanted, &format!("{case}: sparse")).await;
    volume.discard(&CX, (1 << 20) + 8192, 500 << 10).await.expect("discarded");
    wanted[(1 << 20) + 8192..][..500 << 10].fill(0);
    let zeroed = volume.write_zeroes(&CX, 3 << 20, 300 << 10, WriteFlags::NO_HOLE);
    zeroed.await.expect("zeroed");
    expect_everywhere(&volume, &wanted, &format!("{case}: with holes")).await;
    let resize = volume.resize().expect("resizable");
    resize.resize(&CX, (1 << 20) + 4096, true).await.expect("shrunk");
    wanted.truncate((1 << 20) + 4096);
    expect_everywhere(&volume, &wanted, &format!("{case}: shrunk")).await;
    resize.resize(&CX, SIZE as u64, false).await.expect("grown");
    wanted.resize(SIZE, 0);
    expect_everywhere(&volume, &wanted, &format!("{case}: grown again")).await;
    volume.detach(&CX).await.expect("detached");
    let reader = backend.attach(&CX, "v", reader(2)).await.expect("attached");
    expect_everywhere(&reader, &wanted, &format!("{case}: by a reader")).await;
    let beyond = reader.read(&STALE, SIZE as u64 - 4096, 8192).await;
    assert!(beyond.is_err(), "{case}: a read beyond the end was answered");
    reader.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_a_read_is_the_volumes() {
    for options in ["{}", r#"{"direct": true}"#] {
        for format in ["raw", "qcow2"] {
            for preallocation in ["off", "falloc", "full"] {
                every_byte_is_the_volumes(format, preallocation, options).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_lacks_reads_zeros() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    for format in ["raw", "qcow2"] {
        let volume = made(&backend, format, MIB, format).await;
        write(&volume, 0, &vec![7; 1 << 20]).await;
        volume.flush(&CX).await.expect("flushed");
        let path = dir.path().join(format!("volumes/{format}/disk.{format}"));
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
        let len = file.metadata().expect("sized").len() - 100_000;
        file.set_len(len).expect("cut off behind the driver's back");
        let mut wanted = vec![7; 1 << 20];
        wanted[(1 << 20) - 100_000..].fill(0);
        expect_everywhere(&volume, &wanted, format).await;
    }
}
