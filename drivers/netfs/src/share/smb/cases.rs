// SPDX-License-Identifier: Apache-2.0
//! Names that differ in case alone, on servers for which these are one file.
//!
//! Volumes called `a` and `A` are two. So what is made here has a `^` and the small letter for each capital: `^a.raw`.
//! An image that was there before keeps its name, and is found under exactly that.

use crate::names::FileName;

/// Says that the next letter is a capital.
const CAPITAL: char = '^';

/// The name under which a file is made.
pub(super) fn written(name: &FileName) -> String {
    let mut text = String::new();
    for letter in name.as_str().chars() {
        if letter.is_ascii_uppercase() {
            text.push(CAPITAL);
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// The names under which a file may be, the likelier first.
pub(super) fn candidates(name: &FileName) -> Vec<String> {
    let (written, own) = (written(name), name.to_string());
    if written == own { vec![own] } else { vec![written, own] }
}

/// The name of a file that a server lists.
pub(super) fn read(listed: &str) -> String {
    let mut text = String::new();
    let mut letters = listed.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.next_if(|next| letter == CAPITAL && next.is_ascii_lowercase()) {
            Some(next) => text.push(next.to_ascii_uppercase()),
            None => text.push(letter),
        }
    }
    text
}

/// Whether a server that says that `full` is the path means this very name, and not one in other letters.
pub(super) fn is_exact(full: &str, asked: &str) -> bool {
    let told = full.rsplit('\\').next().unwrap_or(full);
    // A server that says something else altogether, such as a short name, is not taken at its word.
    told == asked || !told.eq_ignore_ascii_case(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for name in ["a.raw", "A.raw", "aA.raw", "WEB-1.novastor.new", "disk.img"] {
            let name = FileName::new(name).expect("a name");
            assert_eq!(read(&written(&name)), name.as_str());
            assert!(!written(&name).contains(|letter: char| letter.is_ascii_uppercase()));
        }
        assert_eq!(read("Disk.img"), "Disk.img");
        assert_eq!(read("a^"), "a^");
    }

    #[test]
    fn other_letters_are_another_name() {
        assert!(is_exact("\\dir\\Disk.img", "Disk.img"));
        assert!(!is_exact("\\dir\\Disk.img", "disk.img"));
        assert!(is_exact("\\dir\\DISK~1.IMG", "disk.image"));
    }
}
