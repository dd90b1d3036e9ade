// SPDX-License-Identifier: Apache-2.0
//! Asynchronous replication of an attached volume: its mode, its promotions, and buffers of writes that followers still
//! get.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use distributed_core::{Configuration, Event, JournalPart, Loss, Mode, NodeId, Notice, RequestId};
use driver_api::{Error, ErrorKind, IoBuf, Result, ext};

use super::{
    Engine,
    waiting::{Reads, Waiting},
};

/// What an engine remembers beside the core.
#[derive(Default)]
pub(super) struct Following {
    /// What readers see of an asynchronous volume: an [`ext::Consistency`].
    readers: AtomicU32,
    /// Whether somebody waits until the volume can have the mode that was chosen.
    settling: AtomicBool,
    /// Held by whoever changes the mode, or relies on it.
    turn: tokio::sync::Mutex<()>,
    told: Mutex<Told>,
}

/// What the core told last.
#[derive(Clone, Copy, Default)]
struct Told {
    lost_head: Option<NodeId>,
    promoted: Option<(NodeId, Loss)>,
}

impl Following {
    /// Takes note of what the core tells the operator.
    pub fn note(&self, notice: &Notice) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            Notice::HeadLost { node, .. } => told.lost_head = Some(*node),
            Notice::Promoted { node, loss, .. } => told.promoted = Some((*node, *loss)),
            _ => {}
        }
    }

    fn told(&self) -> Told {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers of writes that were answered and still have to reach followers.
#[derive(Default)]
pub(super) struct Kept(HashMap<RequestId, (u64, IoBuf)>);

impl Kept {
    /// Keeps the buffer of a write that begins at `offset`.
    pub fn keep(&mut self, request: RequestId, offset: u64, data: IoBuf) {
        self.0.insert(request, (offset, data));
    }

    /// Lets it go.
    pub fn release(&mut self, request: RequestId) {
        self.0.remove(&request);
    }

    /// The part of it that belongs at `offset` of the volume.
    pub fn data(&self, request: RequestId, offset: u64, len: u32) -> Option<IoBuf> {
        let (first, data) = self.0.get(&request)?;
        part(*first, data, offset, len)
    }

    /// The buffers of these parts.
    pub fn parts(&self, parts: &[JournalPart]) -> Option<Vec<IoBuf>> {
        parts.iter().map(|part| self.data(part.request, part.offset, part.len)).collect()
    }

    /// Lets all go: the attachment is over.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The part at `offset` of the volume of data that begins at `first`.
pub(super) fn part(first: u64, data: &IoBuf, offset: u64, len: u32) -> Option<IoBuf> {
    let (start, len) = (usize::try_from(offset.checked_sub(first)?).ok()?, len as usize);
    if start == 0 && len == data.len() {
        return Some(data.clone());
    }
    (start.checked_add(len)? <= data.len()).then(|| data.slice(start, len))
}

impl Engine {
    /// What readers see while the volume is asynchronous.
    pub fn readers(&self) -> ext::Consistency {
        ext::Consistency::from_bits(self.following.readers.load(Ordering::Acquire))
    }

    /// Changes that, for sessions to come.
    pub fn set_readers(&self, readers: ext::Consistency) {
        self.following.readers.store(readers.bits(), Ordering::Release);
    }

    /// The node that acknowledged before it was lost, if one was.
    pub fn lost_head(&self) -> Option<NodeId> {
        self.following.told().lost_head
    }

    /// Whether the caller is the only one who waits until the mode can be changed.
    pub fn begin_settling(&self) -> bool {
        !self.following.settling.swap(true, Ordering::AcqRel)
    }

    /// Nobody waits for that any more.
    pub fn end_settling(&self) {
        self.following.settling.store(false, Ordering::Release);
    }

    /// Until this is dropped nobody else changes the mode.
    pub async fn mode_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.following.turn.lock().await
    }

    /// When writes are acknowledged now.
    pub fn mode(&self) -> Result<Mode> {
        Ok(self.status()?.mode)
    }

    /// Has the volume behave so; returns once it does.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot.
    pub async fn configure(self: &Arc<Self>, configuration: Configuration) -> Result<()> {
        self.wish(|request| Event::Configure { request, configuration }).await
    }

    /// Has a follower acknowledge, and gives what that lost.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot.
    pub async fn promote(self: &Arc<Self>, node: NodeId, at_once: bool) -> Result<Loss> {
        self.wish(|request| Event::Promote { request, node, at_once }).await?;
        match self.following.told().promoted {
            Some((promoted, loss)) if promoted == node => Ok(loss),
            _ => Err(Error::new(ErrorKind::INTERNAL, "a promotion ended without telling its loss")
                .with("volume", &self.volume)
                .remedy("report this defect")),
        }
    }

    /// Asks the core for something that has no data, and waits for its end.
    async fn wish(self: &Arc<Self>, event: impl FnOnce(RequestId) -> Event) -> Result<()> {
        let request = self.admit(&self.nodes.context(), None, IoBuf::empty(), None)?;
        let waiting = Waiting::new(self, Reads::of(request));
        self.run(vec![event(request)], None);
        waiting.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_buffer_gives_its_parts_until_it_is_released() {
        let mut kept = Kept::default();
        kept.keep(RequestId(7), 4096, IoBuf::copy_from(&[1, 2, 3, 4]));
        let parts = |offset, len| [JournalPart { request: RequestId(7), offset, len }];
        let found = kept.parts(&parts(4097, 2)).expect("kept");
        assert_eq!(&found[0][..], [2, 3]);
        assert!(kept.parts(&parts(4095, 2)).is_none(), "before it");
        assert!(kept.parts(&parts(4099, 2)).is_none(), "behind it");
        kept.release(RequestId(7));
        assert!(kept.parts(&parts(4096, 4)).is_none());
    }
}
