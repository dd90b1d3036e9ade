// SPDX-License-Identifier: Apache-2.0
//! Drivers that panic, hold threads or never answer: the process, and every other volume, goes on.

mod plugins_support;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use driver_api::{Error, ErrorKind, IoBuf, IoBufMut, OpContext, Result, WriteFlags};
use novastor::plugins::{GuardedBackend, GuardedVolume, PluginState, PluginStatus, Started};
use plugins_support::{House, small, volume, wait};
use serde_json::json;

fn page() -> IoBuf {
    IoBuf::copy_from(&[1; 4096])
}

async fn write(volume: &GuardedVolume) -> Result<()> {
    volume.write(&OpContext::new(), 0, page(), WriteFlags::NONE).await
}

/// Runs every call of a backend and a volume, and gives the first error.
async fn everything(backend: &GuardedBackend) -> Result<()> {
    let cx = OpContext::new();
    backend.capabilities()?;
    backend.stats()?;
    backend.health(&cx).await?;
    let volume = volume(backend, "all").await?;
    volume.size()?;
    volume.capabilities()?;
    write(&volume).await?;
    volume.read(&cx, 0, 4096).await?;
    volume.flush(&cx).await?;
    volume.stats()?;
    volume.detach(&cx).await
}

fn writes_finished(backend: &GuardedBackend) -> u64 {
    let stats = backend.stats().expect("figures");
    let named = |name| stats.metrics.iter().find(move |metric| metric.name == name);
    named("writes_finished_total").expect("the counter").value as u64
}

#[tokio::test]
async fn a_panic_in_any_call_degrades_the_driver_and_others_serve_on() {
    for place in [
        "create",
        "attach",
        "read",
        "write",
        "flush",
        "size",
        "capabilities",
        "stats",
        "detach",
        "health",
        "future",
        "future_drop",
        "drop_volume",
        "drop_backend",
    ] {
        let house = House::new();
        assert_eq!(house.offer("f.so", small()).state, PluginState::Loaded);
        let healthy = house.faulty(json!({})).await.expect("a backend");
        let bystander = volume(&healthy, "bystander").await.expect("a volume");
        let faulty = house.faulty(json!({ "panic_in": place })).await.expect("a backend");
        let result = everything(&faulty).await;
        drop(faulty);
        // A panic in a drop has no caller to tell.
        let silent = place.contains("drop");
        assert_eq!(
            result.as_ref().err().map(Error::kind),
            (!silent).then_some(ErrorKind::PANIC),
            "{place}"
        );
        let status = house.status("f.so");
        assert_eq!(status.state, PluginState::Degraded, "{place}: {status:?}");
        assert!(status.reason.contains(&format!("asked to panic in {place}")), "{status:?}");
        write(&bystander).await.unwrap_or_else(|error| panic!("after {place}: {error:#}"));
        everything(&healthy).await.unwrap_or_else(|error| panic!("after {place}: {error:#}"));
    }
}

#[tokio::test]
async fn a_panic_in_open_is_an_answer() {
    let house = House::new();
    house.offer("f.so", small());
    let error = house.faulty(json!({ "panic_in": "open" })).await.expect_err("no backend");
    assert_eq!(error.kind(), ErrorKind::PANIC);
    let status = house.status("f.so");
    assert_eq!((status.state, status.backends_in_use), (PluginState::Degraded, 0));
    assert!(status.reason.contains("panic in open"), "{status:?}");
    house.faulty(json!({})).await.expect("the next one opens");
}

#[tokio::test]
async fn a_call_that_holds_the_thread_is_named_and_repeated_ones_are_isolated() {
    let house = House::new();
    house.offer("f.so", small());
    let backend =
        house.faulty(json!({ "block_in": "read", "block_ms": 60 })).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    let cx = OpContext::new();
    volume.flush(&cx).await.expect("a flush");
    assert_eq!(house.status("f.so").blocked_calls, 0, "nothing has held a thread yet");
    assert!(matches!(volume.read(&cx, 0, 512), Started::Ready(Ok(_))));
    let status = read_until(&house, &volume, |status| status.blocked_calls > 0).await;
    let last = status.last_blocked.expect("it is named");
    let ms: u64 = last
        .strip_prefix("read for ")
        .and_then(|rest| rest.strip_suffix(" ms"))
        .and_then(|ms| ms.parse().ok())
        .unwrap_or_else(|| panic!("{last}"));
    assert!((10..=10_000).contains(&ms), "{last}");
    assert!(!status.isolated);
    let status = read_until(&house, &volume, |status| status.isolated).await;
    assert!(status.blocked_calls >= 3, "{status:?}");

    // From now on nothing of this driver starts on this thread, and everything still works.
    let cx = cx.with_allocator(not_on_this_thread);
    let Started::Pending(read) = volume.read(&cx, 0, 512) else { panic!("it ran here") };
    assert_eq!(read.await.expect("a read").len(), 512);
    let Started::Pending(flush) = volume.flush(&cx) else { panic!("it ran here") };
    flush.await.expect("a flush");
    write(&volume).await.expect("a write");
}

