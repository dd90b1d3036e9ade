// SPDX-License-Identifier: Apache-2.0
//! Who may be attached beside whom, and what an attachment may do.

use driver_api::{
    Abilities, Attach, AttachMode, Error, ErrorKind, Fencing, IoBuf, WriteFlags,
    ext::{Resize as _, Snapshots as _},
};

use crate::{
    case::Case,
    volume::{Checked, answer, broken, ensure, not_claimed, refusal, success},
};

const SIZE: u64 = 4 << 20;

/// An `InUse` that says who the holder is.
fn names_holder<T>(what: &str, answer: Result<T, Error>, holder: &str) -> Checked {
    let error = refusal(what, answer, &[ErrorKind::IN_USE])?;
    ensure(format!("{error:#}").contains(holder), || {
        format!("{what} is refused without naming the holder {holder}: {error:#}")
    })
}

pub(super) async fn exclusive(case: &Case<'_>) -> Checked {
    let name = case.name("v");
    case.create(&name, SIZE).await?;
    let first = case.try_attach(&name, case.exclusive("first-holder")).await?;
    let first = success("attach", first)?;
    let data = case.random().bytes(first.sector());
    first.write(0, &data).await?;
    for owner in ["second-holder", "first-holder"] {
        let answer = case.try_attach(&name, case.exclusive(owner)).await?;
        names_holder("a second exclusive attachment", answer, "first-holder")?;
    }
    first.expect(0, &data, "after a refused second attachment").await?;
    first.write(0, &case.random().bytes(first.sector())).await
}

pub(super) async fn readers(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let data = case.random().bytes(64 << 10);
    vol.write_whole(0, &data).await?;
    vol.detach().await?;
    let mut readers = Vec::new();
    for owner in ["reader-a", "reader-b", "reader-c"] {
        let reader = case.try_attach(&vol.name, case.reader(owner)).await?;
        readers.push(success("attaching a further reader", reader)?);
    }
    for reader in &readers {
        reader.expect(0, &data, "for one of several readers").await?;
    }
    readers[0].detach().await?;
    readers[1].expect(0, &data, "after another reader detached").await?;
    let answer = case.try_attach(&vol.name, case.exclusive("writer")).await?;
    refusal("a writer beside the readers left", answer, &[ErrorKind::IN_USE])?;
    readers[1].detach().await?;
    readers[2].detach().await?;
    case.attach(&vol.name).await.map(|_| ())
}

pub(super) async fn reader_or_writer(case: &Case<'_>) -> Checked {
    let name = case.name("v");
    case.create(&name, SIZE).await?;
    let writer = case.try_attach(&name, case.exclusive("the-writer")).await?;
    let writer = success("attach", writer)?;
    let answer = case.try_attach(&name, case.reader("a-reader")).await?;
    names_holder("a reader beside a writer", answer, "the-writer")?;
    writer.detach().await?;
    let reader = case.try_attach(&name, case.reader("the-reader")).await?;
    let reader = success("attaching a reader", reader)?;
    let answer = case.try_attach(&name, case.exclusive("a-writer")).await?;
    names_holder("a writer beside a reader", answer, "the-reader")?;
    reader.expect_zeros(0, 4096, "for a reader after a refused writer").await
}

