// SPDX-License-Identifier: Apache-2.0
//! Names that operators choose, and the nearest one to a name that does not exist.

use driver_api::{Error, ErrorKind, Result};

const LONGEST: usize = 128;

/// Checks the name of a volume, backend, snapshot or the like: no name that passes leaves its directory or key.
///
/// `what` says in the message what it names, such as `"volume"`.
pub fn validate_name(what: &str, name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > LONGEST {
        format!("it has {} bytes, more than {LONGEST}", name.len())
    } else if name.starts_with(['.', '-']) {
        "it begins with a dot or hyphen".to_owned()
    } else if let Some(other) = name.chars().find(|c| !allowed(*c)) {
        format!("it contains {other:?}")
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(LONGEST).collect();
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, format!("the {what} name is not valid: {fault}"))
        .with(what, shown.escape_debug())
        .remedy(format!(
            "use 1 to {LONGEST} of A-Z a-z 0-9 . _ - and do not begin with a dot or hyphen"
        )))
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = plain(word);
    let within = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= within && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_room_are_refused() {
        let longest = "x".repeat(LONGEST);
        for good in ["a", "0", "_", "web1", "A.b_c-9", "a..b", longest.as_str()] {
            validate_name("volume", good).unwrap();
        }
        let too_long = "x".repeat(LONGEST + 1);
        let bad = ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\n", "a\0", too_long.as_str()];
        for bad in bad {
            let error = validate_name("volume", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
            assert!(error.message().contains("volume") && !error.remedy_text().is_empty());
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let keys = ["socket", "max_connections", "max_in_flight", "mode"];
        assert_eq!(nearest("sockets", keys), Some("socket"));
        assert_eq!(nearest("max-connection", keys), Some("max_connections"));
        assert_eq!(nearest("Mdoe", keys), Some("mode"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", ["ab"]), None);
    }
}
