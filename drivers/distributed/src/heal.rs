// SPDX-License-Identifier: Apache-2.0
//! Replicates elsewhere what lost nodes had: volumes with the fewest copies left first.
//!
//! ```text
//!   judge: lost nodes --+                                      attached: its engine moves shards
//!   state: volumes -----+--> the most urgent volumes, mended --+
//!   engines: how far ---+                                      not attached: borrowed, moved, given back
//! ```
//! What is to be done is found anew in each round, from where shards are and who is lost, which the state has: a crash, a
//! node that returns, or one that is lost besides, changes what the next round finds, and nothing else. While most nodes
//! fail nothing is begun.
//!
//! With `auto_rebalance`, volumes go by themselves to where their choices and the nodes say, once nothing is lost and the
//! nodes have been the same for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use distributed_core::{BrickState, Descriptor, NodeId, Phase};
use driver_api::{ErrorKind, Result};

use crate::{
    arrange::Registry,
    claims,
    driver::{DistributedBackend, Shared},
    engine::{Engine, Progress, Purpose},
    throttle,
};

/// Between two rounds while something is healed, and while nothing is.
const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(30);
/// A volume that could not be healed is tried again after this time.
const LATER: Duration = Duration::from_secs(60);
/// One of which nothing was copied for so long keeps no other waiting.
const STUCK: Duration = Duration::from_secs(60);
/// Volumes that are rebalanced, or equally urgent ones that are healed, at once.
const AT_ONCE: usize = 4;
/// For how long nodes have to be the same before volumes are rebalanced by themselves.
const SETTLED: Duration = Duration::from_secs(30);
/// How long a volume that is borrowed may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who has a volume that is borrowed.
const OWNER: &str = "healing";

/// Volumes that nobody has attached, and that are attached to be healed. They give way to whoever wants them.
#[derive(Debug, Default)]
pub(crate) struct Borrowed(Mutex<HashMap<String, Arc<Loan>>>);

#[derive(Debug)]
struct Loan {
    epoch: u64,
    /// Whether it was given back. Held while it is.
    ended: tokio::sync::Mutex<bool>,
}

impl Borrowed {
    fn loans(&self) -> MutexGuard<'_, HashMap<String, Arc<Loan>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the healer remembers from round to round. Nothing that is to be done depends on it.
#[derive(Default)]
struct Healer {
    /// Volumes that cannot be healed now, and until when they are left alone.
    postponed: HashMap<String, Instant>,
    /// How far volumes were, and since when.
    seen: HashMap<String, (u64, u64, Instant)>,
    /// The nodes as they were last, since when, and whether every volume is where they say.
    nodes: Option<(Vec<String>, Instant, bool)>,
    is_paused: bool,
}

/// A volume that is to be healed.
struct Todo {
    volume: String,
    fewest: u32,
    bytes: u64,
}

/// Heals again and again while the backend is open.
pub(crate) async fn run(shared: Weak<Shared>) {
    let mut healer = Healer::default();
    loop {
        let (pause, shared) = {
            let Some(shared) = shared.upgrade() else { return };
            let backend = DistributedBackend(shared);
            let pause = match backend.heal_round(&mut healer).await {
                Ok(true) => BUSY,
                Ok(false) => IDLE,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "nothing is healed in this round");
                    IDLE
                }
            };
            (pause, Arc::downgrade(&backend.0))
        };
        // The wait may not keep the backend open.
        let until = Instant::now() + pause;
        while Instant::now() < until {
            let Some(shared) = shared.upgrade() else { return };
            let woken = tokio::time::timeout(BUSY, shared.heals.notified()).await;
            if woken.is_ok() {
                break;
            }
        }
    }
}

impl Healer {
    fn postpone(&mut self, volume: &str) {
        self.postponed.insert(volume.to_owned(), Instant::now() + LATER);
    }

