// SPDX-License-Identifier: Apache-2.0
//! Files that need banners need to be split instead.

use crate::{Violation, source::Source};

const RUN: usize = 4;

/// The rule: no comment draws a line. Drawings in documentation comments are free.
pub fn no_banners(file: &Source) -> Vec<Violation> {
    let comments: Vec<&str> = if file.is_rust() {
        file.lines.iter().map(|line| line.comment.as_str()).collect()
    } else if is_hash_commented(file) {
        file.text
            .lines()
            .map(|line| if line.trim_start().starts_with('#') { line } else { "" })
            .collect()
    } else {
        Vec::new()
    };
    let found = (1..).zip(comments).filter(|(_, comment)| is_banner(comment.trim()));
    found
        .map(|(number, _)| {
            file.violation(
                number,
                "no banners",
                "a line drawn in a comment: split the file".to_owned(),
            )
        })
        .collect()
}

fn is_hash_commented(file: &Source) -> bool {
    file.path.ends_with(".toml") || file.path.ends_with(".sh") || file.text.starts_with("#!")
}

fn is_banner(comment: &str) -> bool {
    if ["///", "//!"].iter().any(|doc| comment.starts_with(doc) && !comment.starts_with("////")) {
        return false;
    }
    let inside =
        comment.strip_prefix("//").or_else(|| comment.strip_prefix("/*")).unwrap_or(comment);
    let drawn = |c: char| "=-*#~_/+".contains(c);
    let run = |text: &str| text.chars().take_while(|c| drawn(*c)).count();
    let reversed: String = inside.chars().rev().collect();
    run(inside.trim_start()) >= RUN || run(reversed.trim_start()) >= RUN
}

#[cfg(test)]
mod tests {
    use super::no_banners;
    use crate::source::Source;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        no_banners(&Source::new(path, text)).iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn drawn_lines_are_found() {
        let rule = "-".repeat(8);
        assert_eq!(lines("a.rs", &format!("// {rule}\nfn a() {{}}\n//{rule}\n")), [1, 3]);
        assert_eq!(
            lines("a.rs", &format!("// {rule} reading {rule}\n/*{}*/", "*".repeat(9))),
            [1, 2]
        );
        assert_eq!(lines("a.rs", &format!("{}\n", "/".repeat(20))), [1]);
        assert_eq!(lines("a.toml", &format!("#{rule}\na = 1\n{}", "#".repeat(10))), [1, 3]);
    }

    #[test]
    fn sentences_and_drawings_are_free() {
        let rule = "-".repeat(8);
        assert_eq!(lines("a.rs", "// a comment -- with a dash\n/// an item\n//! | a |\n"), [0; 0]);
        assert_eq!(
            lines("a.rs", &format!("//! +{rule}+\nlet a = \"// {rule}\";\n// from a {rule}> b\n")),
            [0; 0]
        );
        assert_eq!(lines("a.md", &format!("# Title\n{rule}\n")), [0; 0]);
    }
}
