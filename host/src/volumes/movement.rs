// SPDX-License-Identifier: Apache-2.0
//! Where shards are to be: what would move, what moves, and the options and marks that say so.

use std::collections::BTreeMap;

use driver_api::{
    Error, ErrorKind, RString, RVec, Result, Tuple2,
    ext::{Cluster, Movement, MovementPlan, NodeInfo, NodeStep, Rebalancing},
};

use super::{
    attach::Use,
    backends::{OpenBackend, control},
    service::Volumes,
};
use crate::plugins::Call;

impl Volumes {
    /// What would move if these steps were taken in their order: of one volume, or of all that the backend has.
    pub async fn plan_movement(
        &self,
        backend: &str,
        volume: Option<&str>,
        steps: Vec<NodeStep>,
    ) -> Result<MovementPlan> {
        let backend = self.cluster_named(backend)?;
        let mut inner = String::new();
        if let Some(volume) = volume {
            let (of_volume, name) = self.cluster_of(volume).await?;
            if of_volume.name != backend.name {
                let why = format!("volume `{volume}` is not on backend `{}`", backend.name);
                return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                    .during("node plan")
                    .remedy(format!("name its backend: --backend {}", of_volume.name)));
            }
            inner = name;
        }
        let mut plan = plan(&backend, inner, steps).await?;
        for movement in &mut plan.volumes {
            if let Some(name) = self.managed_as(&backend.name, &movement.volume).await? {
                movement.volume = name.into();
            }
        }
        Ok(plan)
    }

    /// What rebalancing a volume would move now.
    ///
    /// # Errors
    /// When it cannot be placed.
    pub async fn misplaced(&self, volume: &str) -> Result<Movement> {
        let (backend, name) = self.cluster_of(volume).await?;
        let plan = plan(&backend, name, Vec::new()).await?;
        let movement = plan.volumes.into_iter().next().unwrap_or_default();
        if movement.refused.is_empty() {
            return Ok(movement);
        }
        Err(Error::new(ErrorKind::INVALID_ARGUMENT, movement.refused.to_string())
            .during("volume rebalance")
            .with("volume", volume)
            .remedy(format!("novastor node plan {volume} --backend {}", backend.name)))
    }

    /// Marks a node as one to be emptied, or takes the mark away.
    pub async fn node_drain(&self, backend: &str, name: &str, on: bool) -> Result<NodeInfo> {
        self.node(backend, name).await?;
        let (backend, name) = (self.cluster_named(backend)?, name.to_owned());
        let draining = backend
            .handle()
            .cluster(Call::Drain, &control(), move |cluster, cx| cluster.drain(cx, &name, on));
        backend.call("node drain", draining).await
    }

    /// How far the rebalancing of an attached volume is.
    pub async fn rebalancing(&self, volume: &str) -> Result<Rebalancing> {
        let (backend, name) = self.cluster_of(volume).await?;
        rebalancing(&backend, name).await
    }

    /// Changes options that a volume was created with.
    pub async fn configure(&self, volume: &str, options: &BTreeMap<String, String>) -> Result<()> {
        let options = some_options(options)?;
        let (backend, name) = self.cluster_of(volume).await?;
        let configuring =
            backend.handle().cluster(Call::Configure, &control(), move |cluster, cx| {
                cluster.configure(cx, &name, options)
            });
        backend.call("volume set", configuring).await
    }

    /// What would move if these options were changed, and the volume rebalanced then.
    pub async fn plan_options(
        &self,
        volume: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Movement> {
        let options = some_options(options)?;
        let (backend, name) = self.cluster_of(volume).await?;
        let planning =
            backend.handle().cluster(Call::PlanOptions, &control(), move |cluster, cx| {
                cluster.plan_options(cx, &name, options)
            });
        let movement = backend.call("volume set", planning).await?;
        Ok(Movement { volume: volume.into(), ..movement })
    }
}

fn some_options(options: &BTreeMap<String, String>) -> Result<RVec<Tuple2<RString, RString>>> {
    if options.is_empty() {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "nothing is to be changed")
            .during("volume set")
            .remedy("say what, as KEY=VALUE: novastor driver show DRIVER lists the options"));
    }
    let text = |text: &String| RString::from(text.as_str());
    Ok(options.iter().map(|(key, value)| Tuple2(text(key), text(value))).collect())
}

async fn plan(backend: &OpenBackend, volume: String, steps: Vec<NodeStep>) -> Result<MovementPlan> {
    let planning = backend.handle().cluster(Call::Plan, &control(), move |cluster, cx| {
        cluster.plan(cx, &volume, steps.into())
    });
    backend.call("node plan", planning).await
}

async fn rebalancing(backend: &OpenBackend, name: String) -> Result<Rebalancing> {
    let asking = backend
        .handle()
        .cluster(Call::Rebalancing, &control(), move |cluster, cx| cluster.rebalancing(cx, &name));
    backend.call("volume rebalance", asking).await
}

impl Use {
    /// Begins to move the volume's shards to where they should be, or stops that.
    pub async fn rebalance(&self, on: bool) -> Result<()> {
        let name = self.inner_name().to_owned();
        let handle = self.backend().handle();
        let moving = handle.cluster(Call::Rebalance, &self.cx(), move |cluster, cx| {
            cluster.rebalance(cx, &name, on)
        });
        self.backend().call("volume rebalance", moving).await
    }

    /// How far that is.
    pub async fn rebalancing(&self) -> Result<Rebalancing> {
        rebalancing(self.backend(), self.inner_name().to_owned()).await
    }
}
