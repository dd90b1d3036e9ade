// SPDX-License-Identifier: Apache-2.0
//! Many requests for the backend at once.

use driver_api::{BackendHandle, Error, ErrorKind, Op};
use tokio::task::JoinSet;

use crate::{
    case::Case,
    volume::{Checked, Vol, answer, broken, ensure, refusal, success},
};

const MANY: u64 = 64;

/// Starts all at once, each on a task of its own, and collects the answers in the order of their numbers.
async fn all_at_once<T: Send + 'static>(
    case: &Case<'_>,
    what: &'static str,
    count: u64,
    start: impl Fn(&BackendHandle, u64) -> Op<T> + Clone + Send + 'static,
) -> Checked<Vec<Result<T, Error>>> {
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let (backend, deadline, start) = (case.backend(), case.plan.deadline, start.clone());
        tasks.spawn(async move {
            tokio::task::yield_now().await;
            (index, answer(deadline, what, start(&backend, index)).await)
        });
    }
    let mut answers = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let Ok((index, answer)) = ended else { return broken("a task ended early") };
        answers.push((index, answer?));
    }
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

pub(super) async fn create_many(case: &Case<'_>) -> Checked {
    let (cx, sector) = (case.cx(), case.sector());
    let names: Vec<String> = (0..MANY).map(|index| case.name(&format!("v{index}"))).collect();
    let specs: Vec<_> = (1..).zip(&names).map(|(n, name)| case.spec(name, sector * n)).collect();
    let start =
        move |backend: &BackendHandle, index| backend.create(&cx, specs[index as usize].clone());
    for created in all_at_once(case, "create", MANY, start).await? {
        success("one of many creates", created)?;
    }
    let listed = case.list().await?;
    for (size, name) in (1..).zip(&names) {
        let fits =
            |volume: &&driver_api::VolumeInfo| volume.name == *name && volume.size == sector * size;
        let times = listed.iter().filter(fits).count();
        ensure(times == 1, || {
            format!("{name}, one of many created at once, is listed {times} times")
        })?;
    }
    let doomed = names.clone();
    let start = move |backend: &BackendHandle, index| backend.delete(&cx, &doomed[index as usize]);
    for deleted in all_at_once(case, "delete", MANY, start).await? {
        success("one of many deletes", deleted)?;
    }
    let left = case.list().await?;
    ensure(left.is_empty(), || {
        format!("of {MANY} volumes deleted at once, {} are left", left.len())
    })
}

pub(super) async fn create_same(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let (cx, name) = (case.cx(), case.name(&format!("v{round}")));
        let sizes = [case.sector() * 64, case.sector() * 128];
        let specs = sizes.map(|size| case.spec(&name, size));
        let start = move |backend: &BackendHandle, index| {
            backend.create(&cx, specs[index as usize % 2].clone())
        };
        let answers = all_at_once(case, "create", MANY / 2, start).await?;
        let size = case.show(&name).await?.size;
        for (index, answer) in answers.into_iter().enumerate() {
            if sizes[index % 2] == size {
                let info = success("a create of the size that won", answer)?;
                ensure(info.size == size, || format!("a create says {} bytes", info.size))?;
            } else {
                let kinds = &[ErrorKind::ALREADY_EXISTS];
                refusal("a create of the size that lost", answer, kinds)?;
            }
        }
        let times = case.list().await?.iter().filter(|volume| volume.name == name).count();
        ensure(times == 1, || format!("created by many at once, {name} is listed {times} times"))?;
        case.delete(&name).await?;
    }
    Ok(())
}

pub(super) async fn delete_same(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let (cx, name) = (case.cx(), case.name(&format!("v{round}")));
        case.create(&name, case.sector() * 64).await?;
        let doomed = name.clone();
        let start = move |backend: &BackendHandle, _| backend.delete(&cx, &doomed);
        let mut done = 0;
        for answer in all_at_once(case, "delete", MANY / 4, start).await? {
            match answer {
                Ok(()) => done += 1,
                // One delete under way may keep another from it, but not from telling.
                refused => {
                    let kinds = &[ErrorKind::NOT_FOUND, ErrorKind::IN_USE];
                    refusal("a delete that came late", refused, kinds)?;
                }
            }
        }
        ensure(done == 1, || format!("{done} deletes of one volume succeeded"))?;
    }
    Ok(())
}

pub(super) async fn attach_same(case: &Case<'_>) -> Checked {
    for round in 0..case.plan.rounds(4) {
        let name = case.name(&format!("v{round}"));
        case.create(&name, case.sector() * 64).await?;
        let contenders: Vec<_> =
            (0..16).map(|index| case.exclusive(&format!("contender-{index}"))).collect();
        let (cx, wanted) = (case.cx(), name.clone());
        let epochs: Vec<u64> = contenders.iter().map(|attach| attach.epoch).collect();
        let start = move |backend: &BackendHandle, index| {
            let attach = contenders[index as usize].clone();
            backend.attach(&cx, &wanted, attach)
        };
        let mut holders = 0;
        for (epoch, answer) in epochs.into_iter().zip(all_at_once(case, "attach", 16, start).await?)
        {
            match answer {
                Ok(handle) => {
                    holders += 1;
                    let (caps, deadline) = (case.caps, case.plan.deadline);
                    let vol = Vol { handle, name: name.clone(), caps, epoch, deadline };
                    crate::case::lock(&case.attached).push(vol);
                }
                // The winner may be one of a higher epoch.
                refused => {
                    let kinds = &[ErrorKind::IN_USE, ErrorKind::FENCED];
                    refusal("an attachment that came late", refused, kinds)?;
                }
            }
        }
        ensure(holders == 1, || format!("{holders} of 16 exclusive attachments succeeded"))?;
    }
    Ok(())
}
