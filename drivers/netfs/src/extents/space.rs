// SPDX-License-Identifier: Apache-2.0
//! Space of extents: zeroing, discarding, telling what is allocated, and changing how many there are.

use std::{sync::Arc, time::Instant};

use driver_api::{
    RVec, Result,
    ext::{Extent, ExtentFlags},
};
use futures_util::stream::{self, StreamExt};

use super::{AT_ONCE, Extents, If, Piece, data::first_failure, pieces};
use crate::{disk::Disk, holes::Zeroing};

impl Extents {
    /// Makes a range of a volume of `size` bytes, which the caller was admitted to, read zeros.
    pub async fn clear(
        &self,
        until: Instant,
        (offset, len, size): (u64, u64, u64),
        zeroing: Zeroing,
        durable: bool,
    ) -> Result<()> {
        let clearing =
            stream::iter(pieces(self.extent_size, offset, len)).map(|piece| async move {
                if zeroing != Zeroing::Written && self.is_whole(piece, size) {
                    return self.remove(piece.number, until).await;
                }
                let wanted = if zeroing == Zeroing::Written { If::Needed } else { If::There };
                match self.enter(piece.number, wanted, until).await? {
                    // It reads zeros already.
                    None => Ok(()),
                    Some(file) => file.clear(until, (piece.at, piece.len), zeroing, durable).await,
                }
            });
        first_failure(clearing.buffer_unordered(AT_ONCE).collect().await)
    }

    /// Gives a range back; of extents that stay it is freed where the server can do that, or written with zeros.
    pub async fn free(&self, until: Instant, (offset, len, size): (u64, u64, u64)) -> Result<()> {
        let zeroing = Zeroing::Freed { or_written: true };
        self.clear(until, (offset, len, size), zeroing, false).await
    }

    /// Whether nothing of the volume is left in an extent without this piece.
    fn is_whole(&self, piece: Piece, size: u64) -> bool {
        piece.at == 0 && (piece.len == self.extent_size || piece.offset + piece.len == size)
    }

    /// Runs of data and holes, at most `limit`.
    pub async fn map(
        &self,
        until: Instant,
        offset: u64,
        len: u64,
        limit: u32,
        root: &Disk,
    ) -> Result<RVec<Extent>> {
        let limit = limit.max(1) as usize;
        let mut extents: Vec<Extent> = Vec::new();
        for piece in pieces(self.extent_size, offset, len) {
            if extents.len() > limit {
                break;
            }
            let parts = self.map_piece(until, piece, limit, root).await?;
            let mapped: u64 = parts.iter().map(|part| part.len).sum();
            for part in parts {
                match extents.last_mut() {
                    Some(last) if last.flags == part.flags => last.len += part.len,
                    _ => extents.push(part),
                }
            }
            if mapped < piece.len {
                break;
            }
        }
        extents.truncate(limit);
        Ok(extents.into())
    }

    async fn map_piece(
        &self,
        until: Instant,
        piece: Piece,
        limit: usize,
        root: &Disk,
    ) -> Result<Vec<Extent>> {
        let all = |flags| vec![Extent { offset: piece.offset, len: piece.len, flags }];
        // Where a server does not tell, the file need not be opened.
        if !root.file.offers().map {
            let has_file = self.has_file(piece.number, until).await?;
            let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
            return Ok(all(if has_file { ExtentFlags::DATA } else { hole }));
        }
        let Some(file) = self.enter(piece.number, If::There, until).await? else {
            return Ok(all(ExtentFlags::HOLE.and(ExtentFlags::ZERO)));
        };
        if !file.file.offers().map {
            return Ok(all(ExtentFlags::DATA));
        }
        let parts = file.extents(until, piece.at, piece.len, limit as u32).await?;
        let moved = |part: Extent| Extent { offset: part.offset - piece.at + piece.offset, ..part };
        Ok(parts.into_iter().map(moved).collect())
    }

    async fn has_file(&self, number: u64, until: Instant) -> Result<bool> {
        let Some(slot) = self.slot(number) else { return Ok(false) };
        let waited = tokio::time::timeout_at(until.into(), slot.state.read()).await;
        let state = waited.map_err(|_| self.standing.stuck())?;
        Ok(!matches!(&*state, super::State::Missing))
    }

    /// Changes the size of a volume that nobody uses meanwhile; the root's file has it.
    ///
    /// What a smaller size cuts off, or left of it, reads zeros before a larger one lets anybody see it. So the size comes
    /// first when it becomes smaller, which is one step, and last when it becomes larger.
    pub async fn set_size(&self, root: &Arc<Disk>, size: u64, until: Instant) -> Result<()> {
        self.standing.admit_writer()?;
        let now = root.len();
        if size > now {
            self.cut_off(now, until).await?;
            let end = now.next_multiple_of(self.extent_size).min(size);
            for piece in pieces(self.extent_size, now, end - now) {
                if let Some(file) = self.enter(piece.number, If::There, until).await? {
                    // As far as the file goes: the next growth may begin anywhere in it.
                    let range = (piece.at, self.extent_size - piece.at);
                    let zeroing = Zeroing::Freed { or_written: true };
                    file.clear(until, range, zeroing, true).await?;
                }
            }
            return root.set_size(size, until).await;
        }
        root.set_size(size, until).await?;
        if let Err(error) = self.cut_off(size, until).await {
            let volume = &self.shelf.volume;
            tracing::warn!(volume, %error, "what was cut off occupies space until the volume grows or is deleted");
        }
        Ok(())
    }

    /// Removes the extents behind a size.
    async fn cut_off(&self, size: u64, until: Instant) -> Result<()> {
        let behind = self.slots(size.div_ceil(self.extent_size)..);
        let removing =
            stream::iter(behind).map(|slot| async move { self.remove(slot.number, until).await });
        first_failure(removing.buffer_unordered(AT_ONCE).collect().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_its_extents() {
        let told = |offset, len| -> Vec<(u64, u64, u64, u64)> {
            let of = |piece: Piece| (piece.number, piece.at, piece.len, piece.offset);
            pieces(10, offset, len).map(of).collect()
        };
        assert_eq!(told(5, 20), [(0, 5, 5, 5), (1, 0, 10, 10), (2, 0, 5, 20)]);
        assert_eq!(told(10, 10), [(1, 0, 10, 10)]);
        assert_eq!(told(7, 0), []);
    }
}
