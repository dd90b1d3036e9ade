// SPDX-License-Identifier: Apache-2.0
//! Metadata contexts: what a client may ask to be told of ranges, besides their data.

use crate::wire::Headers;

/// One metadata context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// `base:allocation`: where holes and zeros are.
    Allocation,
    /// `novastor:size`: the export's size of now, in bytes, as the status of any range. A client whose export is
    /// resized while it is connected learns it here. It needs extended headers.
    Size,
}

impl Context {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Allocation, Self::Size];

    /// The name that clients ask for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocation => "base:allocation",
            Self::Size => "novastor:size",
        }
    }

    /// The number in replies; the same on every connection.
    pub const fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Size => 2,
        }
    }

    /// Whether a client with such headers can have it.
    pub fn fits(self, headers: Headers) -> bool {
        self == Self::Allocation || headers == Headers::Extended
    }

    /// Whether a client's query to list contexts is about this one: its name, or its namespace alone.
    pub fn is_listed_by(self, query: &[u8]) -> bool {
        let name = self.name().as_bytes();
        query == name || (query.ends_with(b":") && name.starts_with(query))
    }
}

/// A set of contexts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contexts(u8);

impl Contexts {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn insert(&mut self, context: Context) {
        self.0 |= 1 << context.id();
    }

    /// Whether it is in the set.
    pub fn has(self, context: Context) -> bool {
        self.0 & (1 << context.id()) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Context> {
        Context::ALL.into_iter().filter(move |context| self.has(*context))
    }

    /// Those with these numbers; `None` if one is not in the set or stands twice.
    pub fn chosen(self, ids: &[u32]) -> Option<Self> {
        let mut chosen = Self::NONE;
        for id in ids {
            let context = self.iter().find(|context| context.id() == *id)?;
            if chosen.has(context) {
                return None;
            }
            chosen.insert(context);
        }
        Some(chosen)
    }
}
