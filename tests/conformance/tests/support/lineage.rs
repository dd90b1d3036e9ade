// SPDX-License-Identifier: Apache-2.0
//! What volumes of the reference need of each other, and their names.

use std::collections::BTreeMap;

use driver_api::{
    Abilities, AttachMode, ErrorKind, Result, VolumeInfo,
    ext::{Flattening, unsupported},
};

use super::{
    backend::Opening,
    content::PAGE,
    defect::Defect,
    store::{Disk, Store},
};

impl Opening {
    pub fn check_dependents(&self, disks: &BTreeMap<String, Disk>, name: &str) -> Result<()> {
        let store = self.store();
        let is_kept = disks[name].snapshots.iter().any(|snapshot| snapshot.protected);
        if is_kept && !store.is(Defect::ProtectedGoesWithVolume) {
            return Err(store.error(ErrorKind::IN_USE, "a snapshot is protected"));
        }
        let mut others = disks.values();
        let is_needed = others.any(|disk| disk.needs.as_deref() == Some(name));
        if is_needed && !store.is(Defect::DeleteBreaksClone) {
            return Err(store.error(ErrorKind::IN_USE, "a clone needs the volume"));
        }
        Ok(())
    }

    pub fn rename_now(&self, name: &str, to: &str) -> Result<VolumeInfo> {
        let store = self.store();
        if !store.has(Abilities::RENAME) {
            return Err(unsupported("rename"));
        }
        let mut disks = store.disks();
        let Some(mut disk) = disks.get(name).cloned() else { return Err(store.missing(name)) };
        if !disk.holders.is_empty() && !store.is(Defect::RenameWhileAttached) {
            return Err(store.error(ErrorKind::IN_USE, "the volume is attached"));
        }
        if disks.contains_key(to) && !store.is(Defect::RenameOverwrites) {
            return Err(store.error(ErrorKind::ALREADY_EXISTS, "there is one of the new name"));
        }
        if store.is(Defect::RenameForgetsSnapshots) {
            disk.snapshots.clear();
        }
        let info = store.info(to, &disk);
        if !store.is(Defect::RenameKeepsOld) {
            disks.remove(name);
        }
        disks.insert(to.to_owned(), disk);
        for other in disks.values_mut().filter(|other| other.needs.as_deref() == Some(name)) {
            other.needs = Some(to.to_owned());
        }
        Ok(info)
    }

    fn attached<R>(&self, name: &str, work: impl FnOnce(&Store, &mut Disk) -> R) -> Result<R> {
        let store = self.store();
        if !store.has(Abilities::FLATTEN) {
            return Err(unsupported("flatten"));
        }
        store.on(name, |disk| {
            let writers =
                |disk: &Disk| disk.holders.iter().any(|one| one.mode == AttachMode::EXCLUSIVE);
            if !writers(disk) {
                return Err(store.error(ErrorKind::INVALID_ARGUMENT, "the volume is not attached"));
            }
            Ok(work(store, disk))
        })
    }

    pub fn flatten_now(&self, name: &str, on: bool) -> Result<()> {
        self.attached(name, |store, disk| {
            let flattening = &mut disk.flattening;
            if on && disk.needs.is_some() && !flattening.running {
                *flattening =
                    Flattening { running: true, total: disk.size, ..Flattening::default() };
            }
            if !on && flattening.running {
                flattening.running = false;
                if !store.is(Defect::FlattenMute) {
                    flattening.reason = "it was ended".into();
                }
            }
        })
    }

    /// Each question brings it a quarter further.
    pub fn flattening_now(&self, name: &str) -> Result<Flattening> {
        self.attached(name, |store, disk| {
            let flattening = &mut disk.flattening;
            if flattening.running {
                flattening.done = (flattening.done + flattening.total / 4).min(flattening.total);
            }
            if flattening.running && flattening.done == flattening.total {
                flattening.running = false;
                if !store.is(Defect::FlattenKeepsNeed) {
                    disk.needs = None;
                }
                if store.is(Defect::FlattenLosesData) {
                    disk.live.zero(0, 8 * PAGE, false);
                }
            }
            Flattening {
                needs: disk.needs.clone().unwrap_or_default().into(),
                ..disk.flattening.clone()
            }
        })
    }
}
