// SPDX-License-Identifier: Apache-2.0
//! Snapshots, resizing and the allocation map of the reference.

use std::time::Duration;

use driver_api::{
    Abilities, ErrorKind, Op, OpContext, RVec, Result,
    ext::{AllocationMap, Extent, ExtentFlags, Resize, SnapshotInfo, Snapshots, unsupported},
};

use super::{
    attachment::Attachment,
    changes::Question,
    content::{Content, PAGE},
    defect::Defect,
    store::{Disk, Snapshot, Store},
};

impl Store {
    pub fn find(&self, disk: &Disk, snapshot: &str) -> Result<usize> {
        disk.snapshots.iter().position(|taken| taken.name == snapshot).ok_or_else(|| {
            let error = self.error(ErrorKind::NOT_FOUND, "there is no such snapshot");
            error.with("snapshot", snapshot)
        })
    }

    /// A picture that takes its time.
    pub async fn torn(&self, name: &str) -> Result<Content> {
        let pages = self.on(name, |disk| Ok(disk.live.0.keys().copied().collect::<Vec<_>>()))?;
        let mut picture = Content::default();
        for page in pages {
            let bytes = self.on(name, |disk| Ok(disk.live.read(page * PAGE, PAGE)))?;
            picture.write(page * PAGE, &bytes);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(picture)
    }
}

fn info(snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        name: snapshot.name.as_str().into(),
        size: snapshot.size,
        created_unix_secs: 1,
        method: "copy".into(),
        used: 0,
        reserved: [0; 4],
    }
    .protected(snapshot.protected)
}

impl Snapshots for Attachment {
    fn create(&self, _cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        let (this, name) = (self.clone(), name.to_owned());
        Op::run(async move {
            let store = this.store();
            let torn = match store.is(Defect::SnapshotTorn) {
                true => Some(store.torn(&this.name).await?),
                false => None,
            };
            this.writing(|disk| {
                if store.find(disk, &name).is_ok() && !store.is(Defect::SnapshotOverwritten) {
                    return Err(store.error(ErrorKind::ALREADY_EXISTS, "the snapshot exists"));
                }
                disk.stable = disk.live.clone();
                let content = torn.unwrap_or_else(|| disk.live.clone());
                let snapshot = Snapshot { name, size: disk.size, content, protected: false };
                let answer = info(&snapshot);
                disk.snapshots.push(snapshot);
                Ok(answer)
            })
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        Op::ready(self.reading(|disk| {
            let mut list: Vec<_> = disk.snapshots.iter().map(info).collect();
            if self.store().is(Defect::SnapshotsSorted) {
                list.sort_by(|one, other| one.name.cmp(&other.name));
            }
            Ok(list.into())
        }))
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        Op::ready(self.writing(|disk| {
            let index = self.store().find(disk, name)?;
            if disk.snapshots[index].protected && !self.store().is(Defect::ProtectIgnored) {
                return Err(self.store().error(ErrorKind::IN_USE, "the snapshot is protected"));
            }
            disk.snapshots.remove(index);
            if self.store().is(Defect::SnapshotDeleteCorrupts)
                && let Some(next) = disk.snapshots.get_mut(index)
            {
                next.content.zero(0, 8 * PAGE, false);
            }
            Ok(())
        }))
    }

    fn protect(&self, _cx: &OpContext, name: &str, on: bool) -> Op<SnapshotInfo> {
        let store = self.store();
        if !store.has(Abilities::PROTECT) {
            return Op::err(unsupported("protect"));
        }
        Op::ready(self.writing(|disk| {
            let index = store.find(disk, name)?;
            disk.snapshots[index].protected = on;
            Ok(info(&disk.snapshots[index]))
        }))
    }

    fn rollback(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let store = self.store();
        if !store.has(Abilities::ROLLBACK) {
            return Op::err(unsupported("rollback"));
        }
        Op::ready(self.writing(|disk| {
            let index = store.find(disk, name)?;
            let taken = disk.snapshots[index].clone();
            if !store.is(Defect::SnapshotFollows) {
                disk.live = taken.content;
            }
            if !store.is(Defect::RollbackKeepsSize) {
                disk.size = taken.size;
            }
            if store.is(Defect::RollbackDropsSnapshot) {
                disk.snapshots.remove(index);
            }
            disk.stable = disk.live.clone();
            Ok(())
        }))
    }
}

impl Attachment {
    fn resize_now(&self, size: u64, shrink: bool, before: Option<Content>) -> Result<()> {
        let store = self.store();
        self.writing(|disk| {
            let smaller = size < disk.size;
            if smaller && !shrink && !store.is(Defect::ShrinkUnasked) {
                let message = "a smaller size needs `shrink`";
                return Err(store.error(ErrorKind::INVALID_ARGUMENT, message));
            }
            let needs = if smaller { Abilities::SHRINK } else { Abilities::GROW };
            if size != disk.size && !store.has(needs) {
                return Err(unsupported("resize"));
            }
            if let Some(before) = before {
                disk.live = before;
            }
            if !smaller && store.is(Defect::GrowLeaks) {
                disk.live.write(disk.size, &[0xaa; 512]);
            }
            if !smaller && store.is(Defect::GrowLosesData) {
                disk.live.zero(0, PAGE, false);
            }
            if smaller && !store.is(Defect::ShrinkKeepsTail) {
                disk.live.truncate(size);
                disk.stable.truncate(size);
            }
            disk.size = size;
            Ok(())
        })
    }
}

impl Resize for Attachment {
    fn resize(&self, _cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        let this = self.clone();
        let before = match self.store().is(Defect::ResizeLosesWrites) {
            true => self.reading(|disk| Ok(disk.live.clone())).ok(),
            false => None,
        };
        Op::run(async move {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            this.resize_now(size, shrink, before)
        })
    }
}

impl AllocationMap for Attachment {
    fn extents(&self, _cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>> {
        let store = self.store();
        Op::ready(self.reading(|disk| {
            let mut list: Vec<Extent> = Vec::new();
            let mut at = offset;
            while at < offset + len {
                let end = (at - at % PAGE + PAGE).min(offset + len);
                let flags = match disk.live.0.get(&(at / PAGE)) {
                    Some(page) if store.is(Defect::ExtentLies) && page[0] == 0 => ExtentFlags::ZERO,
                    Some(_) => ExtentFlags::DATA,
                    None => ExtentFlags::HOLE.and(ExtentFlags::ZERO),
                };
                match list.last_mut() {
                    Some(last) if last.flags == flags => last.len += end - at,
                    _ => list.push(Extent { offset: at, len: end - at, flags }),
                }
                at = end;
            }
            if !store.is(Defect::ExtentLimitIgnored) {
                list.truncate(limit as usize);
            }
            if store.is(Defect::ExtentGap) && list.len() > 2 {
                list.remove(1);
            }
            Ok(list.into())
        }))
    }

    fn changes(
        &self,
        _cx: &OpContext,
        from: &str,
        to: &str,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<Extent>> {
        let store = self.store();
        if !store.has(Abilities::CHANGES) {
            return Op::err(unsupported("changes"));
        }
        let question = Question { from, to, offset, len, limit: limit as usize };
        Op::ready(self.reading(|disk| store.changes(disk, &question).map(Into::into)))
    }
}
