// SPDX-License-Identifier: Apache-2.0
//! `novastor node plan|drain` and `novastor volume rebalance|set`: where shards are to be.

use std::collections::BTreeMap;

use driver_api::Result;

use super::{
    Client, Session,
    args::{Cluster, Output, PlanFlags, Waiting},
    client::part,
    show::{self, Row, size},
    volumes::of,
};
use crate::api::{
    movement::{
        DrainNode, MovementView, PlanMovement, PlanStep, PlanView, RebalancingView, SetOptions,
        ShareView,
    },
    types::{JobView, NodeView, VolumeView},
};

/// Reads `NAME[:zone=ZONE,weight=WEIGHT]`.
pub(super) fn addition(text: &str) -> Result<PlanStep, String> {
    let (name, facts) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("it names no backend".to_owned());
    }
    let (mut zone, mut weight) = (None, None);
    for fact in facts.split(',').filter(|fact| !fact.is_empty()) {
        match fact.split_once('=') {
            Some(("zone", value)) => zone = Some(value.to_owned()),
            Some(("weight", value)) => weight = Some(number(value)?),
            _ => return Err(format!("`{fact}` is neither zone=ZONE nor weight=WEIGHT")),
        }
    }
    Ok(PlanStep::Add { name: name.to_owned(), zone, weight })
}

/// Reads `NAME=WEIGHT`.
pub(super) fn weight(text: &str) -> Result<PlanStep, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(PlanStep::Weight { name: name.to_owned(), weight: number(value)? })
        }
        _ => Err("it is not of the form NAME=WEIGHT".to_owned()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is no weight: write a whole number, such as 100"))
}

impl PlanFlags {
    fn steps(self) -> Vec<PlanStep> {
        let removals = self.remove.into_iter().map(|name| PlanStep::Remove { name });
        let drains = self.drain.into_iter().map(|name| PlanStep::Drain { name });
        self.add.into_iter().chain(removals).chain(drains).chain(self.weight).collect()
    }
}

impl Session {
    pub(super) async fn plan(
        &self,
        volume: Option<String>,
        flags: PlanFlags,
        cluster: Cluster,
    ) -> Result<()> {
        let path = format!("/v1/backends/{}/plan", part(&self.backend_of(cluster).await?));
        let body = PlanMovement { volume, steps: flags.steps() };
        let plan: PlanView = self.client.post(&path, &body).await?;
        if self.output == Output::Json {
            return show::json(&plan);
        }
        show::one(self.output, &plan.total)?;
        show::print("\n")?;
        show::list(self.output, &plan.total.nodes)?;
        if plan.volumes.len() > 1 {
            show::print("\n")?;
            show::list(self.output, &plan.volumes)?;
        }
        for volume in &plan.volumes {
            if let (Some(name), Some(why)) = (&volume.volume, &volume.refused) {
                eprintln!("{name} cannot be placed so: {why}");
            }
        }
        Ok(())
    }

    pub(super) async fn drain(&self, name: &str, undo: bool, cluster: Cluster) -> Result<()> {
        let path = format!("{}/{}/drain", self.nodes_of(cluster).await?, part(name));
        let node: NodeView = self.client.post(&path, &DrainNode { on: !undo }).await?;
        self.one(&node)?;
        if self.output == Output::Table && !undo && node.provisioned > 0 {
            eprintln!(
                "its shards stay until volumes are rebalanced: novastor volume rebalance VOLUME"
            );
        }
        Ok(())
    }

    pub(super) async fn rebalance(&self, name: &str, status: bool, waiting: Waiting) -> Result<()> {
        if status {
            let path = format!("{}/rebalance", of(name));
            return self.one(&self.client.get::<RebalancingView>(&path).await?);
        }
        self.rebalance_by(&self.client, name, waiting).await
    }

