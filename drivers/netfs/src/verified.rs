// SPDX-License-Identifier: Apache-2.0
//! Changes of a share's directory, repeated safely: what an answer means depends on whether the call was sent before.
//!
//! | | when an earlier call may have had its effect |
//! |---|---|
//! | create | `Exists`: the token tells whose it is where the server keeps it; else the caller looks |
//! | remove | `NotFound` is success |
//! | rename | `NotFound` is success if the new name has the file |

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use crate::{
    error::{Fault, broken_server},
    mounts::Mount,
    names::FileName,
    share::{Found, Listed, Share},
};

/// The longest small file that is read whole.
const LONGEST: u64 = 4 << 20;
/// How often a file may be replaced while it is read.
const REPLACED_AT_MOST: u32 = 4;

/// What has a name; `None` if nothing has.
pub(crate) async fn look(
    mount: &Mount,
    name: &FileName,
    until: Instant,
) -> Result<Option<Found>, Fault> {
    let looked =
        mount.perform(until, |attempt| async move { attempt.share.look(name, until).await }).await;
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(Fault::NotFound) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// All entries of the directory.
pub(crate) async fn list(mount: &Mount, until: Instant) -> Result<Vec<Listed>, Fault> {
    mount.perform(until, |attempt| async move { attempt.share.list(until).await }).await
}

/// Makes an empty file that was not there.
pub(crate) async fn create(mount: &Mount, name: &FileName, until: Instant) -> Result<Found, Fault> {
    let token = fastrand::u64(..);
    mount
        .perform(until, |attempt| async move { attempt.share.create(name, token, until).await })
        .await
}

/// Removes a file. `NotFound` if there was none.
pub(crate) async fn remove(mount: &Mount, name: &FileName, until: Instant) -> Result<(), Fault> {
    mount
        .perform(until, |attempt| async move {
            match attempt.share.remove(name, until).await {
                Err(Fault::NotFound) if attempt.again => Ok(()),
                done => done,
            }
        })
        .await
}

/// Removes a file, if it is there.
pub(crate) async fn remove_if_there(
    mount: &Mount,
    name: &FileName,
    until: Instant,
) -> Result<(), Fault> {
    match remove(mount, name, until).await {
        Err(Fault::NotFound) => Ok(()),
        done => done,
    }
}

/// Gives `file`, which is called `from`, the name `to`.
pub(crate) async fn rename(
    mount: &Mount,
    file: &Found,
    from: &FileName,
    to: &FileName,
    until: Instant,
) -> Result<(), Fault> {
    mount
        .perform(until, |attempt| async move {
            match attempt.share.rename(from, to, until).await {
                Err(Fault::NotFound) if attempt.again => {
                    let found = attempt.share.look(to, until).await?;
                    if found.facts.identity == file.facts.identity {
                        return Ok(());
                    }
                    Err(Fault::NotFound)
                }
                done => done,
            }
        })
        .await
}

/// Sets a file's length.
pub(crate) async fn set_size(
    mount: &Mount,
    name: &FileName,
    size: u64,
    until: Instant,
) -> Result<(), Fault> {
    mount
        .perform(until, |attempt| async move {
            let found = attempt.share.open(name, true, until).await?;
            let set = attempt.share.set_size(&found.handle, size, until).await;
            attempt.share.close(&found.handle, until).await?;
            set
        })
        .await
}

/// The content of a small file; `None` if there is none.
pub(crate) async fn read(
    mount: &Mount,
    name: &FileName,
    until: Instant,
) -> Result<Option<Bytes>, Fault> {
    mount.perform(until, |attempt| async move { read_on(&*attempt.share, name, until).await }).await
}

/// The same on this very share.
pub(crate) async fn read_on(
    share: &dyn Share,
    name: &FileName,
    until: Instant,
) -> Result<Option<Bytes>, Fault> {
    let mut left = REPLACED_AT_MOST;
    loop {
        let found = match share.open(name, false, until).await {
            Err(Fault::NotFound) => return Ok(None),
            found => found?,
        };
        if found.facts.size > LONGEST {
            return Err(broken_server(format!("the file {name} is too long to be a record")).into());
        }
        let content = read_open(share, &found, found.facts.size, until).await;
        let closed = share.close(&found.handle, until).await;
        match content {
            // Another one has its name since it was opened.
            Err(Fault::Stale) if left > 0 => left -= 1,
            content => {
                closed?;
                return content.map(Some);
            }
        }
    }
}

/// The first `most` bytes of a file, as far as it has them.
pub(crate) async fn read_beginning(
    mount: &Mount,
    name: &FileName,
    most: u32,
    until: Instant,
) -> Result<Bytes, Fault> {
    mount
        .perform(until, |attempt| async move {
            let share = &attempt.share;
            let found = share.open(name, false, until).await?;
            let wanted = found.facts.size.min(most.into());
            let content = read_open(&**share, &found, wanted, until).await;
            share.close(&found.handle, until).await?;
            content
        })
        .await
}

async fn read_open(
    share: &dyn Share,
    file: &Found,
    wanted: u64,
    until: Instant,
) -> Result<Bytes, Fault> {
    let mut content = BytesMut::new();
    while (content.len() as u64) < wanted {
        let left = wanted - content.len() as u64;
        let step = left.min(share.traits().max_read.into()) as u32;
        let part = share.read(&file.handle, content.len() as u64, step, until).await?;
        content.extend_from_slice(&part.data);
        if part.data.is_empty() {
            break;
        }
    }
    Ok(content.freeze())
}

/// Writes into a file, durably.
pub(crate) async fn write(
    mount: &Mount,
    name: &FileName,
    offset: u64,
    content: &Bytes,
    until: Instant,
) -> Result<(), Fault> {
    mount
        .perform(until, |attempt| async move {
            let share = &attempt.share;
            let found = share.open(name, true, until).await?;
            let written = write_whole(&**share, &found, offset, content, until).await;
            share.close(&found.handle, until).await?;
            written
        })
        .await
}

async fn write_whole(
    share: &dyn Share,
    file: &Found,
    offset: u64,
    content: &Bytes,
    until: Instant,
) -> Result<(), Fault> {
    let mut at = 0;
    while at < content.len() {
        let most = (share.traits().max_write as usize).min(content.len() - at);
        let part = content.slice(at..at + most);
        let written = share.write(&file.handle, offset + at as u64, part, true, until).await?;
        at += written.count as usize;
    }
    Ok(())
}

/// Gives a small file new content: afterwards it has the old or the new one, and the new one, durably, once this returned.
pub(crate) async fn replace(
    mount: &Arc<Mount>,
    name: &FileName,
    fresh: &FileName,
    content: &Bytes,
    until: Instant,
) -> Result<(), Fault> {
    // What an earlier writer left half made.
    remove_if_there(mount, fresh, until).await?;
    let made = match create(mount, fresh, until).await {
        // An earlier call made it, and its answer was lost.
        Err(Fault::Exists) => look(mount, fresh, until).await?.ok_or(Fault::NotFound)?,
        made => made?,
    };
    write(mount, fresh, 0, content, until).await?;
    rename(mount, &made, fresh, name, until).await
}

/// The same on this very share, and on no other: what a mount that is made anew must not do for one that has ended.
pub(crate) async fn replace_on(
    share: &dyn Share,
    name: &FileName,
    fresh: &FileName,
    content: &Bytes,
    until: Instant,
) -> Result<(), Fault> {
    match share.remove(fresh, until).await {
        Ok(()) | Err(Fault::NotFound) => {}
        Err(fault) => return Err(fault),
    }
    share.create(fresh, fastrand::u64(..), until).await?;
    let found = share.open(fresh, true, until).await?;
    let written = write_whole(share, &found, 0, content, until).await;
    share.close(&found.handle, until).await?;
    written?;
    share.rename(fresh, name, until).await
}
