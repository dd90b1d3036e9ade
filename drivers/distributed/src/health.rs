// SPDX-License-Identifier: Apache-2.0
//! Asks nodes how they are, and tells attached volumes of those that went and came.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use distributed_core::{NodeId, Phase};

use crate::driver::{DistributedBackend, Shared};

/// What the last checks of nodes found.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<HashMap<NodeId, Check>>);

#[derive(Clone, Debug, Default)]
struct Check {
    /// Checks in a row that failed.
    failed: u32,
    /// Why the last one did.
    why: String,
}

/// A node's way from up to down and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Up,
    Down,
}

impl Checks {
    /// Takes note of a check; tells whether the node changed with it. `most` failures in a row make a node down.
    pub fn note(&self, node: NodeId, result: Result<(), String>, most: u32) -> Option<Turn> {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let check = checks.entry(node).or_default();
        match result {
            Ok(()) => {
                let was_down = check.failed >= most;
                *check = Check::default();
                was_down.then_some(Turn::Up)
            }
            Err(why) => {
                check.failed = check.failed.saturating_add(1);
                check.why = why;
                (check.failed == most).then_some(Turn::Down)
            }
        }
    }

    /// Why the node's last check failed; `None` if it did not.
    pub fn failure(&self, node: NodeId) -> Option<String> {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checks.get(&node).filter(|check| check.failed > 0).map(|check| check.why.clone())
    }
}

/// Checks all nodes again and again while the backend is open.
pub(crate) async fn watch(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(interval) = shared.upgrade().map(|shared| shared.config.health_check_interval)
        else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        round(&DistributedBackend(shared)).await;
    }
}

/// Ends what was interrupted, again and again while the backend is open: volumes whose deletion did not end.
pub(crate) async fn heal(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(interval) = shared.upgrade().map(|shared| shared.config.healing_interval) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        let backend = DistributedBackend(shared);
        let volumes = match backend.0.catalog.volumes().await {
            Ok(volumes) => volumes,
            Err(error) => {
                tracing::warn!(%error, "nothing is healed: the host's state cannot be read");
                continue;
            }
        };
        for volume in volumes.iter().filter(|volume| volume.phase == Phase::Deleting) {
            if let Err(error) = backend.maker().delete(&volume.volume).await {
                let error = format!("{error:#}");
                tracing::warn!(volume = volume.volume, error, "a volume cannot be deleted yet");
            }
        }
    }
}

async fn round(backend: &DistributedBackend) {
    let shared = &backend.0;
    let nodes = match shared.catalog.nodes().await {
        Ok(nodes) => nodes.all(),
        Err(error) => {
            tracing::warn!(%error, "nodes cannot be checked: the host's state cannot be read");
            return;
        }
    };
    let checks = nodes.into_iter().map(|node| {
        let backend = backend.clone();
        async move {
            let shared = &backend.0;
            let result = shared.nodes.check(&node).await.map_err(|error| format!("{error:#}"));
            let most = shared.config.healing_query_count;
            match shared.checks.note(node.id, result, most) {
                Some(Turn::Down) => {
                    let why = shared.checks.failure(node.id).unwrap_or_default();
                    tracing::warn!(node = node.name, why, "a node is down");
                    backend.tell(node.id, false);
                }
                Some(Turn::Up) => {
                    tracing::info!(node = node.name, "a node is back");
                    backend.tell(node.id, true);
                }
                None => {}
            }
        }
    });
    futures_util::future::join_all(checks).await;
}

impl DistributedBackend {
    fn tell(&self, node: NodeId, up: bool) {
        for engine in self.attached() {
            Arc::clone(&engine).node_changed(node, up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_down_after_so_many_failures_and_up_after_one_success() {
        let (checks, node) = (Checks::default(), NodeId(1));
        let failed = || Err("gone".to_owned());
        assert_eq!(checks.note(node, failed(), 3), None);
        assert_eq!(checks.note(node, Ok(()), 3), None, "it was never down");
        assert_eq!(checks.failure(node), None);
        let turns: Vec<_> = (0..5).map(|_| checks.note(node, failed(), 3)).collect();
        assert_eq!(turns, [None, None, Some(Turn::Down), None, None], "said once");
        assert_eq!(checks.failure(node).as_deref(), Some("gone"));
        assert_eq!(checks.note(node, Ok(()), 3), Some(Turn::Up));
    }
}
