// SPDX-License-Identifier: Apache-2.0
//! Backends that are lent: faults are the lender's, and volumes are whose they are.

use std::sync::Arc;

use driver_api::{
    Abilities, Attach, AttachMode, BackendHandle, Capabilities, ErrorKind, Host, IoBuf, Op,
    OpContext, Result, Volume, VolumeHandle, VolumeSpec, WriteFlags, export::export_volume,
    host::NoServices,
};
use novastor::{
    plugins::{DriverMeter, GuardedVolume, Holder, PluginState, Started, lend},
    volumes::NewVolume,
};
use serde_json::{Value, json};

use super::{
    house::{Ground, House, MIB, new, start},
    plugins_support::wait,
};

async fn house(options: Value) -> House {
    let nodes = json!({ "nodes": "n1,n2,n3" });
    let all =
        [("m", "mirror", nodes.clone()), ("x", "mirror", nodes), ("plain", "faulty", options)];
    start(&Ground::new(&all)).await
}

/// The backend `plain`, as a backend of this name borrows it.
fn lent(house: &House, borrower: &str) -> BackendHandle {
    lend(house.ground.backend("plain"), "plain", house.volumes.tenure("plain", borrower))
}

fn cx() -> OpContext {
    OpContext::new()
}

fn writer(epoch: u64) -> Attach {
    Attach::new(AttachMode::EXCLUSIVE, epoch, "a borrower")
}

async fn brick(backend: &BackendHandle) -> VolumeHandle {
    backend.create(&cx(), VolumeSpec::new("brick", MIB)).await.expect("created");
    backend.attach(&cx(), "brick", writer(1)).await.expect("attached")
}

/// A volume of a borrower: it asks the one that it borrowed.
#[derive(Clone)]
struct Over(VolumeHandle);

impl Volume for Over {
    fn size(&self) -> u64 {
        MIB
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::WRITE)
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        self.0.read(cx, offset, len)
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        self.0.write(cx, offset, data, flags)
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        self.0.flush(cx)
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }
}

/// A borrower's volume over the lent one, and what the host has seen of the borrower.
fn over(volume: VolumeHandle) -> (GuardedVolume, Arc<DriverMeter>) {
    let meter = DriverMeter::new("borrower");
    let volume = export_volume(Over(volume), Host::new(NoServices));
    (GuardedVolume::watched(volume, meter.clone()), meter)
}

#[tokio::test]
async fn what_is_ready_stays_ready() {
    let house = house(json!({})).await;
    let (volume, _meter) = over(brick(&lent(&house, "m")).await);
    let written = volume.write(&cx(), 0, IoBuf::copy_from(&[7; 4096]), WriteFlags::FUA);
    assert!(matches!(written, Started::Ready(Ok(()))), "{written:?}");
    let Started::Ready(Ok(read)) = volume.read(&cx(), 1, 4096) else { panic!("not ready") };
    assert_eq!((&read[..4095], read[4095]), (&[7; 4095][..], 0));
}

#[tokio::test]
async fn what_waits_is_passed_on_as_it_comes() {
    let house = house(json!({ "pending": true })).await;
    let volume = brick(&lent(&house, "m")).await;
    assert!(matches!(volume.read(&cx(), 0, 512), Op::Pending(_)));
    volume.write(&cx(), 512, IoBuf::copy_from(&[3; 512]), WriteFlags::NONE).await.unwrap();
    assert_eq!(volume.read(&cx(), 512, 512).await.unwrap()[..], [3; 512]);
    let refused = volume.read(&cx(), MIB, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OUT_OF_RANGE);
}

/// The driver of the lent backend is degraded, in this call, and that of the borrower is not.
fn assert_blamed(house: &House, call: &str) {
    let status = house.ground.plugins.status("faulty.so");
    assert_eq!(status.state, PluginState::Degraded);
    assert!(status.reason.contains(&format!("panic in {call}")), "{status:?}");
    let backends = house.volumes.backends();
    assert!(backends.get("plain").unwrap().degraded().is_some(), "it shows with the backend");
    assert_eq!(backends.get("m").unwrap().degraded(), None);
}

#[tokio::test]
async fn a_panic_degrades_the_lender_and_not_the_borrower() {
    let house = house(json!({ "panic_in": "write" })).await;
    let (volume, meter) = over(brick(&lent(&house, "m")).await);
    let data = IoBuf::copy_from(&[1; 512]);
    let error = volume.write(&cx(), 0, data, WriteFlags::NONE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::INTERNAL, "{error}");
    assert!(error.context().any(|pair| pair == ("backend", "plain")), "{error}");
    assert_eq!(meter.degraded(), None);
    assert_blamed(&house, "write");
}

#[tokio::test]
async fn a_panic_of_a_future_is_the_lenders_too() {
    let house = house(json!({ "panic_in": "future", "slow_in": "health" })).await;
    let error = lent(&house, "m").health(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::INTERNAL, "{error}");
    assert_blamed(&house, "health");
}

#[tokio::test]
async fn a_call_that_holds_the_thread_is_the_lenders() {
    let house = house(json!({ "block_in": "read", "block_ms": 60 })).await;
    let (volume, meter) = over(brick(&lent(&house, "m")).await);
    let seen = wait(|| {
        drop(volume.read(&cx(), 0, 512));
        let status = house.ground.plugins.status("faulty.so");
        (status.blocked_calls > 0).then_some(status)
    });
    let seen = seen.expect("the watchdog names it");
    assert!(seen.last_blocked.unwrap().starts_with("read for "));
    assert_eq!(meter.blocked_calls(), 0, "the borrower only waited");
}

