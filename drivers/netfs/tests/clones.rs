// SPDX-License-Identifier: Apache-2.0
//! Clones, on a server that does what servers do rarely.

mod support;

use std::sync::Arc;

use driver_api::{
    Attach, AttachMode, Backend, Error, ErrorKind, OpContext, Volume, VolumeInfo, VolumeSpec,
    ext::{Clones, Snapshots},
};
use netfs::{NetfsBackend, NetfsVolume};
use support::{
    CX, KIB, MIB, attach, bytes, expect,
    fake::Fake,
    images::{check, made_image},
    layers::{dump, reborn, snapshot, until_layers},
    made, open, write,
};

async fn clone(
    backend: &NetfsBackend,
    source: &str,
    snapshot: &str,
    target: VolumeSpec,
) -> Result<VolumeInfo, Error> {
    backend.clone_volume(&CX, source, snapshot, target).await
}

fn label(info: &VolumeInfo, key: &str) -> String {
    let found = info.labels.iter().find(|label| label.0 == key);
    found.map(|label| label.1.to_string()).unwrap_or_default()
}

/// A volume with a snapshot, and something newer.
async fn filled(backend: &NetfsBackend, format: &str) -> NetfsVolume {
    let volume = match format {
        "raw" => made(backend, "v", 4 * MIB).await,
        _ => made_image(backend, "v", 4 * MIB).await,
    };
    write(&volume, 0, 1, MIB).await;
    write(&volume, 3 * MIB, 4, 100 * KIB).await;
    snapshot(&volume, "s").await;
    write(&volume, 512 * KIB, 2, MIB).await;
    volume
}

async fn expect_old(clone: &NetfsVolume) {
    expect(clone, 0, 1, MIB).await;
    expect(clone, MIB, 0, 2 * MIB).await;
    expect(clone, 3 * MIB, 4, 100 * KIB).await;
}

