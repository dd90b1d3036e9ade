// SPDX-License-Identifier: Apache-2.0
//! The ledger against a model of a server that forgets.

use super::*;

const SIZE: usize = 64;

fn life(number: u64) -> Verifier {
    Verifier(number.to_be_bytes())
}

fn bytes(value: u8, len: usize) -> Bytes {
    Bytes::from(vec![value; len])
}

#[test]
fn what_a_commit_of_the_same_life_covers_is_forgotten() {
    let mut ledger = Ledger::default();
    ledger.unstable(0, bytes(1, 8), life(1));
    let mark = ledger.mark();
    ledger.unstable(8, bytes(2, 8), life(1));
    ledger.committed(mark, life(1));
    assert_eq!(ledger.bytes(), 8, "what was written after the commit was sent is kept");
    assert!(ledger.is_durable(mark));
    ledger.committed(ledger.mark(), life(1));
    assert!(ledger.is_durable(Mark::MAX));
    assert_eq!(ledger.bytes(), 0);
}

#[test]
fn what_was_written_in_another_life_is_written_again() {
    let mut ledger = Ledger::default();
    ledger.unstable(0, bytes(1, 8), life(1));
    ledger.unstable(8, bytes(2, 8), life(2));
    ledger.committed(ledger.mark(), life(2));
    assert_eq!(ledger.lost(), [Patch { offset: 0, data: bytes(1, 8) }]);
    ledger.unstable(0, bytes(1, 8), life(2));
    assert!(ledger.lost().is_empty());
    ledger.committed(ledger.mark(), life(2));
    assert!(ledger.is_durable(Mark::MAX));
}

#[test]
fn what_is_newer_is_never_undone() {
    let mut ledger = Ledger::default();
    ledger.unstable(0, bytes(1, 16), life(1));
    ledger.durable(4, 4);
    ledger.unstable(10, bytes(3, 2), life(2));
    ledger.committed(ledger.mark(), life(3));
    let lost = ledger.lost();
    let told: Vec<(u64, u8, usize)> =
        lost.iter().map(|patch| (patch.offset, patch.data[0], patch.data.len())).collect();
    assert_eq!(told, [(0, 1, 4), (8, 1, 2), (10, 3, 2), (12, 1, 4)]);
}

#[test]
fn a_failed_commit_leaves_everything_to_be_written_again() {
    let mut ledger = Ledger::default();
    ledger.unstable(0, bytes(1, 8), life(1));
    ledger.commit_failed(ledger.mark());
    ledger.committed(ledger.mark(), life(1));
    assert_eq!(ledger.bytes(), 8, "the server may have thrown it away");
    assert_eq!(ledger.lost().len(), 1);
}

/// A server with a disk and a cache that a crash empties.
struct Server {
    life: u64,
    disk: [u8; SIZE],
    cache: [Option<u8>; SIZE],
}

impl Server {
    fn write(&mut self, offset: usize, data: &[u8], durable: bool) {
        for (at, byte) in data.iter().enumerate() {
            if durable {
                self.disk[offset + at] = *byte;
                self.cache[offset + at] = None;
            } else {
                self.cache[offset + at] = Some(*byte);
            }
        }
    }

    fn settle(&mut self, range: std::ops::Range<usize>) {
        for at in range {
            if let Some(byte) = self.cache[at].take() {
                self.disk[at] = byte;
            }
        }
    }

    fn read(&self) -> [u8; SIZE] {
        std::array::from_fn(|at| self.cache[at].unwrap_or(self.disk[at]))
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
        // Some of the cache reached the disk by itself, some did not.
        for at in 0..SIZE {
            if random.bool() {
                self.settle(at..at + 1);
            }
        }
        self.cache = [None; SIZE];
        self.life += 1;
    }
}

/// Whatever happens in whatever order: a read through the ledger sees every acknowledged write, and what a flush has
/// acknowledged is on the disk.
#[test]
fn nothing_is_lost_under_random_events() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut server = Server { life: 1, disk: [0; SIZE], cache: [None; SIZE] };
        let (mut ledger, mut wanted) = (Ledger::default(), [0; SIZE]);
        for step in 0..120 {
            let offset = random.usize(0..SIZE);
            let len = random.usize(1..=SIZE - offset);
            match random.u8(0..10) {
                0..=4 => {
                    let data = bytes(random.u8(..), len);
                    server.write(offset, &data, false);
                    wanted[offset..offset + len].copy_from_slice(&data);
                    ledger.unstable(offset as u64, data, life(server.life));
                }
                5 => {
                    let data = bytes(random.u8(..), len);
                    server.write(offset, &data, true);
                    wanted[offset..offset + len].copy_from_slice(&data);
                    ledger.durable(offset as u64, len as u64);
                }
                6 => server.crash(&mut random),
                7 => server.settle(offset..offset + len),
                8 => {
                    // A commit that fails, and takes the cache with it.
                    ledger.commit_failed(ledger.mark());
                    server.cache = [None; SIZE];
                }
                _ => flush(&mut ledger, &mut server, &mut random, &wanted, seed),
            }
            let mut seen = server.read();
            for patch in ledger.overlay(0, SIZE as u64) {
                let at = patch.offset as usize;
                seen[at..at + patch.data.len()].copy_from_slice(&patch.data);
            }
            assert_eq!(seen, wanted, "seed {seed}, step {step}");
            let kept: usize = ledger.pieces.values().map(|piece| piece.data.len()).sum();
            assert_eq!(kept as u64, ledger.bytes(), "seed {seed}, step {step}");
        }
        flush(&mut ledger, &mut server, &mut random, &wanted, seed);
    }
}

fn flush(
    ledger: &mut Ledger,
    server: &mut Server,
    random: &mut fastrand::Rng,
    wanted: &[u8; SIZE],
    seed: u64,
) {
    // What is written meanwhile is not this flush's.
    let asked = ledger.mark();
    while !ledger.is_durable(asked) {
        let mark = ledger.mark();
        server.settle(0..SIZE);
        ledger.committed(mark, life(server.life));
        let lost = ledger.lost();
        for Patch { offset, data } in lost {
            // Also between two of the writes that are repeated.
            if random.u8(0..20) == 0 {
                server.crash(random);
            }
            // Not always all of it at once.
            let taken = random.usize(1..=data.len());
            server.write(offset as usize, &data[..taken], false);
            ledger.rewritten(offset, taken as u64, life(server.life));
        }
    }
    assert_eq!(server.disk, *wanted, "seed {seed}: flushed");
}

#[test]
fn an_overlay_is_cut_to_the_range() {
    let mut ledger = Ledger::default();
    ledger.unstable(10, bytes(1, 10), life(1));
    ledger.unstable(30, bytes(2, 10), life(1));
    let told = |offset, len| -> Vec<(u64, usize)> {
        ledger.overlay(offset, len).iter().map(|patch| (patch.offset, patch.data.len())).collect()
    };
    assert_eq!(told(0, 10), []);
    assert_eq!(told(0, 11), [(10, 1)]);
    assert_eq!(told(15, 20), [(15, 5), (30, 5)]);
    assert_eq!(told(12, 2), [(12, 2)]);
    assert_eq!(told(40, 10), []);
}
