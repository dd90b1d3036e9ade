// SPDX-License-Identifier: Apache-2.0
//! Bringing the content of a layer into the one below it.
//!
//! While that goes on, the layer above hides every byte that is written below: readers see no difference, whenever it stops,
//! and doing it again from the beginning is right.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::Result;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::tree::LayerId;
use crate::{
    disk::{Disk, steps},
    error::internal,
    holes::Zeroing,
    image::{Image, Link, Purpose},
    names::Format,
    opened::{Own, Piece},
};

/// Bytes that are copied in one go; others wait for no more than that.
const COPIED_AT_ONCE: u64 = 8 << 20;
/// Bytes that are zeroed in one go.
const ZEROED_AT_ONCE: u64 = 64 << 20;
/// Bytes of one call.
const STEP: u64 = 1 << 20;
/// Calls under way at once.
const CALLS: usize = 8;
/// Pieces that are looked at in one go.
const PIECES: usize = 256;

/// A layer that is being brought into its parent.
pub(crate) struct Merging {
    /// Which.
    pub child: LayerId,
    /// Into which.
    pub parent: LayerId,
    /// Files that were opened for it alone.
    pub opened: Vec<Arc<Disk>>,
    source: Image,
    from: Arc<Disk>,
    target: Target,
    /// The size that the parent gets.
    size: u64,
    /// What it has.
    now: u64,
    /// Up to where it has been brought.
    at: u64,
}

/// Where the content goes.
enum Target {
    Raw(Arc<Disk>),
    Image { image: Image, disk: Arc<Disk> },
}

impl Target {
    async fn open(links: &[Link], until: Instant) -> Result<(Self, u64)> {
        match links {
            [root] if root.format == Format::Raw => {
                Ok((Self::Raw(Arc::clone(&root.disk)), root.disk.len()))
            }
            [.., top] => {
                let (image, size) = Image::open(links, Purpose::Write, until).await?;
                Ok((Self::Image { image, disk: Arc::clone(&top.disk) }, size))
            }
            [] => Err(internal("a layer has no file")),
        }
    }

    async fn resize(&self, size: u64, until: Instant) -> Result<()> {
        match self {
            Self::Raw(disk) => disk.set_size(size, until).await,
            Self::Image { image, .. } => image.resize(size, until).await,
        }
    }

    async fn write(&self, offset: u64, data: Bytes, until: Instant) -> Result<()> {
        match self {
            Self::Raw(disk) => disk.write(until, offset, data, false).await,
            Self::Image { image, .. } => image.write(offset, data, until).await,
        }
    }

    async fn zero(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        match self {
            Self::Raw(disk) => {
                let zeroing = Zeroing::Freed { or_written: true };
                disk.clear(until, (offset, len), zeroing, false).await
            }
            Self::Image { image, .. } if image.is_modern() => image.zero(offset, len, until).await,
            Self::Image { image, .. } => image.write_zeros(offset, len, until).await,
        }
    }

    async fn flush(&self, until: Instant) -> Result<()> {
        match self {
            Self::Raw(disk) => disk.flush(until).await,
            Self::Image { image, disk } => {
                image.write_back(until).await?;
                disk.flush(until).await
            }
        }
    }

    async fn stop(&self, until: Instant) -> Result<()> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Image { image, .. } => image.stop(until).await,
        }
    }
}

impl Merging {
    /// Begins to bring `child` into the last of `below`, which gets its size.
    pub async fn begin(
        child: &Link,
        below: &[Link],
        opened: Vec<Arc<Disk>>,
        until: Instant,
    ) -> Result<Self> {
        let parent = below.last().map_or(0, |link| link.layer);
        let alone = std::slice::from_ref(child);
        let (source, size) = Image::open(alone, Purpose::Read, until).await?;
        let (target, now) = match Target::open(below, until).await {
            Ok(opened) => opened,
            Err(error) => {
                source.stop(until).await?;
                return Err(error);
            }
        };
        let from = Arc::clone(&child.disk);
        let mut merging =
            Self { child: child.layer, parent, opened, source, from, target, size, now, at: 0 };
        // What is cut off is cut off at the end.
        if now < size
            && let Err(error) = merging.resize(until).await
        {
            merging.stop(until).await?;
            return Err(error);
        }
        Ok(merging)
    }