async fn expect_new(clone: &NetfsVolume) {
    expect(clone, 0, 1, 512 * KIB).await;
    expect(clone, 512 * KIB, 2, MIB).await;
    expect(clone, 1536 * KIB, 0, 1536 * KIB).await;
    expect(clone, 3 * MIB, 4, 100 * KIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_is_a_volume_of_its_own() {
    for (from, to) in [("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2")] {
        let fake = Fake::start().await;
        let backend = open(fake.patient()).await;
        let volume = filled(&backend, from).await;
        let spec = |name: &str, size: u64| VolumeSpec::new(name, size).option("format", to);
        let info = clone(&backend, "v", "", spec("now", 0)).await.expect("cloned");
        assert_eq!((info.size, label(&info, "origin").as_str()), (4 * MIB, "v"));
        assert_eq!(label(&info, "clone_method"), "copy", "the server cannot");
        let info = clone(&backend, "v", "s", spec("old", 6 * MIB)).await.expect("cloned");
        assert_eq!((info.size, label(&info, "origin").as_str()), (6 * MIB, "v@s"));
        // What was frozen for it is merged back.
        until_layers(&volume, 2).await;
        let small = clone(&backend, "v", "", spec("small", MIB)).await.expect_err("too small");
        assert_eq!(small.kind(), ErrorKind::INVALID_ARGUMENT, "{small:#}");
        let missing = clone(&backend, "v", "missing", spec("c", 0)).await.expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NOT_FOUND, "{missing:#}");
        let missing = clone(&backend, "missing", "", spec("c", 0)).await.expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::NOT_FOUND, "{missing:#}");
        for taken in ["now", "v"] {
            let taken = clone(&backend, "v", "", spec(taken, 0)).await.expect_err("taken");
            assert_eq!(taken.kind(), ErrorKind::ALREADY_EXISTS, "{taken:#}");
        }
        let now = attach(&backend, "now", 1).await;
        expect_new(&now).await;
        write(&now, 0, 9, MIB).await;
        let old = attach(&backend, "old", 1).await;
        expect_old(&old).await;
        expect(&old, 4 * MIB, 0, 2 * MIB).await;
        expect_new(&volume).await;
        for one in [&now, &old, &volume] {
            one.detach(&CX).await.expect("detached");
        }
        // Of a volume that nobody has attached.
        let info = clone(&backend, "v", "", spec("rest", 0)).await.expect("cloned");
        assert_eq!(info.size, 4 * MIB);
        clone(&backend, "v", "s", spec("rest-old", 0)).await.expect("cloned");
        backend.delete(&CX, "v").await.expect("nobody needs it");
        let rest = attach(&backend, "rest", 1).await;
        expect_new(&rest).await;
        let old = attach(&backend, "rest-old", 1).await;
        expect_old(&old).await;
        for one in [&rest, &old] {
            one.detach(&CX).await.expect("detached");
        }
        let dir = tempfile::tempdir().expect("a directory");
        dump(&fake, dir.path());
        if to == "qcow2" {
            for name in ["now", "old", "rest", "rest-old"] {
                check(&dir.path().join(format!("{name}.qcow2")), false);
            }
        }
        for name in ["now", "old", "rest", "rest-old"] {
            backend.delete(&CX, name).await.expect("deleted");
        }
        assert!(fake.world().files.is_empty(), "{:?}", fake.world().files.keys());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_that_is_written_goes_on_while_it_is_cloned() {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = made(&backend, "v", 8 * MIB).await;
    for block in 0..8 {
        write(&volume, block * MIB, block as u8 + 1, MIB).await;
    }
    let ending = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (volume, ending) = (volume.clone(), Arc::clone(&ending));
        tokio::spawn(async move {
            let mut round = 0_u64;
            while !ending.load(std::sync::atomic::Ordering::SeqCst) {
                write(&volume, round % 8 * MIB, 100, 4 * KIB).await;
                round += 1;
            }
        })
    };
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    for name in ["c0", "c1"] {
        clone(&backend, "v", "", VolumeSpec::new(name, 0)).await.expect("cloned");
    }
    // Going back while it is copied changes nothing of what is copied.
    snapshot(&volume, "s").await;
    let (cloned, back) = tokio::join!(
        clone(&backend, "v", "s", VolumeSpec::new("c2", 0)),
        Snapshots::rollback(&volume, &CX, "s")
    );
    cloned.expect("cloned");
    back.expect("rolled back");
    ending.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.await.expect("no write failed");
    until_layers(&volume, 2).await;
    for name in ["c0", "c1", "c2"] {
        let cloned = attach(&backend, name, 1).await;
        for block in 0..8 {
            expect(&cloned, block * MIB + 4 * KIB, block as u8 + 1, MIB - 4 * KIB).await;
        }
        cloned.detach(&CX).await.expect("detached");
    }
    // What is copied stays until it is, though no snapshot names it any more.
    write(&volume, 0, 50, 8 * MIB).await;
    let mut copied = 0;
    for round in 0..12_u8 {
        let (name, taken) = (format!("d{round}"), format!("t{round}"));
        snapshot(&volume, &taken).await;
        // Little, and at the end: it would be merged at once, and is copied last.
        write(&volume, 7 * MIB, 60 + round, MIB).await;
        let (cloned, deleted) =
            tokio::join!(clone(&backend, "v", &taken, VolumeSpec::new(&name, 0)), async {
                let pause = 8 * (u64::from(round) + 1);
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                Snapshots::delete(&volume, &CX, &taken).await
            });
        deleted.expect("deleted");
        // It may have gone before it was looked for.
        let Ok(_) = cloned else { continue };
        copied += 1;
        let cloned = attach(&backend, &name, 1).await;
        expect(&cloned, 0, 50, 7 * MIB).await;
        expect(&cloned, 7 * MIB, if round == 0 { 50 } else { 59 + round }, MIB).await;
        cloned.detach(&CX).await.expect("detached");
    }
    assert!(copied > 0, "every snapshot was gone too soon");
    until_layers(&volume, 2).await;
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_is_cut_short_is_no_volume_and_is_made_anew() {
    const AT_ONCE: u32 = 16;
    let stride = if std::env::var_os("NOVASTOR_EVERY_CALL").is_some() { 1 } else { 5 };
    let mut first = 1;
    loop {
        let playing = (0..AT_ONCE).map(|number| die_while_cloning(first + number * stride));
        let died = futures_util::future::join_all(playing).await;
        if died.contains(&false) {
            assert!(died[0] || first > 1, "it took no call");
            return;
        }
        first += AT_ONCE * stride;
    }
}

/// Plays it; whether the host died.
async fn die_while_cloning(calls: u32) -> bool {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = filled(&backend, "raw").await;
    volume.detach(&CX).await.expect("detached");
    fake.world().faults.dies_after_calls = Some(calls);
    let working = tokio::spawn(async move {
        clone(&backend, "v", "", VolumeSpec::new("c", 0)).await.expect("cloned");
    });
    while !fake.world().faults.dead && !working.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let died = !working.is_finished();
    working.abort();
    // The dead one had the source attached, for reading.
    let fake = reborn(&fake, "v").await;
    let backend = open(fake.patient()).await;
    let writer = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
    let record = fake.world().files.get("c.novastor").map(|file| file.content());
    let is_marked = record.as_ref().is_some_and(|record| {
        let record: serde_json::Value = serde_json::from_slice(record).expect("JSON");
        record["body"]["copied_from"] == "v"
    });
    let is_whole = record.is_some() && !is_marked;
    if is_marked {
        let refused = backend.attach(&CX, "c", writer).await.map(drop).expect_err("unfinished");
        assert_eq!(refused.kind(), ErrorKind::UNAVAILABLE, "{calls}: {refused:#}");
        let refused = backend.create(&CX, VolumeSpec::new("c", 4 * MIB)).await.expect_err("taken");
        assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{calls}: {refused:#}");
    } else if is_whole {
        let whole = backend.attach(&CX, "c", writer).await.expect("attached");
        expect_new(&whole).await;
        whole.detach(&CX).await.expect("detached");
    }
    if !is_whole {
        assert!(died, "{calls}");
        let again = clone(&backend, "v", "", VolumeSpec::new("c", 0)).await;
        again.unwrap_or_else(|error| panic!("{calls}: {error:#}"));
        let whole = attach(&backend, "c", 2).await;
        expect_new(&whole).await;
        whole.detach(&CX).await.expect("detached");
    }
    backend.delete(&CX, "c").await.expect("removed");
    backend.delete(&CX, "v").await.expect("removed");
    let left: Vec<String> = fake.world().files.keys().cloned().collect();
    assert!(left.is_empty(), "{calls}: {left:?}");
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_half_way_leaves_nothing() {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = filled(&backend, "raw").await;
    let short = OpContext::new().with_timeout(std::time::Duration::from_millis(1));
    backend.clone_volume(&short, "v", "", VolumeSpec::new("c", 0)).await.expect_err("no time");
    until_layers(&volume, 2).await;
    expect_new(&volume).await;
    let left: Vec<String> = fake.world().files.keys().cloned().collect();
    assert!(left.iter().all(|name| !name.starts_with('c')), "{left:?}");
    volume.write(&CX, 0, bytes(1, 512), driver_api::WriteFlags::FUA).await.expect("it goes on");
    volume.detach(&CX).await.expect("detached");
}
