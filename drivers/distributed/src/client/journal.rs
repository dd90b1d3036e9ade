// SPDX-License-Identifier: Apache-2.0
//! The journal of a follower: a part of its companion that a batch of writes is put into before the brick itself.

use driver_api::{IoBuf, IoBufMut, OpContext, Result};

use super::OpenBrick;

/// A journal ends with whole blocks of so many bytes, whatever blocks the backend has.
const BLOCK: usize = 4096;
/// Bytes that are copied from a journal at once.
const PIECE: u64 = 1 << 20;

/// One buffer of these parts and the zeros that fill its last block. A single part that needs none is not copied.
fn gathered(mut parts: Vec<IoBuf>) -> IoBuf {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if parts.len() == 1
        && len.is_multiple_of(BLOCK)
        && let Some(only) = parts.pop()
    {
        return only;
    }
    let mut whole = IoBufMut::zeroed(len.next_multiple_of(BLOCK));
    let mut filled = 0;
    for part in parts {
        whole[filled..filled + part.len()].copy_from_slice(&part);
        filled += part.len();
    }
    whole.freeze()
}

impl OpenBrick {
    /// Writes parts into the companion from `offset` on, one after the other, durably.
    pub async fn write_journal(
        &self,
        cx: &OpContext,
        offset: u64,
        parts: Vec<IoBuf>,
    ) -> Result<()> {
        self.write_companion(cx, offset, gathered(parts)).await
    }

    /// Copies `len` bytes from byte `journal` of the companion to `offset` of the brick.
    pub async fn replay_journal(
        &self,
        cx: &OpContext,
        journal: u64,
        offset: u64,
        len: u32,
    ) -> Result<()> {
        let companion = self.companion.capabilities()?;
        // A part begins anywhere in the journal, and the backend may read whole blocks only.
        let block = u64::from(companion.min_block.max(1));
        let most = PIECE.min(companion.max_io.into()).min(self.capabilities.max_io.into());
        let (mut at, end) = (journal, journal + u64::from(len));
        while at < end {
            let start = at - at % block;
            let stop = end.min(start + most.max(block) / block * block);
            let read = (stop.next_multiple_of(block) - start) as u32;
            let data = self.companion.read(cx, start, read).await?;
            let data = data.slice((at - start) as usize, (stop - at) as usize);
            self.write(cx, offset + (at - journal), data, false).await?;
            at = stop;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_one_after_the_other_and_zeros_fill_the_last_block() {
        let part = |byte: u8, len: usize| IoBuf::copy_from(&vec![byte; len]);
        let whole = gathered(vec![part(1, 512), part(2, 4096), part(3, 1)]);
        assert_eq!(whole.len(), 8192);
        assert!(whole[..512].iter().all(|byte| *byte == 1));
        assert!(whole[512..4608].iter().all(|byte| *byte == 2));
        assert_eq!((whole[4608], whole[4609], whole[8191]), (3, 0, 0));
        let only = part(4, 4096);
        let same = gathered(vec![only.clone()]);
        assert_eq!(same.as_ptr(), only.as_ptr(), "one that fits is not copied");
        assert_eq!(gathered(Vec::new()).len(), 0);
    }
}
