// SPDX-License-Identifier: Apache-2.0
//! Growing and shrinking an attached volume.

use std::sync::{Arc, atomic::Ordering};

use driver_api::{Op, OpContext, Result, ext::Resize};

use crate::{
    config::Preallocation,
    error::invalid,
    volume::{Attached, LocalVolume, blocking, to_the_end},
};

impl Resize for LocalVolume {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        let (attached, cx) = (Arc::clone(&self.0), *cx);
        to_the_end(async move {
            resize(attached, cx, size, shrink).await.map_err(|error| error.during("resize"))
        })
    }
}

async fn resize(attached: Arc<Attached>, cx: OpContext, size: u64, shrink: bool) -> Result<()> {
    let _alone = attached.maintenance.lock().await;
    let task = Arc::clone(&attached);
    let now = attached.size.load(Ordering::Acquire);
    blocking(move || {
        task.admit_maintenance()?;
        task.store.check_size(size, task.record.format)?;
        if size < now && !shrink {
            return Err(invalid("the new size is smaller, which cuts data off")
                .with("size", now)
                .with("wanted", size)
                .remedy("allow shrinking explicitly"));
        }
        if size > now {
            task.store.refuse_if_full(reserved_at_once(&task, size - now))?;
        }
        Ok(())
    })
    .await?;
    if size == now {
        return Ok(());
    }
    let _barrier = attached.barrier(&cx).await?;
    let preallocation = attached.record.preallocation;
    if attached.is_raw() {
        let task = Arc::clone(&attached);
        blocking(move || {
            task.disk.set_len(size)?;
            let reserved = task.disk.preallocate(now, size.saturating_sub(now), preallocation);
            if reserved.is_err() {
                task.disk.set_len(now)?;
            }
            reserved?;
            task.disk.sync()
        })
        .await?;
    } else {
        attached.on_image(move |image| image.resize(size, preallocation)).await?;
    }
    attached.size.store(size, Ordering::Release);
    Ok(())
}

fn reserved_at_once(attached: &Attached, grown: u64) -> u64 {
    if attached.record.preallocation == Preallocation::Off { 0 } else { grown }
}
