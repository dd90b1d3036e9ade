// SPDX-License-Identifier: Apache-2.0
//! Shards on their way to other nodes, while the volume serves.

use std::{
    sync::{Arc, PoisonError},
    task::Poll,
};

use distributed_core::{
    Arrangement, Event, Failure, Healing, HealingPace, Node, NodeId, RequestId, ShardMap, Status,
    VolumeState,
};
use driver_api::{IoBuf, OpContext, Result};

use super::{Engine, requests::Unfulfilled};

/// What an arrangement is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Shards go to where the volume's choices and the nodes say.
    Rebalance,
    /// What lost nodes had is replicated elsewhere, and nothing else moves.
    Mend,
    /// What moves stops.
    Stop,
}

/// The last arrangement that was asked for.
#[derive(Default)]
pub(super) struct Ordered {
    purpose: Option<Purpose>,
    /// Another one is just being asked for.
    is_changing: bool,
    /// While it is not reached.
    request: Option<RequestId>,
    /// The nodes that it has.
    nodes: Vec<NodeId>,
    /// Why it was not reached.
    reason: String,
}

/// How far a movement is.
pub(crate) struct Progress {
    /// Whether the arrangement is still to be reached.
    pub running: bool,
    /// What it is for.
    pub purpose: Option<Purpose>,
    /// Why it was not reached.
    pub reason: String,
    /// The volume as the core sees it.
    pub status: Status,
    /// Bytes copied between bricks.
    pub copied: u64,
}

impl Engine {
    /// What there is to heal.
    pub fn healing(&self) -> Result<Healing> {
        Ok(self.inner()?.core.healing())
    }

    /// Whom healing and movements favour.
    pub fn healing_pace(&self) -> HealingPace {
        *self.healing_pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has healing and movements favour somebody else from now on.
    pub fn heal_at(&self, pace: HealingPace) {
        *self.healing_pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    /// Where shards are, or as good as are, as the core has it: the node of each slot, the map, and the volume's size in bytes.
    pub fn layout(&self) -> Result<(Vec<Option<NodeId>>, ShardMap, u64)> {
        let inner = self.inner()?;
        let status = inner.core.status();
        let mut slots = Vec::new();
        for brick in &status.bricks {
            slots.resize(slots.len().max(brick.slot.index() + 1), None);
            slots[brick.slot.index()] = Some(brick.node);
        }
        Ok((slots, inner.core.map_ahead(), status.size))
    }

    /// Orders shards to be elsewhere, in the place of what was ordered before. `nodes` are those of the arrangement, some
    /// of which the volume may not have yet.
    ///
    /// # Errors
    /// When the core refuses it at once; what becomes of it later is told by [`Engine::progress`].
    pub fn arrange(
        self: &Arc<Self>,
        cx: &OpContext,
        arrangement: Arrangement,
        nodes: Vec<Node>,
        purpose: Purpose,
    ) -> Result<()> {
        let wanted = nodes.iter().map(|node| node.id).collect();
        self.learn(nodes);
        let request = self.admit(cx, None, IoBuf::empty(), None)?;
        // Until the new order is known, nobody is told that the old one came to nothing.
        self.inner()?.ordered.is_changing = true;
        self.run(vec![Event::Arrange { request, arrangement }], None);
        let mut inner = self.inner()?;
        inner.ordered.is_changing = false;
        let taken = inner.requests.take(request, None);
        let refused = match taken {
            Poll::Pending => None,
            Poll::Ready(Ok(_)) => Some(Ok(())),
            Poll::Ready(Err(why)) => Some(Err(why.into_error(&self.volume))),
        };
        if let Some(Err(error)) = refused {
            return Err(error);
        }
        let request = refused.is_none().then_some(request);
        let before = std::mem::replace(
            &mut inner.ordered,
            Ordered { request, nodes: wanted, purpose: Some(purpose), ..Ordered::default() },
        );
        if let Some(before) = before.request {
            inner.requests.abandon(before);
        }
        Ok(())
    }

    /// Nothing is to be moved, and nothing is, unless it was ordered before.
    pub fn order_nothing(&self) -> Result<()> {
        let mut inner = self.inner()?;
        if inner.ordered.request.is_none() && !inner.ordered.is_changing {
            inner.ordered = Ordered::default();
        }
        Ok(())
    }

    /// How far what was ordered is.
    pub fn progress(&self) -> Result<Progress> {
        let mut inner = self.inner()?;
        let status = inner.core.status();
        if let Some(request) = inner.ordered.request.filter(|_| !inner.ordered.is_changing) {
            let ended = match inner.requests.take(request, None) {
                Poll::Ready(ended) => Some(ended.map(drop)),
                // A core that has stopped does not answer for what it was to reach.
                Poll::Pending => {
                    why_it_stopped(&status.state).map(|why| Err(Unfulfilled::Failed(why)))
                }
            };
            if let Some(ended) = ended {
                inner.requests.abandon(request);
                inner.ordered.request = None;
                let failed = ended.err().map(|why| why.into_error(&self.volume).to_string());
                inner.ordered.reason = failed.unwrap_or_default();
            }
        }
        Ok(Progress {
            running: inner.ordered.request.is_some() || inner.ordered.is_changing,
            purpose: inner.ordered.purpose,
            reason: inner.ordered.reason.clone(),
            status,
            copied: self.copied.load(std::sync::atomic::Ordering::Relaxed),
        })
    }

    /// Whether shards are on their way to a node. A core that panicked moves nothing.
    pub fn is_moving_to(&self, node: NodeId) -> bool {
        let moving = |progress: Progress| progress.running;
        let wanted = self.inner().is_ok_and(|inner| inner.ordered.nodes.contains(&node));
        wanted && self.progress().is_ok_and(moving)
    }
}

fn why_it_stopped(state: &VolumeState) -> Option<Failure> {
    match state {
        VolumeState::Serving | VolumeState::Attaching => None,
        VolumeState::Stopped(why) => Some(Failure::Stopped(Arc::clone(why))),
        VolumeState::Fenced => Some(Failure::Fenced),
        VolumeState::Detached => Some(Failure::Refused("the volume was detached".into())),
    }
}
