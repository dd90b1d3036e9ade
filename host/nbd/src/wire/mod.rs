// SPDX-License-Identifier: Apache-2.0
//! The protocol's types and their bytes. Numbers are big-endian.

mod handshake;
mod replies;
mod requests;

pub use handshake::*;
pub use replies::*;
pub use requests::*;

/// A word that had to be a magic number is not. The stream cannot be followed any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMagic;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$code_doc:meta])* $code:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$code_doc])* pub const $code: Self = Self($value);)*
        }
    };
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$code_doc:meta])* $code:ident = $value:expr,)* }) => {
        codes! { $(#[$doc])* $name($int) { $($(#[$code_doc])* $code = $value,)* } }

        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);

            /// Whether all of `other` is set.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both together.
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether nothing but flags of `allowed` is set.
            pub const fn within(self, allowed: Self) -> bool {
                self.0 & !allowed.0 == 0
            }
        }
    };
}

use {codes, flags};

/// Takes numbers off the front of some bytes.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    /// Bytes with their 32-bit length before them.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub(crate) fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