#[tokio::test]
async fn a_borrower_deletes_what_it_made_and_nothing_else() {
    let house = house(json!({})).await;
    let (mine, others) = (lent(&house, "m"), lent(&house, "x"));
    drop(brick(&mine).await.detach(&cx()).await);
    mine.create(&cx(), VolumeSpec::new("brick", MIB)).await.expect("the same again");
    let refused = others.delete(&cx(), "brick").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused}");
    assert!(refused.message().contains("backend `m`"), "{refused}");
    let refused = others.create(&cx(), VolumeSpec::new("brick", MIB)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{refused}");
    let refused = others.attach(&cx(), "brick", writer(2)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused}");
    mine.show(&cx(), "brick").await.expect("it is still there");
    mine.delete(&cx(), "brick").await.expect("deleted");
    assert_eq!(mine.delete(&cx(), "brick").await.unwrap_err().kind(), ErrorKind::NOT_FOUND);
    others.create(&cx(), VolumeSpec::new("brick", MIB)).await.expect("the name is free again");
}

#[tokio::test]
async fn volumes_of_this_host_and_of_strangers_stay() {
    let house = house(json!({})).await;
    let plain = NewVolume { backend: Some("plain".to_owned()), ..new("web1", MIB) };
    house.volumes.create(plain).await.unwrap();
    let stranger = VolumeSpec::new("image", MIB);
    house.ground.backend("plain").create(&cx(), stranger).await.unwrap();
    let lent = lent(&house, "m");
    for (name, whose) in [("web1", "volume `web1` of this host"), ("image", "nobody is known")] {
        let refused = lent.delete(&cx(), name).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused}");
        assert!(refused.message().contains(whose), "{refused}");
        let refused = lent.create(&cx(), VolumeSpec::new(name, MIB)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{refused}");
        lent.show(&cx(), name).await.expect("it is still there");
    }
    let refused = lent.attach(&cx(), "web1", writer(9)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused}");
    // After the state was lost, a borrower finds its bricks again, and reads them.
    lent.attach(&cx(), "image", writer(9)).await.expect("nobody has it");
    for name in ["../web1", "", ".x"] {
        for refused in [
            lent.create(&cx(), VolumeSpec::new(name, MIB)).await.map(drop).unwrap_err(),
            lent.delete(&cx(), name).await.unwrap_err(),
            lent.show(&cx(), name).await.map(drop).unwrap_err(),
            lent.attach(&cx(), name, writer(9)).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{name:?}");
        }
    }
}

#[tokio::test]
async fn bricks_are_not_the_operators_volumes_while_their_backend_is_configured() {
    let house = house(json!({})).await;
    for (borrower, name) in [("m", "brick"), ("gone", "relic")] {
        let spec = VolumeSpec::new(name, MIB);
        lent(&house, borrower).create(&cx(), spec).await.unwrap();
    }
    assert!(house.volumes.unmanaged().await.unwrap().is_empty());
    let again = start(&house.ground).await;
    let refused = again.volumes.adopt(Some("plain"), "brick", "brick").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused}");
    assert!(refused.message().contains("backend `m`"), "{refused}");
    let plain = NewVolume { backend: Some("plain".to_owned()), ..new("brick", MIB) };
    let refused = again.volumes.create(plain).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused}");
    again.volumes.adopt(Some("plain"), "relic", "relic").await.expect("nobody's any more");
    again.volumes.delete("relic", false).await.unwrap();
    lent(&again, "m").delete(&cx(), "brick").await.expect("whose it is outlives the host");
}

#[tokio::test]
async fn a_creation_that_failed_claims_nothing() {
    let options = json!({ "fail_in": "create", "fail_as": "NoSpace" });
    let house = house(options).await;
    let failed = lent(&house, "m").create(&cx(), VolumeSpec::new("brick", MIB)).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::NO_SPACE);
    let holder = house.volumes.tenure("plain", "x").holder("brick").await.unwrap();
    assert_eq!(holder, Holder::Nobody);
}

#[tokio::test]
async fn a_creation_whose_outcome_is_unknown_keeps_its_claim() {
    let options = json!({ "fail_in": "create", "fail_as": "TimedOut" });
    let house = house(options).await;
    let failed = lent(&house, "m").create(&cx(), VolumeSpec::new("brick", MIB)).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TIMED_OUT);
    // It may have been made, so that its maker may delete it.
    let late = VolumeSpec::new("brick", MIB);
    let refused = lent(&house, "x").create(&cx(), late).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{refused}");
}

#[tokio::test]
async fn what_belongs_to_the_operator_is_not_lent() -> Result<()> {
    let house = house(json!({})).await;
    let lent = lent(&house, "m");
    assert!(lent.commands()?.is_none() && lent.cluster()?.is_none() && lent.clones()?.is_none());
    lent.close(&cx()).await?;
    lent.usage(&cx()).await?;
    brick(&lent).await.flush(&cx()).await?;
    let over = lend(house.ground.backend("m"), "m", house.volumes.tenure("m", "x"));
    assert!(over.cluster()?.is_none(), "a borrower does not steer another's nodes");
    Ok(())
}
