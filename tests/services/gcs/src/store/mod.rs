// SPDX-License-Identifier: Apache-2.0
//! Buckets and objects, on disk: bytes in files of their own, everything else in memory and in a journal.
//!
//! A change checks its conditions and is made under one lock. What was answered outlives a killed process.

mod listing;
mod model;
mod state;
mod uploads;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

pub(crate) use listing::{Page, Selection};
use model::Event;
pub(crate) use model::{Attributes, Bucket, Object, Piece};
use state::State;

use crate::clock;
use crate::conditions::Conditions;
use crate::refusal::Refusal;

/// All buckets.
pub(crate) struct Store {
    dir: PathBuf,
    state: Mutex<State>,
    /// Generations and files are numbered by the time, and never twice.
    last: AtomicI64,
}

/// A generation that is to be.
pub(crate) struct NewObject {
    pub(crate) bucket: String,
    pub(crate) name: String,
    pub(crate) pieces: Vec<Arc<Piece>>,
    pub(crate) crc32c: u32,
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) attributes: Attributes,
}

impl Store {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            state: Mutex::new(State::open(dir)?),
            last: AtomicI64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> i64 {
        let now = clock::now();
        let next = |last: i64| Some(now.max(last + 1));
        self.last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_or(now, |last| now.max(last + 1))
    }

    /// A path that nobody else has.
    pub(crate) fn new_file(&self) -> PathBuf {
        self.dir.join("files").join(self.number().to_string())
    }

    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket, Refusal> {
        Ok(self.lock().held(name)?.bucket.clone())
    }

    /// The buckets of a project, by name.
    pub(crate) fn buckets(&self, project: &str) -> Vec<Bucket> {
        let state = self.lock();
        state
            .buckets
            .values()
            .map(|held| &held.bucket)
            .filter(|bucket| bucket.project == project)
            .cloned()
            .collect()
    }

