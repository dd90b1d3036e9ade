// SPDX-License-Identifier: Apache-2.0
//! An object's bytes as the store sends them, by one request for all: a little is taken ahead of the client.

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Result,
    ext::{ObjectInfo, ObjectReading},
};
use tokio::{sync::mpsc, time::timeout};

use super::{Budget, Reserved, SILENCE, reading::send, store::Reader};

/// The most bytes that one reading holds.
const AHEAD: u64 = 2 << 20;
/// For how many bytes there must be room before more are asked for.
const MOST: u64 = ObjectReading::MOST as u64;

/// Bytes and the room that they take, until the client has them.
struct Held(IoBuf, #[allow(dead_code, reason = "held for its drop")] [Reserved; 2]);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An object that comes in order.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    /// For all readings.
    budget: Budget,
    /// For this one.
    own: Budget,
    /// Bytes that are still to come.
    left: u64,
    /// Room for the first ones, taken before the object was opened.
    room: Option<Reserved>,
}

impl Stream {
    /// Room for the first bytes of at most `most`. Who waits for it has no connection to the store yet.
    pub(super) async fn room(budget: &Budget, most: u64) -> Result<Reserved> {
        budget.reserve(most.min(MOST)).await
    }

    /// Looks whether the store gives what it was asked for: at most `most` bytes from `start` on.
    pub(super) fn new(
        reader: Reader,
        (budget, room): (Budget, Reserved),
        told: (&ObjectInfo, u64, u64),
        start: u64,
        most: u64,
    ) -> Result<Self> {
        let (object, offset, len) = told;
        let expected = object.size.saturating_sub(start).min(most);
        if offset == start && len == expected {
            let own = Budget::new(AHEAD);
            return Ok(Self { reader, budget, own, left: len, room: Some(room) });
        }
        Err(wrong().with("offset", start).with("given offset", offset).with("given bytes", len))
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let most = self.left.min(MOST);
        let Ok(own) = timeout(SILENCE, self.own.reserve(most)).await else {
            let why = format!("the client has taken nothing for {} s", SILENCE.as_secs());
            return Err(Error::new(ErrorKind::TIMED_OUT, why).during("get_object"));
        };
        let room = match self.room.take() {
            Some(room) => room,
            None => self.budget.reserve(most).await?,
        };
        let mut room = [own?, room];
        let bytes = self.reader.next().await?;
        let len = bytes.len() as u64;
        if len > most || (len == 0 && self.left > 0) {
            return Err(wrong().with("given bytes", len).with("bytes left", self.left));
        }
        if len == 0 {
            return Ok(None);
        }
        self.left -= len;
        room.iter_mut().for_each(|room| room.shrink(len));
        Ok(Some(Bytes::from_owner(Held(bytes, room))))
    }

    /// Sends what comes, until the client has it all or is gone.
    pub(super) async fn send(mut self, sender: mpsc::Sender<Result<Bytes>>) {
        while self.left > 0 {
            let next = tokio::select! {
                biased;
                () = sender.closed() => return,
                next = self.next() => next.transpose(),
            };
            let Some(next) = next else { return };
            let failed = next.is_err();
            if let Err(error) = &next {
                tracing::warn!("an object that is being read: {error:#}");
            }
            if !send(&sender, next).await || failed {
                return;
            }
        }
    }
}

fn wrong() -> Error {
    Error::new(ErrorKind::INTERNAL, "the driver gave other bytes than it was asked for")
        .remedy("report this to the driver's author")
}
