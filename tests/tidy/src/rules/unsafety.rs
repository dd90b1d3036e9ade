// SPDX-License-Identifier: Apache-2.0
//! Each unsafe block says why it is sound.

use crate::{Violation, source::Source};

/// How many lines above the reason may stand: rustfmt may break a statement between the two.
const REACH: usize = 8;

/// The rule, for `unsafe { … }` and `unsafe impl`.
pub fn unsafe_is_explained(file: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in file.lines.iter().enumerate() {
        if !opens_unsafe(&line.code) {
            continue;
        }
        let first = index.saturating_sub(REACH);
        let explained =
            file.lines[first..=index].iter().any(|line| line.comment.contains("SAFETY:"));
        if !explained {
            violations.push(file.violation(
                index + 1,
                "unsafe is explained",
                "unsafe without a SAFETY: sentence above".to_owned(),
            ));
        }
    }
    violations
}

fn opens_unsafe(code: &str) -> bool {
    code.match_indices("unsafe").any(|(at, word)| {
        let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = code[at + word.len()..].trim_start();
        whole && (after.starts_with('{') || after.starts_with("impl"))
    })
}

#[cfg(test)]
mod tests {
    use super::unsafe_is_explained;
    use crate::source::Source;

    fn lines(text: &str) -> Vec<usize> {
        unsafe_is_explained(&Source::new("a.rs", text))
            .iter()
            .map(|violation| violation.line)
            .collect()
    }

    #[test]
    fn a_block_needs_its_reason() {
        assert_eq!(lines("fn a() {\n    unsafe { b() }\n}"), [2]);
        assert_eq!(lines("unsafe impl Send for A {}"), [1]);
        assert_eq!(lines("fn a() {\n    // SAFETY: b is.\n    unsafe { b() }\n}"), [0; 0]);
        assert_eq!(lines("// SAFETY: A is.\nunsafe impl Send for A {}"), [0; 0]);
        assert_eq!(
            lines(&format!("// SAFETY: far away.\n{}unsafe {{ b() }}", "a();\n".repeat(9))),
            [11]
        );
    }

    #[test]
    fn declarations_and_words_are_free() {
        assert_eq!(
            lines(
                "unsafe fn a();\ntype B = unsafe extern \"C\" fn();\n// unsafe { }\nlet c = \"unsafe {\";"
            ),
            [0; 0]
        );
        assert_eq!(lines("let not_unsafe = 1; make_unsafe {}"), [0; 0]);
    }
}
