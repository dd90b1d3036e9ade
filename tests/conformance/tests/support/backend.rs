// SPDX-License-Identifier: Apache-2.0
//! An opening of the store, as a driver's backend.

use std::sync::{Arc, atomic::Ordering};

use driver_api::{
    Abilities, Attach, AttachMode, Backend, Capabilities, Error, ErrorKind, Health, HealthState,
    Op, OpContext, RVec, Result, Stats, Usage, VolumeInfo, VolumeSpec, ext,
};

use super::{
    attachment::Attachment,
    content::{Content, PAGE},
    defect::Defect,
    store::{Disk, Holder, Store},
};

struct Life {
    store: Arc<Store>,
    id: u64,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.store.abandon(self.id);
    }
}

#[derive(Clone)]
pub struct Opening(Arc<Life>);

impl Opening {
    pub fn new(store: Arc<Store>) -> Self {
        let id = store.tokens.fetch_add(1, Ordering::SeqCst);
        store.reopened();
        Self(Arc::new(Life { store, id }))
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    fn check(&self, spec: &VolumeSpec) -> Result<()> {
        let store = self.store();
        if !spec.options.is_empty() && !store.is(Defect::OptionsIgnored) {
            return Err(store.error(ErrorKind::INVALID_ARGUMENT, "an option is unknown"));
        }
        Ok(())
    }

    fn new_disk(&self, name: &str, size: u64) -> Disk {
        let store = self.store();
        let mut disk = Disk { size, ..Disk::default() };
        if store.is(Defect::SizeRounded) {
            disk.size = size.next_multiple_of(1 << 20);
        }
        if store.is(Defect::NewNotZero) {
            disk.live.write(PAGE * 9, &[1]);
        }
        if store.is(Defect::RecreateKeepsData)
            && let Some(old) = store.buried.lock().expect("no panic").get(name)
        {
            disk.live = old.clone();
        }
        disk
    }

    fn create_now(&self, spec: &VolumeSpec, seen: Option<u64>) -> Result<VolumeInfo> {
        let store = self.store();
        self.check(spec)?;
        let mut disks = store.disks();
        let raced = store.is(Defect::CreateRace);
        let present =
            if raced { seen } else { disks.get(spec.name.as_str()).map(|disk| disk.size) };
        if let Some(size) = present {
            let same = size == self.new_disk(&spec.name, spec.size).size;
            if !same && !store.is(Defect::ExistsIgnored) {
                let error =
                    store.error(ErrorKind::ALREADY_EXISTS, "a volume of another size exists");
                return Err(error.with("volume", &spec.name));
            }
        }
        if present.is_none() || store.is(Defect::CreateAgainWipes) {
            disks.insert(spec.name.to_string(), self.new_disk(&spec.name, spec.size));
        }
        Ok(store.info(&spec.name, &disks[spec.name.as_str()]))
    }

    fn delete_now(&self, name: &str) -> Result<()> {
        let store = self.store();
        let mut disks = store.disks();
        let Some(disk) = disks.get(name) else {
            return Err(store.missing(name));
        };
        if !disk.holders.is_empty() && !store.is(Defect::DeleteWhileAttached) {
            let error = store.error(ErrorKind::IN_USE, "the volume is attached");
            return Err(error.with("holder", &disk.holders[0].owner));
        }
        self.check_dependents(&disks, name)?;
        if store.is(Defect::DeleteRefused) {
            return Err(store.error(ErrorKind::PERMISSION_DENIED, "volumes are for ever"));
        }
        let gone = disks.remove(name).expect("looked up above");
        if store.is(Defect::DeleteBreaksClone) {
            let clones = disks.values_mut().filter(|disk| disk.clone_of.as_deref() == Some(name));
            clones.for_each(|disk| disk.live = Content::default());
        }
        store.buried.lock().expect("no panic").insert(name.to_owned(), gone.live);
        Ok(())
    }

    fn in_use(&self, holder: &Holder) -> Error {
        let error = self.store().error(ErrorKind::IN_USE, "the volume is attached");
        let hidden = self.store().is(Defect::HolderUnnamed);
        error.with("holder", if hidden { "somebody" } else { &holder.owner })
    }

    fn attach_now(&self, name: &str, attach: &Attach, unseen: bool) -> Result<Attachment> {
        let store = self.store();
        let token = store.tokens.fetch_add(1, Ordering::SeqCst);
        store.on(name, |disk| {
            if attach.epoch < disk.epoch && !store.is(Defect::EpochForgotten) {
                return Err(store.error(ErrorKind::FENCED, "a later attachment was made"));
            }
            let own =
                |holder: &&Holder| !store.is(Defect::OpensDoNotMeet) || holder.opening == self.0.id;
            let reads = attach.mode == AttachMode::READ_ONLY;
            let shares = (store.has(Abilities::SHARED_READ)
                && !store.is(Defect::ReadersRefused)
                && disk.holders.iter().all(|holder| holder.mode == AttachMode::READ_ONLY))
                || store.is(Defect::ReaderBesideWriter);
            let free = unseen || store.is(Defect::SecondAttachAllowed) || (reads && shares);
            if let Some(holder) = disk.holders.iter().find(own)
                && !free
            {
                if !attach.force {
                    return Err(self.in_use(holder));
                }
                let mut fenced = store.fenced.lock().expect("no panic");
                fenced.extend(disk.holders.drain(..).map(|holder| holder.token));
            }
            disk.epoch = disk.epoch.max(attach.epoch);
            let owner = attach.owner.to_string();
            disk.holders.push(Holder { token, opening: self.0.id, mode: attach.mode, owner });
            Ok(())
        })?;
        Ok(Attachment::new(self.clone(), name, token))
    }
}

impl Backend for Opening {
    type Volume = Attachment;

