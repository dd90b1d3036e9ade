// SPDX-License-Identifier: Apache-2.0
//! Volumes whose state is lost are made anew from what the companions of their bricks say.
//!
//! ```text
//!  look on all nodes ──▶ sort by name and identity ──▶ decide (distributed_core::rebuild) ──▶ nodes, map, descriptor
//!  as a guest             what the state knows stays     or refuse, with the reason            unless it is a dry run
//! ```
//! The numbers of nodes are lost with the state: a node is the one where a brick was found. One that was not found is the
//! registered node of its old number if that is free, and otherwise a node `lost-NUMBER`, which nobody can reach: the
//! volume attaches with what is there. Once such a node is back, recovery finds its bricks and puts it in the place of
//! `lost-NUMBER`.

mod decide;
mod report;
mod scan;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use distributed_core::{DecodeError, Descriptor, Node, NodeId, Phase};
use driver_api::{Error, ErrorKind, RVec, Result, ext::RecoveredVolume, ext::RecoveryOutcome};

use self::{
    decide::{Companion, Findings},
    report::Report,
    scan::{Content, Scan, Seen},
};
use crate::{
    driver::DistributedBackend,
    names::{base, may_be_base},
};

/// The role of a node that stands for one that was not found.
pub(crate) const LOST: &str = "lost";

/// What an operator wants recovered.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The volume; empty: all.
    pub volume: String,
    /// Give up bricks that were not found and may have later writes.
    pub accept_missing: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What the state has of a volume.
#[derive(Debug)]
enum Kept {
    /// All of it.
    Whole(Descriptor),
    /// The descriptor, but not all that belongs to it.
    Partly(Descriptor),
    /// A descriptor that cannot be read.
    Damaged(Vec<u8>),
    /// A descriptor of a newer version.
    TooNew,
}

/// One recovery.
struct Recovery {
    backend: DistributedBackend,
    wish: Wish,
    registered: Vec<Node>,
    kept: BTreeMap<String, Kept>,
    scan: Scan,
}

impl DistributedBackend {
    /// See [`driver_api::ext::Cluster::recover`].
    pub(crate) async fn recover_volumes(self, wish: Wish) -> Result<RVec<RecoveredVolume>> {
        let kept = self.kept(&wish).await?;
        let registered = self.0.catalog.nodes().await?.all();
        let reachable: Vec<Node> =
            registered.iter().filter(|node| node.role != LOST).cloned().collect();
        let wanted = |base: &str| wish.volume.is_empty() || may_be_base(&wish.volume, base);
        let whole: Vec<(String, &Descriptor)> = kept
            .values()
            .filter_map(|kept| match kept {
                Kept::Whole(one) => Some((base(&one.volume, one.identity), one)),
                _ => None,
            })
            .collect();
        let known = |node: &Node, base: &str, brick| {
            whole.iter().any(|(its, volume)| {
                let entry =
                    |e: &distributed_core::BrickEntry| e.brick == brick && e.node == node.id;
                its == base && volume.bricks.iter().any(entry)
            })
        };
        let scan = scan::scan(&self.0.nodes, &reachable, wanted, known).await;
        let recovery = Recovery { backend: self, wish, registered, kept, scan };
        recovery.run().await
    }

