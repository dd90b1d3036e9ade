// SPDX-License-Identifier: Apache-2.0
//! What is claimed, what is refused, and in which words.

use driver_api::{
    Abilities, Error, ErrorKind, WriteFlags,
    ext::{AllocationMap as _, Clones as _, Snapshots as _},
};

use crate::{
    case::Case,
    volume::{Checked, Vol, answer, broken, ensure, refusal, success},
};

fn agree(claimed: bool, present: bool, what: &str) -> Checked {
    match (claimed, present) {
        (true, false) => broken(format!("{what} is claimed, but there is no accessor")),
        (false, true) => broken(format!("{what} is not claimed, but there is an accessor")),
        _ => Ok(()),
    }
}

pub(super) async fn claims(case: &Case<'_>) -> Checked {
    let has = |ability| case.has(ability);
    let backend = case.backend();
    agree(has(Abilities::CLONE), success("clones", backend.clones())?.is_some(), "clone")?;
    let commands = success("commands", backend.commands())?.is_some();
    agree(has(Abilities::COMMANDS), commands, "commands")?;
    let cluster = success("cluster", backend.cluster())?.is_some();
    agree(has(Abilities::CLUSTER), cluster, "cluster")?;
    for (ability, needs) in [
        (Abilities::ROLLBACK, Abilities::SNAPSHOT),
        (Abilities::FAST_ZERO, Abilities::WRITE_ZEROES),
        (Abilities::FUA, Abilities::WRITE),
        (Abilities::FLATTEN, Abilities::CLONE),
        (Abilities::CHANGES, Abilities::ALLOCATION_MAP),
        (Abilities::PROTECT, Abilities::SNAPSHOT),
    ] {
        ensure(!has(ability) || has(needs), || {
            format!("{ability:?} is claimed without {needs:?}")
        })?;
    }
    let vol = case.fresh("v").await?;
    let snapshots = success("snapshots", vol.handle.snapshots())?;
    agree(has(Abilities::SNAPSHOT), snapshots.is_some(), "snapshot")?;
    let resizes = has(Abilities::GROW) || has(Abilities::SHRINK);
    agree(resizes, success("resize", vol.handle.resize())?.is_some(), "grow or shrink")?;
    let map = success("allocation_map", vol.handle.allocation_map())?.is_some();
    agree(has(Abilities::ALLOCATION_MAP), map, "allocation-map")?;
    let sessions = success("sessions", vol.handle.sessions())?.is_some();
    agree(has(Abilities::SESSIONS), sessions, "sessions")?;
    let (sector, unsupported) = (vol.sector(), &[ErrorKind::UNSUPPORTED]);
    let discarded = vol.try_discard(0, sector).await?;
    let zeroed = vol.try_zero(0, sector, WriteFlags::NONE).await?;
    let written = vol.try_write(0, &vec![1; sector as usize], WriteFlags::NONE).await?;
    for (ability, answer) in [
        (Abilities::DISCARD, discarded),
        (Abilities::WRITE_ZEROES, zeroed),
        (Abilities::WRITE, written),
    ] {
        let what = format!("{ability:?}");
        if has(ability) {
            success(&format!("{what}, which is claimed,"), answer)?;
        } else {
            refusal(&format!("{what}, which is not claimed,"), answer, unsupported)?;
        }
    }
    if let Some(snapshots) = snapshots
        && !has(Abilities::ROLLBACK)
    {
        vol.snapshot("s").await?;
        let op = snapshots.rollback(&vol.cx(), "s");
        let answer = answer(vol.deadline, "rollback", op).await?;
        refusal("a rollback, which is not claimed,", answer, unsupported)?;
    }
    newer(case, &vol).await?;
    let size = vol.size()?;
    for (ability, to) in [(Abilities::GROW, size * 2), (Abilities::SHRINK, size / 2)] {
        if resizes && !has(ability) {
            let answer = vol.try_resize(to, true).await?;
            refusal(&format!("{ability:?}, which is not claimed,"), answer, unsupported)?;
        }
    }
    Ok(())
}

