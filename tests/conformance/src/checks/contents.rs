// SPDX-License-Identifier: Apache-2.0
//! The beginning of a volume beside a copy of what it must hold.

use driver_api::WriteFlags;

use crate::{
    pattern::Random,
    volume::{Checked, Vol, success},
};

/// The first bytes of a volume, and what was written there.
pub(super) struct Contents<'a> {
    pub vol: &'a Vol,
    pub wanted: Vec<u8>,
    pub random: Random,
}

impl<'a> Contents<'a> {
    /// The first `len` bytes of a new volume.
    pub(super) fn new(vol: &'a Vol, len: u64, random: Random) -> Self {
        Self { vol, wanted: vec![0; len as usize], random }
    }

    pub(super) async fn fill(&mut self) -> Checked {
        self.wanted = self.random.bytes(self.wanted.len() as u64);
        self.vol.write_whole(0, &self.wanted).await
    }

    /// A random range of up to `most` bytes on multiples of `block`.
    pub(super) fn place(&mut self, most: u64, block: u64) -> (u64, u64) {
        let blocks = self.wanted.len() as u64 / block;
        let len = 1 + self.random.below((most / block).clamp(1, blocks));
        (self.random.below(blocks - len + 1) * block, len * block)
    }

    fn at(&mut self, at: u64, len: u64) -> &mut [u8] {
        &mut self.wanted[at as usize..(at + len) as usize]
    }

    pub(super) async fn write(&mut self, at: u64, len: u64) -> Checked {
        let data = self.random.bytes(len);
        self.vol.write_whole(at, &data).await?;
        self.at(at, len).copy_from_slice(&data);
        Ok(())
    }

    pub(super) async fn discard(&mut self, at: u64, len: u64) -> Checked {
        success("discard", self.vol.try_discard(at, len).await?)?;
        self.at(at, len).fill(0);
        Ok(())
    }

    pub(super) async fn zero(&mut self, at: u64, len: u64, flags: WriteFlags) -> Checked {
        success("write_zeroes", self.vol.try_zero(at, len, flags).await?)?;
        self.at(at, len).fill(0);
        Ok(())
    }

    /// Compares everything.
    pub(super) async fn expect(&self, when: &str) -> Checked {
        self.vol.expect(0, &self.wanted, when).await
    }

    /// Compares a range and what is beside it.
    pub(super) async fn expect_around(&self, at: u64, len: u64) -> Checked {
        let margin = 4096_u64.max(u64::from(self.vol.caps.min_block));
        let from = at.saturating_sub(margin);
        let to = (at + len + margin).min(self.wanted.len() as u64);
        let when = format!("after {len} bytes at {at} were changed");
        self.vol.expect(from, &self.wanted[from as usize..to as usize], &when).await
    }
}
