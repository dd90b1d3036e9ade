// SPDX-License-Identifier: Apache-2.0
//! Hashes and the logarithm of weighted rendezvous hashing, in integers, so that they are the same on every machine.

/// The finaliser of splitmix64.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Bits of the table's index.
const INDEX_BITS: u32 = 10;
const ENTRIES: usize = 1 << INDEX_BITS;
/// `log2(1 + index / 1024)` in units of 2^-56.
const LOGARITHMS: [u64; ENTRIES + 1] = logarithms();

const fn logarithms() -> [u64; ENTRIES + 1] {
    const FRACTION: u32 = 40;
    let mut table = [1 << 56; ENTRIES + 1];
    let mut index = 0;
    while index < ENTRIES {
        let mut mantissa = ((ENTRIES + index) as u128) << (63 - INDEX_BITS);
        let mut log = 0_u64;
        let mut bit = 0;
        while bit < FRACTION {
            mantissa = (mantissa * mantissa) >> 63;
            let carry = (mantissa >> 64) as u64;
            log = log << 1 | carry;
            mantissa >>= carry;
            bit += 1;
        }
        table[index] = log << (56 - FRACTION);
        index += 1;
    }
    table
}

/// `-log2(value / 2^64)` in units of 2^-56, right to 2^-22; `value` is not zero.
pub(super) fn negative_log2(value: u64) -> u64 {
    let zeros = value.leading_zeros();
    let mantissa = value << zeros << 1;
    let index = (mantissa >> (64 - INDEX_BITS)) as usize;
    let rest = u128::from(mantissa << INDEX_BITS);
    let (low, high) = (LOGARITHMS[index], LOGARITHMS[index + 1]);
    let log = low + ((u128::from(high - low) * rest) >> 64) as u64;
    ((u64::from(zeros) + 1) << 56) - log
}

#[cfg(test)]
mod tests {
    use super::negative_log2;

    #[test]
    fn the_logarithm_is_right() {
        for value in [1, 2, 3, 1 << 32, 0x1234_5678_9abc_def0, (1 << 63) - 1, 1 << 63, u64::MAX] {
            let exact = 64.0 - (value as f64).log2();
            let ours = negative_log2(value) as f64 / 2_f64.powi(56);
            assert!((exact - ours).abs() < 1e-6, "{value}: {exact} {ours}");
        }
    }
}
