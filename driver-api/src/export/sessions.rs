// SPDX-License-Identifier: Apache-2.0
//! The exported sessions of a volume: each of them is exported as the volume is.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RResult, RStr, RString},
};

use super::Contained;
use crate::{
    Error, Host, SessionHandle, SessionsHandle, Volume, VolumeHandle,
    abi::{RawSession, RawSession_TO, RawSessions, RawSessions_TO},
    ext::{Consistency, Sessions},
};

/// The sessions as the other side holds them; `export` makes handles of what they open.
pub(super) fn export_sessions<V: Volume>(
    sessions: Arc<dyn Sessions<V>>,
    host: Host,
    export: impl Fn(V) -> VolumeHandle + Send + Sync + 'static,
) -> SessionsHandle {
    let glue = SessionsGlue { sessions: Contained::new(sessions, host), export };
    SessionsHandle { raw: RawSessions_TO::from_ptr(RArc::new(glue), TD_Opaque) }
}

struct SessionsGlue<V: Volume, F> {
    sessions: Contained<Arc<dyn Sessions<V>>>,
    export: F,
}

impl<V: Volume, F> RawSessions for SessionsGlue<V, F>
where
    F: Fn(V) -> VolumeHandle + Send + Sync + 'static,
{
    fn consistency(&self) -> RResult<Consistency, Error> {
        crate::panic::guard(|| self.sessions.consistency()).into()
    }

    fn open(&self, token: RStr<'_>) -> RResult<SessionHandle, Error> {
        crate::panic::guard(|| {
            let session = self.sessions.open(token.as_str())?;
            let glue = SessionGlue {
                volume: (self.export)(session.clone()),
                own: Contained::new(
                    (Arc::clone(&self.sessions), session),
                    self.sessions.host.clone(),
                ),
            };
            Ok(SessionHandle { raw: RawSession_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map_err(|error| error.during("open session"))
        .into()
    }
}

struct SessionGlue<V: Volume> {
    volume: VolumeHandle,
    own: Contained<(Arc<dyn Sessions<V>>, V)>,
}

impl<V: Volume> RawSession for SessionGlue<V> {
    fn volume(&self) -> RResult<VolumeHandle, Error> {
        RResult::ROk(self.volume.clone())
    }

    fn token(&self) -> RResult<RString, Error> {
        let (sessions, session) = &*self.own;
        crate::panic::guard(|| Ok(sessions.token(session)?.into())).into()
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
