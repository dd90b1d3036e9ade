// SPDX-License-Identifier: Apache-2.0
//! Volumes that get another name.

use driver_api::{Abilities, ErrorKind};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, ensure, refusal, success},
};

const SIZE: u64 = 4 << 20;

pub(super) async fn rename(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("old", SIZE).await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    if case.has(Abilities::SNAPSHOT) {
        vol.snapshot("s").await?;
    }
    vol.detach().await?;
    let to = case.name("new");
    let info = case.done("rename", case.backend().rename(&case.cx(), &vol.name, &to)).await?;
    ensure(info.name == *to && info.size == SIZE, || {
        format!("a volume of {SIZE} bytes, renamed to {to}, came back as {info:?}")
    })?;
    let names: Vec<_> = case.list().await?.into_iter().map(|one| one.name.into_string()).collect();
    ensure(names == [to.as_str()], || {
        format!("after {} became {to}, there are {names:?}", vol.name)
    })?;
    let shown = case.answer("show", case.backend().show(&case.cx(), &vol.name)).await?;
    refusal("showing a volume by its old name", shown, &[ErrorKind::NOT_FOUND])?;
    if case.has(Abilities::PERSISTENT) {
        case.restart().await?;
    }
    let renamed = case.attach(&to).await?;
    renamed.expect(0, &contents.wanted, "in a renamed volume").await?;
    if case.has(Abilities::SNAPSHOT) {
        let names = renamed.snapshot_names().await?;
        ensure(names == ["s"], || format!("a renamed volume has the snapshots {names:?}"))?;
    }
    renamed.detach().await?;
    let again = case.fresh_sized("old", SIZE).await?;
    again.expect_zeros(0, 1 << 20, "in a new volume of the old name").await?;
    let renamed = case.attach(&to).await?;
    renamed.expect(0, &contents.wanted, "beside a new volume of its old name").await
}

pub(super) async fn refused(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("old", SIZE).await?;
    let data = case.random().bytes(vol.sector());
    vol.write(0, &data).await?;
    let (free, missing) = (case.name("free"), case.name("missing"));
    let backend = case.backend();
    let attached = case.answer("rename", backend.rename(&case.cx(), &vol.name, &free)).await?;
    refusal("renaming an attached volume", attached, &[ErrorKind::IN_USE])?;
    vol.expect(0, &data, "after a refused renaming").await?;
    vol.detach().await?;
    let gone = case.answer("rename", backend.rename(&case.cx(), &missing, &free)).await?;
    refusal("renaming what is not there", gone, &[ErrorKind::NOT_FOUND])?;
    let taken = case.fresh_sized("taken", SIZE).await?;
    let other = case.random().bytes(vol.sector() * 2);
    taken.write(0, &other).await?;
    taken.detach().await?;
    let onto = case.answer("rename", backend.rename(&case.cx(), &vol.name, &taken.name)).await?;
    refusal("renaming onto another volume", onto, &[ErrorKind::ALREADY_EXISTS])?;
    let found = case.answer("show", backend.show(&case.cx(), &free)).await?;
    refusal("showing the name of a refused renaming", found, &[ErrorKind::NOT_FOUND])?;
    for (name, wanted) in [(&vol.name, &data), (&taken.name, &other)] {
        let vol = success("attach", case.try_attach(name, case.exclusive("conformance")).await?)?;
        vol.expect(0, wanted, "after a refused renaming").await?;
        vol.detach().await?;
    }
    Ok(())
}
