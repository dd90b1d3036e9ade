// SPDX-License-Identifier: Apache-2.0
//! The driver where librbd was not there when it was built: it says so.

use driver_api::{
    Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Host, IoBuf, Op, OpContext,
    RVec, Result, Volume, VolumeInfo, VolumeSpec, WriteFlags,
};

use crate::{Config, config, error::built_without};

/// The driver `ceph`, which opens nothing.
pub struct Ceph;

/// There is none.
#[derive(Clone, Copy)]
pub enum Never {}

impl Driver for Ceph {
    type Backend = Never;

    fn describe() -> DriverInfo {
        config::describe()
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Never> {
        config.parse::<Config>()?.check()?;
        Err(built_without().with("backend", &config.name))
    }
}

impl Backend for Never {
    type Volume = Self;

    fn capabilities(&self) -> Capabilities {
        match *self {}
    }

    fn create(&self, _cx: &OpContext, _spec: VolumeSpec) -> Op<VolumeInfo> {
        match *self {}
    }

    fn delete(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        match *self {}
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        match *self {}
    }

    fn show(&self, _cx: &OpContext, _name: &str) -> Op<VolumeInfo> {
        match *self {}
    }

    fn attach(&self, _cx: &OpContext, _name: &str, _attach: Attach) -> Op<Self> {
        match *self {}
    }
}

impl Volume for Never {
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
