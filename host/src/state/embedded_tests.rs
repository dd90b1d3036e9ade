// SPDX-License-Identifier: Apache-2.0
use std::{
    fs,
    future::IntoFuture,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use driver_api::ErrorKind;
use redb::{Database, StorageBackend, TableDefinition, backends::FileBackend};

use super::*;
use crate::state::{
    scoped,
    suite::{self, done, get, next},
};

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    (directory, path)
}

#[tokio::test]
async fn the_engine_keeps_the_contract() {
    let (_directory, path) = fresh();
    suite::run(&open_embedded(&path).unwrap().handle()).await;
}

#[tokio::test]
async fn a_scoped_view_keeps_the_contract_and_stays_in_its_room() {
    let (_directory, path) = fresh();
    let whole = open_embedded(&path).unwrap().handle();
    let room = scoped(whole.clone(), "backends/nas1");
    done(&whole, Transaction::new().put("backends/nas10/x", b"").put("outside", b"")).await;
    suite::run(&room).await;

    assert!(get(&room, "outside").await.is_none());
    assert!(get(&room, "0/x").await.is_none());
    let watch = room.watch("", 0).unwrap();
    done(&whole, Transaction::new().put("outside", b"2")).await;
    done(&room, Transaction::new().put("a", b"1")).await;
    assert_eq!(get(&whole, "backends/nas1/a").await.unwrap().value.as_slice(), b"1");
    assert_eq!(next(&watch).await.events[0].entry.key, "a");
    let all = room.range("", "", u32::MAX).await.unwrap();
    assert!(all.iter().all(|entry| entry.key == "a" || entry.key.starts_with("suite/")));
    let nested = scoped(room, "inner/");
    done(&nested, Transaction::new().put("b", b"")).await;
    assert!(get(&whole, "backends/nas1/inner/b").await.is_some());
}

#[tokio::test]
async fn everything_but_the_history_survives_a_restart() {
    let (_directory, path) = fresh();
    let state = open_embedded(&path).unwrap().handle();
    let lease = state.grant_lease(600_000).await.unwrap();
    let put = Transaction::new().put("a", b"1").put_leased("b", b"2", lease);
    let revision = done(&state, put).await;
    let before = state.range("", "", 9).await.unwrap();
    drop(state);

    let state = open_embedded(&path).unwrap().handle();
    assert_eq!(state.range("", "", 9).await.unwrap(), before);
    let lost = state.watch("", revision - 1).unwrap();
    let batch = next(&lost).await;
    assert_eq!((batch.compacted, batch.revision), (true, revision));
    let watch = state.watch("", revision).unwrap();
    state.keep_lease(lease).await.unwrap();
    let other = state.grant_lease(600_000).await.unwrap();
    assert!(other > lease, "numbers of leases are not used twice");
    state.revoke_lease(lease).await.unwrap();
    for watch in [watch, lost] {
        let batch = next(&watch).await;
        assert_eq!((batch.compacted, batch.revision, batch.events.len()), (false, revision + 1, 1));
        assert!(batch.events[0].removed && batch.events[0].entry.key == "b");
    }
}

#[tokio::test]
async fn a_lease_runs_on_after_a_restart_and_ends() {
    let (_directory, path) = fresh();
    let state = open_embedded(&path).unwrap().handle();
    let lease = state.grant_lease(700).await.unwrap();
    let revision = done(&state, Transaction::new().put_leased("a", b"", lease)).await;
    drop(state);
    let state = open_embedded(&path).unwrap().handle();
    let batch = next(&state.watch("", revision).unwrap()).await;
    assert!(batch.events[0].removed);
    assert_eq!(state.keep_lease(lease).await.unwrap_err().kind(), ErrorKind::NOT_FOUND);
}

#[tokio::test]
async fn the_file_belongs_to_one_opener_until_its_last_handle_is_gone() {
    let (directory, path) = fresh();
    let state = open_embedded(&path).unwrap();
    let error = open_embedded(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IN_USE);
    let text = format!("{error:#}");
    assert!(text.contains(path.to_str().unwrap()) && text.contains("state.path"), "{text}");
    let handle = state.handle();
    drop(state);
    assert!(open_embedded(&path).is_err());
    let watch = handle.watch("", 0).unwrap();
    drop(handle);
    assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::UNAVAILABLE);
    open_embedded(&path).unwrap();
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["state.redb"]);
}

