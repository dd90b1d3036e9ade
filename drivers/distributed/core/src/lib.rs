// SPDX-License-Identifier: Apache-2.0
//! What the `distributed` driver decides, without doing it: events and `now` in, actions out.
//!
//! There is no I/O, clock, thread or randomness here, and no map whose order is random: the same events give the same
//! actions, so that a simulator can run hosts through millions of faults and replay each of them (`tests/simulation`).
//! Bytes of the volume never pass through: an action names the request whose buffer the driver holds.
//!
//! ```text
//!            Event, now                                  Action
//!  client ------------+                        +------> bricks (Read Write Zero Flush Copy Compare Digest Snapshot)
//!  bricks ------------+--> Volume::handle      +------> companions (ReadCompanion WriteCompanion)
//!  state store -------+    Volume::poll_action +------> nodes (Open Create ResizeBrick Delete)
//!  health checks -----+                        +------> state store (SwapState StoreMap StoreDigests)
//!  clock (Tick) ------+                        +------> client (Reply), operator (Report)
//! ```
//!
//! # One volume
//!
//! ```text
//!  Volume::attach
//!       |
//!   claiming --- Conflict ----------------------------------> stopped
//!       | the state has our epoch                                ^
//!   opening     a session with every brick; ends earlier ones    |
//!       |                                                        |
//!   reading     companions: the highest generation wins -- no member of its in-sync set --+
//!       |                                                        |                        |
//!   leveling    regions with intent are made equal               +------------------------+
//!       |                                                        |
//!   recording   members that were not reached are stale          |
//!       |                                                        |
//!   serving --- the last in-sync copy of a shard failed, Fenced -+
//!       |
//!   detached    flushed, intent empty
//! ```
//! A stopped volume answers everything with its reason. The way on is a new attachment once nodes are back.
//!
//! # One brick
//!
//! ```text
//!             an operation failed, timed out, or its backend restarted; node down
//!   in sync ----------------------------------------------------------------------> failing
//!      ^                                                                               | new generation in the companions
//!      | new generation, C among the in-sync                                           | of those left and in the state;
//!   joining                                                                            | only now are writes acknowledged
//!      ^ nothing dirty, flushed                                                        v that it missed
//!   receiving <--- companion checked ---- opened <------------- retry, NodeUp ------ stale
//!      copies dirty ranges,                  |                                         ^
//!      gets new writes                       | unfenced with unknown outcomes,         | created
//!                                            | companion wrong, brick gone             |
//!                                            +-------> replaced by a fresh brick ------+  (old one deleted)
//! ```
//!
//! # Snapshots
//!
//! A snapshot is one of each brick in sync, taken while no write is under way, and owns the shard map of that moment.
//! Bricks that it needs are kept, whatever becomes of the volume's shards. When one of them is to go, or is lost, its
//! snapshots are replayed, oldest first, onto a fresh brick on another node: a keeper, which is in no slot and gets no
//! writes. Until a record names the keeper it counts as condemned, so that a crash leaves only something to delete.
//! A roll back is a swap of the state between two attachments ([`Descriptor::rolled_back`]): fresh bricks in the place of all.
//!
//! # Asynchronous mode
//!
//! ```text
//!  client -- write --> acknowledging brick, the only one in sync --> Reply
//!                          |  the log: every mutation has a number, its buffer is kept (Keep ... Release)
//!                          v
//!                      followers, in order, batch by batch: journal in the companion -> record of the point -> brick -> flush
//! ```
//! Every brick has all shards. A follower is at one [`Point`] after any crash, and holds nothing that the acknowledging brick
//! has not completed. What followers lack is bound: a write that would make it more, or comes when it is too old, waits;
//! who is away, or not yet at a point, falls out instead. A read says how old what it sees may be ([`View`]), and its reply
//! where it stood. Without its acknowledging brick the volume is headless: [`Event::Promote`] has a follower acknowledge, and
//! says first what that loses. A new attachment may do the same ([`Attach::promote`]), and knows of the loss only the bound.
//!
//! What compares replicas has one to look at: digests are not taken, those that were still count until a promotion voids
//! them all, a scrub examines the acknowledging brick, and [`Settings::verify_reads`] finds no second opinion. A snapshot is on
//! that brick alone. Arrangements and repairs are refused: [`Event::Configure`] leads to synchronous mode first.
//!
//! # Beside volumes
//!
//! A [`Judge`] tells which nodes are healthy, suspected, down or lost, by checks and by what is done on them; a
//! [`Throttle`] how hard a volume heals, by what its clients feel. Both are as pure as a volume: `now` and measures in,
//! decisions out, which the driver hands to volumes as events. [`mend`] says where the replicas go that lost nodes had.
//!
//! # What tells a bad disk
//!
//! A scrub takes a digest of each piece of the volume that is at rest: flushed everywhere, and not in the intent log. From
//! then on a replica that holds something else is bad, also if it is one of two. The first write voids the digest: the
//! record that names the region in the log, which every such write waits for anyway, says so. Stored digests are
//! checkpoints in the state; the companions say which counts and what of it is void, so that one that is lost, or too old,
//! costs coverage and never names a good replica. Without a digest the majority decides, and of two nobody does. Only
//! replicas known to be bad are written, from one known to be good, and what they were given is flushed and read back.
//! With [`Settings::verify_reads`] two replicas must agree on what a client reads; if they do not, the same rules decide,
//! and where nothing decides the read fails. A resync copies from whatever replica it finds: rot that it takes along
//! before a digest was taken is content.
//!
//! # Why it is safe
//!
//! - Nothing is written to a region before the companions of *all* in-sync bricks name it (intent), so whatever may
//!   differ after a crash is known to any single survivor; regions leave only when every in-sync brick flushed them.
//!   While a replica is stale, intent counts as dirty for it, so hot writes cost no companion write.
//! - A write is acknowledged when every in-sync brick has it. One that has it not is first recorded as outside the
//!   in-sync set, in the companions of the others and in the state; recovery takes the highest generation it finds in
//!   either, so a replica that missed an acknowledged write is never believed.
//! - A record is void when a brick failed while it was written, and is written again without that brick: whoever is
//!   in the in-sync set has the record, or nothing that depends on it happened.
//! - What was written and not flushed is remembered per brick, and counts as lost when its incarnation changed.
//! - Every session with a brick carries the attach epoch and a number. An operation whose end is unknown keeps its
//!   brick from being resynced in place, until the driver reports that end, or an opening that ended older sessions.
//!   Otherwise the brick is given up and its name is never used again.
//! - Every commit to the state compares the epoch; a host that lost the volume learns it before it acknowledges.
//!   What it may still do is read old data for its own clients until it writes or is told.
//!
//! # What a driver must keep to
//!
//! - Feed events one at a time, and take all actions after each. Carry them out concurrently; order is made here.
//! - Read a brick's incarnation after its operation ended, and give it with [`Event::Done`].
//! - Give up waiting with [`Outcome::Unknown`], never with a failure: a failure promises that nothing can land any more.
//!   Keep waiting behind it, and tell the end with a second [`Event::Done`]. Buffers live until that end.
//! - Answer [`Outcome::Opened`] with `fenced` only for what the backend proves, by its lock, blocklist or epoch.
//! - Digests of equal bytes are equal, in this version and every later one; what [`Action::StoreDigests`] stored may be lost.
//! - Write companions durably. Give a client the data of those [`Action::Read`]s that came last: one at the first byte
//!   of its request drops what came before.
//! - After attaching, delete bricks under the volume's names ([`BrickId::from_name`]) that [`Descriptor::knows`] denies.
//! - Send [`Event::Tick`] when [`Volume::next_tick`] says so, and [`Event::NodeUp`] when a node is back: it hurries a
//!   retry that comes anyway, and ends an [`Event::Hold`].
//!
//! # Who keeps what
//!
//! The driver stores the [`Descriptor`] under one key of the state, and the [`ShardMap`] beside it and in each
//! companion. Creating and deleting volumes is the driver's sequence, given at [`Descriptor::new`]. When the state is
//! lost, [`rebuild`] makes a descriptor from companions.

