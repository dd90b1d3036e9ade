// SPDX-License-Identifier: Apache-2.0
//! Making what was written durable: commit, compare the server's life, write again what it may have lost, until both fit.

use std::time::Instant;

use driver_api::{Error, ErrorKind, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OwnedRwLockWriteGuard;

use crate::{
    disk::{Disk, How},
    error::{Fault, broken_server},
    share::Verifier,
    unstable::{Mark, Patch},
};

/// Writes that are repeated at once.
const AT_ONCE: usize = 16;
/// How often a server may change its life during one flush before it is called broken.
const MOST_ROUNDS: u32 = 16;

/// Whoever has it makes writes durable. It is taken before the gate, never behind it.
pub(crate) struct Turn<'a> {
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Disk {
    /// Makes every write acknowledged before the call durable.
    pub async fn flush(&self, until: Instant) -> Result<()> {
        self.admit_flush()?;
        let done = self.make_durable(until).await;
        // What happened meanwhile may have left a doubt, or fenced this attachment.
        self.admit_flush()?;
        done
    }

    /// The same, of an attachment that is known to be open.
    pub async fn make_durable(&self, until: Instant) -> Result<()> {
        let asked = self.ledger().mark();
        let turn = self.flush_turn(until).await?;
        self.make_durable_in(&turn, asked, until, None).await
    }

    /// Waits until nobody else makes writes durable.
    pub async fn flush_turn(&self, until: Instant) -> Result<Turn<'_>> {
        match tokio::time::timeout_at(until.into(), self.flushing.lock()).await {
            Ok(turn) => Ok(Turn { _turn: turn }),
            Err(_) => Err(Error::new(ErrorKind::TIMED_OUT, "an earlier flush did not end in time")
                .with("volume", &self.volume)
                .remedy("look whether the server answers, then try again")),
        }
    }

    /// Makes what was entered before `asked` durable, for whoever may hold the gate for writing besides.
    pub async fn make_durable_in(
        &self,
        _turn: &Turn<'_>,
        asked: Mark,
        until: Instant,
        gate: Option<&OwnedRwLockWriteGuard<()>>,
    ) -> Result<()> {
        // Another one has done it meanwhile.
        if self.ledger().is_durable(asked) {
            return self.file.check().map_err(|fault| self.told(fault, "the flush failed", false));
        }
        let flushed = self.commit_until_whole(asked, until, gate).await;
        flushed.map_err(|fault| self.told(fault, "the flush failed", false))
    }

    async fn commit_until_whole(
        &self,
        asked: Mark,
        until: Instant,
        gate: Option<&OwnedRwLockWriteGuard<()>>,
    ) -> Result<(), Fault> {
        for _ in 0..MOST_ROUNDS {
            let mark = self.ledger().mark();
            // A file that lost its name would take the writes along with it.
            let (committed, named) = tokio::join!(self.commit(until), self.file.verify(until));
            match committed {
                Ok(verifier) => self.ledger().committed(mark, verifier),
                Err(fault) => {
                    self.ledger().commit_failed(mark);
                    return Err(fault);
                }
            }
            named?;
            if self.ledger().is_durable(asked) {
                return Ok(());
            }
            self.replay(until, gate).await?;
        }
        Err(broken_server("the server goes on losing what is written to it").into())
    }

    async fn commit(&self, until: Instant) -> Result<Verifier, Fault> {
        let done = self.file.perform(until, |attempt, handle| async move {
            attempt.share.commit(&handle, until).await
        });
        let committed = done.await?;
        self.file.judge(committed.facts)?;
        Ok(committed.verifier)
    }

    /// Writes again what the server may have lost. Nothing else is written meanwhile, so that nothing newer is undone.
    async fn replay(
        &self,
        until: Instant,
        gate: Option<&OwnedRwLockWriteGuard<()>>,
    ) -> Result<(), Fault> {
        let _alone = match gate {
            Some(_) => None,
            None => Some(self.barrier(until).await?),
        };
        self.admit()?;
        let lost = self.ledger().lost();
        let bytes: u64 = lost.iter().map(|patch| patch.data.len() as u64).sum();
        if bytes > 0 {
            tracing::warn!(
                volume = self.volume,
                bytes,
                "the server was restarted, writing again what it may have lost"
            );
            self.file.mount.figures.replayed(bytes);
        }
        stream::iter(lost)
            .map(|Patch { offset, data }| self.write_file(offset, data, How::Again, until))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}
