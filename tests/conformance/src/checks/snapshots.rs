// SPDX-License-Identifier: Apache-2.0
//! Snapshots: lists, content, rollback and deletion.

use driver_api::{Abilities, ErrorKind, ext::Snapshots as _};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, Vol, answer, ensure, not_claimed, refusal, success},
};

/// Shows a snapshot's content: as a clone, or by rolling the volume back to it.
async fn picture(case: &Case<'_>, vol: &Vol, snapshot: &str) -> Checked<Vol> {
    if case.has(Abilities::CLONE) {
        return case.cloned(&vol.name, snapshot, &format!("c-{snapshot}"), 0).await;
    }
    if !case.has(Abilities::ROLLBACK) {
        return not_claimed("snapshots can be neither cloned nor rolled back to");
    }
    vol.rollback(snapshot).await?;
    Ok(vol.clone())
}

pub(super) async fn list(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let names = ["zulu", "alpha", "Mike", "a.b-c_d"];
    ensure(vol.snapshot_names().await?.is_empty(), || "a new volume has snapshots".to_owned())?;
    for name in names {
        vol.snapshot(name).await?;
    }
    let listed = vol.snapshot_names().await?;
    ensure(listed == names, || format!("snapshots {names:?} are listed as {listed:?}"))?;
    let op = vol.snapshots()?.list(&vol.cx());
    let infos = success("list of snapshots", answer(vol.deadline, "list", op).await?)?;
    for info in &infos {
        ensure(info.size == 4 << 20, || {
            format!("snapshot {} of a volume of 4 MiB has {} bytes", info.name, info.size)
        })?;
    }
    let again =
        answer(vol.deadline, "snapshot", vol.snapshots()?.create(&vol.cx(), "alpha")).await?;
    refusal("a second snapshot of one name", again, &[ErrorKind::ALREADY_EXISTS])?;
    let missing = vol.try_delete_snapshot("missing").await?;
    refusal("deleting a missing snapshot", missing, &[ErrorKind::NOT_FOUND])?;
    if case.has(Abilities::ROLLBACK) {
        let op = vol.snapshots()?.rollback(&vol.cx(), "missing");
        let missing = answer(vol.deadline, "rollback", op).await?;
        refusal("rolling back to a missing snapshot", missing, &[ErrorKind::NOT_FOUND])?;
    }
    success("delete of a snapshot", vol.try_delete_snapshot("alpha").await?)?;
    let listed = vol.snapshot_names().await?;
    ensure(listed == ["zulu", "Mike", "a.b-c_d"], || {
        format!("after alpha was deleted, snapshots of {names:?} are {listed:?}")
    })
}

pub(super) async fn fixed(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let mut contents = Contents::new(&vol, 2 << 20, case.random());
    contents.fill().await?;
    let mut taken = Vec::new();
    for index in 0..3 {
        vol.snapshot(&format!("s{index}")).await?;
        taken.push(contents.wanted.clone());
        for _ in 0..20 {
            let (at, len) = contents.place(64 << 10, vol.sector());
            contents.write(at, len).await?;
        }
        if case.has(Abilities::DISCARD) {
            contents.discard(index << 18, 128 << 10).await?;
        }
    }
    contents.expect("in a volume with snapshots").await?;
    for (index, wanted) in taken.iter().enumerate() {
        let picture = picture(case, &vol, &format!("s{index}")).await?;
        picture.expect(0, wanted, "in a snapshot of a volume written since").await?;
        picture.expect_zeros(2 << 20, 2 << 20, "in a snapshot, where nothing was written").await?;
    }
    Ok(())
}

pub(super) async fn rollback(case: &Case<'_>) -> Checked {
    let size = 4 << 20;
    let vol = case.fresh_sized("v", size).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    vol.snapshot("first").await?;
    let wanted = contents.wanted.clone();
    contents.fill().await?;
    let late = case.random().bytes(vol.sector());
    vol.write(3 << 20, &late).await?;
    if case.has(Abilities::GROW) {
        vol.resize(size * 2, false).await?;
        vol.write(size * 2 - vol.sector(), &late).await?;
    }
    for round in ["after a rollback", "after a second rollback"] {
        vol.rollback("first").await?;
        let now = vol.size()?;
        ensure(now == size, || format!("{round} the volume has {now} bytes, not {size}"))?;
        vol.expect(0, &wanted, round).await?;
        vol.expect_zeros(3 << 20, 1 << 20, round).await?;
        let names = vol.snapshot_names().await?;
        ensure(names == ["first"], || format!("{round} the snapshots are {names:?}"))?;
        vol.write(0, &late).await?;
    }
    if case.has(Abilities::GROW) {
        vol.resize(size * 2, false).await?;
        vol.expect_zeros(size, size, "in what was rolled back and grown again").await?;
    }
    Ok(())
}

