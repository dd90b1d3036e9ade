// SPDX-License-Identifier: Apache-2.0
//! Escaped text in paths and queries.

use std::fmt::Write;

/// Adds `text` with everything escaped but the unreserved characters of RFC 3986, as signatures of S3 and GCS want it.
pub(crate) fn escape_into(out: &mut String, text: &str, keep_slashes: bool) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            b'/' if keep_slashes => out.push('/'),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// [`escape_into`] to a new string.
pub(crate) fn escape(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    escape_into(&mut out, text, keep_slashes);
    out
}

/// What [`escape`] made into text again; `+` is a blank where the writer says so. `None`: it is not so escaped.
pub(crate) fn unescape(text: &str, plus: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", "a/b c+d%41&=?#ü", "~-._", "\u{1f600}"] {
            assert_eq!(unescape(&escape(text, false), false).as_deref(), Some(text));
            assert_eq!(unescape(&escape(text, true), true).as_deref(), Some(text));
        }
        assert_eq!(escape("a/b c", true), "a/b%20c");
        assert_eq!(escape("a/b c", false), "a%2Fb%20c");
        assert_eq!(
            (unescape("a+b", true).as_deref(), unescape("a+b", false).as_deref()),
            (Some("a b"), Some("a+b"))
        );
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(unescape(bad, false), None, "{bad}");
        }
    }
}
