// SPDX-License-Identifier: Apache-2.0
//! An object that a client sends: written at once if it is small, else by an upload of parts, which is given up if
//! anything fails. Nothing is seen before all of it is there.

use std::time::Duration;

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Result,
    ext::{
        Conditions, ObjectAbilities, ObjectFeatures, ObjectInfo, ObjectName, PartInfo, PutOptions,
        UploadInfo,
    },
};
use tokio::task::JoinSet;

use super::{Budget, Incoming, LONG, Reserved, Store};
use crate::{plugins::Call, volumes::CONTROL_TIMEOUT};

/// The usual size of a part, and of the largest object that is written at once.
const PART: u64 = 16 << 20;
/// The largest part that the host holds.
pub const LARGEST_PART: u64 = 576 << 20;
/// Parts of one object on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Where nobody said how long an object is, its parts are twice as large after so many.
const PARTS_OF_A_SIZE: u32 = 1000;
/// The slowest that a store may be, in bytes each second.
const SLOWEST: u64 = 256 << 10;

/// How large part number `number` is to be, of an object of `length` bytes.
fn part_size(features: &ObjectFeatures, length: Option<u64>, number: u32) -> u64 {
    let wanted = match length {
        Some(length) => {
            let least = length.div_ceil(u64::from(features.max_parts.max(1)));
            least.next_multiple_of(1 << 20)
        }
        None => PART << (number.saturating_sub(1) / PARTS_OF_A_SIZE).min(10),
    };
    wanted.max(PART).max(features.min_part).min(features.max_part).clamp(1, LARGEST_PART)
}

/// How long a store may take for so many bytes.
fn patience(bytes: usize) -> Duration {
    CONTROL_TIMEOUT + Duration::from_secs(bytes as u64 / SLOWEST)
}

fn too_long(length: u64, features: &ObjectFeatures) -> Error {
    let why = format!("an object of this store has at most {} bytes", features.max_object);
    Error::new(ErrorKind::INVALID_ARGUMENT, why).with("bytes", length)
}

/// Writes an object with what the client sends; `length`: how much it said that is.
pub async fn put(
    store: &Store,
    budget: &Budget,
    name: ObjectName,
    options: PutOptions,
    length: Option<u64>,
    incoming: &mut Incoming,
) -> Result<ObjectInfo> {
    let features = store.features();
    if let Some(length) = length {
        let parts = u64::from(features.max_parts);
        let most = part_size(features, Some(length), 1).saturating_mul(parts);
        if length > features.max_object || length > most.max(features.max_put) {
            return Err(too_long(length, features));
        }
    }
    let direct = features.max_put.min(PART);
    if length.is_some_and(|length| length > features.max_put) {
        can_complete(features, &name, &options.conditions)?;
    }
    let first = match length {
        Some(length) if length <= direct => length,
        Some(_) => part_size(features, length, 1),
        None => direct.max(features.min_part).min(features.max_part.max(direct)),
    };
    let room = budget.reserve(first).await?;
    let data = incoming.take(first as usize).await?;
    if data.len() as u64 <= features.max_put && !incoming.more().await? {
        return put_whole(store, name, options, data, room).await;
    }
    can_complete(features, &name, &options.conditions)?;
    Upload::put(store, budget, name, options, length, incoming, (data, room)).await
}

/// Refuses a condition that the store is known to ignore at the end of an upload in parts. What is not known yet is found
/// out when the upload is begun.
fn can_complete(
    features: &ObjectFeatures,
    name: &ObjectName,
    conditions: &Conditions,
) -> Result<()> {
    let (wanted, what) = match conditions.if_match.is_empty() {
        _ if conditions.is_empty() => return Ok(()),
        true => (ObjectAbilities::CREATE_ONLY_COMPLETE, "create-only"),
        false => (ObjectAbilities::UPDATE_COMPLETE, "under an ETag"),
    };
    if features.abilities.has(wanted) {
        return Ok(());
    }
    let why = format!(
        "this store cannot end an upload in parts {what}, and the content is too large for one write"
    );
    Err(Error::new(ErrorKind::UNSUPPORTED, why)
        .with("object", &name.key)
        .remedy("do without the condition, or write less at once"))
}

async fn put_whole(
    store: &Store,
    name: ObjectName,
    options: PutOptions,
    data: Bytes,
    room: Reserved,
) -> Result<ObjectInfo> {
    let patience = patience(data.len());
    let putting = store.ask_within(patience, Call::PutObject, move |objects, cx| {
        objects.put(cx, name, IoBuf::from(data), options)
    });
    let written = putting.await;
    drop(room);
    written
}

