// SPDX-License-Identifier: Apache-2.0
//! Puts what was decided into the state: first nodes, then the shard map, at last the descriptor.

use std::collections::BTreeMap;

use distributed_core::{Descriptor, Generation, Mode, Node, NodeId, Outcome, ShardMap};
use driver_api::{Error, ErrorKind, Result};

use super::{
    Kept, LOST, Recovery,
    decide::{Findings, Missing, Rebuilt, renumbered},
    report::Report,
    unix_millis,
};
use crate::{catalog, config::Chosen, nodes};

/// What was done, or why nothing was.
type Decided<T> = std::result::Result<T, String>;

impl Recovery {
    /// Decides on a volume whose state is lost or damaged; stores what was decided unless this is a dry run.
    pub(super) async fn decide_and_store(
        &self,
        report: &mut Report,
        findings: &Findings<'_>,
        kept: Option<&Kept>,
    ) -> Result<Decided<()>> {
        if let Some(Kept::Partly(descriptor)) = kept {
            return self.complete(report, descriptor, findings.map(descriptor)).await;
        }
        let mut rebuilt = match findings.rebuild(self.wish.accept_missing, unix_millis()) {
            Ok(rebuilt) => rebuilt,
            Err(why) => return Ok(Err(why)),
        };
        rebuilt.guess(|node| !self.is_lost(node));
        let map = rebuilt.descriptor.map_from(&rebuilt.map).unwrap_or_else(|| rebuilt.map.clone());
        let chosen = match self.chosen(&rebuilt.descriptor, &map) {
            Ok(chosen) => chosen,
            Err(error) => return Ok(Err(error.message().to_owned())),
        };
        let said = self.said(&rebuilt, findings.generation());
        if !self.wish.dry_run {
            self.name_lost(&mut rebuilt).await?;
            let damaged = match kept {
                Some(Kept::Damaged(bytes)) => Some(bytes.as_slice()),
                _ => None,
            };
            let catalog = &self.backend.0.catalog;
            let descriptor = rebuilt.renumbered();
            let map = rebuilt.map.encode();
            catalog.put_map(&descriptor.volume, descriptor.map, &map).await?;
            for (version, map) in findings.frozen(&descriptor) {
                catalog.put_map(&descriptor.volume, version, &map.encode()).await?;
            }
            catalog.restore(&descriptor, &chosen, damaged).await?;
            tracing::info!(
                volume = descriptor.volume,
                generation = %findings.generation(),
                "a volume is made anew from its companions"
            );
        }
        report.say(self.outcome(), said);
        Ok(Ok(()))
    }

    /// What a recovered volume was created with, as far as its map tells; the rest is the backend's configuration.
    fn chosen(&self, descriptor: &Descriptor, map: &ShardMap) -> Result<Chosen> {
        let factor = map.sets().map(|set| set.len()).max().unwrap_or(1);
        let options = [
            ("replication_factor".to_owned(), factor.to_string()),
            ("shard_size".to_owned(), map.shard_size().to_string()),
            (
                "synchronous_replication".to_owned(),
                (descriptor.mode == Mode::Synchronous).to_string(),
            ),
        ];
        Chosen::new(&self.backend.0.config, descriptor.size, &options)
    }

    fn said(&self, rebuilt: &Rebuilt, generation: Generation) -> String {
        let mut said = Vec::new();
        let of = |(brick, node): &Missing| format!("brick {brick} of {node}");
        if !rebuilt.given_up.is_empty() {
            let given_up: Vec<String> = rebuilt.given_up.iter().map(of).collect();
            said.push(format!(
                "without {}: what was written after generation {generation} and only there is lost; should it \
                 return, its data is replaced, not used",
                given_up.join(" and ")
            ));
        }
        let lost: Vec<String> =
            rebuilt.lost().iter().map(|node| format!("lost-{}", node.0)).collect();
        if !lost.is_empty() {
            said.push(format!(
                "nodes that were not found are named {} until they are back: then detach the volume and run this \
                 again",
                lost.join(", ")
            ));
        }
        said.join("; ")
    }

