// SPDX-License-Identifier: Apache-2.0
use abi_stable::StableAbi;

use crate::Result;

/// What the readers of a volume see. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Consistency(u32);

impl Consistency {
    /// Every reader sees every write that was acknowledged before the read began.
    pub const STRONG: Self = Self(0);
    /// A session never reads older than what it wrote or saw; what others wrote may come later.
    pub const CAUSAL: Self = Self(1);
    /// A read is of a moment that was, at most the volume's bound ago.
    pub const EVENTUAL: Self = Self(2);

    /// The value with this number.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The value's number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The value's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::STRONG => "strong",
            Self::CAUSAL => "causal",
            Self::EVENTUAL => "eventual",
            _ => "unknown",
        }
    }
}

/// Sessions with an attached volume, each of which sees what the volume's consistency promises it. Since 1.3.
///
/// The volume's own handle is none of them: it always reads as [`Consistency::STRONG`] says. A session is another handle
/// of the same attachment: what is written and flushed through any of them is written and flushed. It ends when the last
/// handle of it is dropped; the attachment outlives it, and [`Volume::detach`](crate::Volume::detach) through it is
/// refused.
///
/// What a session has written and seen is told by its token: one line of printable text, at most 128 bytes long,
/// without spaces or quotes, which only the driver understands. It means the same to every host that has the volume, and
/// after the volume was attached anew. Every method is `[any thread · volume attached]`, and must not block.
pub trait Sessions<V>: Send + Sync {
    /// What a session promises that is opened now. One that is open keeps its promise when the volume's changes.
    fn consistency(&self) -> Result<Consistency>;

    /// Opens a session that has seen what `token` says; an empty one has seen nothing. `InvalidArgument` for a text that
    /// is no token.
    fn open(&self, token: &str) -> Result<V>;

    /// What a session has written and seen by now.
    fn token(&self, session: &V) -> Result<String>;
}
