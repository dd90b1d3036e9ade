// SPDX-License-Identifier: Apache-2.0
//! Everything that is known, in memory, and the journal that says how it came to be.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::{Bucket, Event, Object, Upload};
use crate::refusal::Refusal;

/// A bucket with what is in it.
pub(super) struct Held {
    pub(super) bucket: Bucket,
    /// By name, the generations of an object, the oldest first.
    pub(super) objects: BTreeMap<String, Vec<Arc<Object>>>,
}

impl Held {
    /// The generation that readers get.
    pub(super) fn live(&self, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(name)?.last().filter(|object| object.is_live())
    }
}

pub(super) struct State {
    pub(super) buckets: BTreeMap<String, Held>,
    pub(super) uploads: BTreeMap<String, Upload>,
    journal: File,
}

impl State {
    /// Reads the journal in `dir`, and removes the files that it does not know.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let (path, files) = (dir.join("journal"), dir.join("files"));
        fs::create_dir_all(&files)?;
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let journal = OpenOptions::new().create(true).append(true).open(&path)?;
        // A line without an end was being written when the process was killed: nobody was told that it is.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        journal.set_len(whole as u64)?;
        let mut state = Self { buckets: BTreeMap::new(), uploads: BTreeMap::new(), journal };
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            for event in serde_json::from_slice::<Vec<Event>>(line)? {
                state.apply(event);
            }
        }
        let known = state.files();
        for entry in fs::read_dir(&files)? {
            let path = entry?.path();
            if !known.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(state)
    }

    fn files(&self) -> HashSet<PathBuf> {
        let objects = self.buckets.values().flat_map(|held| held.objects.values()).flatten();
        let parts = self.uploads.values().flat_map(|upload| upload.parts.values());
        let pieces = objects.flat_map(|object| &object.pieces).chain(parts.map(|part| &part.piece));
        pieces.map(|piece| piece.path.clone()).collect()
    }

    pub(super) fn held(&self, bucket: &str) -> Result<&Held, Refusal> {
        self.buckets.get(bucket).ok_or_else(Refusal::no_bucket)
    }

    /// An upload of an object.
    pub(super) fn upload(&self, bucket: &str, name: &str, id: &str) -> Result<&Upload, Refusal> {
        self.held(bucket)?;
        self.uploads
            .get(id)
            .filter(|upload| upload.bucket == bucket && upload.name == name)
            .ok_or_else(Refusal::no_upload)
    }

    /// Makes some changes, all or none.
    pub(super) fn commit(&mut self, events: Vec<Event>) -> Result<(), Refusal> {
        let failed = |error: &dyn std::fmt::Display| Refusal::internal("the journal", error);
        let mut line = serde_json::to_vec(&events).map_err(|error| failed(&error))?;
        line.push(b'\n');
        let before = self.journal.metadata().map_err(|error| failed(&error))?.len();
        if let Err(error) = self.journal.write_all(&line) {
            // Half a line would spoil those that follow.
            let _ = self.journal.set_len(before);
            return Err(failed(&error));
        }
        for event in events {
            self.apply(event);
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Bucket(bucket) => match self.buckets.get_mut(&bucket.name) {
                Some(held) => held.bucket = bucket,
                None => {
                    self.buckets
                        .insert(bucket.name.clone(), Held { bucket, objects: BTreeMap::new() });
                }
            },
            Event::BucketGone(name) => {
                self.buckets.remove(&name);
            }
            Event::Object(object) => self.object(object),
            Event::ObjectGone { bucket, name, generation } => {
                self.object_gone(&bucket, &name, generation)
            }
            Event::Upload(upload) => {
                self.uploads.insert(upload.id.clone(), upload);
            }
            Event::Part { upload, number, part } => {
                part.piece.keep();
                if let Some(upload) = self.uploads.get_mut(&upload)
                    && let Some(replaced) = upload.parts.insert(number, part)
                {
                    replaced.piece.doom();
                }
            }
            Event::UploadGone { id, taken } => {
                for (number, part) in
                    self.uploads.remove(&id).into_iter().flat_map(|upload| upload.parts)
                {
                    if !taken.contains(&number) {
                        part.piece.doom();
                    }
                }
            }
        }
    }

    fn object(&mut self, object: Object) {
        for piece in &object.pieces {
            piece.keep();
        }
        if let Some(held) = self.buckets.get_mut(&object.bucket) {
            let generations = held.objects.entry(object.name.clone()).or_default();
            match generations.iter_mut().find(|other| other.generation == object.generation) {
                Some(other) => *other = Arc::new(object),
                None => generations.push(Arc::new(object)),
            }
        }
    }

    fn object_gone(&mut self, bucket: &str, name: &str, generation: i64) {
        let Some(held) = self.buckets.get_mut(bucket) else { return };
        let Some(generations) = held.objects.get_mut(name) else { return };
        for object in generations.extract_if(.., |object| object.generation == generation) {
            for piece in &object.pieces {
                piece.doom();
            }
        }
        if generations.is_empty() {
            held.objects.remove(name);
        }
    }
}
