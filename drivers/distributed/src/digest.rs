// SPDX-License-Identifier: Apache-2.0
//! Digests of what bricks hold: XXH3, 128 bits. They tell rot from what was written, and are no proof against malice.

use distributed_core::Digest;
use driver_api::{Error, ErrorKind, OpContext, Result};
use twox_hash::XxHash3_128;

use crate::client::OpenBrick;

/// The digest of bytes.
pub(crate) fn of(data: &[u8]) -> Digest {
    XxHash3_128::oneshot(data).to_le_bytes()
}

/// The digest of a range of a brick, which is read in pieces of at most `chunk` bytes.
pub(crate) async fn of_range(
    cx: &OpContext,
    brick: &OpenBrick,
    offset: u64,
    len: u64,
    chunk: u32,
) -> Result<Digest> {
    let mut hasher = XxHash3_128::new();
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = u64::from(chunk.max(1)).min(end - at) as u32;
        let data = brick.read(cx, at, piece).await?;
        if data.len() != piece as usize {
            return Err(Error::new(ErrorKind::INTERNAL, "a brick gave less than was asked for"));
        }
        hasher.write(&data);
        at += u64::from(piece);
    }
    Ok(hasher.finish_128().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash3_128;

    use super::of;

    #[test]
    fn pieces_do_not_matter_and_the_digest_stays_what_it_is() {
        let data: Vec<u8> = (0..10_000_u32).map(|at| (at * 7 % 251) as u8).collect();
        let mut hasher = XxHash3_128::new();
        data.chunks(333).for_each(|piece| hasher.write(piece));
        assert_eq!(hasher.finish_128().to_le_bytes(), of(&data));
        // Stored digests outlive the program: the function must never change.
        assert_eq!(u128::from_le_bytes(of(b"")), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }
}
