// SPDX-License-Identifier: Apache-2.0
//! The house rules that a compiler does not know: lengths, names, arrows between crates, words.
//!
//! `cargo test -p novastor-tidy` applies every rule to every file that git tracks, or would track. A rule is a function
//! from a file to its violations, or from a list of paths or crates, with good and bad text in its own tests.

pub mod lines;
pub mod rules;
pub mod source;
pub mod tree;

use std::fmt;

/// A rule broken at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, from the top of the repository.
    pub file: String,
    /// The line, counted from one; zero for the file as a whole.
    pub line: usize,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.message)
    }
}
