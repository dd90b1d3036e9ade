// SPDX-License-Identifier: Apache-2.0
//! What every engine of the state must do, as one body of tests over a [`StateHandle`].

use std::{future::IntoFuture, time::Duration};

use driver_api::{
    ErrorKind, ROption, Result, StateHandle, WatchHandle,
    state::{Batch, Entry, Event, MAX_BYTES, MAX_KEY, MAX_OPERATIONS, Mutation, Transaction},
};

/// Far more than any step needs: it only keeps a broken engine from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all cases on a state that holds nothing under `suite/`.
pub async fn run(state: &StateHandle) {
    entries_come_and_go(state).await;
    transactions_happen_all_or_not_at_all(state).await;
    ranges_are_paged_by_key(state).await;
    limits_are_kept(state).await;
    counting_by_compare_and_swap_loses_nothing(state).await;
    watches_see_every_change_in_order(state).await;
    watches_resume_from_a_revision(state).await;
    leases_end_with_their_entries(state).await;
    entries_can_change_their_lease(state).await;
    leases_end_by_themselves(state).await;
}

async fn within<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what.into_future()).await.expect("no answer in time")
}

pub async fn get(state: &StateHandle, key: &str) -> Option<Entry> {
    within(state.get(key)).await.unwrap().into_option()
}

/// Commits what must succeed; returns the revision.
pub async fn done(state: &StateHandle, transaction: Transaction) -> u64 {
    let committed = within(state.commit(transaction)).await.unwrap();
    assert!(committed.succeeded);
    committed.revision
}

pub async fn next(watch: &WatchHandle) -> Batch {
    within(watch.next()).await.unwrap()
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("this must be refused").kind()
}

/// Reads on until there are `count` events.
async fn events(watch: &WatchHandle, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = next(watch).await;
        assert!(!batch.compacted);
        events.extend(batch.events);
    }
    assert_eq!(events.len(), count);
    events
}

async fn entries_come_and_go(state: &StateHandle) {
    assert_eq!(get(state, "suite/basic/a").await, None);
    let first = done(state, Transaction::new().put("suite/basic/a", b"1")).await;
    let entry = get(state, "suite/basic/a").await.unwrap();
    assert_eq!((&entry.value[..], entry.revision, entry.lease), (&b"1"[..], first, 0));
    let second = done(state, Transaction::new().put("suite/basic/a", b"2")).await;
    assert!(second > first && first > 0);
    assert_eq!(get(state, "suite/basic/a").await.unwrap().revision, second);
    done(state, Transaction::new().put("suite/basic/other", b"x")).await;
    assert_eq!(get(state, "suite/basic/a").await.unwrap().revision, second);

    let third = done(state, Transaction::new().delete("suite/basic/a")).await;
    assert!(third > second);
    assert_eq!(get(state, "suite/basic/a").await, None);
    let again = done(state, Transaction::new().delete("suite/basic/a")).await;
    assert_eq!(again, third, "deleting nothing changes nothing");
    let read = done(state, Transaction::new().expect("suite/basic/a", 0)).await;
    assert_eq!(read, third, "comparing changes nothing");
}

async fn transactions_happen_all_or_not_at_all(state: &StateHandle) {
    let create = || Transaction::new().expect("suite/tx/a", 0).put("suite/tx/a", b"1");
    let first = done(state, create().put("suite/tx/b", b"1")).await;
    let refused = within(state.commit(create().put("suite/tx/c", b"1"))).await.unwrap();
    assert!(!refused.succeeded);
    assert_eq!(refused.revision, first);
    assert_eq!(refused.current.to_vec(), [get(state, "suite/tx/a").await.unwrap()]);
    assert_eq!(get(state, "suite/tx/c").await, None);

    let mixed = Transaction::new()
        .expect("suite/tx/a", first)
        .expect("suite/tx/b", first + 1000)
        .expect("suite/tx/none", first)
        .delete("suite/tx/a");
    let refused = within(state.commit(mixed)).await.unwrap();
    let keys: Vec<&str> = refused.current.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((refused.succeeded, &keys[..]), (false, &["suite/tx/a", "suite/tx/b"][..]));
    assert!(get(state, "suite/tx/a").await.is_some());

    let both = Transaction::new()
        .expect("suite/tx/a", first)
        .expect("suite/tx/b", first)
        .delete("suite/tx/a")
        .put("suite/tx/b", b"2");
    let second = done(state, both).await;
    assert_eq!(second, first + 1, "one transaction, one revision");
    assert_eq!(get(state, "suite/tx/a").await, None);
    assert_eq!(get(state, "suite/tx/b").await.unwrap().revision, second);
}

