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
        (0..len).map(|_| (self.next() >> 56) as u8 | 1).collect()
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn stamp_byte(sector: u64, version: u64, at: usize) -> u8 {
    mix(sector.wrapping_mul(0x1_0000_0001) ^ version.rotate_left(40) ^ at as u64) as u8
}

/// A sector's content as write `version` leaves it; version zero is what nobody wrote.
pub(crate) fn stamped(sector: u64, version: u64, len: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; len as usize];
    }
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend((8..len as usize).map(|at| stamp_byte(sector, version, at)));
    bytes
}

/// The version that left this content at this sector; nothing if no single write did.
pub(crate) fn version_of(sector: u64, bytes: &[u8]) -> Option<u64> {
    let (head, tail) = bytes.split_first_chunk::<8>()?;
    let version = u64::from_le_bytes(*head);
    let fits = |(at, byte): (usize, &u8)| match version {
        0 => *byte == 0,
        _ => *byte == stamp_byte(sector, version, at + 8),
    };
    tail.iter().enumerate().all(fits).then_some(version)
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
