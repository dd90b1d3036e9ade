// SPDX-License-Identifier: Apache-2.0
//! Changes of an attached volume's layers at one moment.
//!
//! ```text
//!   the new layer's file is made        a crash: a file that nothing names; the next layer's takes its place
//!   everybody waits, all is durable
//!   the new files are opened            a failure: everybody goes on as before
//!   the record is replaced              <- the moment
//!   the new files are read and written
//! ```

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use driver_api::Result;
use tokio::sync::RwLockWriteGuard;

use super::{
    stack::Stack,
    tree::{LayerId, ROOT, Snapshot, Tree},
    work::Work,
};
use crate::{
    companion,
    disk::Disk,
    image::{Link, Purpose},
    names::{FileName, Format},
    resize::check_image_size,
    volume::Attached,
};

/// How long operations may be kept waiting for those before them.
const PATIENCE: Duration = Duration::from_secs(20);

impl Attached {
    /// What is read and written, alone, unless what is under way takes so long that those behind it should not wait.
    pub async fn soon_alone(&self, until: Instant) -> Result<RwLockWriteGuard<'_, Stack>> {
        self.alone(until.min(Instant::now() + PATIENCE)).await
    }

    /// Freezes the active layer under a new one, perhaps with a name.
    pub async fn freeze(
        &self,
        work: &mut Work,
        snapshot: Option<Snapshot>,
        until: Instant,
    ) -> Result<()> {
        self.standing.admit_writer()?;
        let size = self.size.load(Ordering::Acquire);
        check_image_size(size)?;
        // Most of what is not durable, while everybody goes on.
        self.flush(until).await?;
        let below = work.tree.active;
        let made = work.shelf.make(&self.standing, &work.tree, below, size, until).await;
        let (file, link) = made?;
        let to = match snapshot {
            Some(snapshot) => work.tree.with_snapshot(snapshot, &file),
            None => work.tree.frozen(&file),
        };
        let frozen = async {
            let mut stack = self.soon_alone(until).await?;
            stack.flush(until).await?;
            let mut links = stack.links.clone();
            links.push(link.clone());
            self.switch(work, &mut stack, to, links, until).await
        };
        let frozen = frozen.await;
        if frozen.is_err() {
            self.unmake(work, &file, &link.disk, until).await;
        }
        frozen
    }

    /// Puts the volume back to what a frozen layer has.
    pub async fn go_back(
        &self,
        work: &mut Work,
        layer: LayerId,
        size: u64,
        until: Instant,
    ) -> Result<()> {
        self.standing.admit_writer()?;
        self.standing.admit_flush()?;
        let open = self.enter(until).await?.links.clone();
        let wanted = work.tree.chain(layer);
        let (mut links, opened) = self.open_links(work, &open, &wanted, until).await?;
        let made = work.shelf.make(&self.standing, &work.tree, layer, size, until).await;
        let switched = match made {
            Err(error) => Err(error),
            Ok((file, link)) => {
                let to = work.tree.rolled_back(layer, &file);
                links.push(link.clone());
                let switched = async {
                    let mut stack = self.soon_alone(until).await?;
                    self.switch(work, &mut stack, to, links, until).await
                };
                let switched = switched.await;
                if switched.is_err() {
                    self.unmake(work, &file, &link.disk, until).await;
                }
                switched
            }
        };
        if switched.is_err() {
            for disk in &opened {
                disk.leave(until).await;
            }
        }
        switched
    }

    /// Takes the file of a layer away that did not come to be, unless the record may name it.
    async fn unmake(&self, work: &Work, file: &FileName, disk: &Arc<Disk>, until: Instant) {
        disk.leave(until).await;
        if self.standing.admit().is_ok() {
            work.shelf.forget(file, until).await;
        }
    }

    /// Puts files in the place of those that are read and written, and layers in the place of those in the record.
    pub async fn switch(
        &self,
        work: &mut Work,
        stack: &mut RwLockWriteGuard<'_, Stack>,
        to: Tree,
        links: Vec<Link>,
        until: Instant,
    ) -> Result<()> {
        let (fresh, size) = Stack::open(links, Purpose::WriteOn, until).await?;
        if let Err(error) = self.exchange(work, to, size, until).await {
            fresh.stop(until).await?;
            return Err(error);
        }
        let old = std::mem::replace(&mut **stack, fresh);
        self.size.store(size, Ordering::Release);
        let kept = |layer: LayerId| stack.links.iter().any(|link| link.layer == layer);
        // Nobody uses it any more, and nothing of it is kept in memory that would have to be written.
        if let Err(error) = old.stop(until).await {
            tracing::warn!(volume = self.name, %error, "what was read and written before does not end");
        }
        let is_read = |layer: LayerId| kept(layer) || work.pinned.contains(&layer);
        for link in old.links.iter().filter(|link| !is_read(link.layer)) {
            link.disk.leave(until).await;
        }
        Ok(())
    }

    /// Puts layers in the place of those in the record. Where nobody knows which are there, nothing is done any more.
    pub async fn exchange(
        &self,
        work: &mut Work,
        to: Tree,
        size: u64,
        until: Instant,
    ) -> Result<()> {
        let only_raw = to.active == ROOT && work.shelf.root_format == Format::Raw;
        let size = if only_raw { 0 } else { size };
        let holder = (self.name.as_str(), self.holder.epoch);
        let trees = (&work.tree, &to);
        let exchanged =
            companion::exchange(&self.root.file, &self.files, holder, trees, size, until).await;
        match exchanged {
            Ok(()) => {
                self.progress.saw(&to);
                work.tree = to;
                Ok(())
            }
            Err(fault) => {
                if fault.is_unknown() {
                    self.standing.give_up();
                }
                let file = self.mount.place.shown_file(&self.files.companion);
                let error = fault.told("the volume's record cannot be replaced");
                Err(error.with("volume", &self.name).with("file", file))
            }
        }
    }
}
