// SPDX-License-Identifier: Apache-2.0
//! The repository speaks of novastor, not of the desk it was written at.

use crate::{Violation, source::Source};

/// Words that stand for themselves, in any case. Spelled in halves so that this file keeps its own rule.
const WORDS: [&str; 9] = [
    concat!("cla", "ude"),
    concat!("anth", "ropic"),
    concat!("chat", "gpt"),
    concat!("cop", "ilot"),
    concat!("helper", " agent"),
    concat!("sub", "agent"),
    concat!("language", " model"),
    concat!("this", " session"),
    concat!("work", " session"),
];
/// Directories of one machine.
const PLACES: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/tmp", "/wt"),
    concat!("/tmp", "/tgt"),
    concat!("/root", "/.cargo"),
];

/// The rule. It looks into binary files too: compilers leave paths in them.
pub fn no_workplace(file: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        let lower = line.to_lowercase();
        let words = WORDS.iter().filter(|word| has_word(&lower, word));
        let places = PLACES.iter().filter(|place| has_place(line, place));
        for found in words.chain(places) {
            violations.push(file.violation(
                number,
                "no workplace",
                format!("{found:?} says where this was written, not what it does"),
            ));
        }
    }
    violations
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric))
}

/// Whether an absolute path that begins with `place` stands in the line.
fn has_place(line: &str, place: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "._-}~".contains(c);
    line.match_indices(place).any(|(at, _)| !line[..at].ends_with(inside))
}

#[cfg(test)]
mod tests {
    use super::{PLACES, WORDS, no_workplace};
    use crate::source::Source;

    fn count(text: &str) -> usize {
        no_workplace(&Source::new("README.md", text)).len()
    }

    #[test]
    fn every_word_is_found() {
        for word in WORDS {
            assert_eq!(count(&format!("a {} b", word.to_uppercase())), 1, "{word}");
        }
        for place in PLACES {
            assert_eq!(count(&format!("see `{place}main`")), 1, "{place}");
        }
    }

    #[test]
    fn neighbours_are_free() {
        assert_eq!(count("a session token, a login session, the helper of mount"), 0);
        assert_eq!(count(&format!("home{}x and {}{}x", PLACES[0], "${DIR}", PLACES[0])), 0);
    }
}
