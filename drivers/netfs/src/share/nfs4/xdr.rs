// SPDX-License-Identifier: Apache-2.0
//! The words of NFSv4: what a compound is made of, and what its answer is taken apart into.

use bytes::{Buf, Bytes};

use crate::error::{Fault, broken_server};

/// Words to send.
#[derive(Default)]
pub(super) struct Words(pub Vec<u8>);

impl Words {
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes whose number both sides know, a multiple of four.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their number.
    pub fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
        let padded = self.0.len() + bytes.len().wrapping_neg() % 4;
        self.0.resize(padded, 0);
        self
    }

    /// A set of small numbers.
    pub fn bits(&mut self, numbers: &[u32]) -> &mut Self {
        let words = numbers.iter().max().map_or(0, |most| most / 32 + 1);
        self.u32(words);
        for word in 0..words {
            let of_word = numbers.iter().filter(|number| *number / 32 == word);
            self.u32(of_word.fold(0, |bits, number| bits | 1 << (number % 32)));
        }
        self
    }
}

/// Words that came.
pub(super) struct Answer(pub Bytes);

impl Answer {
    fn needs(&self, count: usize) -> Result<(), Fault> {
        if self.0.len() < count {
            return Err(broken_server("the server's answer is cut off").into());
        }
        Ok(())
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.needs(4)?;
        Ok(self.0.get_u32())
    }

    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.needs(8)?;
        Ok(self.0.get_u64())
    }

    pub fn bool(&mut self) -> Result<bool, Fault> {
        self.u32().map(|word| word != 0)
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.needs(N)?;
        let mut bytes = [0; N];
        self.0.copy_to_slice(&mut bytes);
        Ok(bytes)
    }

    /// Bytes behind their number, not copied.
    pub fn opaque(&mut self) -> Result<Bytes, Fault> {
        let len = self.u32()? as usize;
        self.needs(len)?;
        let bytes = self.0.split_to(len);
        let padding = len.wrapping_neg() % 4;
        self.needs(padding)?;
        self.0.advance(padding);
        Ok(bytes)
    }

    /// A set of small numbers, in order.
    pub fn bits(&mut self) -> Result<Vec<u32>, Fault> {
        let words = self.u32()?;
        self.needs(words as usize * 4)?;
        let mut numbers = Vec::new();
        for word in 0..words {
            let bits = self.0.get_u32();
            numbers.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 32 + bit));
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_as_they_went_in() {
        let mut words = Words::default();
        words.u32(7).opaque(b"abcde").bits(&[1, 4, 35]).u64(9).fixed(&[3; 8]);
        assert_eq!(words.0.len() % 4, 0);
        let mut answer = Answer(words.0.into());
        assert_eq!(answer.u32().expect("a word"), 7);
        assert_eq!(&answer.opaque().expect("bytes")[..], b"abcde");
        assert_eq!(answer.bits().expect("bits"), [1, 4, 35]);
        assert_eq!(answer.u64().expect("two words"), 9);
        assert_eq!(answer.fixed::<8>().expect("bytes"), [3; 8]);
        assert!(answer.u32().is_err());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut words = Words::default();
        words.u32(u32::MAX);
        assert!(Answer(words.0.clone().into()).opaque().is_err());
        assert!(Answer(words.0.into()).bits().is_err());
    }
}