    async fn rebalance_by(&self, client: &Client, name: &str, waiting: Waiting) -> Result<()> {
        let path = format!("{}/rebalance", of(name));
        let job = client.post::<JobView>(&path, &serde_json::json!({})).await?;
        self.follow(job, waiting).await
    }

    pub(super) async fn set_options(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
        at_once: Option<Waiting>,
    ) -> Result<()> {
        let path = format!("{}/options", of(name));
        let volume: VolumeView = self.client.patch(&path, &SetOptions { options }).await?;
        if let Some(waiting) = at_once {
            return self.rebalance_by(&self.client.then("rebalance"), name, waiting).await;
        }
        self.one(&volume)?;
        if self.output == Output::Table {
            eprintln!("shards are where they were until: novastor volume rebalance {name}");
        }
        Ok(())
    }
}

impl Session {
    pub(super) async fn plan_options(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
    ) -> Result<()> {
        let path = format!("{}/options/plan", of(name));
        let movement: MovementView = self.client.post(&path, &SetOptions { options }).await?;
        self.one(&movement)?;
        if self.output == Output::Table {
            show::print("\n")?;
            show::list(self.output, &movement.nodes)?;
        }
        Ok(())
    }
}

/// How many shards have how many replicas, such as `3 of 2, 5 of 3 or more`.
fn copies(counts: &[u64]) -> String {
    let last = counts.len().saturating_sub(1);
    let some = counts.iter().enumerate().filter(|(_, shards)| **shards > 0);
    let texts = some.map(|(copies, shards)| match copies {
        copies if copies == last => format!("{shards} with {copies} or more"),
        _ => format!("{shards} with {copies}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

impl Row for MovementView {
    const HEAD: &'static [&'static str] =
        &["volume", "to copy", "shards", "off balance now", "then", "replicas that stay now"];

    fn cells(&self) -> Vec<String> {
        let volume = self.volume.clone().unwrap_or_default();
        if self.refused.is_some() {
            return vec![volume, "refused".to_owned()];
        }
        vec![
            volume,
            size(self.bytes),
            format!("{} of {}", self.shards, self.shards_in_all),
            size(self.worst_before),
            size(self.worst_after),
            copies(&self.copies),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        let zones = (self.zone_violations_before, self.zone_violations_after);
        if zones != (0, 0) {
            card.push(("two in a zone", format!("{} shards now, {} then", zones.0, zones.1)));
        }
        card
    }
}

impl Row for ShareView {
    const HEAD: &'static [&'static str] = &["node", "now", "then", "ideal"];

    fn cells(&self) -> Vec<String> {
        vec![self.node.clone(), size(self.before), size(self.after), size(self.ideal)]
    }
}

impl Row for RebalancingView {
    const HEAD: &'static [&'static str] =
        &["moving", "shards left", "to be freed", "bricks to delete", "copied", "why"];

    fn cells(&self) -> Vec<String> {
        vec![
            if self.running { "yes" } else { "no" }.to_owned(),
            self.shards_left.to_string(),
            self.litter.to_string(),
            self.leaving.to_string(),
            size(self.copied),
            self.why.clone().unwrap_or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_typed() {
        let step = addition("n6:zone=east,weight=50").unwrap();
        assert!(
            matches!(&step, PlanStep::Add { name, zone: Some(zone), weight: Some(50) } if name == "n6" && zone == "east"),
            "{step:?}"
        );
        assert!(matches!(addition("n6").unwrap(), PlanStep::Add { zone: None, weight: None, .. }));
        assert!(matches!(weight("n6=0").unwrap(), PlanStep::Weight { weight: 0, .. }));
        for bad in ["", ":zone=a", "n6:colour=red", "n6:weight=heavy"] {
            assert!(addition(bad).is_err(), "{bad}");
        }
        for bad in ["n6", "=1", "n6=-1"] {
            assert!(weight(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replicas_are_counted_in_words() {
        assert_eq!(copies(&[0, 2, 0, 7]), "2 with 1, 7 with 3 or more");
    }
}