pub(super) async fn delete(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    let mut taken = Vec::new();
    for index in 0..4 {
        let (at, len) = (index << 17, 512 << 10);
        contents.write(at, len).await?;
        vol.snapshot(&format!("s{index}")).await?;
        taken.push(contents.wanted.clone());
    }
    for index in [1, 0, 3] {
        success("delete of a snapshot", vol.try_delete_snapshot(&format!("s{index}")).await?)?;
        contents.expect("after a snapshot was deleted").await?;
    }
    let left = vol.snapshot_names().await?;
    ensure(left == ["s2"], || format!("of s0 to s3, all but s2 deleted, there are {left:?}"))?;
    vol.snapshot("s1").await?;
    if case.has(Abilities::CLONE) || case.has(Abilities::ROLLBACK) {
        let picture = picture(case, &vol, "s2").await?;
        picture.expect(0, &taken[2], "in a snapshot whose neighbours were deleted").await?;
    }
    Ok(())
}

pub(super) async fn protect(case: &Case<'_>) -> Checked {
    let mut vol = case.fresh_sized("v", 4 << 20).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    let wanted = contents.wanted.clone();
    vol.snapshot("kept").await?;
    vol.snapshot("loose").await?;
    let missing = vol.try_protect("missing", true).await?;
    refusal("protecting a missing snapshot", missing, &[ErrorKind::NOT_FOUND])?;
    for _ in 0..2 {
        let info = success("protect", vol.try_protect("kept", true).await?)?;
        ensure(info.is_protected() && info.name == "kept", || {
            format!("a protected snapshot came back as {info:?}")
        })?;
    }
    if case.has(Abilities::PERSISTENT) {
        case.restart().await?;
        vol = case.attach(&vol.name).await?;
    }
    let listed = vol.protected_names().await?;
    ensure(listed == ["kept"], || {
        format!("of kept and loose, {listed:?} are listed as protected")
    })?;
    let deleted = vol.try_delete_snapshot("kept").await?;
    refusal("deleting a protected snapshot", deleted, &[ErrorKind::IN_USE])?;
    success("delete of a snapshot", vol.try_delete_snapshot("loose").await?)?;
    vol.detach().await?;
    let deleted = case.try_delete(&vol.name).await?;
    refusal("deleting a volume with a protected snapshot", deleted, &[ErrorKind::IN_USE])?;
    let vol = case.attach(&vol.name).await?;
    let names = vol.snapshot_names().await?;
    ensure(names == ["kept"], || format!("of a protected snapshot there is left {names:?}"))?;
    vol.expect(0, &wanted, "in a volume with a protected snapshot").await?;
    for _ in 0..2 {
        let info = success("protect", vol.try_protect("kept", false).await?)?;
        ensure(!info.is_protected(), || format!("without protection, it is {info:?}"))?;
    }
    success("delete of a snapshot", vol.try_delete_snapshot("kept").await?)
}

pub(super) async fn survive(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    vol.snapshot("second").await?;
    let wanted = contents.wanted.clone();
    contents.fill().await?;
    vol.snapshot("first").await?;
    case.restart().await?;
    let vol = case.attach(&vol.name).await?;
    let names = vol.snapshot_names().await?;
    ensure(names == ["second", "first"], || format!("after a restart snapshots are {names:?}"))?;
    vol.expect(0, &contents.wanted, "in a volume with snapshots after a restart").await?;
    if case.has(Abilities::CLONE) || case.has(Abilities::ROLLBACK) {
        let picture = picture(case, &vol, "second").await?;
        picture.expect(0, &wanted, "in a snapshot after a restart").await?;
    }
    Ok(())
}
