// SPDX-License-Identifier: Apache-2.0
//! Sums over content, by the names that stores tell them with.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
};

use driver_api::{Error, ErrorKind, Result};
use md5::Md5;
use sha2::{Digest, Sha256};

use super::journal::read_at;

const PIECE: usize = 1 << 20;

/// A kind of sum that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Crc32c,
    Md5,
    Sha256,
}

/// A sum that a store tells; none if it is of a kind that cannot be made here.
pub(super) fn told(text: &str) -> Option<(Kind, &str)> {
    let (name, sum) = text.split_once(':')?;
    let (kind, digits) = match name {
        "crc32c" => (Kind::Crc32c, 8),
        "md5" => (Kind::Md5, 32),
        "sha256" => (Kind::Sha256, 64),
        _ => return None,
    };
    (sum.len() == digits).then_some((kind, sum))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn hex_of_crc(crc: u32) -> String {
    format!("{crc:08x}")
}

/// Sums that grow with the content. CRC-32C costs next to nothing and is always made.
#[derive(Clone, Default)]
pub(super) struct Sums {
    crc: u32,
    md5: Option<Md5>,
    sha256: Option<Sha256>,
}

impl Sums {
    /// Sums of these kinds.
    pub(super) fn of(kinds: &[Kind]) -> Self {
        Self {
            crc: 0,
            md5: kinds.contains(&Kind::Md5).then(Md5::new),
            sha256: kinds.contains(&Kind::Sha256).then(Sha256::new),
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc
    }

    /// The sum of this kind in hexadecimal digits; none if it was not made.
    pub(super) fn hex(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Crc32c => Some(hex_of_crc(self.crc)),
            Kind::Md5 => self.md5.clone().map(|sum| hex(&sum.finalize())),
            Kind::Sha256 => self.sha256.clone().map(|sum| hex(&sum.finalize())),
        }
    }
}

/// The sum of a part of a file.
pub(super) fn of_file(file: &File, at: u64, len: u64, kind: Kind) -> Result<String> {
    let mut sums = Sums::of(&[kind]);
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    while done < len {
        let wanted = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
        let read = read_at(file, &mut buffer[..wanted], at + done)
            .map_err(|error| Error::from_io("the file cannot be read", &error))?;
        if read == 0 {
            return Err(Error::new(ErrorKind::CORRUPTED, "the file is shorter than it was"));
        }
        sums.add(&buffer[..read]);
        done += read as u64;
    }
    sums.hex(kind).ok_or_else(|| Error::new(ErrorKind::INTERNAL, "a sum was not made"))
}

/// Which sums the store tells, which is known from its first answer on.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    md5: AtomicBool,
    sha256: AtomicBool,
}

impl Wanted {
    pub(super) fn learn(&self, kind: Kind) {
        match kind {
            Kind::Crc32c => {}
            Kind::Md5 => self.md5.store(true, Ordering::Relaxed),
            Kind::Sha256 => self.sha256.store(true, Ordering::Relaxed),
        }
    }

    pub(super) fn sums(&self) -> Sums {
        let mut kinds = Vec::new();
        if self.md5.load(Ordering::Relaxed) {
            kinds.push(Kind::Md5);
        }
        if self.sha256.load(Ordering::Relaxed) {
            kinds.push(Kind::Sha256);
        }
        Sums::of(&kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_everybody_else() {
        let mut sums = Sums::of(&[Kind::Md5, Kind::Sha256]);
        sums.add(b"1234");
        sums.add(b"56789");
        assert_eq!(sums.hex(Kind::Crc32c).unwrap(), "e3069283");
        assert_eq!(sums.hex(Kind::Md5).unwrap(), "25f9e794323b453885f5181f1b624d0b");
        let sha = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        assert_eq!(sums.hex(Kind::Sha256).unwrap(), sha);
        assert_eq!(Sums::default().hex(Kind::Md5), None);
    }

    #[test]
    fn the_sum_of_pieces_is_the_sum_of_the_whole() {
        let (first, last) = (crc32c::crc32c(b"1234"), crc32c::crc32c(b"56789"));
        assert_eq!(crc32c::crc32c_combine(first, last, 5), 0xe306_9283);
    }

    #[test]
    fn unknown_sums_are_not_compared() {
        assert_eq!(told("crc32c:e3069283"), Some((Kind::Crc32c, "e3069283")));
        assert_eq!(told("crc64nvme:0011223344556677"), None);
        assert_eq!(told("md5:abc"), None);
        assert_eq!(told("e3069283"), None);
    }
}