    /// The shard map or the choices of a volume whose descriptor the state has are lost.
    async fn complete(
        &self,
        report: &mut Report,
        descriptor: &Descriptor,
        map: Option<ShardMap>,
    ) -> Result<Decided<()>> {
        let catalog = &self.backend.0.catalog;
        let kept = catalog.maps(&descriptor.volume).await?.remove(&descriptor.map);
        let Some(map) = kept.or(map) else {
            return Ok(Err("no companion that was found has a shard map that can be read".into()));
        };
        let chosen = match self.chosen(descriptor, &map) {
            Ok(chosen) => chosen,
            Err(error) => return Ok(Err(error.message().to_owned())),
        };
        if !self.wish.dry_run {
            catalog.put_map(&descriptor.volume, descriptor.map, &map.encode()).await?;
            match catalog.chosen(&descriptor.volume).await {
                Err(error) if error.kind() == ErrorKind::CORRUPTED => {
                    catalog.restore_chosen(&descriptor.volume, &chosen).await?;
                }
                there => _ = there?,
            }
        }
        report.say(self.outcome(), "its shard map or its options were damaged in the state".into());
        Ok(Ok(()))
    }

    /// Registers nodes that nobody can reach in the place of those that were not found.
    async fn name_lost(&self, rebuilt: &mut Rebuilt) -> Result<()> {
        let lost = rebuilt.lost();
        if lost.is_empty() {
            return Ok(());
        }
        let named = self.backend.0.catalog.change_nodes(|nodes| {
            Ok(lost.iter().map(|old| (*old, lost_node(nodes, *old).id)).collect::<Vec<_>>())
        });
        rebuilt.nodes.extend(named.await?);
        Ok(())
    }

    /// Puts nodes that are back in the place of those that stood for them.
    pub(super) async fn reconnect(
        &self,
        descriptor: &Descriptor,
        back: &BTreeMap<NodeId, NodeId>,
        report: &mut Report,
    ) -> Result<()> {
        let name =
            |node: NodeId| self.name_of(node).map_or_else(|| node.to_string(), |n| n.name.clone());
        let pairs: Vec<String> =
            back.iter().map(|(was, is)| format!("{} is {}", name(*was), name(*is))).collect();
        let said = pairs.join(", ");
        let volume = &descriptor.volume;
        let catalog = &self.backend.0.catalog;
        self.backend.give_way(volume).await;
        let is_held = match catalog.claim(volume).await? {
            Some(claim) => claim.check_free(volume).is_err(),
            None => false,
        };
        if is_held || self.backend.engine(volume).is_some() {
            let why = format!("a node is back ({said}): detach the volume, then run this again");
            report.say(driver_api::ext::RecoveryOutcome::PRESENT, why);
            return Ok(());
        }
        if !self.wish.dry_run {
            let (before, after) = (descriptor.encode(), renumbered(descriptor, back).encode());
            if catalog.swap(volume, &before, &after).await != Outcome::Ok {
                return Err(Error::new(
                    ErrorKind::IN_USE,
                    "somebody else changed the volume meanwhile",
                )
                .with("volume", volume)
                .remedy("try again"));
            }
        }
        report.say(self.outcome(), format!("a node is back: {said}"));
        Ok(())
    }
}

/// The node that stands for the one of this old number.
fn lost_node(nodes: &mut catalog::Nodes, old: NodeId) -> Node {
    let mut name = format!("lost-{}", old.0);
    loop {
        match nodes.named(&name) {
            Some(node) if node.role == LOST => return node,
            // A backend has this name.
            Some(_) => name.push('-'),
            None => break,
        }
    }
    nodes.add(Node { role: LOST.to_owned(), weight: 0, available: false, ..nodes::plain(&name) })
}