async fn ranges_are_paged_by_key(state: &StateHandle) {
    let mut fill = Transaction::new().put("suite/range", b"").put("suite/range0", b"");
    for name in ["b", "a", "c/x", "d", "é"] {
        fill = fill.put(&format!("suite/range/{name}"), name.as_bytes());
    }
    done(state, fill).await;
    let names = async |after: &str, limit| -> Vec<String> {
        let entries = within(state.range("suite/range/", after, limit)).await.unwrap();
        entries.iter().map(|entry| entry.key["suite/range/".len()..].to_owned()).collect()
    };
    assert_eq!(names("", 100).await, ["a", "b", "c/x", "d", "é"]);
    assert_eq!(names("", 2).await, ["a", "b"]);
    assert_eq!(names("suite/range/b", 2).await, ["c/x", "d"]);
    assert_eq!(names("suite/range/bb", 1).await, ["c/x"]);
    assert_eq!(names("suite/a", 1).await, ["a"]);
    assert!(names("suite/range/é", 9).await.is_empty());
    assert!(names("suite/z", 9).await.is_empty());
    assert!(names("", 0).await.is_empty());
    let entries = within(state.range("suite/range/c", "", 9)).await.unwrap();
    assert_eq!(entries[0].value.as_slice(), b"c/x");
}

async fn limits_are_kept(state: &StateHandle) {
    let longest = format!("suite/limit/{}", "k".repeat(MAX_KEY - "suite/limit/".len() - 16));
    done(state, Transaction::new().put(&longest, b"")).await;
    let long = "k".repeat(MAX_KEY + 1);
    let refused = ErrorKind::INVALID_ARGUMENT;
    for key in [long.as_str(), ""] {
        assert_eq!(kind(within(state.get(key)).await), refused);
        for bad in [
            Transaction::new().put(key, b""),
            Transaction::new().delete(key),
            Transaction::new().expect(key, 0),
        ] {
            assert_eq!(kind(within(state.commit(bad)).await), refused);
        }
    }

    let mut full = Transaction::new();
    for index in 0..MAX_OPERATIONS / 2 {
        let key = format!("suite/limit/{index}");
        full = full.expect(&key, 0).put(&key, b"");
    }
    assert_eq!(full.compares.len() + full.mutations.len(), MAX_OPERATIONS);
    let too_many = full.clone().expect("suite/limit/one-more", 0);
    assert_eq!(kind(within(state.commit(too_many)).await), refused);
    done(state, full).await;

    let key = "suite/limit/big";
    let most = vec![7; MAX_BYTES - 64];
    done(state, Transaction::new().put(key, &most)).await;
    assert_eq!(get(state, key).await.unwrap().value.len(), most.len());
    let too_much = Transaction::new().put(key, &vec![7; MAX_BYTES]);
    assert_eq!(kind(within(state.commit(too_much)).await), refused);
    done(state, Transaction::new().delete(key)).await;

    let twice = Transaction::new().put("suite/limit/x", b"1").delete("suite/limit/x");
    assert_eq!(kind(within(state.commit(twice)).await), refused);
    assert_eq!(get(state, "suite/limit/x").await, None);
}

async fn counting_by_compare_and_swap_loses_nothing(state: &StateHandle) {
    const TASKS: u64 = 8;
    const STEPS: u64 = 10;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let state = state.clone();
        tasks.spawn(async move {
            let mut counted = 0;
            while counted < STEPS {
                let entry = get(&state, "suite/count").await;
                let (value, revision) = entry.map_or((0, 0), |entry| {
                    (u64::from_le_bytes(entry.value[..].try_into().unwrap()), entry.revision)
                });
                let step = Transaction::new()
                    .expect("suite/count", revision)
                    .put("suite/count", &(value + 1).to_le_bytes());
                counted += u64::from(within(state.commit(step)).await.unwrap().succeeded);
            }
        });
    }
    within(tasks.join_all()).await;
    let value = get(state, "suite/count").await.unwrap().value;
    assert_eq!(value.as_slice(), (TASKS * STEPS).to_le_bytes());
}

async fn watches_see_every_change_in_order(state: &StateHandle) {
    done(state, Transaction::new().put("suite/watch/before", b"")).await;
    let watch = state.watch("suite/watch/", 0).unwrap();
    let first =
        done(state, Transaction::new().put("suite/watch/a", b"1").put("suite/watch/b", b"1")).await;
    done(state, Transaction::new().put("suite/elsewhere", b"")).await;
    let second = done(state, Transaction::new().delete("suite/watch/a")).await;

    let seen = events(&watch, 3).await;
    let summary: Vec<_> = seen
        .iter()
        .map(|event| (event.entry.key.as_str(), event.entry.revision, event.removed))
        .collect();
    assert_eq!(
        summary,
        [
            ("suite/watch/a", first, false),
            ("suite/watch/b", first, false),
            ("suite/watch/a", second, true),
        ]
    );
    assert_eq!((&seen[0].entry.value[..], &seen[2].entry.value[..]), (&b"1"[..], &b""[..]));

    // One that already waits is woken.
    let waiting = tokio::spawn(watch.next().into_future());
    tokio::task::yield_now().await;
    let third = done(state, Transaction::new().put("suite/watch/c", b"3")).await;
    let batch = within(waiting).await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (third, 1));
}