    async fn kept(&self, wish: &Wish) -> Result<BTreeMap<String, Kept>> {
        let mut kept = BTreeMap::new();
        for (name, bytes) in self.0.catalog.stored_volumes().await? {
            if !wish.volume.is_empty() && wish.volume != name {
                continue;
            }
            let volume = match Descriptor::decode(&bytes) {
                Err(DecodeError::TooNew) => Kept::TooNew,
                Err(_) => Kept::Damaged(bytes),
                // What is being made or deleted may have no map.
                Ok(descriptor) if descriptor.phase != Phase::Ready => Kept::Whole(descriptor),
                Ok(descriptor) => {
                    let map = self.0.catalog.map(&descriptor).await.map(drop);
                    match map.and(self.0.catalog.chosen(&name).await.map(drop)) {
                        Ok(()) => Kept::Whole(descriptor),
                        Err(error) if error.kind() == ErrorKind::CORRUPTED => {
                            Kept::Partly(descriptor)
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            kept.insert(name, volume);
        }
        Ok(kept)
    }
}

impl Recovery {
    async fn run(&self) -> Result<RVec<RecoveredVolume>> {
        let mut identities: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        self.kept.keys().for_each(|name| _ = identities.entry(name).or_default());
        for (_, volume) in self.records() {
            if self.wish.volume.is_empty() || self.wish.volume == volume.volume {
                identities.entry(&volume.volume).or_default().insert(volume.identity);
            }
        }
        let mut told = RVec::new();
        for (name, identities) in &identities {
            let _turn = self.backend.0.turns.take(name).await;
            told.push(self.volume(name, identities).await?);
        }
        let is_told = |base: &str| identities.keys().any(|name| may_be_base(name, base));
        for (base, troubles) in self.speechless() {
            if !is_told(base) {
                told.push(Report::refused(base, troubles.join("; ")).into());
            }
        }
        if told.is_empty() && !self.wish.volume.is_empty() {
            return Err(self.nothing_found());
        }
        Ok(told)
    }

    /// Records that are where their own names say.
    fn records(&self) -> impl Iterator<Item = (&Seen, &Descriptor)> {
        self.scan.seen.iter().filter_map(|seen| {
            let Content::Record(record, ..) = &seen.content else { return None };
            let volume = &record.descriptor;
            let is_its_own =
                record.brick == seen.brick && base(&volume.volume, volume.identity) == seen.base;
            is_its_own.then_some((seen, volume))
        })
    }

    async fn volume(&self, name: &str, identities: &BTreeSet<u64>) -> Result<RecoveredVolume> {
        match self.kept.get(name) {
            Some(Kept::TooNew) => {
                let why = "the state has it from a newer version: use that version";
                Ok(Report::refused(name, why.to_owned()).into())
            }
            Some(Kept::Whole(descriptor)) => self.present(descriptor).await,
            Some(Kept::Partly(descriptor)) => {
                self.remake(name, descriptor.identity, self.kept.get(name)).await
            }
            kept => match identities.first() {
                None => {
                    let why = format!(
                        "the state's entry of it cannot be read, and no brick of it was found{}",
                        self.silence()
                    );
                    Ok(Report::refused(name, why).into())
                }
                Some(identity) if identities.len() == 1 => self.remake(name, *identity, kept).await,
                Some(_) => Ok(self.of_two(name, identities)),
            },
        }
    }

    fn of_two(&self, name: &str, identities: &BTreeSet<u64>) -> RecoveredVolume {
        let bricks = identities.iter().map(|identity| {
            let of = self
                .records()
                .filter(|(_, volume)| volume.volume == name && volume.identity == *identity);
            let places: Vec<String> = of.map(|(seen, _)| report::place(seen)).collect();
            format!("{identity:016x} ({})", places.join(", "))
        });
        let bricks: Vec<String> = bricks.collect();
        let why = format!(
            "bricks of {} volumes of this name were found: {}; disconnect the nodes of those that are not \
             meant, or delete these bricks there, and try again",
            identities.len(),
            bricks.join(" and ")
        );
        Report::refused(name, why).into()
    }

    async fn remake(
        &self,
        name: &str,
        identity: u64,
        kept: Option<&Kept>,
    ) -> Result<RecoveredVolume> {
        let mut report = Report::new(name, identity);
        let mut companions = Vec::new();
        for (seen, volume) in self.records() {
            if volume.volume != name || volume.identity != identity {
                continue;
            }
            report.found(seen);
            if let Content::Record(record, map, frozen) = &seen.content {
                if let Err(why) = map {
                    let place = report::place(seen);
                    tracing::warn!(name, place, why, "a shard map cannot be read");
                }
                let (node, map) = (seen.node.id, map.as_ref().ok());
                companions.push(Companion { node, record, map, frozen });
            }
        }
        let findings = match Findings::new(&companions) {
            Ok(Some(findings)) => findings,
            Ok(None) => {
                let why = format!("no brick of it was found{}", self.silence());
                return Ok(report.refuse(why));
            }
            Err(why) => return Ok(report.refuse(why)),
        };
        report.of(&findings);
        if let Some(why) = self.forbidden(name) {
            return Ok(report.refuse(why));
        }
        match self.decide_and_store(&mut report, &findings, kept).await? {
            Ok(()) => Ok(report.into()),
            Err(why) => Ok(report.refuse(format!("{why}{}{}", self.unread(name), self.silence()))),
        }
    }

    /// Why a volume may not be made anew, whatever was found of it.
    fn forbidden(&self, name: &str) -> Option<String> {
        self.scan.seen.iter().filter(|seen| may_be_base(name, &seen.base)).find_map(|seen| {
            let place = report::place(seen);
            match &seen.content {
                Content::InUse(who) => Some(format!("{place} is in use, {who}: end that first")),
                Content::TooNew => {
                    Some(format!("{place} was written by a newer version: use that version"))
                }
                _ => None,
            }
        })
    }

    /// What cannot be read of a volume, to be added to a refusal.
    fn unread(&self, name: &str) -> String {
        let its = self.scan.seen.iter().filter(|seen| may_be_base(name, &seen.base));
        its.filter_map(|seen| match &seen.content {
            Content::Unreadable(why) => {
                Some(format!("; {} cannot be read: {why}", report::place(seen)))
            }
            _ => None,
        })
        .collect()
    }

    /// Which nodes did not answer, to be added to a refusal.
    fn silence(&self) -> String {
        let silent = self.scan.silent.iter();
        let silent: Vec<String> =
            silent.map(|(node, why)| format!("{} ({why})", node.name)).collect();
        if silent.is_empty() {
            return String::new();
        }
        format!("; nodes that did not answer: {}", silent.join(", "))
    }

    /// What is known of companions that say nothing, by what the names of their bricks begin with.
    fn speechless(&self) -> BTreeMap<&str, Vec<String>> {
        let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for seen in &self.scan.seen {
            let place = report::place(seen);
            let why = match &seen.content {
                Content::Known | Content::Record(..) | Content::Empty => continue,
                Content::InUse(who) => format!("{place} is in use, {who}"),
                Content::TooNew => {
                    format!("{place} was written by a newer version: use that version")
                }
                Content::Unreadable(why) => format!("{place} cannot be read: {why}"),
            };
            all.entry(&seen.base).or_default().push(why);
        }
        all
    }

    fn nothing_found(&self) -> Error {
        let why = format!("no brick of a volume of this name was found{}", self.silence());
        Error::new(ErrorKind::NOT_FOUND, why).with("volume", &self.wish.volume).remedy(
            "connect the nodes that have its bricks: novastor backend list shows which are open, and novastor \
             node add makes one a node; then try again",
        )
    }

    /// A volume that the state has: only nodes that are back are put in their place.
    async fn present(&self, descriptor: &Descriptor) -> Result<RecoveredVolume> {
        let mut report = Report::new(&descriptor.volume, descriptor.identity);
        report.is(descriptor);
        if descriptor.phase != Phase::Ready {
            let why = "its creation or deletion did not end: create or delete it again";
            return Ok(report.refuse(why.to_owned()));
        }
        let base = base(&descriptor.volume, descriptor.identity);
        let mut back: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for seen in self.scan.seen.iter().filter(|seen| seen.base == base) {
            match &seen.content {
                Content::Known => {}
                Content::Record(record, ..)
                    if record.descriptor.identity == descriptor.identity
                        && record.brick == seen.brick => {}
                _ => continue,
            }
            report.found(seen);
            let entries = descriptor.bricks.iter().map(|entry| (entry.brick, entry.node));
            let beside = descriptor.condemned.iter().chain(&descriptor.keepers).copied();
            let mut all = entries.chain(beside);
            let was_on = all.find(|(brick, _)| *brick == seen.brick).map(|(_, node)| node);
            if let Some(node) = was_on.filter(|node| *node != seen.node.id && self.is_lost(*node)) {
                back.insert(node, seen.node.id);
            }
        }
        let has = |id: NodeId| self.registered.iter().find(|node| node.id == id);
        for entry in &descriptor.bricks {
            let is_found = self.scan.seen.iter().any(|s| s.base == base && s.brick == entry.brick);
            if !is_found {
                report.missing(entry.brick, entry.node, has(entry.node));
            }
        }
        if back.is_empty() {
            return Ok(report.into());
        }
        self.reconnect(descriptor, &back, &mut report).await?;
        Ok(report.into())
    }

    fn is_lost(&self, node: NodeId) -> bool {
        self.registered.iter().find(|one| one.id == node).is_none_or(|one| one.role == LOST)
    }

    fn name_of(&self, node: NodeId) -> Option<&Node> {
        self.registered.iter().find(|one| one.id == node)
    }

    /// The outcome of what is done, or would be.
    fn outcome(&self) -> RecoveryOutcome {
        match self.wish.dry_run {
            true => RecoveryOutcome::WOULD_RECOVER,
            false => RecoveryOutcome::RECOVERED,
        }
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 20)
}
