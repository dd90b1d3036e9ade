// SPDX-License-Identifier: Apache-2.0
//! What watches read: the latest events, kept in memory within bounds. Older ones count as compacted, and so does
//! everything from before the file was opened.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use driver_api::{
    Error, ErrorKind, Op, RVec, WatchService,
    state::{Batch, Event},
};
use tokio::sync::watch;

const MAX_EVENTS: usize = 16_384;
const MAX_EVENT_BYTES: usize = 16 << 20;
/// A batch ends after the revision that brings it to this many events.
const BATCH_EVENTS: usize = 512;

/// The latest events. It holds every event with a revision above `floor`, up to `revision`.
pub(super) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    floor: u64,
    revision: u64,
    closed: bool,
}

/// What a reader at some position finds.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Batch(Batch),
    /// Nothing for this prefix up to the revision.
    Nothing(u64),
}

fn weight(event: &Event) -> usize {
    size_of::<Event>() + event.entry.key.len() + event.entry.value.len()
}

impl History {
    /// A history that begins after `revision`.
    pub(super) fn new(revision: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor: revision, revision, closed: false }
    }

    /// Adds the events of transactions up to `revision`, oldest first.
    pub(super) fn push(&mut self, events: Vec<Event>, revision: u64) {
        for event in events {
            self.bytes += weight(&event);
            self.events.push_back(event);
        }
        self.revision = revision;
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_EVENT_BYTES {
            self.drop_oldest();
        }
    }

    /// Forgets the oldest revision as a whole: half a transaction must never be delivered.
    fn drop_oldest(&mut self) {
        let Some(first) = self.events.front() else { return };
        self.floor = first.entry.revision;
        while let Some(event) = self.events.front()
            && event.entry.revision == self.floor
        {
            self.bytes -= weight(event);
            self.events.pop_front();
        }
    }

    /// What happened to keys with `prefix` after the revision `position`.
    pub(super) fn after(&self, prefix: &str, position: u64) -> Found {
        // A position ahead of the store comes from a store that was lost: its holder must read anew as well.
        if position < self.floor || position > self.revision {
            let events = RVec::new();
            return Found::Batch(Batch { events, revision: self.revision, compacted: true });
        }
        let start = self.events.partition_point(|event| event.entry.revision <= position);
        let mut found: Vec<Event> = Vec::new();
        for event in self.events.range(start..) {
            if let Some(last) = found.last()
                && found.len() >= BATCH_EVENTS
                && last.entry.revision != event.entry.revision
            {
                let revision = last.entry.revision;
                return Found::Batch(Batch { events: found.into(), revision, compacted: false });
            }
            if event.entry.key.starts_with(prefix) {
                found.push(event.clone());
            }
        }
        if found.is_empty() {
            return Found::Nothing(self.revision);
        }
        Found::Batch(Batch { events: found.into(), revision: self.revision, compacted: false })
    }
}

/// The history with those who wait for its next entry.
pub(super) struct Feed {
    history: Mutex<History>,
    news: watch::Sender<()>,
}

impl Feed {
    pub(super) fn new(revision: u64) -> Self {
        Self { history: Mutex::new(History::new(revision)), news: watch::Sender::new(()) }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> u64 {
        self.history().revision
    }

    pub(super) fn publish(&self, events: Vec<Event>, revision: u64) {
        self.history().push(events, revision);
        self.news.send_replace(());
    }

    /// Begins anew after `revision`: what happened before is no longer known for certain.
    pub(super) fn restart(&self, revision: u64) {
        *self.history() = History::new(revision);
        self.news.send_replace(());
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.history().closed = true;
        self.news.send_replace(());
    }
}

/// A running watch.
pub(super) struct Watch {
    feed: Arc<Feed>,
    prefix: Arc<str>,
    /// The revision up to which everything was delivered; locked for as long as one caller waits.
    position: Arc<tokio::sync::Mutex<u64>>,
}

impl Watch {
    pub(super) fn new(feed: Arc<Feed>, prefix: &str, after_revision: u64) -> Self {
        let position = if after_revision == 0 { feed.revision() } else { after_revision };
        Self { feed, prefix: prefix.into(), position: Arc::new(position.into()) }
    }
}

impl WatchService for Watch {
    fn next(&self) -> Op<Batch> {
        let (feed, prefix) = (Arc::clone(&self.feed), Arc::clone(&self.prefix));
        let position = Arc::clone(&self.position);
        Op::run(async move {
            let mut position = position.lock().await;
            let mut news = feed.news.subscribe();
            loop {
                news.borrow_and_update();
                let (found, closed) = {
                    let history = feed.history();
                    (history.after(&prefix, *position), history.closed)
                };
                match found {
                    Found::Batch(batch) => {
                        *position = batch.revision;
                        return Ok(batch);
                    }
                    Found::Nothing(revision) => *position = revision,
                }
                if closed || news.changed().await.is_err() {
                    return Err(closed_error());
                }
            }
        })
    }
}

/// The answer to everything once the engine has ended.
pub(super) fn closed_error() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the state is closed: this host is shutting down")
        .remedy("start the host again")
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
