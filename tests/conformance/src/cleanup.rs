// SPDX-License-Identifier: Apache-2.0
//! Leaves the backend as it was found, whatever a check did.

use driver_api::{Abilities, ErrorKind};

use crate::{
    case::{Case, lock},
    objects::remove_buckets,
    volume::{Checked, Stop, Vol, broken},
};

/// Clones depend on snapshots, and those on volumes: each round removes at least one level.
const ROUNDS: usize = 6;

/// Removes all that the check made.
pub(crate) async fn remove_all(case: &Case<'_>) -> Checked {
    let volumes = match case.caps.abilities.has_volumes() {
        true => remove_volumes(case).await,
        false => Ok(()),
    };
    match case.has(Abilities::OBJECTS) {
        true => volumes.and(remove_buckets(case).await),
        false => volumes,
    }
}

async fn remove_volumes(case: &Case<'_>) -> Checked {
    let attached: Vec<Vol> = lock(&case.attached).drain(..).collect();
    for vol in attached {
        // Most are detached or fenced by now, and say so. One that hangs shows below: its volume stays in use.
        let _ = vol.try_detach().await;
    }
    let mut why = String::new();
    for _ in 0..ROUNDS {
        let mut left = std::mem::take(&mut *lock(&case.names));
        left.extend(case.list().await?.into_iter().map(|volume| volume.name.into_string()));
        left.sort();
        left.dedup();
        let mut remain = false;
        for name in left {
            match case.try_delete(&name).await? {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                Err(error) => {
                    why = format!("{name} cannot be deleted: {error:?}");
                    remain = true;
                    lock(&case.names).push(name.clone());
                    if let Err(Stop::Failed(reason)) = remove_snapshots(case, &name).await {
                        why = format!("{why}; {reason}");
                    }
                }
            }
        }
        if !remain {
            return Ok(());
        }
    }
    broken(why)
}

async fn remove_snapshots(case: &Case<'_>, name: &str) -> Checked {
    let vol = match case.try_attach(name, case.exclusive("cleanup").force()).await? {
        Ok(vol) => vol,
        Err(error) => return broken(format!("it cannot be attached: {error}")),
    };
    if matches!(vol.handle.snapshots(), Ok(Some(_))) {
        for snapshot in vol.snapshot_names().await? {
            if case.has(Abilities::PROTECT) {
                // What is wrong with it shows when it cannot be deleted.
                let _ = vol.try_protect(&snapshot, false).await?;
            }
            // One that a clone still needs goes in a later round.
            let _ = vol.try_delete_snapshot(&snapshot).await?;
        }
    }
    vol.detach().await
}