    pub(crate) fn create_bucket(&self, bucket: Bucket) -> Result<Bucket, Refusal> {
        let mut state = self.lock();
        if state.buckets.contains_key(&bucket.name) {
            let message = "Your previous request to create the named bucket succeeded and you already own it.";
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "BucketAlreadyOwnedByYou",
                "conflict",
                message,
            ));
        }
        state.commit(vec![Event::Bucket(bucket.clone())])?;
        Ok(bucket)
    }

    /// Changes a bucket's description, in one step with its condition.
    pub(crate) fn change_bucket(
        &self,
        name: &str,
        conditions: &Conditions,
        change: impl FnOnce(&mut Bucket) -> Result<(), Refusal>,
    ) -> Result<Bucket, Refusal> {
        let mut state = self.lock();
        let mut bucket = state.held(name)?.bucket.clone();
        conditions.check_bucket(bucket.metageneration)?;
        change(&mut bucket)?;
        bucket.metageneration += 1;
        bucket.updated = clock::now();
        state.commit(vec![Event::Bucket(bucket.clone())])?;
        Ok(bucket)
    }

    /// Removes an empty bucket. Uploads that are not complete go with it.
    pub(crate) fn delete_bucket(&self, name: &str, conditions: &Conditions) -> Result<(), Refusal> {
        let mut state = self.lock();
        let held = state.held(name)?;
        conditions.check_bucket(held.bucket.metageneration)?;
        if !held.objects.is_empty() {
            let message = "The bucket you tried to delete is not empty.";
            return Err(Refusal::new(StatusCode::CONFLICT, "BucketNotEmpty", "conflict", message));
        }
        let uploads = state.uploads.values().filter(|upload| upload.bucket == name);
        let mut events: Vec<_> = uploads
            .map(|upload| Event::UploadGone { id: upload.id.clone(), taken: Vec::new() })
            .collect();
        events.push(Event::BucketGone(name.to_owned()));
        state.commit(events)
    }

    /// A generation of an object, or the live one.
    pub(crate) fn object(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<i64>,
    ) -> Result<Arc<Object>, Refusal> {
        find(&self.lock(), bucket, name, generation)
    }

    /// Stores a new generation, which replaces the live one if the conditions hold of that.
    pub(crate) fn put(
        &self,
        new: NewObject,
        conditions: &Conditions,
    ) -> Result<Arc<Object>, Refusal> {
        let mut state = self.lock();
        self.put_locked(&mut state, new, conditions, Vec::new())
    }

    fn put_locked(
        &self,
        state: &mut State,
        new: NewObject,
        conditions: &Conditions,
        mut also: Vec<Event>,
    ) -> Result<Arc<Object>, Refusal> {
        let held = state.held(&new.bucket)?;
        check_name(&new.name)?;
        let live = held.live(&new.name).map(Arc::as_ref);
        conditions.check(live)?;
        let mut generation = self.number();
        if let Some(last) = held.objects.get(&new.name).and_then(|generations| generations.last()) {
            generation = generation.max(last.generation + 1);
        }
        let mut events: Vec<_> =
            live.map(|live| retire(live, held.bucket.versioning)).into_iter().collect();
        events.push(Event::Object(Object {
            bucket: new.bucket.clone(),
            name: new.name.clone(),
            generation,
            metageneration: 1,
            pieces: new.pieces,
            crc32c: new.crc32c,
            md5: new.md5,
            created: generation,
            updated: generation,
            deleted: None,
            attributes: new.attributes,
        }));
        events.append(&mut also);
        state.commit(events)?;
        find(state, &new.bucket, &new.name, Some(generation))
    }

    /// Changes an object's description, in one step with its condition.
    pub(crate) fn describe(
        &self,
        (bucket, name): (&str, &str),
        generation: Option<i64>,
        conditions: &Conditions,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<Arc<Object>, Refusal> {
        let mut state = self.lock();
        let mut object = find(&state, bucket, name, generation)?.as_ref().clone();
        conditions.check(Some(&object))?;
        change(&mut object.attributes);
        object.metageneration += 1;
        object.updated = clock::now();
        let generation = object.generation;
        state.commit(vec![Event::Object(object)])?;
        find(&state, bucket, name, Some(generation))
    }

    /// Deletes the live generation, which stays as an old one in a bucket with versions; or a certain one, for good.
    pub(crate) fn delete(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<i64>,
        conditions: &Conditions,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let object = find(&state, bucket, name, generation)?;
        conditions.check(Some(&object))?;
        let keep = generation.is_none() && state.held(bucket)?.bucket.versioning;
        state.commit(vec![retire(&object, keep)])
    }

    /// The bytes of an object for another one. Files are shared with hard links, and so are not read.
    pub(crate) fn copy_of(&self, object: &Object) -> Result<Vec<Arc<Piece>>, Refusal> {
        let link = |piece: &Arc<Piece>| {
            let copy = Piece::unowned(self.new_file()).with_size(piece.size);
            match std::fs::hard_link(&piece.path, &copy.path) {
                Ok(()) => Ok(Arc::new(copy)),
                Err(error) => Err(Refusal::internal("the copy of a file", error)),
            }
        };
        object.pieces.iter().map(link).collect()
    }

    /// One page of a listing.
    pub(crate) fn list(&self, bucket: &str, selection: &Selection) -> Result<Page, Refusal> {
        Ok(listing::page(&self.lock().held(bucket)?.objects, selection))
    }
}

fn find(
    state: &State,
    bucket: &str,
    name: &str,
    generation: Option<i64>,
) -> Result<Arc<Object>, Refusal> {
    let held = state.held(bucket)?;
    let found = match generation {
        None => held.live(name),
        Some(generation) => held
            .objects
            .get(name)
            .and_then(|all| all.iter().find(|object| object.generation == generation)),
    };
    found.cloned().ok_or_else(|| Refusal::no_object(bucket, name))
}

/// The end of a generation: for good, or as an old one.
fn retire(object: &Object, keep: bool) -> Event {
    if keep {
        return Event::Object(Object { deleted: Some(clock::now()), ..object.clone() });
    }
    Event::ObjectGone {
        bucket: object.bucket.clone(),
        name: object.name.clone(),
        generation: object.generation,
    }
}

/// Names are UTF-8 of 1 to 1024 bytes without line ends.
fn check_name(name: &str) -> Result<(), Refusal> {
    let reserved = name == "." || name == ".." || name.starts_with(".well-known/acme-challenge/");
    if name.is_empty() || name.len() > 1024 || name.contains(['\r', '\n']) || reserved {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidObjectName",
            "invalid",
            "Invalid object name.",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