pub(super) async fn read_only(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let (sector, data) = (vol.sector(), case.random().bytes(64 << 10));
    vol.write_whole(0, &data).await?;
    vol.detach().await?;
    let reader = case.try_attach(&vol.name, case.reader("reader")).await?;
    let reader = success("attaching a reader", reader)?;
    let kinds = [ErrorKind::PERMISSION_DENIED, ErrorKind::INVALID_ARGUMENT, ErrorKind::UNSUPPORTED];
    let other = vec![7; sector as usize];
    for flags in [WriteFlags::NONE, WriteFlags::FUA] {
        refusal("a reader's write", reader.try_write(0, &other, flags).await?, &kinds)?;
    }
    refusal("a reader's discard", reader.try_discard(0, sector).await?, &kinds)?;
    let zeroed = reader.try_zero(0, sector, WriteFlags::NONE).await?;
    refusal("a reader's write of zeros", zeroed, &kinds)?;
    if let Some(resize) = success("resize", reader.handle.resize())? {
        let op = resize.resize(&reader.cx(), SIZE * 2, false);
        refusal("a reader's resize", answer(reader.deadline, "resize", op).await?, &kinds)?;
    }
    if let Some(snapshots) = success("snapshots", reader.handle.snapshots())?
        && case.has(Abilities::ROLLBACK)
    {
        let op = snapshots.rollback(&reader.cx(), "missing");
        let answer = answer(reader.deadline, "rollback", op).await?;
        ensure(answer.is_err(), || "a reader's rollback succeeded".to_owned())?;
    }
    reader.expect(0, &data, "after refused changes by a reader").await?;
    let size = reader.size()?;
    ensure(size == SIZE, || format!("a reader changed the size to {size}"))
}

pub(super) async fn detach(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut data = case.random().bytes(vol.sector());
    vol.write(0, &data).await?;
    vol.detach().await?;
    for owner in ["second", "third"] {
        let next = case.try_attach(&vol.name, case.exclusive(owner)).await?;
        let next = success("attaching after a detach", next)?;
        next.expect(0, &data, "for the next holder").await?;
        data.reverse();
        next.write(0, &data).await?;
        next.detach().await?;
    }
    case.delete(&vol.name).await
}

pub(super) async fn after_detach(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let data = case.random().bytes(vol.sector());
    vol.write(0, &data).await?;
    vol.detach().await?;
    let other = vec![7; data.len()];
    let late = vol.handle.write(&vol.cx(), 0, IoBuf::copy_from(&other), WriteFlags::NONE);
    let late = answer(vol.deadline, "write", late).await?;
    ensure(late.is_err(), || "a write after the detach succeeded".to_owned())?;
    let read = vol.try_read(0, vol.sector()).await?;
    ensure(read.is_err(), || "a read after the detach succeeded".to_owned())?;
    let flushed = answer(vol.deadline, "flush", vol.handle.flush(&vol.cx())).await?;
    ensure(flushed.is_err(), || "a flush after the detach succeeded".to_owned())?;
    // Twice is allowed to be an error, but not a panic, and must not disturb the next holder.
    let next = case.attach(&vol.name).await?;
    let _ = vol.try_detach().await?;
    next.expect(0, &data, "after a late write by a detached holder").await?;
    next.write(0, &other).await?;
    next.expect(0, &other, "for the next holder").await
}

pub(super) async fn lower_epoch(case: &Case<'_>) -> Checked {
    let name = case.name("v");
    case.create(&name, SIZE).await?;
    let old = Attach::new(AttachMode::EXCLUSIVE, case.next_epoch(), "late-comer");
    let vol = case.attach(&name).await?;
    let data = case.random().bytes(vol.sector());
    vol.write(0, &data).await?;
    let mut remembers = case.caps.fencing != Fencing::NONE;
    let forced = case.try_attach(&name, old.clone().force()).await?;
    if remembers || forced.is_err() {
        refusal("a forced attachment of a lower epoch", forced, &[ErrorKind::FENCED])?;
        vol.expect(0, &data, "after a refused attachment").await?;
        vol.write(0, &data).await?;
        remembers = true;
    }
    vol.detach().await?;
    match case.try_attach(&name, old).await? {
        Ok(_) if !remembers => not_claimed("fencing is none, and epochs are not remembered"),
        Ok(_) => broken("an attachment of a lower epoch succeeded after the detach"),
        answer => {
            refusal("an attachment of a lower epoch", answer, &[ErrorKind::FENCED]).map(|_| ())
        }
    }
}