#[test]
fn a_new_file_is_private_and_needs_a_directory() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = fresh();
    open_embedded(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = open_embedded(&directory.path().join("none/state.redb")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND);
    assert!(error.remedy_text().contains("directory"), "{error:#}");
    assert!(open_embedded(directory.path()).is_err());
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_as_it_was() {
    let (_directory, path) = fresh();
    let state = open_embedded(&path).unwrap().handle();
    for index in 0..50 {
        done(&state, Transaction::new().put(&format!("key/{index}"), &[index; 3000])).await;
    }
    drop(state);
    let good = fs::read(&path).unwrap();
    let header = TableDefinition::<&str, u64>::new("header");
    let altered = |row: &str, value: u64| {
        fs::write(&path, &good).unwrap();
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(header).unwrap().insert(row, value).unwrap();
        transaction.commit().unwrap();
        drop(database);
        fs::read(&path).unwrap()
    };
    let newer_feature = altered("incompatible", 4);
    let newer_format = altered("format", 2);
    let other_magic = altered("magic", 7);
    let compatible = altered("compatible", 4);
    fs::remove_file(&path).unwrap();
    drop(Database::create(&path).unwrap());
    let other_program = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    for byte in flipped[8192..].iter_mut().step_by(4096) {
        *byte ^= 0x55;
    }
    let mut one_bit = good.clone();
    let inside = good.windows(100).position(|bytes| bytes == [33; 100]).unwrap();
    one_bit[inside] ^= 1;
    let mut zeroed = good.clone();
    zeroed[4096..].fill(0);

    let (foreign, corrupted) = (ErrorKind::INVALID_ARGUMENT, ErrorKind::CORRUPTED);
    let cases: [(&str, &[u8], ErrorKind, &str); 11] = [
        ("empty", b"", foreign, "it is empty"),
        ("short", b"redb", foreign, "too short"),
        ("text", b"a text file of somebody\n", foreign, "does not begin"),
        ("other program", &other_program, foreign, "another program"),
        ("other magic", &other_magic, foreign, "another program"),
        ("newer feature", &newer_feature, ErrorKind::UNSUPPORTED, "features 0x4"),
        ("newer format", &newer_format, ErrorKind::UNSUPPORTED, "format version 2"),
        ("truncated", &good[..good.len() / 2], corrupted, "damaged"),
        ("flipped", &flipped, corrupted, "damaged"),
        ("one bit", &one_bit, corrupted, "damaged"),
        ("zeroed", &zeroed, corrupted, "damaged"),
    ];
    for (name, bytes, kind, cause) in cases {
        fs::write(&path, bytes).unwrap();
        let error = open_embedded(&path).expect_err(name);
        let text = format!("{error:#}");
        assert_eq!(error.kind(), kind, "{name}: {text}");
        assert!(text.contains(cause) && text.contains(path.to_str().unwrap()), "{name}: {text}");
        assert!(!error.remedy_text().is_empty(), "{name}: {text}");
        assert!(fs::read(&path).unwrap() == bytes, "{name}: the file was changed");
    }
    for bytes in [&good, &compatible] {
        fs::write(&path, bytes).unwrap();
        let state = open_embedded(&path).unwrap().handle();
        assert_eq!(state.range("key/", "", 99).await.unwrap().len(), 50);
    }
}

/// A file whose syncs fail while `broken`.
#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn after_a_failed_sync_the_outcome_is_unknown_and_the_state_recovers() {
    let (_directory, path) = fresh();
    drop(open_embedded(&path).unwrap());
    let broken = Arc::new(AtomicBool::new(false));
    let opener = {
        let (path, broken) = (path.clone(), Arc::clone(&broken));
        Box::new(move || {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let backend =
                Faulty { file: FileBackend::new(file).unwrap(), broken: Arc::clone(&broken) };
            redb::Builder::new()
                .create_with_backend(backend)
                .map_err(|error| storage_error("open", &path, &error.into()))
        })
    };
    let state = StateHandle::new(open_with(&path, opener).unwrap());
    let revision = done(&state, Transaction::new().put("a", b"1")).await;
    let watch = state.watch("", revision).unwrap();
    broken.store(true, Ordering::SeqCst);
    let error = state.commit(Transaction::new().put("b", b"2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{error:#}");
    assert!(!error.remedy_text().is_empty());
    assert!(state.commit(Transaction::new().put("c", b"3")).await.is_err());

    broken.store(false, Ordering::SeqCst);
    let later = done(&state, Transaction::new().put("d", b"4")).await;
    assert!(later > revision);
    assert_eq!(get(&state, "a").await.unwrap().revision, revision);
    assert!(get(&state, "d").await.is_some());
    let batch = next(&watch).await;
    // Whatever became of "b", a watch that claims to be complete has seen it if it is there.
    for entry in state.range("", "", 9).await.unwrap() {
        let seen = batch.events.iter().any(|event| event.entry == entry);
        assert!(batch.compacted || entry.key == "a" || seen, "missed {}", entry.key);
    }
}

#[tokio::test]
async fn a_change_happens_even_if_its_caller_went_away() {
    let (_directory, path) = fresh();
    let state = open_embedded(&path).unwrap().handle();
    let watch = state.watch("", 0).unwrap();
    let mut commit = state.commit(Transaction::new().put("a", b"1")).into_future();
    let polled = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut commit).poll(cx).is_ready())
    });
    if !polled.await {
        drop(commit);
    }
    assert_eq!(next(&watch).await.events[0].entry.key, "a");
}