    fn is_postponed(&mut self, volume: &str) -> bool {
        let now = Instant::now();
        self.postponed.retain(|_, until| *until > now);
        self.postponed.contains_key(volume)
    }

    /// Whether something was copied or moved of late.
    fn goes_on(&mut self, volume: &str, progress: &Progress) -> bool {
        let (left, copied) = (progress.status.misplaced, progress.copied);
        let now = Instant::now();
        let seen = self.seen.entry(volume.to_owned()).or_insert((left, copied, now));
        if (seen.0, seen.1) != (left, copied) {
            *seen = (left, copied, now);
        }
        seen.2.elapsed() < STUCK
    }
}

impl DistributedBackend {
    /// Begins what is most urgent; whether there is, or may soon be, something to do.
    async fn heal_round(&self, healer: &mut Healer) -> Result<bool> {
        self.note_lost().await?;
        self.give_back_healed(healer).await;
        let is_paused = self.0.checks.most_fail();
        if std::mem::replace(&mut healer.is_paused, is_paused) != is_paused {
            if is_paused {
                tracing::warn!(
                    "most nodes fail: nothing is replicated elsewhere until they are back"
                );
            } else {
                tracing::info!("most nodes answer again: healing goes on");
            }
        }
        if is_paused {
            return Ok(true);
        }
        let todo = self.in_danger().await?;
        if todo.is_empty() {
            return self.rebalance_round(healer).await;
        }
        let mut first = None;
        let mut at_once = 0;
        for Todo { volume, fewest, .. } in &todo {
            // Who is less urgent waits for those that are healed.
            if first.is_some_and(|first| first < *fewest) || at_once >= AT_ONCE {
                break;
            }
            if self.heal(volume, Purpose::Mend, healer).await {
                first = Some(*fewest);
                at_once += 1;
            }
        }
        Ok(true)
    }

    /// Has the state know who is lost: the next start of this host begins no new grace.
    async fn note_lost(&self) -> Result<()> {
        let nodes = self.0.catalog.nodes().await?;
        let Some(lost) = self.0.checks.lost_for_the_state() else { return Ok(()) };
        if nodes.lost() == lost {
            return Ok(());
        }
        self.0
            .catalog
            .change_nodes(|nodes| {
                nodes.set_lost(&lost);
                Ok(())
            })
            .await
    }

    /// The volumes of which lost nodes had something that others can get, the most urgent first.
    async fn in_danger(&self) -> Result<Vec<Todo>> {
        let registry = Registry::new(self, &self.0.catalog.nodes().await?);
        let mut todo = Vec::new();
        if registry.lost.is_empty() {
            return Ok(todo);
        }
        for descriptor in self.ready_volumes().await? {
            let volume = descriptor.volume.as_str();
            let is_lost = |node: &NodeId| registry.lost.contains(node);
            if !descriptor.bricks.iter().any(|entry| !entry.vacant && is_lost(&entry.node)) {
                continue;
            }
            let chosen = self.0.catalog.chosen(volume).await?;
            let layout = self.layout(volume).await?;
            let mending = self.mend_volume(volume, layout, &chosen, &registry).await?;
            if !mending.is_empty() {
                let (fewest, bytes) = (mending.fewest, mending.bytes);
                todo.push(Todo { volume: descriptor.volume.clone(), fewest, bytes });
            }
        }
        // Equally urgent: what takes least is soonest out of danger.
        todo.sort_by_key(|one| (one.fewest, one.bytes));
        Ok(todo)
    }

    async fn ready_volumes(&self) -> Result<Vec<Descriptor>> {
        let mut volumes = self.0.catalog.volumes().await?;
        volumes.retain(|descriptor| descriptor.phase == Phase::Ready);
        Ok(volumes)
    }