mod action;
mod budget;
mod codec;
mod descriptor;
mod digest;
mod event;
mod extents;
mod follow;
mod health;
mod ids;
mod intent;
mod latency;
mod node;
mod placement;
mod record;
mod recovery;
mod rollback;
mod settings;
mod shard_map;
mod slab;
mod snapshot;
mod throttle;
mod volume;

pub use action::{Action, Cause, Failure, Notice};
pub use codec::DecodeError;
pub use descriptor::{BrickEntry, Descriptor, Litter, MIN_REGION, Moved, Phase, region_size};
pub use digest::{Digest, Finding, Judged, Repaired, ScrubStatus, Verdict};
pub use event::{Arrangement, ClientOp, Event, Outcome, ZeroKind};
pub use follow::{
    Behind, Configuration, Follow, JournalPart, JournalPiece, Loss, Mode, Point, View,
};
pub use health::{HealthChange, HealthRules, Judge, NodeHealth, NodeState, Window};
pub use ids::{
    BrickId, Generation, IoId, MAX_BRICKS, NodeId, RequestId, Session, Slot, SlotSet, Time,
};
pub use latency::{LATENCY_BUCKETS, Latencies, latency_bucket};
pub use node::{Capacity, Node, NodeError, check_nodes};
pub use placement::{
    Mending, Movement, Placement, PlacementError, Plan, Policy, Present, Share, Wish, mend, place,
    plan, plan_with_shards_of,
};
pub use record::{
    COMPANION_BYTES, MAP_OFFSET, MapPlace, RECORD_ALIGNMENT, Record, Run, SLOT_BYTES,
};
pub use recovery::rebuild;
pub use settings::{Protections, Settings, Shortage};
pub use shard_map::ShardMap;
pub use snapshot::{Origin, Snapshot, Template};
pub use throttle::{HealingPace, Pace, Throttle, ThrottleRules};
pub use volume::{
    Attach, AttachError, BrickState, BrickStatus, Healing, Status, Volume, VolumeState,
};
