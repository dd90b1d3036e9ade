// SPDX-License-Identifier: Apache-2.0
//! Sessions with an attached volume: what each sees of its own writes, and what its token is worth.

use driver_api::{ErrorKind, SessionHandle, SessionsHandle};

use crate::{
    case::Case,
    volume::{Checked, Vol, broken, ensure, refusal, success},
};

/// The longest token, in bytes.
const LONGEST: usize = 128;

fn sessions_of(vol: &Vol) -> Checked<SessionsHandle> {
    match success("sessions", vol.handle.sessions())? {
        Some(sessions) => Ok(sessions),
        None => broken("sessions are claimed, and not there"),
    }
}

/// The volume as a session with this token has it.
fn opened(vol: &Vol, token: &str) -> Checked<(SessionHandle, Vol)> {
    let session = success("open session", sessions_of(vol)?.open(token))?;
    let handle = success("volume of a session", session.volume())?;
    Ok((session, Vol { handle, ..vol.clone() }))
}

fn token(session: &SessionHandle) -> Checked<String> {
    let token = success("token", session.token())?.into_string();
    let is_plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\'';
    ensure(token.len() <= LONGEST && token.chars().all(is_plain), || {
        format!("a token is {token:?}")
    })?;
    Ok(token)
}

pub(super) async fn own_writes(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (session, mine) = opened(&vol, "")?;
    let mut random = case.random();
    for round in 0..8 {
        let data = random.bytes(case.sector());
        mine.write(round % 2 * case.sector(), &data).await?;
        mine.expect(round % 2 * case.sector(), &data, "in the session that wrote it").await?;
        // Another session that is told of it, and the attachment itself, see it as well.
        let (_, other) = opened(&vol, &token(&session)?)?;
        other.expect(round % 2 * case.sector(), &data, "with the token of who wrote it").await?;
        vol.expect(round % 2 * case.sector(), &data, "without a session").await?;
    }
    mine.flush().await
}

pub(super) async fn ends(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (session, mine) = opened(&vol, "")?;
    let data = case.random().bytes(case.sector());
    mine.write(0, &data).await?;
    let refused = mine.try_detach().await?;
    refusal("a detach through a session", refused, &[ErrorKind::INVALID_ARGUMENT])?;
    let told = token(&session)?;
    drop((session, mine));
    vol.expect(0, &data, "after the session that wrote it has ended").await?;
    vol.detach().await?;
    let again = case.attach(&vol.name).await?;
    let (_, mine) = opened(&again, &told)?;
    mine.expect(0, &data, "with a token of the attachment before").await
}

pub(super) async fn tokens(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let sessions = sessions_of(&vol)?;
    for bad in ["no token", "\u{fffd}", "''"] {
        let answer = sessions.open(bad);
        refusal(
            &format!("a session with the token {bad:?}"),
            answer,
            &[ErrorKind::INVALID_ARGUMENT],
        )?;
    }
    Ok(())
}
