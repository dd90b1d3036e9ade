// SPDX-License-Identifier: Apache-2.0
//! Growing and shrinking an attached volume.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use driver_api::{Error, ErrorKind, Op, OpContext, Result, ext::Resize};

use crate::{
    companion::{self, Record},
    disk::Disk,
    ending::to_the_end,
    error::invalid,
    volume::{Attached, NetfsVolume},
};

impl Resize for NetfsVolume {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        let (attached, until) = (Arc::clone(&self.0), self.0.until(cx));
        to_the_end(async move {
            resize(&attached, size, shrink, until).await.map_err(|error| error.during("resize"))
        })
    }
}

async fn resize(attached: &Attached, size: u64, shrink: bool, until: Instant) -> Result<()> {
    let standing = &attached.standing;
    standing.admit_writer()?;
    // Whoever changes the layers relies on the size.
    let _turn = attached.store.turn(&attached.name).await;
    let _work = attached.work(until).await?;
    let now = attached.size.load(Ordering::Acquire);
    if size < now && !shrink {
        return Err(invalid("the new size is smaller, which cuts data off")
            .with("size", now)
            .with("wanted", size)
            .remedy("allow shrinking explicitly"));
    }
    if size == now {
        return Ok(());
    }
    if !attached.able.freeze {
        return resize_extents(attached, size, until).await;
    }
    let stack = attached.enter(until).await?;
    let (share, _) = attached
        .mount
        .share(until)
        .await
        .map_err(|fault| stack.disk.told(fault, "the size cannot be set", false))?;
    check_size(size, share.traits().max_file_size)?;
    match &stack.image {
        Some(image) => {
            check_image_size(size)?;
            image.resize(size, until).await?;
            stack.disk.flush(until).await?;
            attached.size.store(size, Ordering::Release);
            attached.enter_size(size, until).await
        }
        None => {
            stack.disk.set_size(size, until).await?;
            attached.size.store(size, Ordering::Release);
            Ok(())
        }
    }
}

/// The same of a volume in extents, which nobody uses meanwhile.
async fn resize_extents(attached: &Attached, size: u64, until: Instant) -> Result<()> {
    let stack = attached.alone(until).await?;
    let told = |fault| stack.disk.told(fault, "the size cannot be set", false);
    let (share, _) = attached.mount.share(until).await.map_err(told)?;
    check_size(size, share.traits().max_file_size)?;
    if let Some(extents) = &stack.extents {
        extents.set_size(&stack.disk, size, until).await?;
        attached.size.store(size, Ordering::Release);
    }
    Ok(())
}

impl Disk {
    /// Makes a file that does not grow by being written this long, durably.
    pub async fn set_size(&self, size: u64, until: Instant) -> Result<()> {
        let _alone = self.barrier(until).await?;
        self.admit_writer()?;
        let now = self.len();
        let set = self.file.perform(until, |attempt, handle| async move {
            attempt.share.set_size(&handle, size, until).await
        });
        set.await.map_err(|fault| self.told(fault, "the size cannot be set", true))?;
        if size < now {
            // What was cut off must not come back by being written again.
            self.ledger().durable(size, now - size);
        }
        self.has_len(size);
        Ok(())
    }
}

impl Attached {
    /// Enters the size of the disk in an image into the volume's record, in the volume's turn.
    async fn enter_size(&self, size: u64, until: Instant) -> Result<()> {
        let resized = |record: Option<Record>, _| {
            let record = record.unwrap_or_else(Record::adopted);
            Ok(Some(Record { image_size: size, ..record }))
        };
        companion::change(&self.root.file, &self.files, resized, until).await
    }
}

/// Refuses a size that no image can have.
pub(crate) fn check_image_size(size: u64) -> Result<()> {
    /// What a table of 32 MiB leads to, with clusters of 64 KiB.
    const MOST: u64 = 2 << 50;
    if size.is_multiple_of(512) && size <= MOST {
        return Ok(());
    }
    Err(invalid("a qcow2 volume cannot have this size")
        .with("size", size)
        .remedy("use a multiple of 512 up to 2 PiB, or the format raw"))
}

/// Refuses a size that the server's file system has no room for in one file.
pub(crate) fn check_size(size: u64, most: u64) -> Result<()> {
    if size <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the server takes no file of that size")
        .with("size", size)
        .with("largest", most)
        .remedy("choose a smaller size"))
}
