// SPDX-License-Identifier: Apache-2.0
//! Snapshots and clones that are taken while writers go on.

use driver_api::Abilities;

use crate::{
    case::Case,
    volume::{Checked, not_claimed},
    writers::{Moment, Writers},
};

pub(super) async fn snapshot(case: &Case<'_>) -> Checked {
    if !case.has(Abilities::CLONE) && !case.has(Abilities::ROLLBACK) {
        return not_claimed("snapshots can be neither cloned nor rolled back to");
    }
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let writers = Writers::start(&vol);
    let mut taken = Vec::new();
    for index in 0..case.plan.rounds(4) {
        writers.more().await;
        let (name, asked) = (format!("s{index}"), writers.tick());
        vol.snapshot(&name).await?;
        taken.push((name, Moment { asked, answered: writers.tick() }));
    }
    writers.more().await;
    let written = writers.end().await?;
    for (name, moment) in &taken {
        if case.has(Abilities::CLONE) {
            let picture = case.cloned(&vol.name, name, &format!("c-{name}"), 0).await?;
            written.judge(&picture, moment).await?;
            picture.detach().await?;
        } else {
            vol.rollback(name).await?;
            written.judge(&vol, moment).await?;
        }
    }
    Ok(())
}

pub(super) async fn clone(case: &Case<'_>) -> Checked {
    let vol = case.fresh_sized("v", 4 << 20).await?;
    let writers = Writers::start(&vol);
    let mut taken = Vec::new();
    for index in 0..case.plan.rounds(4) {
        writers.more().await;
        let asked = writers.tick();
        let name = case.name(&format!("c{index}"));
        crate::volume::success("clone", case.try_clone(&vol.name, "", &name, 0).await?)?;
        taken.push((name, Moment { asked, answered: writers.tick() }));
    }
    writers.more().await;
    let written = writers.end().await?;
    for (name, moment) in &taken {
        let picture = case.attach(name).await?;
        written.judge(&picture, moment).await?;
        picture.detach().await?;
    }
    Ok(())
}