/// The same of what single methods are the abilities of.
async fn newer(case: &Case<'_>, vol: &Vol) -> Checked {
    let (unsupported, cx) = (&[ErrorKind::UNSUPPORTED], case.cx());
    let what = |ability: Abilities| format!("{ability:?}, which is not claimed,");
    if !case.has(Abilities::RENAME) {
        let name = case.name("renamed");
        let op = case.backend().rename(&cx, &vol.name, &name);
        refusal(&what(Abilities::RENAME), case.answer("rename", op).await?, unsupported)?;
    }
    let clones = success("clones", case.backend().clones())?;
    if let Some(clones) = clones.filter(|_| !case.has(Abilities::FLATTEN)) {
        let op = clones.flatten(&cx, &vol.name, true);
        refusal(&what(Abilities::FLATTEN), case.answer("flatten", op).await?, unsupported)?;
    }
    let map = success("allocation_map", vol.handle.allocation_map())?;
    if let Some(map) = map.filter(|_| !case.has(Abilities::CHANGES)) {
        let op = map.changes(&cx, "", "", 0, vol.sector(), 1);
        refusal(&what(Abilities::CHANGES), case.answer("changes", op).await?, unsupported)?;
    }
    let snapshots = success("snapshots", vol.handle.snapshots())?;
    if let Some(snapshots) = snapshots.filter(|_| !case.has(Abilities::PROTECT)) {
        vol.snapshot("loose").await?;
        let op = snapshots.protect(&cx, "loose", true);
        refusal(&what(Abilities::PROTECT), case.answer("protect", op).await?, unsupported)?;
    }
    Ok(())
}

pub(super) async fn capabilities(case: &Case<'_>) -> Checked {
    let backend = success("capabilities", case.backend().capabilities())?;
    let vol = case.fresh("v").await?;
    let own = vol.caps;
    let more = own.abilities.without(backend.abilities);
    ensure(more == Abilities::NONE, || {
        format!("the volume claims {more:?}, its backend does not")
    })?;
    ensure(own.fencing == backend.fencing, || {
        format!(
            "fencing is {:?} for the backend and {:?} for its volume",
            backend.fencing, own.fencing
        )
    })?;
    for (whose, caps) in [("the backend", backend), ("the volume", own)] {
        let blocks_fit = caps.min_block.is_power_of_two()
            && caps.preferred_block >= caps.min_block
            && caps.preferred_block.is_multiple_of(caps.min_block)
            && caps.max_io.is_multiple_of(caps.min_block);
        ensure(blocks_fit, || {
            format!(
                "{whose} has min_block {}, preferred_block {} and max_io {}: each must be a multiple of the first",
                caps.min_block, caps.preferred_block, caps.max_io
            )
        })?;
        ensure(caps.max_volume_size >= case.plan.volume_size, || {
            format!("{whose} has a volume larger than its max_volume_size {}", caps.max_volume_size)
        })?;
    }
    let later = success("capabilities", vol.handle.capabilities())?;
    ensure(later.abilities == own.abilities, || {
        "a volume's abilities changed by themselves".to_owned()
    })
}

/// Whether an error's kind and words are of use.
fn useful<T>(what: &str, answer: Result<T, Error>) -> Checked {
    let Err(error) = answer else { return broken(format!("{what} succeeded")) };
    ensure(ErrorKind::ALL.contains(&error.kind()), || {
        format!("{what} failed with a kind that this ABI does not name: {:?}", error.kind())
    })?;
    ensure(error.kind() != ErrorKind::INTERNAL, || {
        format!("{what}, a fault of the caller, is called an internal one: {error}")
    })?;
    let words = error.message().split_whitespace().count();
    ensure(words >= 2, || format!("{what} failed with the words {:?}", error.message()))
}

pub(super) async fn texts(case: &Case<'_>) -> Checked {
    let missing = case.name("missing");
    let vol = case.fresh("v").await?;
    let (size, block) = (vol.size()?, u64::from(vol.caps.min_block));
    let shown = case.answer("show", case.backend().show(&case.cx(), &missing)).await?;
    useful("showing a volume that is not there", shown)?;
    useful("deleting a volume that is not there", case.try_delete(&missing).await?)?;
    let attached = case.try_attach(&missing, case.exclusive("conformance")).await?;
    useful("attaching a volume that is not there", attached.map(|_| ()))?;
    useful("deleting an attached volume", case.try_delete(&vol.name).await?)?;
    useful("another volume of that name", case.try_create(&vol.name, size * 2).await?)?;
    useful("reading past the end", vol.try_read(size, block).await?.map(|_| ()))
}
