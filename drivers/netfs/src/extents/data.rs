// SPDX-License-Identifier: Apache-2.0
//! Reading, writing and making durable what is in extents.

use std::{sync::atomic::Ordering, time::Instant};

use bytes::{Bytes, BytesMut};
use driver_api::Result;
use futures_util::stream::{self, StreamExt};

use super::{AT_ONCE, Extents, If, Piece, State, pieces};
use crate::disk::{Disk, ZEROS};

impl Extents {
    /// Reads what the caller was admitted to.
    pub async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        let mut parts = pieces(self.extent_size, offset, len.into());
        let (first, second) = (parts.next(), parts.next());
        match (first, second) {
            (None, _) => Ok(Bytes::new()),
            (Some(only), None) => self.read_piece(only, until).await,
            _ => {
                let all = pieces(self.extent_size, offset, len.into());
                let reading = stream::iter(all).map(|piece| self.read_piece(piece, until));
                let read: Vec<_> = reading.buffered(AT_ONCE).collect().await;
                let mut data = BytesMut::with_capacity(len as usize);
                for part in read {
                    data.extend_from_slice(&part?);
                }
                Ok(data.freeze())
            }
        }
    }

    async fn read_piece(&self, piece: Piece, until: Instant) -> Result<Bytes> {
        match self.enter(piece.number, If::There, until).await? {
            Some(file) => file.read(piece.at, piece.len as u32, until).await,
            None if piece.len <= ZEROS.len() as u64 => {
                Ok(Bytes::from_static(&ZEROS[..piece.len as usize]))
            }
            None => Ok(Bytes::from(vec![0; piece.len as usize])),
        }
    }

    /// Writes what the caller was admitted to.
    pub async fn write(
        &self,
        until: Instant,
        offset: u64,
        data: Bytes,
        durable: bool,
    ) -> Result<()> {
        let len = data.len() as u64;
        let writing = stream::iter(pieces(self.extent_size, offset, len)).map(|piece| {
            let from = (piece.offset - offset) as usize;
            let part = data.slice(from..from + piece.len as usize);
            async move {
                let Some(file) = self.enter(piece.number, If::Needed, until).await? else {
                    return Ok(());
                };
                file.write(until, piece.at, part, durable).await
            }
        });
        // None is given up half way because another one failed: nobody would know what it may yet do.
        first_failure(writing.buffer_unordered(AT_ONCE).collect().await)?;
        if durable { Ok(()) } else { self.bound(len, until).await }
    }

    /// Keeps what is not durable, of all extents, within the volume's bound.
    pub(super) async fn bound(&self, written: u64, until: Instant) -> Result<()> {
        let before = self.unflushed.fetch_add(written, Ordering::Relaxed);
        if before + written <= self.shelf.most_unstable {
            return Ok(());
        }
        self.make_durable(until).await
    }

    /// Makes every write acknowledged before the call durable.
    pub async fn flush(&self, root: &Disk, until: Instant) -> Result<()> {
        self.standing.admit_flush()?;
        let done = self.make_durable(until).await;
        // What happened meanwhile may have left a doubt, or fenced this attachment.
        root.flush(until).await?;
        self.standing.admit_flush()?;
        done
    }

    async fn make_durable(&self, until: Instant) -> Result<()> {
        self.unflushed.store(0, Ordering::Relaxed);
        let open: Vec<u64> = self.open().keys().copied().collect();
        let flushing = stream::iter(open).map(|number| async move {
            let Some(slot) = self.slot(number) else { return Ok(()) };
            let waited = tokio::time::timeout_at(until.into(), slot.state.read()).await;
            let state = waited.map_err(|_| self.standing.stuck())?;
            match &*state {
                State::Open(disk) => disk.make_durable(until).await,
                // Without a file, or with one that is to be discarded, there is nothing to keep.
                State::Missing | State::Closed(_) | State::Leaving(_) => Ok(()),
            }
        });
        first_failure(flushing.buffer_unordered(AT_ONCE).collect().await)
    }
}

/// The first of these that failed.
pub(super) fn first_failure(done: Vec<Result<()>>) -> Result<()> {
    done.into_iter().collect()
}
