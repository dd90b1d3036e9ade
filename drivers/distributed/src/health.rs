// SPDX-License-Identifier: Apache-2.0
//! Asks nodes how they are, and tells attached volumes what the core's judge makes of it.
//!
//! ```text
//!   checks (a task each) ----+             +--> engines: NodeUp, NodeDown, Hold, Shun
//!   meters, every 5 s -------+--> Judge ---+--> log, node list
//!   clock -------------------+             +--> `heal`: what moves is planned anew
//! ```

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use distributed_core::{
    Event, HealthChange, HealthRules, Judge, NodeHealth, NodeId, NodeState, Phase, Time,
};
use driver_api::{Health, HealthState};
use tokio::sync::Notify;

use crate::{
    catalog::Nodes,
    config::Config,
    driver::{DistributedBackend, Shared},
};

/// Between two looks at what was done on nodes, and at nodes as they are registered.
const ROUND: Duration = Duration::from_secs(5);
/// How long volumes leave a node alone that is down, unless they are told again.
const HOLD: Duration = Duration::from_secs(30);

/// What checks and meters say of nodes.
#[derive(Debug)]
pub(crate) struct Checks {
    judge: Mutex<Judge>,
    begun: Instant,
    /// The judge was told which nodes were lost when this host was last at work.
    presumed: AtomicBool,
    /// A check has ended.
    answered: Arc<Notify>,
}

impl Checks {
    /// Of no node yet.
    pub fn new(config: &Config) -> Self {
        let rules = HealthRules {
            failures: config.healing_query_count,
            check_ns: nanoseconds(config.health_check_interval),
            grace_ns: nanoseconds(config.down_grace),
        };
        let judge = Mutex::new(Judge::new(rules));
        let presumed = AtomicBool::new(false);
        Self { judge, begun: Instant::now(), presumed, answered: Arc::default() }
    }

    fn knows_the_lost(&self) -> bool {
        self.presumed.load(Ordering::Acquire)
    }

    fn judge(&self) -> (MutexGuard<'_, Judge>, Time) {
        let judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        (judge, Time(nanoseconds(self.begun.elapsed())))
    }

    /// How a node is; one that was not checked yet is taken for healthy.
    pub fn health(&self, node: NodeId) -> Health {
        let health = self.judge().0.health(node);
        health.as_ref().map_or_else(Health::healthy, described)
    }

    /// Whether a node is not known to be down.
    pub fn answers(&self, node: NodeId) -> bool {
        self.health(node).state != HealthState::FAILED
    }

    /// Nodes whose shards are to be replicated elsewhere.
    pub fn lost_nodes(&self) -> Vec<NodeId> {
        self.judge().0.lost_nodes()
    }

    /// The same, once it is known of all those that were lost before whether they still are.
    pub fn lost_for_the_state(&self) -> Option<Vec<NodeId>> {
        let (judge, _) = self.judge();
        let lost = judge.lost_nodes();
        (judge.in_state(NodeState::Lost) == lost && self.knows_the_lost()).then_some(lost)
    }

    /// Whether most nodes fail.
    pub fn most_fail(&self) -> bool {
        self.judge().0.most_fail()
    }

    /// How long nothing has to be done.
    fn pause(&self) -> Duration {
        let due = self.judge().0.due_in().map_or(ROUND, Duration::from_nanos);
        due.clamp(Duration::from_millis(50), ROUND)
    }

