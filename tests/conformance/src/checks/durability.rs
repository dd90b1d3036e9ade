// SPDX-License-Identifier: Apache-2.0
//! What survives the end of a host. Without pulling a plug, the suite can end only its own attachment and backend.

use driver_api::{ErrorKind, WriteFlags};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    checks::concurrent_io::joined,
    pattern::stamped,
    volume::{Checked, Vol, broken, ensure, not_claimed, refusal, success},
};

/// Attaches a volume whose last holder went away without a word.
async fn attach_abandoned(case: &Case<'_>, name: &str) -> Checked<Vol> {
    match case.try_attach(name, case.exclusive("second life").force()).await? {
        Ok(vol) => Ok(vol),
        Err(error) if error.kind() == ErrorKind::IN_USE => {
            not_claimed(format!("the backend cannot prove that the old holder is gone: {error}"))
        }
        Err(error) => broken(format!("attaching after the holder went away failed: {error:?}")),
    }
}

/// Ends attachment and backend as a dying host does, and attaches again.
async fn die_and_return(case: &Case<'_>, vol: Vol) -> Checked<Vol> {
    let name = vol.name.clone();
    drop(vol);
    case.forget_attachments();
    case.reopen().await?;
    attach_abandoned(case, &name).await
}

pub(super) async fn detach(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (mut random, mut written) = (case.random(), Vec::new());
    for _ in 0..32 {
        let at = random.below(case.plan.volume_size / vol.sector()) * vol.sector();
        let data = random.bytes(vol.sector());
        vol.write(at, &data).await?;
        written.retain(|(place, _)| *place != at);
        written.push((at, data));
    }
    vol.detach().await?;
    case.restart().await?;
    let vol = case.attach(&vol.name).await?;
    for (at, data) in written {
        vol.expect(at, &data, "after detach and restart").await?;
    }
    Ok(())
}

pub(super) async fn flush(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let data = case.random().bytes(1 << 20);
    vol.write_whole(0, &data).await?;
    vol.flush().await?;
    let vol = die_and_return(case, vol).await?;
    vol.expect(0, &data, "after a flush and the end of the host").await
}

pub(super) async fn flush_covers_all(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let sector = vol.sector();
    let mut tasks = JoinSet::new();
    for index in 0..64 {
        // A connection of its own: another handle on the same attachment.
        let vol = vol.clone();
        tasks.spawn(async move { vol.write(index * (40 << 10), &stamped(index, 1, sector)).await });
    }
    joined(tasks).await?;
    vol.flush().await?;
    let vol = die_and_return(case, vol).await?;
    for index in 0..64 {
        let wanted = stamped(index, 1, sector);
        vol.expect(index * (40 << 10), &wanted, "after one flush for many writes").await?;
    }
    Ok(())
}

pub(super) async fn fua(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let data = case.random().bytes(vol.sector() * 8);
    success("write with FUA", vol.try_write(1 << 20, &data, WriteFlags::FUA).await?)?;
    let vol = die_and_return(case, vol).await?;
    vol.expect(1 << 20, &data, "after a write with FUA and the end of the host").await
}

pub(super) async fn volumes(case: &Case<'_>) -> Checked {
    let names: Vec<String> = (0..4).map(|index| case.name(&format!("v{index}"))).collect();
    for (index, name) in names.iter().enumerate() {
        case.create(name, case.sector() * (100 + index as u64)).await?;
    }
    case.delete(&names[3]).await?;
    case.restart().await?;
    let listed = case.list().await?;
    for (index, name) in names[..3].iter().enumerate() {
        let found = listed.iter().find(|volume| volume.name == *name);
        let size = case.sector() * (100 + index as u64);
        ensure(found.is_some_and(|volume| volume.size == size), || {
            format!("after a restart {name} is {found:?}; it had {size} bytes")
        })?;
        let vol = case.attach(name).await?;
        vol.expect_zeros(0, size, "in an unwritten volume after a restart").await?;
    }
    let deleted = case.answer("show", case.backend().show(&case.cx(), &names[3])).await?;
    refusal("showing a volume deleted before a restart", deleted, &[ErrorKind::NOT_FOUND])?;
    ensure(listed.len() == 3, || format!("after a restart there are {} volumes", listed.len()))
}
