// SPDX-License-Identifier: Apache-2.0
//! The top level is fixed: a visitor learns it once.

use crate::{Violation, source::Source};

const ROOMS: [&str; 5] = ["host", "driver-api", "drivers", "plugins.d", "tests"];
const FILES: [&str; 9] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "deny.toml",
    "rust-toolchain.toml",
];

/// The rule. Names that begin with a dot are free.
pub fn fixed_top_level(file: &Source) -> Vec<Violation> {
    let allowed = match file.path.split_once('/') {
        Some((room, _)) => ROOMS.contains(&room) || room.starts_with('.'),
        None => FILES.contains(&file.path.as_str()) || file.path.starts_with('.'),
    };
    if allowed {
        return Vec::new();
    }
    vec![file.violation(
        0,
        "fixed top level",
        format!("the top level holds {} and {}", ROOMS.join("/, ") + "/", FILES.join(", ")),
    )]
}

#[cfg(test)]
mod tests {
    use super::fixed_top_level;
    use crate::source::Source;

    #[test]
    fn strangers_are_found() {
        let broken = |path| !fixed_top_level(&Source::new(path, "")).is_empty();
        assert!(broken("scripts/build.sh"));
        assert!(broken("NOTES.md"));
        assert!(broken("host"));
        assert!(!broken("host/src/main.rs"));
        assert!(!broken("plugins.d/README.md"));
        assert!(!broken(".ci/run"));
        assert!(!broken(".gitignore"));
        assert!(!broken("deny.toml"));
    }
}
