// SPDX-License-Identifier: Apache-2.0
//! Create, list, show and delete: names, repetitions and refusals.

use driver_api::ErrorKind;

use crate::{
    case::Case,
    volume::{Checked, broken, ensure, refusal, success},
};

/// The smallest volume worth making.
fn small(case: &Case<'_>) -> u64 {
    case.sector() * 128
}

pub(super) async fn create_show_list_delete(case: &Case<'_>) -> Checked {
    let (name, size) = (case.name("v"), case.plan.volume_size);
    let created = case.create(&name, size).await?;
    let shown = case.show(&name).await?;
    let listed = case.list().await?;
    let Some(listed) = listed.iter().find(|volume| volume.name == name) else {
        return broken("a volume that was created is not in the list");
    };
    for (source, info) in [("create", &created), ("show", &shown), ("list", listed)] {
        ensure(info.name == name && info.size == size, || {
            format!(
                "{source} says {} of {} bytes; asked for {name} of {size}",
                info.name, info.size
            )
        })?;
    }
    case.delete(&name).await?;
    let gone = case.list().await?.iter().all(|volume| volume.name != name);
    ensure(gone, || "a deleted volume is still in the list".to_owned())?;
    let shown = case.answer("show", case.backend().show(&case.cx(), &name)).await?;
    refusal("showing a deleted volume", shown, &[ErrorKind::NOT_FOUND]).map(|_| ())
}

pub(super) async fn names(case: &Case<'_>) -> Checked {
    let mut names: Vec<String> =
        ["a", "A", "a.b", "a-b", "a_b", "a.", "a.raw", "a.qcow2", "a..b", "a.snapshots", "0"]
            .iter()
            .map(|suffix| case.name(suffix))
            .collect();
    let mut longest = case.name("x");
    longest.extend(std::iter::repeat_n('x', 128_usize.saturating_sub(longest.len())));
    names.push(longest);
    for (index, name) in names.iter().enumerate() {
        case.create(name, small(case) + case.sector() * index as u64).await?;
    }
    for (index, name) in names.iter().enumerate() {
        let (info, size) = (case.show(name).await?, small(case) + case.sector() * index as u64);
        ensure(info.name == *name, || format!("{name} came back as {}", info.name))?;
        ensure(info.size == size, || format!("{name} has {} bytes, not {size}", info.size))?;
    }
    let listed = case.list().await?;
    for name in &names {
        let times = listed.iter().filter(|volume| volume.name == *name).count();
        ensure(times == 1, || format!("{name} is listed {times} times"))?;
    }
    ensure(listed.len() == names.len(), || {
        let listed: Vec<_> = listed.iter().map(|volume| volume.name.as_str()).collect();
        format!("{} volumes were made, but the list is {listed:?}", names.len())
    })
}

pub(super) async fn create_again(case: &Case<'_>) -> Checked {
    let (name, size) = (case.name("v"), small(case));
    case.create(&name, size).await?;
    let data = case.random().bytes(case.sector());
    let vol = case.attach(&name).await?;
    vol.write(0, &data).await?;
    vol.detach().await?;
    let again = success("creating the same volume again", case.try_create(&name, size).await?)?;
    ensure(again.size == size, || format!("the second create says {} bytes", again.size))?;
    let vol = case.attach(&name).await?;
    vol.expect(0, &data, "after the volume was created again").await
}

pub(super) async fn already_exists(case: &Case<'_>) -> Checked {
    let (name, size) = (case.name("v"), small(case));
    case.create(&name, size).await?;
    let data = case.random().bytes(case.sector());
    let vol = case.attach(&name).await?;
    vol.write(0, &data).await?;
    vol.detach().await?;
    for other in [size * 2, size / 2] {
        let answer = case.try_create(&name, other).await?;
        let what = format!("creating {other} bytes where there is a volume of {size}");
        refusal(&what, answer, &[ErrorKind::ALREADY_EXISTS])?;
        let now = case.show(&name).await?.size;
        ensure(now == size, || format!("{what} changed the size to {now}"))?;
    }
    let vol = case.attach(&name).await?;
    vol.expect(0, &data, "after a refused create").await
}

pub(super) async fn not_found(case: &Case<'_>) -> Checked {
    let missing = case.name("missing");
    let wanted = &[ErrorKind::NOT_FOUND];
    let shown = case.answer("show", case.backend().show(&case.cx(), &missing)).await?;
    refusal("showing a volume that is not there", shown, wanted)?;
    let attached = case.try_attach(&missing, case.exclusive("conformance")).await?;
    refusal("attaching a volume that is not there", attached, wanted)?;
    refusal("deleting a volume that is not there", case.try_delete(&missing).await?, wanted)?;
    let name = case.name("deleted");
    case.create(&name, small(case)).await?;
    case.delete(&name).await?;
    refusal("deleting a deleted volume", case.try_delete(&name).await?, wanted)?;
    let attached = case.try_attach(&name, case.exclusive("conformance")).await?;
    refusal("attaching a deleted volume", attached, wanted).map(|_| ())
}

pub(super) async fn unknown_option(case: &Case<'_>) -> Checked {
    let name = case.name("v");
    let spec = case.spec(&name, small(case)).option("no_such_option_of_any_driver", "1");
    let answer = case.answer("create", case.backend().create(&case.cx(), spec)).await?;
    refusal("an unknown volume option", answer, &[ErrorKind::INVALID_ARGUMENT])?;
    let made = case.list().await?.iter().any(|volume| volume.name == name);
    ensure(!made, || "a refused create left a volume behind".to_owned())
}

pub(super) async fn delete_in_use(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", small(case)).await?;
    let data = case.random().bytes(case.sector());
    vol.write(0, &data).await?;
    let answer = case.try_delete(&vol.name).await?;
    refusal("deleting an attached volume", answer, &[ErrorKind::IN_USE])?;
    vol.expect(0, &data, "after a refused delete").await?;
    vol.detach().await?;
    case.delete(&vol.name).await
}

pub(super) async fn recreated(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let data = case.random().bytes(1 << 20);
    for at in [0, 3 << 20] {
        vol.write_whole(at, &data).await?;
    }
    vol.flush().await?;
    vol.detach().await?;
    case.delete(&vol.name).await?;
    case.create(&vol.name, 4 << 20).await?;
    let vol = case.attach(&vol.name).await?;
    vol.expect_zeros(0, 4 << 20, "in a volume of a deleted one's name").await
}
