// SPDX-License-Identifier: Apache-2.0
//! Growing and shrinking an attached volume.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use driver_api::{Error, ErrorKind, Op, OpContext, Result, ext::Resize};

use crate::{
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
    let disk = &attached.disk;
    disk.admit_writer()?;
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
    let (share, _) = disk
        .file
        .mount
        .share(until)
        .await
        .map_err(|fault| disk.told(fault, "the size cannot be set", false))?;
    check_size(size, share.traits().max_file_size)?;
    match &attached.image {
        Some(image) => {
            check_image_size(size)?;
            image.resize(size, until).await?;
            disk.flush(until).await?;
            attached.size.store(size, Ordering::Release);
            attached.store.enter_size(attached, size, until).await
        }
        None => resize_file(attached, now, size, until).await,
    }
}

async fn resize_file(attached: &Attached, now: u64, size: u64, until: Instant) -> Result<()> {
    let disk = &attached.disk;
    let _alone = disk.barrier(until).await?;
    disk.admit_writer()?;
    let set = disk.file.perform(until, |attempt, handle| async move {
        attempt.share.set_size(&handle, size, until).await
    });
    set.await.map_err(|fault| disk.told(fault, "the size cannot be set", true))?;
    if size < now {
        // What was cut off must not come back by being written again.
        disk.ledger().durable(size, now - size);
    }
    disk.has_len(size);
    attached.size.store(size, Ordering::Release);
    Ok(())
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
