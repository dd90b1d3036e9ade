// SPDX-License-Identifier: Apache-2.0
//! An object's bytes in order: as the store sends them, or in pieces that are asked for ahead of the client, all under the
//! ETag of the first one.

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Result,
    ext::{Conditions, ObjectAbilities, ObjectInfo, ObjectName, ObjectReading},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Budget, Reserved, SILENCE, Store, stream::Stream};
use crate::plugins::Call;

/// What is asked for at once.
const PIECE: u64 = 4 << 20;
/// Pieces that are asked for before the client took those before.
const AHEAD: usize = 3;
/// Buffers of a store's answer that wait for the client.
const PARTED: usize = 16;

/// Which bytes of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All of them.
    All,
    /// From the first place on, to its end.
    From(u64),
    /// From the first place to the last one, both included.
    Between(u64, u64),
    /// So many at the end.
    Last(u64),
}

/// An object that is read.
#[derive(Debug)]
pub struct Reading {
    /// The object.
    pub object: ObjectInfo,
    /// The place of the first byte that comes.
    pub start: u64,
    /// The place after the last one.
    pub end: u64,
    /// The bytes, in order. After an error nothing comes.
    pub pieces: Pieces,
}

/// The bytes of a reading.
#[derive(Debug)]
pub enum Pieces {
    /// The first ones, and what they come from.
    Stream(Bytes, Box<Stream>),
    /// What others fetch.
    Fetched(mpsc::Receiver<Result<Bytes>>),
}

impl Pieces {
    /// The next ones; none at the end, and after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        match self {
            Self::Stream(first, stream) => match std::mem::take(first) {
                first if first.is_empty() => stream.next().await.transpose(),
                first => Some(Ok(first)),
            },
            Self::Fetched(pieces) => pieces.recv().await,
        }
    }

    /// The same, fetched while the client takes those before, for whom it is given up if it takes none for long.
    pub fn fetched(self) -> mpsc::Receiver<Result<Bytes>> {
        match self {
            Self::Fetched(pieces) => pieces,
            Self::Stream(first, stream) => {
                // What a store sends comes in bytes, of which the reading holds so many: it does not matter how they are
                // parted.
                let (sender, pieces) = mpsc::channel(PARTED);
                tokio::spawn(async move {
                    if first.is_empty() || send(&sender, Ok(first)).await {
                        stream.send(sender).await;
                    }
                });
                pieces
            }
        }
    }
}

