// SPDX-License-Identifier: Apache-2.0
//! What hosts have stored is read by this version, and written by it byte for byte: descriptors and records of every kind
//! of volume, as hexadecimal text without the zeros at the end, in `stored/`.
//!
//! A new feature brings new files. One that is there never changes: bytes like these lie on disks.

use std::{fmt::Write, fs, path::PathBuf};

use distributed_core::{
    BrickId, Descriptor, Follow, Generation, JournalPiece, Litter, MAP_OFFSET, MapPlace, Mode,
    Moved, NodeId, Phase, Point, Record, Slot, SlotSet, Snapshot, ZeroKind,
};

/// Where a frame says which features a reader must know: its first byte.
const INCOMPATIBLE_AT: usize = 16;
const MIB: u64 = 1 << 20;

fn set(slots: &[u8]) -> SlotSet {
    slots.iter().map(|slot| Slot(*slot)).collect()
}

fn generation(epoch: u64, change: u32) -> Generation {
    Generation { epoch, change }
}

/// A volume of three bricks, the last of which is stale and was replaced once.
fn plain() -> Descriptor {
    let mut descriptor = Descriptor::new(
        "disk",
        0x1122_3344_5566_7788,
        64 * MIB,
        &[NodeId(3), NodeId(5), NodeId(9)],
    );
    descriptor.phase = Phase::Ready;
    (descriptor.epoch, descriptor.holder, descriptor.clean) = (7, 0xfeed, false);
    (descriptor.generation, descriptor.settled) = (generation(7, 4), generation(7, 3));
    descriptor.bricks[2].brick = BrickId(3);
    descriptor.bricks[2].fresh = true;
    descriptor.bricks[1].left = generation(6, 2);
    descriptor.in_sync = set(&[0, 1]);
    descriptor.condemned = vec![(BrickId(2), NodeId(9))];
    descriptor.next_brick = 4;
    descriptor
}

/// Its record on the first brick.
fn record(descriptor: Descriptor) -> Record {
    let mut record = Record::initial(&descriptor, Slot(0), 48).expect("there is a first brick");
    record.sequence = 12;
    record.intent = vec![1, 5];
    record.dirty = vec![(Slot(2), vec![(0, 3), (9, 1)])];
    record
}

fn moves() -> Descriptor {
    let mut descriptor = plain();
    descriptor.map = generation(5, 1);
    descriptor.moved = vec![Moved { first: 2, count: 3, set: set(&[0, 1]) }];
    descriptor.litter = vec![Litter { slot: Slot(1), first: 4, count: 2 }];
    descriptor.bricks[2].vacant = true;
    descriptor
}

fn snapshots() -> Descriptor {
    let mut descriptor = plain();
    descriptor.snapshots = vec![Snapshot {
        number: 1,
        name: "before".to_owned(),
        is_taken: true,
        created_unix_secs: 1_700_000_000,
        size: 32 * MIB,
        map: generation(2, 1),
        moved: vec![Moved { first: 0, count: 1, set: set(&[1]) }],
        holders: vec![(Slot(0), BrickId(0)), (Slot(1), BrickId(1))],
    }];
    descriptor.next_snapshot = 2;
    descriptor.keepers = vec![(BrickId(2), NodeId(9))];
    descriptor
}

fn split() -> Descriptor {
    Descriptor { shard_size: 16 * MIB, ..plain() }
}

/// One brick acknowledges, one follows, and one did until now.
fn followers() -> Descriptor {
    let (in_sync, following, followed) = (set(&[0]), set(&[1]), set(&[2]));
    Descriptor { mode: Mode::Asynchronous, in_sync, following, followed, ..plain() }
}

/// A synchronous volume again, one of whose bricks followed until now.
fn followed() -> Descriptor {
    Descriptor { followed: set(&[2]), ..plain() }
}

/// The one that follows has a batch of every kind in its journal.
fn follower() -> Record {
    let mut record = record(followers());
    let piece = |offset, len, zero| JournalPiece { offset, len, zero };
    record.brick = BrickId(1);
    record.follow = Follow {
        point: Some(Point { epoch: 7, sequence: 4711 }),
        journal_at: 2 * MAP_OFFSET,
        journal: vec![
            piece(0, 4096, None),
            piece(8192, 512, Some(ZeroKind::Zero)),
            piece(MIB, MIB, Some(ZeroKind::Allocated)),
            piece(4 * MIB, 8192, Some(ZeroKind::Discard)),
        ],
    };
    record
}

fn moved_record() -> Record {
    Record { map_at: 3 * MAP_OFFSET, ..record(moves()) }
}

fn snapshot_record() -> Record {
    let place = MapPlace { version: generation(2, 1), at: 2 * MAP_OFFSET, bytes: 40 };
    Record { snapshot_maps: vec![place], ..record(snapshots()) }
}

fn digests() -> Record {
    Record { digests: Some((generation(7, 2), vec![(3, 1), (8, 4)])), ..record(plain()) }
}

#[test]
fn descriptors_that_were_stored_are_read_and_written_the_same() {
    let stored = [
        ("plain", 0, plain()),
        ("moves", 1, moves()),
        ("snapshots", 2, snapshots()),
        ("followers", 4, followers()),
        ("followed", 4, followed()),
        ("split", 16, split()),
    ];
    for (kind, needs, descriptor) in stored {
        let bytes = held(&format!("descriptor-{kind}"), &descriptor.encode(), needs);
        assert_eq!(Descriptor::decode(&bytes), Ok(descriptor), "{kind}");
    }
}

#[test]
fn records_that_were_stored_are_read_and_written_the_same() {
    let lacking = Record { follow: Follow::default(), ..follower() };
    let stored = [
        ("plain", 0, record(plain())),
        ("moves", 1, moved_record()),
        ("snapshots", 2, snapshot_record()),
        ("followers", 4, follower()),
        ("followers-at-no-point", 4, lacking),
        ("followed", 4, record(followed())),
        ("digests", 8, digests()),
        ("split", 16, record(split())),
    ];
    for (kind, needs, record) in stored {
        let bytes = held(&format!("record-{kind}"), &record.encode(), needs);
        assert_eq!(Record::decode(&bytes), Ok(record), "{kind}");
    }
}

/// The bytes of a file, which are those that this version writes; a reader needs these features.
fn held(name: &str, written: &[u8], needs: u8) -> Vec<u8> {
    assert_eq!(written[INCOMPATIBLE_AT], needs, "{name}: features");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stored/{name}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let digits: String = text.split_whitespace().collect();
    let mut bytes: Vec<u8> = (0..digits.len() / 2)
        .map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).expect("hexadecimal"))
        .collect();
    bytes.resize(bytes.len().max(written.len()), 0);
    assert!(bytes == written, "{} is not what is written:\n{}", path.display(), hex(written));
    bytes
}

/// Lines of 32 bytes, without the zeros at the end.
fn hex(bytes: &[u8]) -> String {
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..len].chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("text grows"));
        text + "\n"
    })
}
