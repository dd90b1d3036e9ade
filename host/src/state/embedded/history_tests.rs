// SPDX-License-Identifier: Apache-2.0
use driver_api::state::Entry;

use super::*;

fn event(key: &str, revision: u64, size: usize) -> Event {
    let entry = Entry { key: key.into(), value: vec![0; size].into(), revision, lease: 0 };
    Event { entry, removed: false }
}

fn batch(found: Found) -> Batch {
    match found {
        Found::Batch(batch) => batch,
        Found::Nothing(revision) => panic!("nothing up to {revision}"),
    }
}

#[test]
fn the_past_and_the_future_count_as_compacted() {
    let mut history = History::new(10);
    history.push(vec![event("a", 11, 0)], 11);
    for position in [0, 9, 12] {
        let batch = batch(history.after("a", position));
        assert_eq!((batch.compacted, batch.revision, batch.events.len()), (true, 11, 0));
    }
    assert_eq!(batch(history.after("a", 10)).events.len(), 1);
    assert_eq!(history.after("a", 11), Found::Nothing(11));
    assert_eq!(history.after("b", 10), Found::Nothing(11));
}

#[test]
fn old_revisions_are_forgotten_whole() {
    let mut history = History::new(1);
    history.push(vec![event("a", 2, 0), event("b", 2, 0), event("c", 2, 0)], 2);
    history.push(vec![event("d", 3, MAX_EVENT_BYTES / 2)], 3);
    assert_eq!(batch(history.after("", 1)).events.len(), 4);
    let rest = MAX_EVENT_BYTES - history.bytes - weight(&event("e", 4, 0));
    history.push(vec![event("e", 4, rest)], 4);
    assert!(!batch(history.after("", 1)).compacted);
    history.push(vec![event("f", 5, 0)], 5);
    assert!(batch(history.after("", 1)).compacted, "revision 2 had to go");
    assert_eq!(batch(history.after("", 2)).events.len(), 3);

    for revision in 6..=6 + MAX_EVENTS as u64 {
        history.push(vec![event("n", revision, 0)], revision);
    }
    assert!(history.events.len() <= MAX_EVENTS);
    assert_eq!(history.bytes, history.events.iter().map(weight).sum::<usize>());
    assert_eq!(history.floor + 1, history.events[0].entry.revision);
}

#[test]
fn a_batch_ends_between_revisions() {
    let mut history = History::new(1);
    for revision in 2..1000 {
        history.push(vec![event("a", revision, 0), event("b", revision, 0)], revision);
    }
    let mut position = 1;
    let mut seen = 0;
    while let Found::Batch(batch) = history.after("", position) {
        assert!(batch.events.len() <= BATCH_EVENTS + 1);
        assert_eq!(batch.events.len() % 2, 0);
        assert!(batch.revision > position);
        position = batch.revision;
        seen += batch.events.len();
    }
    assert_eq!((position, seen), (999, 998 * 2));
}