/// Writes one part of an upload with what the client sends, which is just `length` bytes.
pub async fn put_part(
    store: &Store,
    budget: &Budget,
    upload: UploadInfo,
    number: u32,
    length: u64,
    incoming: &mut Incoming,
) -> Result<PartInfo> {
    let most = store.features().max_part.min(LARGEST_PART);
    if length > most {
        let why = format!("a part has at most {most} bytes");
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
            .with("bytes", length)
            .remedy("send smaller parts"));
    }
    let room = budget.reserve(length).await?;
    let data = incoming.take(length as usize).await?;
    if data.len() as u64 != length || incoming.more().await? {
        let why = "the part is not as long as the request says";
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).with("bytes", length));
    }
    send_part(store.clone(), upload, number, data, room).await
}

async fn send_part(
    store: Store,
    upload: UploadInfo,
    number: u32,
    data: Bytes,
    room: Reserved,
) -> Result<PartInfo> {
    let length = data.len();
    let putting = store.ask_within(patience(length), Call::PutPart, move |objects, cx| {
        objects.put_part(cx, upload, number, IoBuf::from(data))
    });
    let part = putting.await;
    drop(room);
    let part = part?;
    if (part.number, part.size) == (number, length as u64) {
        return Ok(part);
    }
    Err(Error::new(ErrorKind::CORRUPTED, "the store has another part than it was given")
        .with("part", number)
        .with("bytes", length)
        .with("stored bytes", part.size))
}

/// An upload that the host makes of one long body.
struct Upload<'a> {
    store: &'a Store,
    budget: &'a Budget,
    info: UploadInfo,
    length: Option<u64>,
}

impl<'a> Upload<'a> {
    async fn put(
        store: &'a Store,
        budget: &'a Budget,
        name: ObjectName,
        options: PutOptions,
        length: Option<u64>,
        incoming: &mut Incoming,
        first: (Bytes, Reserved),
    ) -> Result<ObjectInfo> {
        let conditions = options.conditions.clone();
        if options.mark.is_empty() {
            early(store, &name, &conditions).await?;
        }
        let beginning = store
            .ask(Call::BeginUpload, move |objects, cx| objects.begin_upload(cx, name, options));
        let info = beginning.await.map_err(nothing_written)?;
        let upload = Self { store, budget, info, length };
        let parts = match upload.parts(incoming, first).await {
            Ok(parts) => parts,
            Err(error) => return Err(upload.give_up(nothing_written(error)).await),
        };
        let info = upload.info.clone();
        let completing = store.ask_within(LONG, Call::CompleteUpload, move |objects, cx| {
            objects.complete_upload(cx, info, parts.into(), conditions)
        });
        match completing.await {
            Ok(object) => Ok(object),
            // What may have become an object is not given up: its parts may be the object's.
            Err(error) if is_unknown(error.kind()) => Err(error
                .with("upload", &upload.info.id)
                .with("outcome", "unknown")
                .remedy("look at the object; if it is not the new one, give the upload up")),
            Err(error) => Err(upload.give_up(error).await),
        }
    }

    /// Writes all parts, some at a time. None is under way any more when it returns.
    async fn parts(
        &self,
        incoming: &mut Incoming,
        first: (Bytes, Reserved),
    ) -> Result<Vec<PartInfo>> {
        let (mut sending, mut done) = (JoinSet::new(), Vec::new());
        let mut result = self.send_all(incoming, first, &mut sending, &mut done).await;
        while let Some(ended) = sending.join_next().await {
            let ended = settle(ended, &mut done);
            result = result.and(ended);
        }
        result?;
        done.sort_by_key(|part: &PartInfo| part.number);
        Ok(done)
    }

    async fn send_all(
        &self,
        incoming: &mut Incoming,
        first: (Bytes, Reserved),
        sending: &mut JoinSet<Result<PartInfo>>,
        done: &mut Vec<PartInfo>,
    ) -> Result<()> {
        let features = self.store.features();
        let (mut next, mut number) = (Some(first), 1);
        loop {
            let (data, room) = match next.take() {
                Some(part) => part,
                None if !incoming.more().await? => return Ok(()),
                None => {
                    let size = part_size(features, self.length, number);
                    let room = self.budget.reserve(size).await?;
                    (incoming.take(size as usize).await?, room)
                }
            };
            if number > features.max_parts || incoming.taken() > features.max_object {
                return Err(too_long(incoming.taken(), features));
            }
            let (store, info) = (self.store.clone(), self.info.clone());
            sending.spawn(send_part(store, info, number, data, room));
            number += 1;
            // A part that failed ends the upload before more is taken.
            while let Some(ended) = sending.try_join_next() {
                settle(ended, done)?;
            }
            while sending.len() >= PARTS_AT_ONCE
                && let Some(ended) = sending.join_next().await
            {
                settle(ended, done)?;
            }
        }
    }

