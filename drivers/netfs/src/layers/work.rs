// SPDX-License-Identifier: Apache-2.0
//! The layers of an attached volume, and what is done in the background so that none is kept that no snapshot needs.
//!
//! ```text
//!   Drop   a layer that nothing is above and nothing names
//!   Merge  a frozen layer into its parent, in portions; the volume goes on meanwhile
//!   Settle the active layer into its parent: frozen under a new one and merged while it is large, then with everybody waiting
//!   Sweep  the files that are left over
//! ```
//!
//! Each step begins with what the record says and ends with the record; a crash between loses what was copied, and no more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use driver_api::{Result, Stats};
use tokio::sync::MutexGuard;

use super::{
    files::Shelf,
    merging::Merging,
    stack::Stack,
    tree::{LayerId, Step, Tree},
};
use crate::{disk::Disk, image::Link, names::FileName, volume::Attached};

/// The active layer's file is merged with everybody waiting if it is no longer than this, and after each time that it was
/// not, than twice that.
const SETTLED_AT_ONCE: u64 = 4 << 20;
/// But never if it is longer than this.
const MOST_SETTLED_AT_ONCE: u64 = 64 << 20;
/// After a failure, before the next attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The layers of an attached volume.
pub(crate) struct Work {
    /// Where their files are.
    pub shelf: Shelf,
    /// As the record has them.
    pub tree: Tree,
    /// Layers that somebody reads besides, once for each.
    pub pinned: Vec<LayerId>,
    merging: Option<Merging>,
    /// How often the active layer was frozen because it was too large to be merged at once.
    rounds: u32,
    /// Somebody is at it.
    tidying: bool,
}

/// How far the work on layers is, for figures.
#[derive(Default)]
pub(crate) struct Progress {
    layers: AtomicU64,
    snapshots: AtomicU64,
    merged: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    /// The layers changed.
    pub fn saw(&self, tree: &Tree) {
        self.layers.store(1 + tree.overlays.len() as u64, Relaxed);
        self.snapshots.store(tree.snapshots.len() as u64, Relaxed);
    }

    /// The figures.
    pub fn stats(&self, stats: Stats) -> Stats {
        stats
            .gauge("layers", self.layers.load(Relaxed) as f64)
            .gauge("snapshots", self.snapshots.load(Relaxed) as f64)
            .counter("merged_bytes_total", self.merged.load(Relaxed))
            .counter("merging_failures_total", self.failed.load(Relaxed))
    }
}

impl Work {
    /// The layers of a volume that is being attached.
    pub fn new(shelf: Shelf, tree: Tree) -> Self {
        Self { shelf, tree, pinned: Vec::new(), merging: None, rounds: 0, tidying: false }
    }

    /// All open files of the volume.
    pub fn disks(&self, stack: &Stack) -> Vec<Arc<Disk>> {
        let links = stack.links.iter().map(|link| Arc::clone(&link.disk));
        let opened = self.merging.iter().flat_map(|merging| merging.opened.iter().cloned());
        let extents = stack.extents.iter().flat_map(|extents| extents.disks());
        links.chain(opened).chain(extents).collect()
    }

    /// Stops merging; what was copied so far is copied again.
    pub async fn stop(&self, until: Instant) -> Result<()> {
        match &self.merging {
            None => Ok(()),
            Some(merging) => merging.stop(until).await,
        }
    }

    /// The same, and gives the files back that were open for it.
    async fn give_up_merging(&mut self, until: Instant) -> Result<()> {
        let Some(merging) = self.merging.take() else { return Ok(()) };
        let stopped = merging.stop(until).await;
        for disk in &merging.opened {
            disk.leave(until).await;
        }
        stopped
    }

    fn is_merging(&self, child: LayerId, parent: LayerId) -> bool {
        let merging = self.merging.as_ref();
        merging.is_some_and(|merging| merging.child == child && merging.parent == parent)
    }
}

