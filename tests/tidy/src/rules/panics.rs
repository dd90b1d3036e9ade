// SPDX-License-Identifier: Apache-2.0
//! The product answers with errors; only tests unwrap.
//!
//! Other types may have an `expect` of their own: the one that panics takes a single text and is not awaited.

use crate::{Violation, source::Source};

/// The inside of a text is blank here.
const CALLS: [&str; 5] =
    [".unwrap()", ".unwrap_err()", ".expect(\"\")", ".expect_err(\"\")", ".expect(&format!("];

/// The rule.
pub fn no_panics(file: &Source) -> Vec<Violation> {
    if file.is_test() {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(&file.lines).filter(|(_, line)| !line.in_test_module) {
        for call in CALLS.iter().filter(|call| panics(&line.code, call)) {
            let message = format!("{call} outside a test: return an error");
            violations.push(file.violation(number, "no panics", message));
        }
    }
    violations
}

fn panics(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| !code[at + call.len()..].starts_with(".await"))
}

#[cfg(test)]
mod tests {
    use super::no_panics;
    use crate::source::Source;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        no_panics(&Source::new(path, text)).iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn calls_are_found() {
        assert_eq!(lines("host/src/a.rs", "a.unwrap();\nb\n    .expect(\"c\");"), [1, 3]);
        assert_eq!(lines("tests/conformance/src/a.rs", "a.unwrap();"), [1]);
        assert_eq!(lines("driver-api/examples/memory.rs", "a.unwrap();"), [1]);
    }

    #[test]
    fn other_methods_of_that_name_are_free() {
        assert_eq!(
            lines(
                "host/src/a.rs",
                "a.expect(0, b, \"c\")?;\na.expect(\"c\").await?;\na.unwrap(b);"
            ),
            [0; 0]
        );
    }

    #[test]
    fn tests_and_words_are_free() {
        assert_eq!(
            lines(
                "host/src/a.rs",
                "a.unwrap_or_default(); // .unwrap()\nlet b = \".expect(\";\nfn expect() {}"
            ),
            [0; 0]
        );
        assert_eq!(
            lines("host/src/a.rs", "#[cfg(test)]\nmod tests {\n    fn a() { b.unwrap(); }\n}"),
            [0; 0]
        );
        assert_eq!(lines("host/src/a_tests.rs", "a.unwrap();"), [0; 0]);
    }
}