    fn capabilities(&self) -> Capabilities {
        let mut caps = self.store().capabilities();
        if self.store().is(Defect::VolumeClaimsMore) {
            caps.abilities = caps.abilities.without(Abilities::DISCARD);
        }
        caps
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        let this = self.clone();
        let seen = self.store().disks().get(spec.name.as_str()).map(|disk| disk.size);
        Op::run(async move {
            tokio::task::yield_now().await;
            this.create_now(&spec, seen)
        })
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let (this, name) = (self.clone(), name.to_owned());
        let seen = self.store().disks().contains_key(&name);
        Op::run(async move {
            tokio::task::yield_now().await;
            let deleted = this.delete_now(&name);
            let raced = seen && this.store().is(Defect::DeleteRace);
            deleted.or_else(|error| if raced { Ok(()) } else { Err(error) })
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        let store = self.store();
        let most = match store.defect {
            Some(Defect::ListForgets) => 0,
            Some(Defect::ListTruncated) => 50,
            _ => usize::MAX,
        };
        let disks = store.disks();
        Op::ok(disks.iter().take(most).map(|(name, disk)| store.info(name, disk)).collect())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let store = self.store();
        Op::ready(store.on(name, |disk| Ok(store.info(name, disk))))
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Attachment> {
        let (this, name) = (self.clone(), name.to_owned());
        let free = self.store().disks().get(&name).is_some_and(|disk| disk.holders.is_empty());
        let unseen = free && self.store().is(Defect::AttachRace);
        Op::run(async move {
            tokio::task::yield_now().await;
            this.attach_now(&name, &attach, unseen)
        })
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        let store = self.store();
        let disks = store.disks();
        let used = disks.values().map(|disk| disk.live.used()).sum();
        let sizes = disks.values().map(|disk| disk.size).sum();
        let capacity = if store.is(Defect::UsageOverfull) { 1 << 10 } else { 1 << 40 };
        let provisioned = if store.is(Defect::ProvisionedStuck) { 0 } else { sizes };
        Op::ok(Usage {
            capacity,
            used,
            available: capacity.saturating_sub(used),
            provisioned,
            ..Usage::default()
        })
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        let mut health = Health::healthy();
        if self.store().is(Defect::HealthMute) {
            health.state = HealthState::DEGRADED;
        }
        Op::ok(health)
    }

    fn stats(&self) -> Stats {
        let store = self.store();
        let done = store.count();
        let shown = if store.is(Defect::CounterFalls) { 1_000_000 - done } else { done };
        let name =
            if store.is(Defect::StatsBadName) { "operations-total" } else { "operations_total" };
        Stats::new().counter(name, shown).gauge("volumes", store.disks().len() as f64)
    }

    fn close(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn rename(&self, _cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        Op::ready(self.rename_now(name, to))
    }

    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        self.store().has(Abilities::CLONE).then(|| Arc::new(self.clone()) as Arc<dyn ext::Clones>)
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        let has = self.store().has(Abilities::COMMANDS);
        has.then(|| Arc::new(self.clone()) as Arc<dyn ext::Commands>)
    }
}

impl ext::Clones for Opening {
    fn clone_volume(
        &self,
        _cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let (this, source, snapshot) = (self.clone(), source.to_owned(), snapshot.to_owned());
        Op::run(async move {
            let store = this.store();
            let torn = match store.is(Defect::CloneTorn) {
                true => Some(store.torn(&source).await?),
                false => None,
            };
            let (size, content) = store.on(&source, |disk| {
                if snapshot.is_empty() || store.is(Defect::CloneOfLive) {
                    return Ok((disk.size, torn.unwrap_or_else(|| disk.live.clone())));
                }
                store.find(disk, &snapshot).map(|index| {
                    let taken = &disk.snapshots[index];
                    let live = store.is(Defect::SnapshotFollows);
                    (taken.size, if live { disk.live.clone() } else { taken.content.clone() })
                })
            })?;
            let wanted = if target.size == 0 { size } else { target.size };
            if wanted < size && !store.is(Defect::CloneSmallerAccepted) {
                let message = "a clone cannot be smaller than its source";
                return Err(store.error(ErrorKind::INVALID_ARGUMENT, message));
            }
            this.check(&target)?;
            let mut disks = store.disks();
            if disks.contains_key(target.name.as_str()) && !store.is(Defect::CloneOverwrites) {
                return Err(store.error(ErrorKind::ALREADY_EXISTS, "the target exists"));
            }
            let mut disk =
                Disk { size: wanted, stable: content.clone(), live: content, ..Disk::default() };
            if store.is(Defect::CloneTailDirty) {
                disk.live.write(wanted - PAGE, &[1; PAGE as usize]);
            }
            disk.needs = store.has(Abilities::FLATTEN).then(|| source.clone());
            disk.clone_of = Some(source);
            let info = store.info(&target.name, &disk);
            disks.insert(target.name.to_string(), disk);
            Ok(info)
        })
    }

    fn flatten(&self, _cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        Op::ready(self.flatten_now(volume, on))
    }

    fn flattening(&self, _cx: &OpContext, volume: &str) -> Op<ext::Flattening> {
        Op::ready(self.flattening_now(volume))
    }
}

impl ext::Commands for Opening {
    fn list(&self) -> RVec<ext::CommandSpec> {
        let mut list = RVec::new();
        list.push(ext::CommandSpec {
            name: "count".into(),
            help: "Counts the operations done.".into(),
            example: "{}".into(),
            mutates: false,
        });
        list
    }

    fn run(&self, _cx: &OpContext, command: &str, _arguments: &str) -> Op<driver_api::RString> {
        if command == "count" || self.store().is(Defect::UnknownCommandRuns) {
            return Op::ok(self.store().count().to_string().into());
        }
        Op::err(self.store().error(ErrorKind::UNSUPPORTED, "there is no such command"))
    }
}
