// SPDX-License-Identifier: Apache-2.0
use notify::event::{CreateKind, DataChange};

use super::*;

fn event(kind: EventKind, path: &str) -> Event {
    Event::new(kind).add_path(path.into())
}

const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));

#[test]
fn a_written_file_rests_when_it_is_closed() {
    let now = Instant::now();
    let mut restless = Restless::new(Path::new("/p"));
    restless.take(&event(EventKind::Create(CreateKind::File), "/p/a.so"), now);
    restless.take(&event(WRITTEN, "/p/a.so"), now);
    assert_eq!(restless.due(), Some(now + WRITING));
    restless.take(&event(CLOSED, "/p/a.so"), now);
    assert_eq!(restless.due(), Some(now + SETTLE));
    restless.forget_resting(now + SETTLE);
    assert_eq!(restless.due(), None);
}

#[test]
fn a_slow_copy_does_not_keep_others_waiting() {
    let now = Instant::now();
    let mut restless = Restless::new(Path::new("/p"));
    restless.take(&event(CLOSED, "/p/quick.so"), now);
    restless.take(&event(WRITTEN, "/p/slow.so"), now);
    assert_eq!(restless.due(), Some(now + SETTLE));
    restless.forget_resting(now + SETTLE);
    assert!(restless.files.contains_key(Path::new("/p/slow.so")));
    assert!(!restless.files.contains_key(Path::new("/p/quick.so")));
}

#[test]
fn other_files_are_ignored_but_the_directory_is_not() {
    let now = Instant::now();
    let mut restless = Restless::new(Path::new("/plugins.d"));
    restless.take(&event(CLOSED, "/plugins.d/README.md"), now);
    restless.take(&event(CLOSED, "/plugins.d/.a.so.tmp"), now);
    restless.take(&event(CLOSED, "/plugins.d/.a.so"), now);
    assert_eq!(restless.due(), None);
    restless.take(
        &event(
            EventKind::Modify(ModifyKind::Metadata(notify::event::MetadataKind::Any)),
            "/plugins.d",
        ),
        now,
    );
    assert_eq!(restless.due(), Some(now + SETTLE));
}
