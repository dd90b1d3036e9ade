// SPDX-License-Identifier: Apache-2.0

//! Names in URLs, hexadecimal numbers, random marks.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const KEY: AsciiSet = NAME.remove(b'/');

/// `name` as one segment of a URL's path, or as a value of its query.
pub(crate) fn name(name: &str) -> String {
    utf8_percent_encode(name, &NAME).to_string()
}

/// `key` as the rest of a URL's path: slashes stay.
pub(crate) fn key(key: &str) -> String {
    utf8_percent_encode(key, &KEY).to_string()
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// The bytes that `text` stands for, if it is hexadecimal.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// 128 random bits, or the reason why the system has none.
pub(crate) fn mark() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_urls() {
        assert_eq!(key("a b/ü?%2F#.~-_"), "a%20b/%C3%BC%3F%252F%23.~-_");
        assert_eq!(name("a/b&c=d+e"), "a%2Fb%26c%3Dd%2Be");
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(unhex("00abff"), Some(vec![0, 0xab, 0xff]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_ne!(mark(), mark());
    }
}