extern "C" fn not_on_this_thread(_: usize) -> IoBufMut {
    // An allocator of a connection's thread, used on another thread, would be another connection's memory.
    std::process::abort()
}

/// Reads until the watchdog, which a busy machine may let wait, has seen what is wanted.
async fn read_until(
    house: &House,
    volume: &GuardedVolume,
    wanted: impl Fn(&PluginStatus) -> bool,
) -> PluginStatus {
    for _ in 0..200 {
        let status = house.status("f.so");
        if wanted(&status) {
            return status;
        }
        volume.read(&OpContext::new(), 0, 512).await.expect("a read");
    }
    panic!("not seen: {:?}", house.status("f.so"));
}

#[tokio::test]
async fn a_pending_operation_moves_to_the_drivers_thread() {
    let house = House::new();
    house.offer("f.so", small());
    let slow = json!({ "slow_in": "write", "slow_ms": 300, "block_in": "read", "block_ms": 40 });
    let backend = house.faulty(slow).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    let cx = OpContext::new();
    let Started::Pending(write) = volume.write(&cx, 0, page(), WriteFlags::NONE) else {
        panic!("it was to be slow")
    };
    let mut write = pin!(write);
    assert!(poll_once(write.as_mut()).is_pending());
    read_until(&house, &volume, |status| status.isolated).await;
    // The next poll hands it over; from then on it needs none from here.
    assert!(poll_once(write.as_mut()).is_pending());
    assert!(wait(|| (writes_finished(&backend) == 1).then_some(())).is_some());
    write.await.expect("the answer still comes here");
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_mutation_whose_caller_goes_away_is_finished() {
    let house = House::new();
    house.offer("f.so", small());
    let options = json!({ "slow_in": "write", "slow_ms": 50 });
    let backend = house.faulty(options).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    let cx = OpContext::new();
    // Once dropped before its first poll, once after it.
    drop(volume.write(&cx, 0, page(), WriteFlags::NONE));
    assert!(wait(|| (writes_finished(&backend) == 1).then_some(())).is_some());
    let Started::Pending(mut write) = volume.write(&cx, 0, page(), WriteFlags::NONE) else {
        panic!("it was to be slow")
    };
    assert!(poll_once(std::pin::Pin::new(&mut write)).is_pending());
    drop(write);
    assert!(wait(|| (writes_finished(&backend) == 2).then_some(())).is_some());
}

#[tokio::test]
async fn a_read_that_never_ends_can_be_dropped() {
    let house = House::new();
    house.offer("f.so", small());
    let backend = house.faulty(json!({ "hang_in": "read" })).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    let Started::Pending(mut read) = volume.read(&OpContext::new(), 0, 512) else {
        panic!("it was to hang")
    };
    assert!(poll_once(std::pin::Pin::new(&mut read)).is_pending());
    drop(read);
    write(&volume).await.expect("a write");
    assert_eq!(house.status("f.so").state, PluginState::Loaded);
}

#[tokio::test]
async fn a_flush_after_a_loss_fails_until_the_volume_is_opened_again() {
    let house = House::new();
    house.offer("f.so", small());
    let backend = house.faulty(json!({ "lose_unflushed": true })).await.expect("a backend");
    let first = volume(&backend, "v").await.expect("a volume");
    let (cx, before) = (OpContext::new(), first.incarnation().expect("a number"));
    write(&first).await.expect("a write");
    for _ in 0..2 {
        let error = first.flush(&cx).await.expect_err("the write is gone");
        assert_eq!(error.kind(), ErrorKind::CORRUPTED);
    }
    assert_ne!(first.incarnation().expect("a number"), before);
    first.detach(&cx).await.expect("detached");
    let again = volume(&backend, "v").await.expect("the volume");
    again.flush(&cx).await.expect("nothing was written since");
}

#[test]
fn a_panic_in_describe_refuses_the_file() {
    // Other tests load the same driver, so this one runs in a process of its own.
    if std::env::var_os("NOVASTOR_FAULTY_DESCRIBE").is_none() {
        let test = std::env::current_exe().expect("this test");
        let status = std::process::Command::new(test)
            .args(["--exact", "a_panic_in_describe_refuses_the_file"])
            .env("NOVASTOR_FAULTY_DESCRIBE", "panic")
            .status();
        assert!(status.expect("it runs").success());
        return;
    }
    let house = House::new();
    let refused = house.offer("f.so", small());
    plugins_support::assert_refused(&refused, "asked to panic in describe", "author");
}