impl Attached {
    /// The layers, for whoever changes them.
    pub async fn work(&self, until: Instant) -> Result<MutexGuard<'_, Work>> {
        let waiting = tokio::time::timeout_at(until.into(), self.work.lock());
        waiting.await.map_err(|_| self.standing.stuck())
    }

    /// Sees to it that what no snapshot needs goes, in the background.
    pub fn tidy(self: &Arc<Self>, work: &mut Work) {
        let is_needed = self.holder.writer && work.tree.next(&work.pinned) != Step::Rest;
        if work.tidying || !is_needed {
            return;
        }
        work.tidying = true;
        let attached = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let Some(attached) = attached.upgrade() else { return };
                match attached.step().await {
                    Ok(true) => {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Ok(false) => return,
                    Err(_) if attached.standing.admit().is_err() => return,
                    Err(error) => {
                        attached.progress.failed.fetch_add(1, Relaxed);
                        tracing::warn!(volume = attached.name, %error, "layers that no snapshot needs stay for now");
                    }
                }
                drop(attached);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Does the next thing; whether there may be more.
    async fn step(self: &Arc<Self>) -> Result<bool> {
        let until = self.mount.until(None);
        {
            let mut work = self.work(until).await?;
            self.standing.admit_writer()?;
            let next = work.tree.next(&work.pinned);
            let goes_on =
                matches!(next, Step::Merge { child, parent } if work.is_merging(child, parent));
            if !goes_on {
                work.give_up_merging(until).await?;
            }
            match next {
                Step::Rest => {
                    work.tidying = false;
                    return Ok(false);
                }
                Step::Merge { child, parent } => {
                    let copied = self.merge_some(&mut work, child, parent, until).await;
                    if copied.is_err() {
                        work.give_up_merging(until).await?;
                    }
                    if copied? {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        // What changes the record needs the volume's turn, which comes before `work`.
        let _turn = self.store.turn(&self.name).await;
        let mut work = self.work(until).await?;
        self.standing.admit_writer()?;
        match work.tree.next(&work.pinned) {
            Step::Rest => {}
            Step::Sweep => self.sweep(&mut work, until).await?,
            Step::Drop(id) => {
                let to = work.tree.dropped(id);
                self.exchange(&mut work, to, self.recorded_size(), until).await?;
            }
            Step::Merge { child, parent } if work.is_merging(child, parent) => {
                self.finish_merging(&mut work, child, until).await?;
            }
            Step::Merge { .. } => {}
            Step::Settle { parent } => self.settle(&mut work, parent, until).await?,
        }
        Ok(true)
    }

    /// Copies a portion; whether there is more. At the end everything is durable.
    async fn merge_some(
        &self,
        work: &mut Work,
        child: LayerId,
        parent: LayerId,
        until: Instant,
    ) -> Result<bool> {
        if work.merging.is_none() {
            work.merging = Some(self.begin_merging(work, child, parent, until).await?);
        }
        let Some(merging) = &mut work.merging else { return Ok(false) };
        match merging.copy_some(until).await? {
            Some(bytes) => {
                self.progress.merged.fetch_add(bytes, Relaxed);
                Ok(true)
            }
            None => merging.finish(until).await.map(|()| false),
        }
    }

    async fn begin_merging(
        &self,
        work: &Work,
        child: LayerId,
        parent: LayerId,
        until: Instant,
    ) -> Result<Merging> {
        let wanted: Vec<LayerId> = work.tree.chain(parent).into_iter().chain([child]).collect();
        let open = self.enter(until).await?.links.clone();
        let (links, opened) = self.open_links(work, &open, &wanted, until).await?;
        let begun = match links.split_last() {
            Some((child, below)) => Merging::begin(child, below, opened.clone(), until).await,
            None => Err(crate::error::internal("a layer has no file")),
        };
        if begun.is_err() {
            for disk in &opened {
                disk.leave(until).await;
            }
        }
        begun
    }

    /// The files of these layers, and those of them that were not open yet.
    pub async fn open_links(
        &self,
        work: &Work,
        open: &[Link],
        wanted: &[LayerId],
        until: Instant,
    ) -> Result<(Vec<Link>, Vec<Arc<Disk>>)> {
        let (mut links, mut opened): (Vec<Link>, Vec<Arc<Disk>>) = (Vec::new(), Vec::new());
        for &layer in wanted {
            if let Some(link) = open.iter().find(|link| link.layer == layer) {
                links.push(link.clone());
                continue;
            }
            let link = async {
                let (file, format) = work.shelf.file_of(&work.tree, layer)?;
                work.shelf.open(&self.standing, (layer, &file, format), until).await
            };
            match link.await {
                Ok(link) => {
                    opened.push(Arc::clone(&link.disk));
                    links.push(link);
                }
                Err(error) => {
                    for disk in &opened {
                        disk.leave(until).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok((links, opened))
    }

    /// Puts the parent in the place of a layer that was merged into it.
    async fn finish_merging(&self, work: &mut Work, child: LayerId, until: Instant) -> Result<()> {
        let to = work.tree.merged(child);
        let is_read = self.enter(until).await?.links.iter().any(|link| link.layer == child);
        if is_read {
            self.flush(until).await?;
            let mut stack = self.soon_alone(until).await?;
            stack.flush(until).await?;
            let mut links = stack.links.clone();
            links.retain(|link| link.layer != child);
            let is_above = |link: &&Link| {
                work.tree.overlay(link.layer).is_some_and(|overlay| overlay.parent == child)
            };
            let above = links.iter().find(is_above).cloned();
            // Before the active layer is opened anew: what opens an image keeps its header.
            if let Some(above) = &above {
                work.shelf.set_base(above, &to, until).await?;
            }
            let switched = self.switch(work, &mut stack, to, links, until).await;
            if let (Err(_), Some(above)) = (&switched, &above)
                && self.standing.admit().is_ok()
            {
                work.shelf.set_base(above, &work.tree, until).await?;
            }
            switched?;
        } else {
            self.exchange(work, to, self.recorded_size(), until).await?;
        }
        work.give_up_merging(until).await
    }

    /// Merges the active layer into its parent, at once if it is small, else after what it has was frozen.
    async fn settle(&self, work: &mut Work, parent: LayerId, until: Instant) -> Result<()> {
        let len = self.enter(until).await?.disk.len();
        let most = (SETTLED_AT_ONCE << work.rounds.min(8)).min(MOST_SETTLED_AT_ONCE);
        if len > most {
            work.rounds += 1;
            return self.freeze(work, None, until).await;
        }
        work.rounds = 0;
        self.flush(until).await?;
        let mut stack = self.soon_alone(until).await?;
        stack.flush(until).await?;
        let Some((child, below)) = stack.links.split_last() else { return Ok(()) };
        if below.last().is_none_or(|link| link.layer != parent) {
            return Err(crate::error::internal("the active layer lies on another one"));
        }
        let mut merging = Merging::begin(child, below, Vec::new(), until).await?;
        let merged = async {
            while let Some(bytes) = merging.copy_some(until).await? {
                self.progress.merged.fetch_add(bytes, Relaxed);
            }
            merging.finish(until).await
        };
        let merged = merged.await;
        merging.stop(until).await?;
        merged?;
        let to = work.tree.merged(work.tree.active);
        let links = below.to_vec();
        self.switch(work, &mut stack, to, links, until).await
    }

    /// Removes what is left over, once no header leads there any more.
    async fn sweep(&self, work: &mut Work, until: Instant) -> Result<()> {
        let read: Vec<LayerId> =
            self.enter(until).await?.links.iter().map(|link| link.layer).collect();
        for overlay in work.tree.overlays.iter().filter(|overlay| !read.contains(&overlay.id)) {
            work.shelf.set_base_of(&work.tree, overlay.id, until).await?;
        }
        for file in &work.tree.gone {
            work.shelf.remove(&FileName::new(file)?, until).await?;
        }
        let to = work.tree.swept();
        self.exchange(work, to, self.recorded_size(), until).await
    }

    /// What the record says of the size of the disk in an image.
    fn recorded_size(&self) -> u64 {
        self.size.load(std::sync::atomic::Ordering::Acquire)
    }
}
