// SPDX-License-Identifier: Apache-2.0
//! Clones: content, independence, sizes, and what depends on what.

use driver_api::{Abilities, ErrorKind};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, ensure, refusal, success},
};

const SIZE: u64 = 4 << 20;

pub(super) async fn independent(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut source = Contents::new(&vol, 2 << 20, case.random());
    source.fill().await?;
    let twin = case.cloned(&vol.name, "", "c", 0).await?;
    let (shown, open) = (case.show(&twin.name).await?.size, twin.size()?);
    ensure(shown == SIZE && open == SIZE, || {
        format!("a clone of {SIZE} bytes is shown with {shown} and open with {open}")
    })?;
    let mut copy = Contents::new(&twin, 2 << 20, case.random());
    copy.wanted.clone_from(&source.wanted);
    copy.random.next();
    copy.expect("in a new clone").await?;
    twin.expect_zeros(2 << 20, 2 << 20, "in a clone, where its source was not written").await?;
    for _ in 0..case.plan.rounds(40) {
        let (at, len) = source.place(64 << 10, vol.sector());
        source.write(at, len).await?;
        let (at, len) = copy.place(64 << 10, vol.sector());
        copy.write(at, len).await?;
        if case.has(Abilities::DISCARD) {
            let (at, len) = copy.place(64 << 10, vol.sector());
            copy.discard(at, len).await?;
        }
    }
    source.expect("in the source, after writes to its clone").await?;
    copy.expect("in a clone, after writes to its source").await
}

pub(super) async fn of_snapshot(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    vol.snapshot("s").await?;
    let wanted = contents.wanted.clone();
    contents.fill().await?;
    let twin = case.cloned(&vol.name, "s", "c", 0).await?;
    twin.expect(0, &wanted, "in a clone of a snapshot").await?;
    let late = case.random().bytes(vol.sector());
    twin.write(0, &late).await?;
    contents.expect("in the volume, after a write to a clone of its snapshot").await?;
    let second = case.cloned(&vol.name, "s", "d", 0).await?;
    second.expect(0, &wanted, "in a second clone of a snapshot, after a write to the first").await
}

pub(super) async fn sizes(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let data = case.random().bytes(SIZE);
    vol.write_whole(0, &data).await?;
    let larger = SIZE + (1 << 20) + vol.sector();
    let twin = case.cloned(&vol.name, "", "larger", larger).await?;
    let size = twin.size()?;
    ensure(size == larger, || format!("a clone of {larger} bytes has {size}"))?;
    twin.expect(0, &data, "in a larger clone").await?;
    twin.expect_zeros(SIZE, larger - SIZE, "past the source's end in a larger clone").await?;
    let name = case.name("smaller");
    let answer = case.try_clone(&vol.name, "", &name, SIZE / 2).await?;
    refusal("a clone smaller than its source", answer, &[ErrorKind::INVALID_ARGUMENT])?;
    let made = case.list().await?.iter().any(|volume| volume.name == name);
    ensure(!made, || "a refused clone left a volume behind".to_owned())
}

pub(super) async fn refusals(case: &Case<'_>) -> Checked {
    let (missing, target) = (case.name("missing"), case.name("target"));
    let vol = case.fresh_sized("v", SIZE).await?;
    let wanted = &[ErrorKind::NOT_FOUND];
    refusal("a clone of nothing", case.try_clone(&missing, "", &target, 0).await?, wanted)?;
    if case.has(Abilities::SNAPSHOT) {
        let answer = case.try_clone(&vol.name, "missing", &target, 0).await?;
        refusal("a clone of a missing snapshot", answer, wanted)?;
    }
    let made = case.list().await?.iter().any(|volume| volume.name == target);
    ensure(!made, || "a refused clone left a volume behind".to_owned())?;
    let taken = case.fresh_sized("taken", SIZE * 2).await?;
    let data = case.random().bytes(vol.sector());
    taken.write(0, &data).await?;
    taken.detach().await?;
    let answer = case.try_clone(&vol.name, "", &taken.name, 0).await?;
    refusal("a clone onto another volume", answer, &[ErrorKind::ALREADY_EXISTS])?;
    let taken = case.attach(&taken.name).await?;
    taken.expect(0, &data, "in a volume that a clone was refused onto").await?;
    let size = taken.size()?;
    ensure(size == SIZE * 2, || format!("a refused clone changed its target's size to {size}"))
}

pub(super) async fn dependents(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", SIZE).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    let mut wanted = vec![("c", contents.wanted.clone())];
    let name = case.name("c");
    success("clone", case.try_clone(&vol.name, "", &name, 0).await?)?;
    let allowed = &[ErrorKind::IN_USE];
    if case.has(Abilities::SNAPSHOT) {
        contents.fill().await?;
        vol.snapshot("s").await?;
        wanted.push(("of-snapshot", contents.wanted.clone()));
        let name = case.name("of-snapshot");
        success("clone", case.try_clone(&vol.name, "s", &name, 0).await?)?;
        contents.fill().await?;
        let answer = vol.try_delete_snapshot("s").await?;
        if answer.is_err() {
            refusal("deleting a snapshot that a clone came from", answer, allowed)?;
        }
        contents.expect("after its snapshot's deletion").await?;
    }
    vol.detach().await?;
    let answer = case.try_delete(&vol.name).await?;
    let deleted = answer.is_ok();
    if !deleted {
        refusal("deleting a volume that a clone came from", answer, allowed)?;
        let vol = case.attach(&vol.name).await?;
        vol.expect(0, &contents.wanted, "after a refused delete").await?;
        vol.detach().await?;
    }
    for (suffix, wanted) in wanted {
        let twin = case.attach(&case.name(suffix)).await?;
        twin.expect(0, &wanted, "in a clone, after its source was to be deleted").await?;
        twin.detach().await?;
    }
    Ok(())
}
