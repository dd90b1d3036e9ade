// SPDX-License-Identifier: Apache-2.0
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    Abilities, Capabilities, ErrorKind, IoBuf, Op, OpContext, WriteFlags, export::export_volume,
    host::NoServices,
};

/// A volume of one number, and sessions that count what they wrote.
#[derive(Clone, Default)]
struct Numbers {
    written: Arc<AtomicU64>,
    session: Option<Arc<AtomicU64>>,
}

impl Volume for Numbers {
    fn size(&self) -> u64 {
        4096
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::WRITE | Abilities::SESSIONS)
    }

    fn read(&self, _cx: &OpContext, _offset: u64, len: u32) -> Op<IoBuf> {
        let number = self.written.load(Ordering::Relaxed) as u8;
        Op::ok(IoBuf::copy_from(&vec![number; len as usize]))
    }

    fn write(&self, _cx: &OpContext, _offset: u64, _data: IoBuf, _flags: WriteFlags) -> Op<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(session) = &self.session {
            session.store(number, Ordering::Relaxed);
        }
        Op::ok(())
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn sessions(&self) -> Option<Arc<dyn Sessions<Self>>> {
        Some(Arc::new(self.clone()))
    }
}

impl Sessions<Self> for Numbers {
    fn consistency(&self) -> crate::Result<Consistency> {
        Ok(Consistency::CAUSAL)
    }

    fn open(&self, token: &str) -> crate::Result<Self> {
        assert_ne!(token, "panic", "on purpose");
        let seen = if token.is_empty() { Ok(0) } else { token.parse() };
        let seen = seen.map_err(|_| Error::new(ErrorKind::INVALID_ARGUMENT, "no token"))?;
        Ok(Self { session: Some(Arc::new(AtomicU64::new(seen))), ..self.clone() })
    }

    fn token(&self, session: &Self) -> crate::Result<String> {
        let seen = session.session.as_ref().map_or(0, |seen| seen.load(Ordering::Relaxed));
        Ok(seen.to_string())
    }
}

fn sessions() -> (VolumeHandle, SessionsHandle) {
    let volume = export_volume(Numbers::default(), Host::new(NoServices));
    let sessions = volume.sessions().unwrap().expect("sessions");
    (volume, sessions)
}

#[tokio::test]
async fn a_session_is_a_handle_of_the_same_volume_with_a_token_of_its_own() {
    let (volume, sessions) = sessions();
    assert_eq!(sessions.consistency().unwrap(), Consistency::CAUSAL);
    let (one, other) = (sessions.open("").unwrap(), sessions.open("").unwrap());
    let cx = OpContext::new();
    one.volume().unwrap().write(&cx, 0, IoBuf::copy_from(&[1]), WriteFlags::NONE).await.unwrap();
    assert_eq!((one.token().unwrap().as_str(), other.token().unwrap().as_str()), ("1", "0"));
    assert_eq!(volume.read(&cx, 0, 1).await.unwrap()[0], 1);
    assert_eq!(sessions.open("7").unwrap().token().unwrap().as_str(), "7");
}

#[tokio::test]
async fn a_session_neither_ends_the_attachment_nor_has_sessions() {
    let (_volume, sessions) = sessions();
    let session = sessions.open("").unwrap().volume().unwrap();
    let refused = session.detach(&OpContext::new()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT);
    assert!(session.sessions().unwrap().is_none());
    let refused = session.read(&OpContext::new(), 4096, 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OUT_OF_RANGE, "it is checked as the volume is");
}

#[test]
fn what_is_no_token_is_refused_and_a_panic_contained() {
    let (_volume, sessions) = sessions();
    assert_eq!(sessions.open("x").unwrap_err().kind(), ErrorKind::INVALID_ARGUMENT);
    assert_eq!(sessions.open("panic").unwrap_err().kind(), ErrorKind::PANIC);
}
