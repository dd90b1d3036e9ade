// SPDX-License-Identifier: Apache-2.0
//! Sessions with volumes, watched as the volumes are.

use std::sync::Arc;

use driver_api::{Abilities, Result, SessionHandle, VolumeHandle, ext::Consistency};

use super::{
    Call, GuardedVolume,
    started::{Held, ask},
};

/// An open session with a volume, which it keeps held. The last handle to go ends it.
#[derive(Clone, Debug)]
pub struct GuardedSession {
    volume: GuardedVolume,
    own: Arc<Held<SessionHandle>>,
}

impl GuardedSession {
    /// The volume as the session has it.
    pub fn volume(&self) -> &GuardedVolume {
        &self.volume
    }

    /// What the session has written and seen by now: text that only the driver understands.
    pub fn token(&self) -> Result<String> {
        ask(&self.own, Call::Token, |session| Ok(session.token()?.into()))
    }
}

impl GuardedVolume {
    /// What a session promises that is opened now; `None` if the driver has no sessions: then every read is strong.
    pub fn consistency(&self) -> Result<Option<Consistency>> {
        if !self.capabilities()?.has(Abilities::SESSIONS) {
            return Ok(None);
        }
        self.ask(Call::Sessions, |volume| match volume.sessions()? {
            Some(sessions) => Ok(Some(sessions.consistency()?)),
            None => Ok(None),
        })
    }

    /// Opens a session that has seen what `token` says, if the driver has sessions.
    pub fn open_session(&self, token: &str) -> Result<Option<GuardedSession>> {
        if !self.capabilities()?.has(Abilities::SESSIONS) {
            return Ok(None);
        }
        let opened = self.ask(Call::OpenSession, |volume: &VolumeHandle| {
            let Some(sessions) = volume.sessions()? else { return Ok(None) };
            let session = sessions.open(token)?;
            Ok(Some((session.volume()?, session)))
        })?;
        Ok(opened.map(|(volume, session)| GuardedSession {
            volume: self.beside(volume),
            own: Held::new(session, self.meter().cloned(), Some(Arc::new(self.clone()))),
        }))
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
