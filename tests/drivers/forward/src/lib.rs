// SPDX-License-Identifier: Apache-2.0
//! A layer that forwards every operation as it is: what a layer costs, and the pattern for others.

use std::sync::Arc;

use driver_api::{ext, *};

struct Forward;

#[derive(Clone)]
struct Passed(VolumeHandle);

impl Layer for Forward {
    type Volume = Passed;

    fn describe() -> DriverInfo {
        DriverInfo::new("Forwards every operation as it is")
    }

    async fn wrap(_host: Host, _config: BackendConfig, inner: VolumeHandle) -> Result<Passed> {
        Ok(Passed(inner))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Volume for Passed {
    fn size(&self) -> u64 {
        self.0.size().unwrap_or(0)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().unwrap_or(Capabilities::new(Abilities::NONE))
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

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.0.discard(cx, offset, len)
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        self.0.write_zeroes(cx, offset, len, flags)
    }

    fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.0.prefetch(cx, offset, len)
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        self.0.detach(cx)
    }

    fn stats(&self) -> Stats {
        self.0.stats().unwrap_or_default()
    }

    fn incarnation(&self) -> u64 {
        self.0.incarnation().unwrap_or(0)
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        self.0.snapshots().ok().flatten().map(|handle| Arc::new(handle) as Arc<dyn ext::Snapshots>)
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        self.0.resize().ok().flatten().map(|handle| Arc::new(handle) as Arc<dyn ext::Resize>)
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        let map = self.0.allocation_map().ok().flatten();
        map.map(|handle| Arc::new(handle) as Arc<dyn ext::AllocationMap>)
    }
}

export_layer!(Forward, "forward");
