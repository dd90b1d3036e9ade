// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::AtomicBool;

use driver_api::{export::export_volume, host::NoServices};

use super::*;

/// A volume whose size changes, and which can be made to answer nothing.
#[derive(Clone)]
struct Moody(Arc<(AtomicU64, AtomicBool)>);

impl Moody {
    fn new(size: u64) -> Self {
        Self(Arc::new((AtomicU64::new(size), AtomicBool::new(false))))
    }

    fn size_is(&self, size: u64) {
        self.0.0.store(size, Ordering::Relaxed);
    }

    fn answers(&self, answers: bool) {
        self.0.1.store(!answers, Ordering::Relaxed);
    }

    fn told(&self) -> u64 {
        assert!(!self.0.1.load(Ordering::Relaxed), "on purpose");
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Volume for Moody {
    fn size(&self) -> u64 {
        self.told()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::WRITE)
    }

    fn read(&self, _cx: &OpContext, _offset: u64, len: u32) -> Op<IoBuf> {
        Op::ok(IoBuf::copy_from(&vec![0; len as usize]))
    }

    fn write(&self, _cx: &OpContext, _offset: u64, _data: IoBuf, _flags: WriteFlags) -> Op<()> {
        Op::ok(())
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn incarnation(&self) -> u64 {
        self.told() + 1
    }
}

async fn wrapped(inner: &Moody) -> Result<Passed> {
    let host = Host::new(NoServices);
    let config = BackendConfig::new("forward", &Default::default());
    Forward::wrap(host.clone(), config, export_volume(inner.clone(), host)).await
}

#[tokio::test]
async fn a_volume_that_does_not_answer_is_not_wrapped() {
    let inner = Moody::new(4096);
    inner.answers(false);
    let refused = wrapped(&inner).await.err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::PANIC);
}

#[tokio::test]
async fn the_size_is_that_of_the_volume_below_and_the_last_one_where_it_tells_none() {
    let inner = Moody::new(4096);
    let volume = wrapped(&inner).await.expect("wrapped");
    assert_eq!((volume.size(), volume.incarnation()), (4096, 4097));
    inner.size_is(8192);
    assert_eq!((volume.size(), volume.incarnation()), (8192, 8193), "it was resized");
    inner.answers(false);
    inner.size_is(512);
    assert_eq!((volume.size(), volume.incarnation()), (8192, 8193), "the last that was told");
    inner.answers(true);
    assert_eq!((volume.size(), volume.incarnation()), (512, 513));
    assert!(volume.capabilities().has(Abilities::WRITE));
}

/// Says what reaches it of the abilities that came with 1.3.
#[derive(Clone)]
struct Newer;

impl Volume for Newer {
    fn size(&self) -> u64 {
        4096
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::WRITE | Abilities::CHANGES | Abilities::PROTECT)
    }

    fn read(&self, _cx: &OpContext, _offset: u64, len: u32) -> Op<IoBuf> {
        Op::ok(IoBuf::copy_from(&vec![0; len as usize]))
    }

    fn write(&self, _cx: &OpContext, _offset: u64, _data: IoBuf, _flags: WriteFlags) -> Op<()> {
        Op::ok(())
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        Some(Arc::new(Self))
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        Some(Arc::new(Self))
    }
}

impl ext::Snapshots for Newer {
    fn create(&self, _cx: &OpContext, _name: &str) -> Op<ext::SnapshotInfo> {
        Op::err(ext::unsupported("create"))
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<ext::SnapshotInfo>> {
        Op::ok(RVec::new())
    }

    fn delete(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        Op::ok(())
    }

    fn rollback(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        Op::ok(())
    }

    fn protect(&self, _cx: &OpContext, name: &str, on: bool) -> Op<ext::SnapshotInfo> {
        let info = ext::SnapshotInfo {
            name: name.into(),
            size: 0,
            created_unix_secs: 0,
            method: "none".into(),
            used: 0,
            reserved: [0; 4],
        };
        Op::ok(info.protected(on))
    }
}

impl ext::AllocationMap for Newer {
    fn extents(&self, _cx: &OpContext, _: u64, _: u64, _: u32) -> Op<RVec<ext::Extent>> {
        Op::ok(RVec::new())
    }

    fn changes(
        &self,
        _cx: &OpContext,
        from: &str,
        to: &str,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<ext::Extent>> {
        assert_eq!((from, to, limit), ("one", "two", 7));
        Op::ok(vec![ext::Extent { offset, len, flags: ext::ExtentFlags::DATA }].into())
    }
}

#[tokio::test]
async fn what_came_later_is_passed_on_as_well() {
    let (host, cx) = (Host::new(NoServices), OpContext::new());
    let config = BackendConfig::new("forward", &Default::default());
    let volume = Forward::wrap(host.clone(), config, export_volume(Newer, host)).await;
    let volume = volume.expect("wrapped");
    assert!(volume.capabilities().has(Abilities::CHANGES | Abilities::PROTECT));
    let snapshots = volume.snapshots().expect("snapshots");
    for on in [true, false] {
        let info = snapshots.protect(&cx, "day", on).await.expect("told");
        assert_eq!((info.name.as_str(), info.is_protected()), ("day", on));
    }
    let map = volume.allocation_map().expect("a map");
    let told = map.changes(&cx, "one", "two", 512, 1024, 7).await.expect("told");
    assert_eq!((told.len(), told[0].offset, told[0].len), (1, 512, 1024));
}
