// SPDX-License-Identifier: Apache-2.0
//! A write's mark: 128 random bits in the object's metadata, which prove whose write it was when an answer was lost.
//! It is told to nobody.

use driver_api::{Error, ErrorKind, Result};

use crate::{config::Kind, error::invalid};

/// The name of the metadata that keeps the mark.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        // Azure's names are identifiers of C#, which have no dashes.
        Kind::Azure => "novastor_mark",
        _ => "novastor-mark",
    }
}

/// Whether metadata of this name is the driver's own, and hidden.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with("novastor-") || name.starts_with("novastor_")
}

/// The mark that the caller gave, or a new one.
pub(crate) fn of(given: &str) -> Result<String> {
    if given.is_empty() {
        return draw();
    }
    if given.len() > 32 || !given.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid("the mark is not 1 to 32 hexadecimal digits").with("mark", given));
    }
    Ok(given.to_ascii_lowercase())
}

fn draw() -> Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| {
        Error::new(ErrorKind::INTERNAL, format!("the machine gives no random bits: {error}"))
    })?;
    Ok(format!("{:032x}", u128::from_le_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_given_ones_are_kept() {
        let (one, other) = (of("").expect("a mark"), of("").expect("a mark"));
        assert!(one != other && one.len() == 32);
        assert_eq!(of("AB12").expect("a mark"), "ab12");
        for bad in ["x", "0123456789abcdef0123456789abcdef0", "a b"] {
            assert_eq!(of(bad).expect_err("refused").kind(), ErrorKind::INVALID_ARGUMENT);
        }
    }
}