    /// Copies some; how many bytes, or none if all is done.
    pub async fn copy_some(&mut self, until: Instant) -> Result<Option<u64>> {
        let pieces = self.source.pieces(self.at, PIECES, until).await?;
        if pieces.is_empty() {
            return Ok(None);
        }
        let (parts, end) = portion(&pieces);
        let bytes = parts.iter().map(|part| part.len).sum();
        let this = &*self;
        stream::iter(parts)
            .map(|part| this.copy(part, until))
            .buffer_unordered(CALLS)
            .try_collect::<()>()
            .await?;
        self.at = end;
        Ok(Some(bytes))
    }

    async fn copy(&self, part: Piece, until: Instant) -> Result<()> {
        match part.own {
            Own::Nothing => Ok(()),
            Own::Zeros => self.target.zero(part.offset, part.len, until).await,
            Own::Data { at } => {
                let data = self.from.read(at, part.len as u32, until).await?;
                self.target.write(part.offset, data, until).await
            }
        }
    }

    async fn resize(&mut self, until: Instant) -> Result<()> {
        self.target.resize(self.size, until).await?;
        self.now = self.size;
        Ok(())
    }

    /// Makes all that was copied durable, and the parent as long as the child.
    pub async fn finish(&mut self, until: Instant) -> Result<()> {
        if self.now != self.size {
            self.resize(until).await?;
        }
        self.target.flush(until).await
    }

    /// Ends the images' threads.
    pub async fn stop(&self, until: Instant) -> Result<()> {
        self.source.stop(until).await?;
        self.target.stop(until).await
    }
}

/// What is copied in one go of these pieces, which follow each other, and where that ends.
fn portion(pieces: &[Piece]) -> (Vec<Piece>, u64) {
    let (mut parts, mut end) = (Vec::new(), 0);
    let (mut data, mut zeros) = (COPIED_AT_ONCE, ZEROED_AT_ONCE);
    for piece in pieces {
        let left = match piece.own {
            Own::Nothing => {
                end = piece.offset + piece.len;
                continue;
            }
            Own::Data { .. } => &mut data,
            Own::Zeros => &mut zeros,
        };
        let len = piece.len.min(*left);
        *left -= len;
        end = piece.offset + len;
        if let Own::Data { at } = piece.own {
            parts.extend(steps(0, len, STEP).map(|(from, len)| Piece {
                offset: piece.offset + from,
                len,
                own: Own::Data { at: at + from },
            }));
        } else if len > 0 {
            parts.push(Piece { len, ..*piece });
        }
        if len < piece.len || *left == 0 {
            break;
        }
    }
    (parts, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn piece(offset: u64, len: u64, own: Own) -> Piece {
        Piece { offset: offset * MIB, len: len * MIB, own }
    }

    #[test]
    fn all_of_a_layer_is_copied_in_portions() {
        let all = [
            piece(0, 3, Own::Nothing),
            piece(3, 20, Own::Data { at: 5 * MIB }),
            piece(23, 100, Own::Zeros),
            piece(123, 1, Own::Data { at: 0 }),
            piece(124, 9, Own::Nothing),
        ];
        let (mut at, mut copied, mut zeroed, mut rounds) = (0, 0, 0, 0);
        while at < 133 * MIB {
            let left: Vec<Piece> = all
                .iter()
                .filter(|piece| piece.offset + piece.len > at)
                .map(|piece| {
                    let cut = at.saturating_sub(piece.offset);
                    let own = match piece.own {
                        Own::Data { at } => Own::Data { at: at + cut },
                        own => own,
                    };
                    Piece { offset: piece.offset + cut, len: piece.len - cut, own }
                })
                .collect();
            let (parts, end) = portion(&left);
            for part in &parts {
                assert!(part.offset >= at && part.offset + part.len <= end);
                match part.own {
                    Own::Data { at } if part.offset < 23 * MIB => {
                        assert_eq!(at, part.offset + 2 * MIB);
                        copied += part.len;
                    }
                    Own::Data { .. } => copied += part.len,
                    _ => zeroed += part.len,
                }
            }
            assert!(end > at, "it stands still at {at}");
            at = end;
            rounds += 1;
        }
        assert_eq!((copied, zeroed, rounds), (21 * MIB, 100 * MIB, 4));
    }
}
