// SPDX-License-Identifier: Apache-2.0
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use driver_api::{
    Abilities, Attach, Backend, Capabilities, Host, OpContext, RVec, VolumeHandle, VolumeInfo,
    VolumeSpec, export::export_backend, ext::unsupported, host::NoServices,
};

use super::*;
use crate::{
    config::{Settings, Sources},
    plugins::GuardedBackend,
    state::open_embedded,
};

/// A backend with one volume, which nobody may delete.
#[derive(Clone)]
struct Precious;

#[derive(Clone)]
struct NoVolume;

impl driver_api::Volume for NoVolume {
    fn size(&self) -> u64 {
        0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::NONE)
    }

    fn read(&self, _cx: &OpContext, _offset: u64, _len: u32) -> Op<driver_api::IoBuf> {
        Op::err(unsupported("read"))
    }

    fn write(
        &self,
        _cx: &OpContext,
        _offset: u64,
        _data: driver_api::IoBuf,
        _flags: driver_api::WriteFlags,
    ) -> Op<()> {
        Op::err(unsupported("write"))
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }
}

impl Backend for Precious {
    type Volume = NoVolume;

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::NONE)
    }

    fn create(&self, _cx: &OpContext, _spec: VolumeSpec) -> Op<VolumeInfo> {
        Op::err(unsupported("create"))
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        panic!("{name} was to be deleted")
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        Op::ok(RVec::new())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        Op::ok(VolumeInfo::new(name, 1 << 20, 0))
    }

    fn attach(&self, _cx: &OpContext, _name: &str, _attach: Attach) -> Op<NoVolume> {
        Op::ok(NoVolume)
    }
}

struct OpenPrecious;

impl Opener for OpenPrecious {
    fn open(&self, _name: &str) -> Boxed<Result<Opened>> {
        let handle = export_backend(Precious, Host::new(NoServices));
        Box::pin(async {
            Ok(Opened {
                version: "1".to_owned(),
                handle: GuardedBackend::unwatched(handle),
                options: BTreeMap::new(),
                volume_options: Vec::new(),
            })
        })
    }
}

async fn lender(room: &tempfile::TempDir) -> HostLender {
    let file = room.path().join("host.toml");
    fs::write(&file, "").expect("a configuration");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    let sources = Sources { config: Some(file), ..Sources::default() };
    let loaded = Arc::new(Settings::load(&sources).expect("an empty configuration"));
    let engine = open_embedded(&room.path().join("state.redb")).expect("a new state");
    let state = StateHandle::new(engine);
    let drivers = BTreeMap::from([("disk".to_owned(), "test".to_owned())]);
    let backends = crate::volumes::Backends::new(None, drivers, OpenPrecious);
    backends.open("disk").await.expect("it opens");
    let volumes = Volumes::new(state.clone(), backends, "this test");
    HostLender { loaded, state, volumes }
}

#[tokio::test]
async fn what_drivers_borrow_is_guarded() {
    let room = tempfile::tempdir().expect("a directory");
    let lender = lender(&room).await;
    let lent = lender.backend("over", "disk").await.expect("it is lent");
    let cx = OpContext::new();
    let refused = lent.delete(&cx, "image").await.expect_err("another's volume");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused}");
    let attach = Attach::new(driver_api::AttachMode::READ_ONLY, 1, "over");
    let attached: Result<VolumeHandle> = lent.attach(&cx, "image", attach).await;
    assert!(attached.is_ok(), "reading is free");
}

#[tokio::test]
async fn a_backend_is_not_lent_to_itself_nor_one_that_is_not_there() {
    let room = tempfile::tempdir().expect("a directory");
    let lender = lender(&room).await;
    for (asker, kind) in [("disk", ErrorKind::INVALID_ARGUMENT), ("over", ErrorKind::NOT_FOUND)] {
        let name = if asker == "disk" { "disk" } else { "none" };
        let refused = lender.backend(asker, name).await.expect_err("refused");
        assert_eq!(refused.kind(), kind, "{refused}");
    }
}
