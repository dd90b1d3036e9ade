// SPDX-License-Identifier: Apache-2.0
//! Work left for later is an issue, not a comment.

use crate::{Violation, source::Source};

/// Spelled in two halves so that this file keeps its own rule.
const MARKERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// The rule: a marker is followed by the number of its issue, such as `(#12)`.
pub fn reminders_name_an_issue(file: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        for marker in MARKERS {
            for (at, _) in line.match_indices(marker) {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let (before, after) = (&line[..at], &line[at + marker.len()..]);
                let inside = before.ends_with(word) || after.starts_with(word);
                let issue = after.trim_start_matches(['(', ' ']).strip_prefix('#');
                if !inside
                    && !issue.is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
                {
                    violations.push(file.violation(
                        number,
                        "reminders",
                        format!("{marker} without an issue: open one and name it, {marker}(#12)"),
                    ));
                }
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::{MARKERS, reminders_name_an_issue};
    use crate::source::Source;

    #[test]
    fn a_marker_needs_its_issue() {
        for marker in MARKERS {
            let count =
                |text: String| reminders_name_an_issue(&Source::new("host/src/a.rs", &text)).len();
            assert_eq!(count(format!("// {marker}: later")), 1);
            assert_eq!(count(format!("let a = 1; // {marker}(someone) {marker}")), 2);
            assert_eq!(count(format!("// {marker}(#12): later")), 0);
            assert_eq!(count(format!("// {marker} #12 later")), 0);
            assert_eq!(count(format!("mktemp a.{marker}X")), 0);
        }
    }
}
