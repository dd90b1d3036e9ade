// SPDX-License-Identifier: Apache-2.0
//! Files stay short enough to read in one go.

use crate::{Violation, source::Source};

/// Lines of code in a file, its test module apart.
const CODE: usize = 500;
/// Lines of code in a file of tests.
const TESTS: usize = 900;

/// The rule. Blank lines and comments do not count.
pub fn short_files(file: &Source) -> Vec<Violation> {
    let limit = if file.is_test() { TESTS } else { CODE };
    let counts =
        |line: &&crate::lines::Line| line.has_code() && (file.is_test() || !line.in_test_module);
    let lines = file.lines.iter().filter(counts).count();
    if lines <= limit {
        return Vec::new();
    }
    vec![file.violation(
        0,
        "short files",
        format!("{lines} lines of code, at most {limit}: split it by reason to exist"),
    )]
}

#[cfg(test)]
mod tests {
    use super::short_files;
    use crate::source::Source;

    fn broken(path: &str, lines: usize, rest: &str) -> bool {
        let text = "let a = 1;\n\n// a comment\n".repeat(lines) + rest;
        !short_files(&Source::new(path, &text)).is_empty()
    }

    #[test]
    fn only_code_counts() {
        assert!(!broken("host/src/a.rs", 500, ""));
        assert!(broken("host/src/a.rs", 501, ""));
        assert!(broken("host/src/a.rs", 500, "fn b() {}"));
    }

    #[test]
    fn tests_have_more_room() {
        assert!(!broken("host/src/a.rs", 500, "#[cfg(test)]\nmod tests {\n fn b() {}\n}\n"));
        assert!(!broken("host/src/a_tests.rs", 900, ""));
        assert!(broken("host/src/a_tests.rs", 901, ""));
    }

    #[test]
    fn other_files_are_free() {
        assert!(!broken("Cargo.lock", 5000, ""));
    }
}
