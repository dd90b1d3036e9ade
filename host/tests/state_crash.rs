// SPDX-License-Identifier: Apache-2.0
//! The state after the death of its process: a child commits in a loop and says so on its standard output, is killed,
//! and everything it said must be in the file.

#![allow(clippy::unwrap_used)] // all of it is test code

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use driver_api::{ErrorKind, StateHandle, state::Transaction};
use novastor::state::open_embedded;

const CHILD: &str = "NOVASTOR_TEST_STATE_CRASH_FILE";
const WRITERS: u64 = 3;
const ROUNDS: usize = 8;

/// Commits counters for ever: `a/WRITER` and `b/WRITER` change together, with a value of some pages now and then.
async fn write(state: StateHandle, writer: u64) {
    let (a, b) = (format!("a/{writer}"), format!("b/{writer}"));
    let found = state.get(&a).await.unwrap().into_option();
    let (mut count, mut revision) =
        found.map_or((0, 0), |entry| (number(&entry.value), entry.revision));
    let lease = state.grant_lease(3_600_000).await.unwrap();
    loop {
        count += 1;
        let mut value = count.to_le_bytes().to_vec();
        value.resize(8 + (count as usize % 7) * 2000, count as u8);
        let step = Transaction::new()
            .expect(&a, revision)
            .put(&a, &value)
            .put_leased(&b, &value, lease)
            .put(&format!("log/{writer}/{}", count % 50), &value);
        let committed = state.commit(step).await.unwrap();
        assert!(committed.succeeded);
        revision = committed.revision;
        let line = format!("{writer} {count} {revision}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// Not a test by itself: the child of the one below runs it.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let state = open_embedded(Path::new(&path)).unwrap().handle();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(state.clone(), writer));
        }
        writers.join_all().await;
    });
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The (writer, count, revision) of an acknowledgement.
fn acknowledged(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.split(' ').map(|word| word.parse().ok());
    match (words.next()??, words.next()??, words.next()??) {
        (writer, count, revision) if writer < WRITERS => Some((writer, count, revision)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = spawn(&path);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut last = [(0, 0); WRITERS as usize];
        let mut line = String::new();
        let mut seen = 0;
        loop {
            line.clear();
            // The pipe is read to its end: what was written before the kill was acknowledged before it.
            if output.read_line(&mut line).unwrap() == 0 {
                break;
            }
            if let Some((writer, count, revision)) = acknowledged(line.trim_end()) {
                last[writer as usize] = (count, revision);
                seen += 1;
                if seen == 1 {
                    let error = open_embedded(&path).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}");
                }
                if seen == 20 + 17 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= 20 + 17 * round, "the child ended by itself after {seen} commits");
        total += seen;

        let state = open_embedded(&path).unwrap().handle();
        for (writer, (count, revision)) in last.into_iter().enumerate() {
            let Some(a) = state.get(&format!("a/{writer}")).await.unwrap().into_option() else {
                assert_eq!(count, 0, "writer {writer} lost everything");
                continue;
            };
            let b = state.get(&format!("b/{writer}")).await.unwrap().into_option().unwrap();
            assert!(
                number(&a.value) >= count && a.revision >= revision,
                "writer {writer}, round {round}"
            );
            assert_eq!((&a.value, a.revision), (&b.value, b.revision), "half a transaction");
            assert!(a.value[8..].iter().all(|byte| *byte == number(&a.value) as u8));
            assert_eq!(b.value.len(), 8 + (number(&b.value) as usize % 7) * 2000);
            state.keep_lease(b.lease).await.unwrap();
        }
    }
    println!("{total} acknowledged commits over {ROUNDS} kills, all there");
}