    /// Sees to it that a volume is healed, or rebalanced; whether it is.
    async fn heal(&self, volume: &str, purpose: Purpose, healer: &mut Healer) -> bool {
        if healer.is_postponed(volume) {
            return false;
        }
        match self.try_to_heal(volume, purpose, healer).await {
            Ok(goes_on) => goes_on,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(volume, error, "a volume cannot be healed now");
                healer.postpone(volume);
                false
            }
        }
    }

    async fn try_to_heal(
        &self,
        volume: &str,
        purpose: Purpose,
        healer: &mut Healer,
    ) -> Result<bool> {
        let engine = match self.engine(volume) {
            Some(engine) => engine,
            None if self.0.borrowed.loans().is_empty() => match self.borrow(volume).await? {
                Some(engine) => engine,
                // Somebody just attached it.
                None => return Ok(true),
            },
            // One of these at a time: nobody but the nodes' other volumes holds it back.
            None => return Ok(true),
        };
        if !engine.writable {
            tracing::debug!(
                volume,
                "a volume is healed when it is attached for writing, or detached"
            );
            healer.postpone(volume);
            return Ok(false);
        }
        let progress = engine.progress()?;
        if !progress.running {
            if !progress.reason.is_empty() {
                tracing::info!(volume, why = progress.reason, "what moved did not come to its end");
            }
            healer.seen.remove(volume);
            self.order(volume, purpose).await?;
            return Ok(true);
        }
        if healer.goes_on(volume, &progress) {
            return Ok(true);
        }
        // Where it was to go may be what holds it up. Meanwhile others come first.
        healer.postpone(volume);
        let is_balancing = progress.purpose == Some(Purpose::Rebalance);
        self.order(volume, if is_balancing { Purpose::Rebalance } else { purpose }).await?;
        Ok(false)
    }

    /// Attaches a volume that nobody has; `None` if somebody just did.
    async fn borrow(&self, volume: &str) -> Result<Option<Arc<Engine>>> {
        let shared = &*self.0;
        let (engine, epoch) = {
            let _turn = shared.turns.take(volume).await;
            if self.engine(volume).is_some() {
                return Ok(None);
            }
            let (work, core) = self.prepare(volume, true).await?;
            let epoch = match claims::borrow(&shared.catalog, volume, OWNER).await {
                Err(error) if error.kind() == ErrorKind::IN_USE => return Ok(None),
                epoch => epoch?,
            };
            let loan = Arc::new(Loan { epoch, ended: tokio::sync::Mutex::new(false) });
            shared.borrowed.loans().insert(volume.to_owned(), loan);
            (self.launch(work, core), epoch)
        };
        tracing::info!(volume, "a volume is attached to be healed");
        if let Err(error) = self.until_serving(&engine, epoch, PATIENCE).await {
            shared.borrowed.loans().remove(volume);
            return Err(error);
        }
        // What clients felt before says nothing.
        shared.clients.take();
        tokio::spawn(throttle::run(Arc::downgrade(&engine), Arc::clone(&shared.clients)));
        Ok(Some(engine))
    }

    /// Gives back a volume that was borrowed: somebody else wants it.
    pub(crate) async fn give_way(&self, volume: &str) {
        let Some(loan) = self.0.borrowed.loans().get(volume).cloned() else { return };
        let mut ended = loan.ended.lock().await;
        if std::mem::replace(&mut *ended, true) {
            return;
        }
        if let Some(engine) = self.engine(volume) {
            let serves = tokio::time::timeout(Duration::ZERO, engine.serving()).await;
            let cx = self.0.nodes.context();
            let left = match serves {
                Ok(Ok(())) => self.detach(&engine, loan.epoch, &cx).await,
                // It has nothing that is worth to wait for.
                _ => {
                    engine.depose();
                    self.forget(&engine);
                    claims::release(&self.0.catalog, volume, loan.epoch).await
                }
            };
            if let Err(error) = left {
                let error = format!("{error:#}");
                tracing::info!(volume, error, "a volume that was healed is not detached in order");
            }
        }
        self.0.borrowed.loans().remove(volume);
    }

    /// The same for all.
    pub(crate) async fn give_all_ways(&self) {
        let volumes: Vec<String> = self.0.borrowed.loans().keys().cloned().collect();
        for volume in volumes {
            self.give_way(&volume).await;
        }
    }

    /// Gives back what was borrowed and has nothing more to heal.
    async fn give_back_healed(&self, healer: &mut Healer) {
        let volumes: Vec<String> = self.0.borrowed.loans().keys().cloned().collect();
        for volume in volumes {
            let progress = self.engine(&volume).map(|engine| engine.progress());
            let is_done = match progress {
                Some(Ok(progress)) => {
                    self.has_healed(&progress) || !healer.goes_on(&volume, &progress)
                }
                // It stopped, or panicked.
                Some(Err(_)) | None => true,
            };
            if is_done {
                healer.seen.remove(&volume);
                self.give_way(&volume).await;
                tracing::info!(volume, "a volume that was attached to be healed is given back");
            }
        }
    }

    /// Whether nothing moves, and every replica is in sync but for those on nodes that do not answer.
    fn has_healed(&self, progress: &Progress) -> bool {
        let well = |node: NodeId, state| {
            matches!(state, BrickState::InSync | BrickState::Following)
                || !self.0.checks.answers(node)
        };
        !progress.running
            && progress.status.litter == 0
            && progress.status.bricks.iter().all(|brick| well(brick.node, brick.state))
    }

    /// Plans anew what moves, when a node counts as something else: nothing goes to one that is down, and what is left on
    /// one that is back stays there.
    pub(crate) async fn replan(&self) {
        for engine in self.attached() {
            let volume = engine.volume();
            let Ok(Progress { running: true, purpose: Some(purpose), .. }) = engine.progress()
            else {
                continue;
            };
            if purpose == Purpose::Stop {
                continue;
            }
            if let Err(error) = self.order(volume, purpose).await {
                let error = format!("{error:#}");
                tracing::warn!(volume, error, "what moves is not planned anew");
            }
        }
        self.0.heals.notify_one();
    }

    /// Moves volumes to where their choices and the nodes say, if the operator wants that.
    async fn rebalance_round(&self, healer: &mut Healer) -> Result<bool> {
        if !self.0.config.auto_rebalance {
            return Ok(!self.0.borrowed.loans().is_empty());
        }
        let nodes = self.0.catalog.nodes().await?;
        let registry = Registry::new(self, &nodes);
        let now: Vec<String> = registry
            .nodes
            .iter()
            .map(|node| format!("{node:?} {}", registry.leaving.contains(&node.id)))
            .collect();
        let (since, is_done) = match &healer.nodes {
            Some((known, since, is_done)) if *known == now => (*since, *is_done),
            _ => (Instant::now(), false),
        };
        healer.nodes = Some((now.clone(), since, is_done));
        let all_answer = registry.nodes.iter().all(|node| self.0.checks.answers(node.id));
        if is_done || !all_answer || since.elapsed() < SETTLED {
            return Ok(!is_done);
        }
        let (mut at_once, mut left) = (0, 0);
        for volume in self.ready_volumes().await?.into_iter().map(|ready| ready.volume) {
            let chosen = self.0.catalog.chosen(&volume).await?;
            let layout = self.layout(&volume).await?;
            match self.plan_volume(&volume, layout, &chosen, &registry).await {
                Ok(plan) if plan.moves.is_empty() => {}
                Ok(_) => {
                    left += 1;
                    if at_once < AT_ONCE && self.heal(&volume, Purpose::Rebalance, healer).await {
                        at_once += 1;
                    }
                }
                // `node plan` says so, too.
                Err(error) => tracing::debug!(volume, %error, "a volume cannot be rebalanced"),
            }
        }
        healer.nodes = Some((now, since, left == 0));
        Ok(left > 0 || !self.0.borrowed.loans().is_empty())
    }
}