    /// Gives the upload up and says why; what stays behind is told as well.
    async fn give_up(&self, error: Error) -> Error {
        let info = self.info.clone();
        let aborting =
            self.store.ask(Call::AbortUpload, move |objects, cx| objects.abort_upload(cx, info));
        match aborting.await {
            Ok(()) => error,
            Err(left) => {
                let (bucket, key) = (self.info.bucket.as_str(), self.info.key.as_str());
                tracing::warn!(bucket, key, upload = %self.info.id, "left behind: {left:#}");
                error.with("left behind upload", &self.info.id)
            }
        }
    }
}

fn settle(
    ended: std::result::Result<Result<PartInfo>, tokio::task::JoinError>,
    done: &mut Vec<PartInfo>,
) -> Result<()> {
    let part = ended.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::INTERNAL, format!("a part ended in a panic: {panic}")))
    })?;
    done.push(part);
    Ok(())
}

/// Whether a completion that failed so may have made the object all the same.
fn is_unknown(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::NOT_FOUND
            | ErrorKind::ALREADY_EXISTS
            | ErrorKind::CONFLICT
            | ErrorKind::IN_USE
            | ErrorKind::INVALID_ARGUMENT
            | ErrorKind::NO_SPACE
            | ErrorKind::PERMISSION_DENIED
            | ErrorKind::UNAUTHENTICATED
            | ErrorKind::UNAVAILABLE
            | ErrorKind::UNSUPPORTED
    )
}

/// Before its completion an upload is no object: that a part's outcome is unknown leaves the object as it was.
fn nothing_written(error: Error) -> Error {
    if error.kind() != ErrorKind::TIMED_OUT {
        return error;
    }
    let why = "the store did not answer in time; the object is as it was";
    Error::new(ErrorKind::UNAVAILABLE, why).caused_by(&error).remedy("repeat it")
}

/// Refuses what the completion would refuse, before all is sent. The completion decides all the same. A writer with a
/// mark may be repeating what it did, which only the completion can tell.
async fn early(store: &Store, name: &ObjectName, conditions: &Conditions) -> Result<()> {
    if conditions.is_empty() {
        return Ok(());
    }
    let asked = name.clone();
    let heading = store
        .ask(Call::HeadObject, move |objects, cx| objects.head(cx, asked, Conditions::default()));
    let refused = |kind, why: &str| Err(Error::new(kind, why).with("key", &name.key));
    match heading.await {
        Ok(_) if conditions.if_none_match == "*" => {
            refused(ErrorKind::ALREADY_EXISTS, "there is an object of that key")
        }
        Ok(object) if !conditions.if_match.is_empty() && object.etag != conditions.if_match => {
            refused(ErrorKind::CONFLICT, "the object has another ETag")
        }
        Err(error) if error.kind() == ErrorKind::NOT_FOUND && !conditions.if_match.is_empty() => {
            refused(ErrorKind::CONFLICT, "there is no object of that key")
        }
        // What cannot be asked is the completion's to say.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3() -> ObjectFeatures {
        ObjectFeatures {
            min_part: 5 << 20,
            max_part: 5 << 30,
            max_parts: 10_000,
            ..ObjectFeatures::default()
        }
    }

    #[test]
    fn parts_are_large_enough_for_the_largest_object() {
        let features = s3();
        assert_eq!(part_size(&features, Some(100 << 20), 1), PART);
        let size = part_size(&features, Some(5 << 40), 1);
        assert!(size * 10_000 >= 5 << 40 && size <= LARGEST_PART, "{size}");
        let all: u64 = (1..=10_000).map(|number| part_size(&features, None, number)).sum();
        assert!(all > 3 << 40, "{all} bytes of unknown length fit");
    }

    #[test]
    fn parts_are_as_small_as_the_store_wants() {
        let features = ObjectFeatures { min_part: 1, max_part: 100, ..s3() };
        assert_eq!(part_size(&features, Some(1 << 20), 1), 100);
        let features = ObjectFeatures { min_part: 32 << 20, ..s3() };
        assert_eq!(part_size(&features, None, 1), 32 << 20);
    }
}
