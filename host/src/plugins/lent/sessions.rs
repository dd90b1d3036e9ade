// SPDX-License-Identifier: Apache-2.0
//! Sessions with a lent volume: each is lent as the volume is.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RResult, RStr, RString},
};
use driver_api::{
    Error, SessionHandle, VolumeHandle,
    abi::{RawSession, RawSession_TO, RawSessions},
    ext::{self, Consistency},
};

use super::{LentVolume, answer, lend_volume};
use crate::plugins::GuardedSession;

struct LentSession {
    session: GuardedSession,
    lender: Arc<str>,
}

impl RawSessions for LentVolume {
    fn consistency(&self) -> RResult<Consistency, Error> {
        let consistency = self.volume.consistency();
        // Where there are no sessions every read is strong.
        answer(&self.lender, consistency.map(Option::unwrap_or_default))
    }

    fn open(&self, token: RStr<'_>) -> RResult<SessionHandle, Error> {
        let opened = self.volume.open_session(token.as_str());
        let opened = opened.and_then(|session| session.ok_or_else(|| ext::unsupported("sessions")));
        let lent = opened.map(|session| {
            let lent = LentSession { session, lender: Arc::clone(&self.lender) };
            SessionHandle::from_raw(RawSession_TO::from_ptr(RArc::new(lent), TD_Opaque))
        });
        answer(&self.lender, lent)
    }
}

impl RawSession for LentSession {
    fn volume(&self) -> RResult<VolumeHandle, Error> {
        RResult::ROk(lend_volume(self.session.volume().clone(), &self.lender))
    }

    fn token(&self) -> RResult<RString, Error> {
        answer(&self.lender, self.session.token().map(Into::into))
    }
}
