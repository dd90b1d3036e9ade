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
    let _alone = attached.barrier(until).await?;
    attached.admit_writer()?;
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
    let told = |fault| attached.told(fault, "the size cannot be set", true);
    let (share, _) = attached.file.mount.share(until).await.map_err(told)?;
    check_size(size, share.traits().max_file_size)?;
    let set = attached.file.perform(until, |attempt, handle| async move {
        attempt.share.set_size(&handle, size, until).await
    });
    set.await.map_err(told)?;
    if size < now {
        // What was cut off must not come back by being written again.
        attached.ledger().durable(size, now - size);
    }
    attached.size.store(size, Ordering::Release);
    Ok(())
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
