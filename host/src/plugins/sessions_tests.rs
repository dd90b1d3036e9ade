// SPDX-License-Identifier: Apache-2.0
use std::time::Duration;

use driver_api::{
    Capabilities, Host, IoBuf, Op, OpContext, Volume, WriteFlags, export::export_volume, ext,
    host::NoServices,
};
use tokio::time::timeout;

use super::*;

const MOMENT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);

/// A volume that takes writes and forgets them, and its sessions.
#[derive(Clone)]
struct Sink;

impl Volume for Sink {
    fn size(&self) -> u64 {
        4096
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::WRITE | Abilities::SESSIONS)
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

    fn sessions(&self) -> Option<Arc<dyn ext::Sessions<Self>>> {
        Some(Arc::new(Self))
    }
}

impl ext::Sessions<Self> for Sink {
    fn consistency(&self) -> Result<Consistency> {
        Ok(Consistency::CAUSAL)
    }

    fn open(&self, _token: &str) -> Result<Self> {
        Ok(Self)
    }

    fn token(&self, _session: &Self) -> Result<String> {
        Ok(String::new())
    }
}

#[tokio::test]
async fn a_paused_volume_holds_changes_of_its_sessions_too() {
    let volume = GuardedVolume::new(export_volume(Sink, Host::new(NoServices))).gated();
    let session = volume.open_session("").unwrap().expect("it has sessions");
    let pause = volume.pause().expect("it has a gate");
    let writing = tokio::spawn(async move {
        let data = IoBuf::copy_from(&[1; 512]);
        session.volume().write(&OpContext::new(), 0, data, WriteFlags::NONE).await
    });
    tokio::time::sleep(MOMENT).await;
    assert!(!writing.is_finished(), "a change while the volume is paused");
    drop(pause);
    timeout(PATIENCE, writing).await.expect("it went on").unwrap().unwrap();
}
