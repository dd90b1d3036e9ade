// SPDX-License-Identifier: Apache-2.0
//! Per kind of store, against each server: buckets and what they can, lifecycle rules, an upload and a download in parts that
//! are killed in their middle and go on, and signed URLs in the hands of plain curl.

mod buckets;
mod lifecycle;
mod transfers;
mod urls;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    faults::Faults,
    host::Host,
    objects::{Backend, Front, Objects, STORES, Store, chosen},
};

const MIB: u64 = 1 << 20;
/// How the command line ends when what was typed is wrong, a thing is not there or in use, or a store cannot do something.
const INVALID: i32 = 2;
const NOT_FOUND: i32 = 3;
const IN_USE: i32 = 5;
const UNSUPPORTED: i32 = 14;

/// What is played by the short form: each kind against a server of its own, and S3 against two.
const SHORT: [Store; 5] = [Store::Radosgw, Store::Moto, Store::Azurite, Store::Gcs, Store::Swift];

pub(super) fn play(stage: &Stage) -> Outcome {
    let stores = chosen(if stage.is_long() { &STORES } else { &SHORT })?;
    let objects = Objects::start(&stage.path("servers"), &stores)?;
    stage.tell(format!("{} stores answer", stores.len()));
    // Large transfers go two at a time: all of them at once fill disks.
    let lanes = [Mutex::new(()), Mutex::new(())];
    let played: Vec<Outcome> = thread::scope(|scope| {
        let (objects, lanes) = (&objects, &lanes);
        let begin = |(at, store): (usize, &Store)| {
            let (lane, store) = (&lanes[at % lanes.len()], *store);
            scope.spawn(move || play_at(stage, objects, store, lane).context(store.name()))
        };
        let running: Vec<_> = stores.iter().enumerate().map(begin).collect();
        let panicked = |_| Err(Failure::new("a scene panicked"));
        running.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
    });
    // What went wrong anywhere is told, not only the first of it.
    let failed: Vec<_> = played.into_iter().filter_map(Result::err).collect();
    let text = || failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    ensure(failed.is_empty(), text)
}

fn play_at(stage: &Stage, objects: &Objects, store: Store, lane: &Mutex<()>) -> Outcome {
    let faults = objects.faults(store)?;
    let backend = Backend::of(store).through(&faults);
    let host = objects.host(&stage.artifacts, &[backend])?;
    let front = Front::new(host.cli(), store.name(), &stage.path("state"));
    // Servers that run already may have what an earlier play left.
    let bucket = format!("novastor-{}-{}", store.name(), std::process::id());
    let mut abilities = front.abilities()?;
    abilities.retain(|ability| !store.lacks().contains(&ability.as_str()));
    let mut scene =
        Scene { stage, objects, store, faults: &faults, host, front, bucket, abilities };
    // One that fails hides none of the others.
    let mut failed = Vec::new();
    let mut part = |name: &str, outcome: Outcome| {
        failed.extend(outcome.context(name).err().map(|failure| failure.to_string()));
    };
    part("buckets", scene.buckets());
    part("objects", scene.contents());
    part("lifecycle", scene.lifecycle());
    part("signed URLs", scene.urls());
    let turn = stage.is_long().then(|| lane.lock().unwrap_or_else(PoisonError::into_inner));
    part("transfers", scene.transfers());
    part("the end", scene.end());
    drop(turn);
    ensure(failed.is_empty(), || failed.join("\n"))?;
    scene.host.stop()
}

struct Scene<'s> {
    stage: &'s Stage,
    objects: &'s Objects,
    store: Store,
    faults: &'s Faults,
    host: Host,
    front: Front,
    bucket: String,
    /// What the backend tells, without what this server lacks.
    abilities: Vec<String>,
}

impl Scene<'_> {
    fn tell(&self, text: impl std::fmt::Display) {
        self.stage.tell(format!("{:<13} {text}", self.store.name()));
    }

    fn can(&self, ability: &str) -> bool {
        self.abilities.iter().any(|one| one == ability)
    }

    /// An object of the bucket, as it is typed.
    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    /// A file of this store's own.
    fn file(&self, name: &str) -> PathBuf {
        self.stage.path(&format!("{}-{name}", self.store.name()))
    }

    /// A file with this text.
    fn text(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let file = self.file(name);
        std::fs::write(&file, text).context(file.display())?;
        Ok(file)
    }

    /// Fails unless an object has this text.
    fn holds(&self, object: &str, text: &str) -> Outcome {
        let file = self.file("held");
        // A file that is there would be kept.
        let _ = std::fs::remove_file(&file);
        self.front.get(object, &file, &[])?;
        let held = std::fs::read_to_string(&file).context(file.display())?;
        ensure(held == text, || format!("{object} holds {held:?}, not {text:?}"))
    }

    /// What cannot be done is refused.
    fn cannot(&self, ability: &str, words: &[&str]) -> Outcome<String> {
        ensure(!self.can(ability), || format!("{ability} is claimed"))?;
        self.front.refused(words, &[UNSUPPORTED])
    }
}