/// A piece and the room that it takes, until the client has it.
struct Held(IoBuf, #[allow(dead_code, reason = "held for its drop")] Reserved);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A piece that was asked for.
struct Asked {
    at: u64,
    answer: JoinHandle<Result<(ObjectInfo, Bytes)>>,
}

/// How an object's bytes come, and the first ones.
enum Coming {
    /// By a request for all.
    Stream(Bytes, Stream),
    /// By a request for each piece, some of which were made early.
    Pieces(Bytes, Vec<Asked>),
}

/// What all pieces of one reading have in common.
#[derive(Clone)]
struct Source {
    store: Store,
    budget: Budget,
    name: ObjectName,
    conditions: Conditions,
    /// Bytes of a piece.
    most: u64,
}

impl Source {
    /// Takes room for a piece at `offset` of at most `len` bytes.
    async fn room(&self, len: u64) -> Result<Reserved> {
        self.budget.reserve(len.min(self.most)).await
    }

    /// Asks for a piece for which there is room.
    async fn piece(&self, offset: u64, len: u64, room: Reserved) -> Result<(ObjectInfo, Bytes)> {
        let len = len.min(self.most);
        let (name, conditions) = (self.name.clone(), self.conditions.clone());
        let asking = self.store.ask(Call::GetObject, move |objects, cx| {
            objects.get(cx, name, offset, len as u32, conditions)
        });
        let piece = asking.await?;
        if piece.offset != offset || piece.data.len() as u64 > len {
            let why = "the driver gave other bytes than it was asked for";
            return Err(Error::new(ErrorKind::INTERNAL, why)
                .with("offset", offset)
                .with("given offset", piece.offset)
                .with("given bytes", piece.data.len())
                .remedy("report this to the driver's author"));
        }
        Ok((piece.object, Bytes::from_owner(Held(piece.data, room))))
    }

    /// Begins to ask for a piece, whoever waits for it.
    fn begin(&self, offset: u64, len: u64, room: Reserved) -> Asked {
        let source = self.clone();
        let answer = tokio::spawn(async move { source.piece(offset, len, room).await });
        Asked { at: offset, answer }
    }

    /// Begins to ask for what follows the first piece, as far as there is room now, if the client has told which object it
    /// means: without that, the first piece tells.
    fn begin_early(&self, start: u64, most: u64) -> Vec<Asked> {
        let etag = self.conditions.if_match.as_str();
        if etag.is_empty() || etag == "*" || most == u64::MAX {
            return Vec::new();
        }
        let places = (1..=AHEAD as u64).map(|number| number * self.most);
        let begun = places.take_while(|done| *done < most).map_while(|done| {
            let left = most - done;
            let room = self.budget.reserve_now(left.min(self.most))?;
            Some(self.begin(start + done, left, room))
        });
        begun.collect()
    }

    /// Begins to read, by one request where the store can.
    async fn first(&self, start: u64, most: u64) -> Result<(ObjectInfo, Coming)> {
        if self.store.features().abilities.has(ObjectAbilities::STREAM) {
            match self.stream(start, most).await {
                // There are objects that only pieces can be read of.
                Err(error) if error.kind() == ErrorKind::UNSUPPORTED => {}
                opened => return opened,
            }
        }
        // The first one before the others: who waits for room never has what comes later.
        let room = self.room(most).await?;
        let early = self.begin_early(start, most);
        let (object, first) = self.piece(start, most, room).await?;
        Ok((object, Coming::Pieces(first, early)))
    }

    /// Opens the object, and waits for its first bytes.
    async fn stream(&self, start: u64, most: u64) -> Result<(ObjectInfo, Coming)> {
        let (name, conditions) = (self.name.clone(), self.conditions.clone());
        let room = Stream::room(&self.budget, most).await?;
        let opening = self.store.ask(Call::OpenObject, move |objects, cx| {
            objects.open_read(cx, name, start, most, conditions)
        });
        let ObjectReading { object, offset, len, reader, .. } = opening.await?;
        let reader = self.store.reader(reader);
        let told = (&object, offset, len);
        let room = (self.budget.clone(), room);
        let mut stream = Stream::new(reader, room, told, start, most)?;
        let first = match len {
            0 => Bytes::new(),
            _ => stream.next().await?.unwrap_or_default(),
        };
        Ok((object, Coming::Stream(first, stream)))
    }

    async fn head(&self) -> Result<ObjectInfo> {
        let (name, conditions) = (self.name.clone(), self.conditions.clone());
        self.store
            .ask(Call::HeadObject, move |objects, cx| objects.head(cx, name, conditions))
            .await
    }
}

fn outside(size: u64, wanted: Wanted) -> Error {
    Error::new(ErrorKind::OUT_OF_RANGE, "the range is not inside the object")
        .during("get_object")
        .with("size", size)
        .with("range", format!("{wanted:?}"))
        .remedy("choose another range")
}

/// Begins to read. What fails at once is told before the first byte.
pub async fn read(
    store: Store,
    budget: Budget,
    name: ObjectName,
    wanted: Wanted,
    conditions: Conditions,
) -> Result<Reading> {
    let most = PIECE.min(u64::from(store.features().max_piece)).max(1);
    let mut source = Source { store, budget, name, conditions, most };
    let (start, most) = match wanted {
        Wanted::All => (0, u64::MAX),
        Wanted::From(start) => (start, u64::MAX),
        Wanted::Between(first, last) => {
            let len = last.checked_sub(first).and_then(|len| len.checked_add(1));
            let why = || Error::new(ErrorKind::INVALID_ARGUMENT, "the range ends before it begins");
            (first, len.ok_or_else(why)?)
        }
        Wanted::Last(count) => {
            let object = source.head().await?;
            if count == 0 || object.size == 0 {
                return Err(outside(object.size, wanted));
            }
            source.pin(&object);
            (object.size.saturating_sub(count), count)
        }
    };
    let (object, coming) = match source.first(start, most).await {
        Ok(begun) => begun,
        // Only the object's size tells whether it was the range.
        Err(error)
            if matches!(error.kind(), ErrorKind::INVALID_ARGUMENT | ErrorKind::OUT_OF_RANGE) =>
        {
            let object = source.head().await?;
            match object.size {
                0 if wanted == Wanted::All => (object, Coming::Pieces(Bytes::new(), Vec::new())),
                size if start >= size => return Err(outside(size, wanted)),
                _ => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    if start >= object.size && wanted != Wanted::All {
        return Err(outside(object.size, wanted));
    }
    let end = start.saturating_add(most).min(object.size);
    let pieces = match coming {
        Coming::Stream(first, stream) => Pieces::Stream(first, Box::new(stream)),
        Coming::Pieces(first, early) => {
            let at = start + first.len() as u64;
            source.pin(&object);
            short(&source, first.len() as u64, end - start)?;
            let follow = Follow { source, object: object.clone(), end };
            let (sender, pieces) = mpsc::channel(1);
            tokio::spawn(async move {
                let (ahead, asked) = mpsc::channel(AHEAD);
                let sending = async {
                    match send(&sender, Ok(first)).await {
                        true => follow.send(asked, &sender).await,
                        false => drop(asked),
                    }
                };
                tokio::join!(follow.ask(at, early, ahead), sending);
            });
            Pieces::Fetched(pieces)
        }
    };
    Ok(Reading { object, start, end, pieces })
}

impl Source {
    /// What comes next is to be of this object, or an error.
    fn pin(&mut self, object: &ObjectInfo) {
        self.conditions = Conditions::matching(&object.etag);
    }
}

/// Refuses a piece that is shorter than it can be.
fn short(source: &Source, len: u64, left: u64) -> Result<()> {
    let expected = left.min(source.most);
    if len == expected {
        return Ok(());
    }
    let why = "the store gave fewer bytes than the object has";
    Err(Error::new(ErrorKind::CORRUPTED, why).with("bytes", len).with("expected", expected))
}

pub(super) async fn send(sender: &mpsc::Sender<Result<Bytes>>, piece: Result<Bytes>) -> bool {
    matches!(tokio::time::timeout(SILENCE, sender.send(piece)).await, Ok(Ok(())))
}

/// What comes after an object's first piece.
struct Follow {
    source: Source,
    object: ObjectInfo,
    end: u64,
}

impl Follow {
    /// Asks for the pieces from `at` on, of which the first ones are asked for.
    async fn ask(&self, mut at: u64, early: Vec<Asked>, ahead: mpsc::Sender<Asked>) {
        let mut early = early.into_iter();
        while at < self.end {
            let left = self.end - at;
            let Ok(slot) = ahead.reserve().await else { return };
            slot.send(match early.next() {
                Some(asked) => asked,
                // In the order of their places: one that waits for room holds up those after it, never those before.
                None => match self.source.room(left).await {
                    Ok(room) => self.source.begin(at, left, room),
                    Err(_) => return,
                },
            });
            at += left.min(self.source.most);
        }
    }

    /// Sends the pieces in order.
    async fn send(&self, mut asked: mpsc::Receiver<Asked>, sender: &mpsc::Sender<Result<Bytes>>) {
        while let Some(asked) = asked.recv().await {
            let piece = self.whole(asked).await;
            let failed = piece.is_err();
            if let Err(error) = &piece {
                tracing::warn!("an object that is being read: {error:#}");
            }
            if !send(sender, piece).await || failed {
                return;
            }
        }
    }

    /// A piece that is as it should be.
    async fn whole(&self, asked: Asked) -> Result<Bytes> {
        let answer = asked.answer.await.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::INTERNAL, format!("a read ended in a panic: {panic}")))
        });
        let (now, piece) = answer?;
        same(&self.object, &now)?;
        short(&self.source, piece.len() as u64, self.end - asked.at)?;
        Ok(piece)
    }
}

/// A store without conditions is caught by what it says of the object: its date, where it has no ETag.
fn same(expected: &ObjectInfo, now: &ObjectInfo) -> Result<()> {
    let is_dated = !expected.etag.is_empty() || expected.modified_ms == now.modified_ms;
    if (&expected.etag, expected.size) == (&now.etag, now.size) && is_dated {
        return Ok(());
    }
    Err(Error::new(ErrorKind::CONFLICT, "the object was replaced while it was read")
        .with("etag", &expected.etag)
        .with("new etag", &now.etag)
        .remedy("read it again from its beginning"))
}