async fn watches_resume_from_a_revision(state: &StateHandle) {
    let first = done(state, Transaction::new().put("suite/resume/a", b"1")).await;
    let second = done(state, Transaction::new().put("suite/resume/a", b"2")).await;
    let third = done(state, Transaction::new().put("suite/resume/b", b"3")).await;
    let watch = state.watch("suite/resume/", first).unwrap();
    let seen = events(&watch, 2).await;
    assert_eq!([seen[0].entry.revision, seen[1].entry.revision], [second, third]);
    let watch = state.watch("suite/resume/", second).unwrap();
    assert_eq!(events(&watch, 1).await[0].entry.revision, third);
}

const LONG: u64 = 600_000;

async fn leases_end_with_their_entries(state: &StateHandle) {
    let lease = within(state.grant_lease(LONG)).await.unwrap();
    let other = within(state.grant_lease(LONG)).await.unwrap();
    assert!(lease != 0 && other != 0 && lease != other);
    let fill = Transaction::new()
        .put_leased("suite/lease/a", b"", lease)
        .put_leased("suite/lease/b", b"", lease)
        .put_leased("suite/lease/c", b"", other)
        .put("suite/lease/d", b"");
    done(state, fill).await;
    assert_eq!(get(state, "suite/lease/a").await.unwrap().lease, lease);
    within(state.keep_lease(lease)).await.unwrap();

    let watch = state.watch("suite/lease/", 0).unwrap();
    within(state.revoke_lease(lease)).await.unwrap();
    let mut removed: Vec<_> = events(&watch, 2)
        .await
        .into_iter()
        .map(|event| (event.entry.key.into_string(), event.removed))
        .collect();
    removed.sort();
    assert_eq!(removed, [("suite/lease/a".into(), true), ("suite/lease/b".into(), true)]);
    let left = within(state.range("suite/lease/", "", 9)).await.unwrap();
    let left: Vec<&str> = left.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["suite/lease/c", "suite/lease/d"]);

    let gone = ErrorKind::NOT_FOUND;
    assert_eq!(kind(within(state.keep_lease(lease)).await), gone);
    assert_eq!(kind(within(state.revoke_lease(lease)).await), gone);
    let late = Transaction::new().put("suite/lease/x", b"").put_leased("suite/lease/y", b"", lease);
    assert_eq!(kind(within(state.commit(late)).await), gone);
    assert_eq!(get(state, "suite/lease/x").await, None, "nothing of it was done");
    assert_eq!(kind(within(state.grant_lease(0)).await), ErrorKind::INVALID_ARGUMENT);
    assert_eq!(kind(within(state.grant_lease(u64::MAX)).await), ErrorKind::INVALID_ARGUMENT);
    within(state.revoke_lease(other)).await.unwrap();
}

async fn entries_can_change_their_lease(state: &StateHandle) {
    let first = within(state.grant_lease(LONG)).await.unwrap();
    let second = within(state.grant_lease(LONG)).await.unwrap();
    for (key, lease) in [("suite/move/free", 0), ("suite/move/second", second)] {
        done(state, Transaction::new().put_leased(key, b"", first)).await;
        done(state, Transaction::new().put_leased(key, b"", lease)).await;
    }
    let anew = "suite/move/anew";
    done(state, Transaction::new().put_leased(anew, b"", first)).await;
    done(state, Transaction::new().delete(anew)).await;
    done(state, Transaction::new().put(anew, b"")).await;
    within(state.revoke_lease(first)).await.unwrap();
    assert!(get(state, "suite/move/free").await.is_some());
    assert!(get(state, "suite/move/second").await.is_some());
    assert!(get(state, anew).await.is_some());
    within(state.revoke_lease(second)).await.unwrap();
    assert_eq!(get(state, "suite/move/second").await, None);
}

async fn leases_end_by_themselves(state: &StateHandle) {
    let watch = state.watch("suite/expire/", 0).unwrap();
    let lease = within(state.grant_lease(LONG)).await.unwrap();
    let short = within(state.grant_lease(300)).await.unwrap();
    let put = Mutation::Put { key: "suite/expire/a".into(), value: b"".as_slice().into(), lease };
    done(state, Transaction { mutations: vec![put].into(), ..Transaction::new() }).await;
    let leased = Transaction::new().put_leased("suite/expire/b", b"", short);
    // On a machine that stalls the lease may already be over; then there is nothing more to see.
    if within(state.commit(leased)).await.is_ok() {
        let seen = events(&watch, 3).await;
        let last = &seen[2];
        assert_eq!((last.entry.key.as_str(), last.removed), ("suite/expire/b", true));
        assert_eq!(within(state.get("suite/expire/b")).await.unwrap(), ROption::RNone);
    }
    assert!(get(state, "suite/expire/a").await.is_some());
    within(state.revoke_lease(lease)).await.unwrap();
}
