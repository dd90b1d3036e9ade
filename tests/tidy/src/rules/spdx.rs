// SPDX-License-Identifier: Apache-2.0
//! Each Rust file names its licence in its first line.

use crate::{Violation, source::Source};

const LICENCE: &str = "// SPDX-License-Identifier: Apache-2.0";

/// The rule.
pub fn licence_line(file: &Source) -> Vec<Violation> {
    if !file.is_rust() || file.text.lines().next() == Some(LICENCE) {
        return Vec::new();
    }
    vec![file.violation(1, "licence line", format!("the first line shall be {LICENCE:?}"))]
}

#[cfg(test)]
mod tests {
    use super::{LICENCE, licence_line};
    use crate::source::Source;

    #[test]
    fn the_first_line_counts() {
        let check = |path, text: String| licence_line(&Source::new(path, &text)).len();
        assert_eq!(check("a.rs", format!("{LICENCE}\n//! A file.")), 0);
        assert_eq!(check("a.rs", format!("\n{LICENCE}\n")), 1);
        assert_eq!(check("a.rs", format!("{LICENCE}-only\n")), 1);
        assert_eq!(check("a.rs", String::new()), 1);
        assert_eq!(check("a.toml", String::new()), 0);
    }
}
