// SPDX-License-Identifier: Apache-2.0
//! Content that says where it belongs and which write it came from, and the randomness that places it.

/// A small seeded generator (splitmix64): the suite must not need another one.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes of which none is zero, so that none passes for a hole.
    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        for part in bytes.chunks_mut(8) {
            let word = self.next() | 0x0101_0101_0101_0101;
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
        }
        bytes
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A sector's content as write `version` leaves it; version zero is what nobody wrote.
pub(crate) fn stamped(sector: u64, version: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    if version != 0 {
        let seed = sector.wrapping_mul(0x1_0000_0001) ^ version.rotate_left(40);
        let (head, tail) = bytes.split_at_mut(8);
        head.copy_from_slice(&version.to_le_bytes());
        fill(tail, &mut Random::new(seed));
    }
    bytes
}

/// The version that left this content at this sector; nothing if no single write did.
pub(crate) fn version_of(sector: u64, bytes: &[u8]) -> Option<u64> {
    let version = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    (stamped(sector, version, bytes.len() as u64) == bytes).then_some(version)
}

fn fill(bytes: &mut [u8], random: &mut Random) {
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_only_where_it_was_made() {
        for version in [0, 1, 77] {
            assert_eq!(version_of(5, &stamped(5, version, 512)), Some(version));
        }
        assert_eq!(version_of(6, &stamped(5, 1, 512)), None);
        let mut torn = stamped(5, 1, 512);
        torn[256..].copy_from_slice(&stamped(5, 2, 512)[256..]);
        assert_eq!(version_of(5, &torn), None);
    }
}
