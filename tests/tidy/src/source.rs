// SPDX-License-Identifier: Apache-2.0
//! One file of the repository, and what its path says about it.

use crate::{
    Violation,
    lines::{self, Line},
};

/// A tracked file.
pub struct Source {
    /// From the top of the repository, with slashes.
    pub path: String,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// The lines of a Rust file, taken apart; empty for others.
    pub lines: Vec<Line>,
}

impl Source {
    /// A file of this path and text.
    pub fn new(path: &str, text: &str) -> Self {
        let lines = if path.ends_with(".rs") { lines::split(text) } else { Vec::new() };
        Self { path: path.to_owned(), text: text.to_owned(), lines }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is test code. The conformance suite is not: the host runs it for the operator.
    pub fn is_test(&self) -> bool {
        let rooms =
            self.path.starts_with("tests/") && !self.path.starts_with("tests/conformance/src/");
        let places = ["/tests/", "/fuzz/"].iter().any(|place| self.path.contains(place));
        rooms || places || self.path.ends_with("_tests.rs")
    }

    /// A violation in this file.
    pub fn violation(&self, line: usize, rule: &'static str, message: String) -> Violation {
        Violation { file: self.path.clone(), line, rule, message }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn test_code_is_known_by_its_place() {
        let is_test = |path| Source::new(path, "").is_test();
        assert!(is_test("host/src/state/embedded_tests.rs"));
        assert!(is_test("host/tests/plugins.rs"));
        assert!(is_test("host/nbd/fuzz/targets/negotiation.rs"));
        assert!(is_test("tests/end-to-end/src/lib.rs"));
        assert!(!is_test("tests/conformance/src/lib.rs"));
        assert!(is_test("tests/conformance/src/lib_tests.rs"));
        assert!(!is_test("host/src/latests.rs"));
    }
}