    fn changes(&self) -> Vec<HealthChange> {
        let (mut judge, now) = self.judge();
        judge.tick(now);
        std::iter::from_fn(|| judge.poll_change()).collect()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A node's health for an operator.
fn described(health: &NodeHealth) -> Health {
    let time = |ns: u64| {
        let seconds = ns / 1_000_000_000;
        if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
    };
    let probation = health.probation_ns.map_or_else(String::new, |left| {
        format!("; it answers again, and is on probation for {}", time(left))
    });
    let text =
        |state: &str| format!("{state} for {}: {}{probation}", time(health.for_ns), health.why);
    match health.state {
        NodeState::Healthy => Health::healthy(),
        NodeState::Suspected => Health::degraded(&text("suspected")),
        NodeState::Down => Health::failed(&text("down")),
        NodeState::Lost => Health::failed(&text("lost")),
    }
}

/// What volumes are told of a node again and again while it is not healthy: they may have been attached meanwhile.
fn reminders(node: NodeId, state: NodeState) -> Vec<Event> {
    let shun = Event::Shun { node, is_shunned: state != NodeState::Healthy };
    match state {
        NodeState::Healthy | NodeState::Suspected => vec![shun],
        NodeState::Down | NodeState::Lost => {
            vec![shun, Event::Hold { node, nanoseconds: nanoseconds(HOLD) }]
        }
    }
}

/// What volumes are told of a node that counts as something else now.
fn news(change: &HealthChange) -> Vec<Event> {
    let node = change.node;
    let is_out = |state| matches!(state, NodeState::Down | NodeState::Lost);
    let mut events = reminders(node, change.to);
    match (is_out(change.from), is_out(change.to)) {
        (false, true) => events.push(Event::NodeDown(node)),
        (true, false) => events.push(Event::NodeUp(node)),
        _ => {}
    }
    events
}

/// Judges nodes again and again while the backend is open.
pub(crate) async fn watch(shared: std::sync::Weak<Shared>) {
    let mut looked: Option<Instant> = None;
    loop {
        let (pause, answered) = {
            let Some(shared) = shared.upgrade() else { return };
            let backend = DistributedBackend(shared);
            if looked.is_none_or(|looked| looked.elapsed() >= ROUND) {
                looked = Some(Instant::now());
                backend.look().await;
            }
            backend.check_nodes().await;
            // Only here, so that volumes hear of changes in their order.
            backend.tell_changes().await;
            (backend.0.checks.pause(), Arc::clone(&backend.0.checks.answered))
        };
        // Either way it is time to look again.
        let _ = tokio::time::timeout(pause, answered.notified()).await;
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

impl DistributedBackend {
    /// The nodes that are registered; none if the host's state cannot be read, which is said.
    async fn registered(&self) -> Option<Nodes> {
        match self.0.catalog.nodes().await {
            Ok(nodes) => Some(nodes),
            Err(error) => {
                tracing::warn!(%error, "nodes cannot be checked: the host's state cannot be read");
                None
            }
        }
    }

    /// Tells the judge which nodes there are and what was done on them, and volumes which are not healthy.
    async fn look(&self) {
        let Some(nodes) = self.registered().await else { return };
        let ids: Vec<_> = nodes.all().iter().map(|node| (node.id, node.available)).collect();
        let windows = self.0.nodes.meters().take();
        let reminders: Vec<Event> = {
            let (mut judge, now) = self.0.checks.judge();
            judge.set_nodes(now, &ids);
            if !self.0.checks.presumed.swap(true, Ordering::AcqRel) {
                judge.presume_lost(now, &nodes.lost());
            }
            judge.observed(now, &windows);
            let odd = [NodeState::Suspected, NodeState::Down, NodeState::Lost];
            let each = |state| judge.in_state(state).into_iter().map(move |node| (node, state));
            odd.into_iter()
                .flat_map(each)
                .flat_map(|(node, state)| reminders(node, state))
                .collect()
        };
        if !reminders.is_empty() {
            self.tell(&reminders);
        }
    }

    /// Begins the checks that are due. Each ends on its own: one that hangs keeps nobody.
    async fn check_nodes(&self) {
        let due = {
            let (mut judge, now) = self.0.checks.judge();
            judge.checks_due(now)
        };
        if due.is_empty() {
            return;
        }
        let nodes = self.registered().await.map(|nodes| nodes.all());
        for id in due {
            let node = nodes.as_ref().and_then(|nodes| nodes.iter().find(|node| node.id == id));
            let Some(node) = node.cloned() else {
                // Nothing is known of it: not that it fails either.
                let (mut judge, now) = self.0.checks.judge();
                judge.not_checked(now, id);
                continue;
            };
            let backend = self.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let result = backend.0.nodes.check(&node).await;
                let result = result.map_err(|error| format!("{error:#}"));
                let took = nanoseconds(begun.elapsed());
                let result = result.as_ref().map(|()| took).map_err(String::as_str);
                let (mut judge, now) = backend.0.checks.judge();
                judge.checked(now, node.id, result);
                backend.0.checks.answered.notify_one();
            });
        }
    }

    /// Tells volumes and the operator of nodes that count as something else now.
    async fn tell_changes(&self) {
        let changes = self.0.checks.changes();
        if changes.is_empty() {
            return;
        }
        let nodes = self.registered().await.unwrap_or_default().all();
        for change in &changes {
            let known = nodes.iter().find(|node| node.id == change.node);
            let node = known.map_or_else(|| change.node.to_string(), |node| node.name.clone());
            let why = change.why.as_str();
            match change.to {
                NodeState::Healthy => tracing::info!(node, "a node is healthy"),
                NodeState::Suspected if change.from == NodeState::Healthy => {
                    tracing::warn!(node, why, "a node is suspected");
                }
                NodeState::Suspected => tracing::info!(node, why, "a node is back"),
                NodeState::Down => tracing::warn!(node, why, "a node is down"),
                NodeState::Lost => tracing::error!(node, why, "a node is lost"),
            }
            self.tell(&news(change));
        }
        let is_out = |state| matches!(state, NodeState::Down | NodeState::Lost);
        if changes.iter().any(|change| is_out(change.from) || is_out(change.to)) {
            // Planning takes a while, and checks must not wait for it.
            let backend = self.clone();
            tokio::spawn(async move { backend.replan().await });
        }
    }

    fn tell(&self, events: &[Event]) {
        for engine in self.attached() {
            Arc::clone(&engine).tell(events.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: NodeState, to: NodeState) -> HealthChange {
        HealthChange { node: NodeId(1), from, to, why: "gone".to_owned() }
    }

    #[test]
    fn volumes_are_told_what_concerns_them() {
        use NodeState::{Down, Healthy, Lost, Suspected};
        let told = |from, to| {
            let events = news(&change(from, to));
            events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>().join(" ")
        };
        let suspected = told(Healthy, Suspected);
        assert!(suspected.contains("is_shunned: true"), "{suspected}");
        assert!(!suspected.contains("Hold") && !suspected.contains("NodeDown"), "{suspected}");
        let down = told(Suspected, Down);
        assert!(down.contains("Hold") && down.ends_with("NodeDown(NodeId(1))"), "{down}");
        let lost = told(Down, Lost);
        assert!(lost.contains("Hold") && !lost.contains("NodeDown"), "{lost}");
        let back = told(Lost, Suspected);
        assert!(back.contains("is_shunned: true") && back.ends_with("NodeUp(NodeId(1))"), "{back}");
        assert!(told(Suspected, Healthy).contains("is_shunned: false"));
    }

    #[test]
    fn texts_say_since_when_and_why() {
        let health = |state, for_ns, probation_ns| {
            described(&NodeHealth { state, for_ns, why: "gone".to_owned(), probation_ns })
        };
        let second = 1_000_000_000;
        let down = health(NodeState::Down, 90 * second, None);
        assert_eq!(down.state, driver_api::HealthState::FAILED);
        assert_eq!(down.reason, "down for 90 s: gone");
        let back = health(NodeState::Lost, 600 * second, Some(30 * second));
        let text = "lost for 10 min: gone; it answers again, and is on probation for 30 s";
        assert_eq!(back.reason, text);
        let suspected = health(NodeState::Suspected, 0, None);
        assert_eq!(suspected.state, driver_api::HealthState::DEGRADED);
    }
}
