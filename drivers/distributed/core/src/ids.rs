// SPDX-License-Identifier: Apache-2.0
//! Names of things, each a type of its own, so that none is taken for another.

use std::fmt;

/// A moment on the caller's monotonic clock, in nanoseconds. Only differences mean something; a clock that jumps
/// costs promptness, never safety.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// This many nanoseconds later.
    pub fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// A node, by the number that its registration gave it; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A brick of one volume, by a number that the volume never gives twice: a fresh brick has a fresh number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct BrickId(pub u32);

impl BrickId {
    /// The name of this brick's volume on its node.
    pub fn name(self, volume: &str) -> String {
        format!("{volume}.b{}", self.0)
    }

    /// The brick that a name stands for, or whose companion it does; `None` for other names.
    pub fn from_name(volume: &str, name: &str) -> Option<Self> {
        let number = name.strip_prefix(volume)?.strip_prefix(".b")?;
        number.strip_suffix(".c").unwrap_or(number).parse().ok().map(Self)
    }

    /// The name of this brick's companion on its node.
    pub fn companion_name(self, volume: &str) -> String {
        format!("{volume}.b{}.c", self.0)
    }
}

impl fmt::Display for BrickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

/// A client's request. The caller chooses it and keeps the request's buffer under it until [`Action::Reply`], and
/// until every action that names it has ended.
///
/// [`Action::Reply`]: crate::Action::Reply
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RequestId(pub u64);

/// An issued action that will be answered by [`Event::Done`](crate::Event::Done). Never reused within an attachment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct IoId(pub u64);

/// Which session with a brick: the attach epoch, then a number that grows with each opening in that epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Session {
    /// The attach epoch.
    pub epoch: u64,
    /// Counts openings within the epoch, from one.
    pub opening: u32,
}

/// Orders what companions and state say: a record of a higher generation knows better.
///
/// The epoch is raised by every attachment through the state store, so two hosts never write the same generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Generation {
    /// The attach epoch in which it was written.
    pub epoch: u64,
    /// Counts changes of membership within the epoch, from one; zero in a state that was rebuilt.
    pub change: u32,
}

impl Generation {
    /// The generation after this one, in the same epoch.
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, change: self.change + 1 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.change)
    }
}

/// A place in a volume's table of bricks, `0..64`. A fresh brick takes over the slot of the one it replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Slot(pub u8);

impl Slot {
    /// The slot as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct SlotSet(pub u64);

/// How many bricks a volume can have at one time.
pub const MAX_BRICKS: usize = 64;

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// Only this slot.
    pub const fn only(slot: Slot) -> Self {
        Self(1 << slot.0)
    }

    /// Whether `slot` belongs to it.
    pub const fn has(self, slot: Slot) -> bool {
        self.0 & (1 << slot.0) != 0
    }

    /// Puts `slot` in.
    pub fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot.0;
    }

    /// Takes `slot` out.
    pub fn remove(&mut self, slot: Slot) {
        self.0 &= !(1 << slot.0);
    }

    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What this has and `other` has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no slot belongs to it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many slots belong to it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The lowest slot.
    pub fn first(self) -> Option<Slot> {
        (self.0 != 0).then(|| Slot(self.0.trailing_zeros() as u8))
    }

    /// The slots, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let slot = rest.first()?;
            rest.remove(slot);
            Some(slot)
        })
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}
