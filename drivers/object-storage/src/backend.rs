// SPDX-License-Identifier: Apache-2.0
//! A backend: buckets and objects, and no volumes.

use std::sync::Arc;

use driver_api::{
    Abilities, Attach, Backend, Capabilities, Error, ErrorKind, Health, IoBuf, Op, OpContext, RVec,
    Result, Stats, Usage, Volume, VolumeInfo, VolumeSpec, WriteFlags, ext,
};

use crate::{
    account::{Account, BucketStore},
    commands::CommandsOf,
    config::Kind,
    health,
    objects::ObjectsOf,
};

/// An open backend of the driver `object-storage`.
#[derive(Clone, Debug)]
pub struct ObjectBackend(pub(crate) Arc<Account>);

impl ObjectBackend {
    pub(crate) fn new(account: Account) -> Self {
        Self(Arc::new(account))
    }

    /// A bucket behind object_store's traits, with this backend's credentials, client and limits.
    pub fn bucket_store(&self, bucket: &str) -> Result<BucketStore> {
        self.0.bucket_store(bucket)
    }
}

fn no_volumes() -> Error {
    Error::new(
        ErrorKind::UNSUPPORTED,
        "volumes on objects are not built yet; whole objects: novastor object ...",
    )
    .remedy("use `novastor object put` and `novastor object get`, or a backend of another driver for volumes")
}

impl Backend for ObjectBackend {
    type Volume = NoVolume;

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::OBJECTS)
    }

    fn create(&self, _cx: &OpContext, _spec: VolumeSpec) -> Op<VolumeInfo> {
        Op::err(no_volumes().during("create volume"))
    }

    fn delete(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        Op::err(no_volumes().during("delete volume"))
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        Op::ok(RVec::new())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let error = Error::new(
            ErrorKind::NOT_FOUND,
            "there is no such volume: this backend has objects only",
        );
        Op::err(error.during("show volume").with("volume", name))
    }

    fn attach(&self, _cx: &OpContext, _name: &str, _attach: Attach) -> Op<NoVolume> {
        Op::err(no_volumes().during("attach"))
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        // Stores have no end, and counting what they hold takes a listing of it all.
        Op::ok(Usage::default())
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        let account = Arc::clone(&self.0);
        let until = account.until(cx);
        Op::run(async move { Ok(health::health(&account, until).await) })
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    fn objects(&self) -> Option<Arc<dyn ext::Objects>> {
        Some(Arc::new(ObjectsOf(Arc::clone(&self.0))))
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        let commands = CommandsOf(Arc::clone(&self.0));
        (commands.0.kind == Kind::Swift).then(|| Arc::new(commands) as Arc<dyn ext::Commands>)
    }
}

/// The volume that there is none of.
#[derive(Debug, Clone)]
pub enum NoVolume {}

impl Volume for NoVolume {
    fn size(&self) -> u64 {
        match *self {}
    }

    fn capabilities(&self) -> Capabilities {
        match *self {}
    }

    fn read(&self, _cx: &OpContext, _offset: u64, _len: u32) -> Op<IoBuf> {
        match *self {}
    }

    fn write(&self, _cx: &OpContext, _offset: u64, _data: IoBuf, _flags: WriteFlags) -> Op<()> {
        match *self {}
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        match *self {}
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        match *self {}
    }
}
