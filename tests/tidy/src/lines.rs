// SPDX-License-Identifier: Apache-2.0
//! Takes Rust text apart into code and comments, line by line, so that no rule mistakes a string for code.

/// One line of a Rust file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The code; comments are gone, the inside of strings and characters is blank.
    pub code: String,
    /// The comments, with their slashes or stars.
    pub comment: String,
    /// Whether the line belongs to an item under `#[cfg(test)]`.
    pub in_test_module: bool,
}

impl Line {
    /// Whether there is code on the line.
    pub fn has_code(&self) -> bool {
        !self.code.trim().is_empty()
    }
}

enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text { hashes: Option<usize> },
}

/// Splits a Rust file into its lines.
pub fn split(text: &str) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let characters: Vec<char> = text.chars().collect();
    let mut at = 0;
    while let Some(&current) = characters.get(at) {
        let rest = &characters[at..];
        if current == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let last = lines.len() - 1;
        let line = &mut lines[last];
        let taken = match &mut state {
            State::LineComment => {
                line.comment.push(current);
                1
            }
            State::BlockComment { depth } => {
                let taken = if rest.starts_with(&['/', '*']) {
                    *depth += 1;
                    2
                } else if rest.starts_with(&['*', '/']) {
                    *depth -= 1;
                    2
                } else {
                    1
                };
                line.comment.extend(&rest[..taken]);
                if *depth == 0 {
                    state = State::Code;
                }
                taken
            }
            State::Text { hashes: None } => match current {
                '\\' if rest.get(1) != Some(&'\n') => 2,
                '"' => {
                    line.code.push('"');
                    state = State::Code;
                    1
                }
                _ => 1,
            },
            State::Text { hashes: Some(hashes) } => {
                let taken = 1 + *hashes;
                let ends = current == '"'
                    && rest.len() >= taken
                    && rest[1..taken].iter().all(|c| *c == '#');
                if ends {
                    line.code.push('"');
                    state = State::Code;
                    taken
                } else {
                    1
                }
            }
            State::Code => code(rest, line, &mut state),
        };
        at += taken;
    }
    mark_test_modules(&mut lines);
    lines
}

/// Takes one token's beginning from code and returns how many characters it took.
fn code(rest: &[char], line: &mut Line, state: &mut State) -> usize {
    if rest.starts_with(&['/', '/']) {
        *state = State::LineComment;
        return 0;
    }
    if rest.starts_with(&['/', '*']) {
        *state = State::BlockComment { depth: 0 };
        return 0;
    }
    let follows_word = line.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some((taken, hashes)) = raw_string(rest, follows_word) {
        line.code.push('"');
        *state = State::Text { hashes: Some(hashes) };
        return taken;
    }
    match rest {
        ['"', ..] => {
            line.code.push('"');
            *state = State::Text { hashes: None };
            1
        }
        // A character, not a lifetime: closed by a quote after one character or an escape.
        ['\'', '\\', _, tail @ ..] => {
            line.code.push_str("' '");
            tail.iter().position(|c| *c == '\'').map_or(rest.len(), |end| end + 4)
        }
        ['\'', _, '\'', ..] => {
            line.code.push_str("' '");
            3
        }
        [other, ..] => {
            line.code.push(*other);
            1
        }
        [] => 1,
    }
}

/// The length of a raw string's opening and its number of hashes, if one starts here.
fn raw_string(rest: &[char], follows_word: bool) -> Option<(usize, usize)> {
    let prefix = match rest {
        _ if follows_word => return None,
        ['r', '"' | '#', ..] => 1,
        ['b' | 'c', 'r', '"' | '#', ..] => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    (rest.get(prefix + hashes) == Some(&'"')).then_some((prefix + hashes + 1, hashes))
}

/// Marks the items that follow `#[cfg(test)]`, from the attribute to the closing brace or semicolon.
fn mark_test_modules(lines: &mut [Line]) {
    let mut open = false;
    let mut depth = 0_usize;
    for line in lines {
        if !open && line.code.trim().starts_with("#[cfg(test)]") {
            open = true;
            depth = 0;
        }
        if !open {
            continue;
        }
        line.in_test_module = true;
        for character in line.code.chars() {
            match character {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    open = depth > 0;
                }
                ';' if depth == 0 => open = false,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, split};

    fn only(text: &str) -> Line {
        let lines = split(text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn comments_leave_the_code() {
        let line = only("let a = 1; // one");
        assert_eq!((line.code.as_str(), line.comment.as_str()), ("let a = 1; ", "// one"));
        let line = only("let /* a /* nested */ b */ c;");
        assert_eq!(
            (line.code.as_str(), line.comment.as_str()),
            ("let  c;", "/* a /* nested */ b */")
        );
    }

    #[test]
    fn strings_are_blank() {
        assert_eq!(only(r#"f("// no comment", "a\"b") // c"#).code, r#"f("", "") "#);
        assert_eq!(
            only(r##"f(r#"un"wrap"#, br"x", 'c', '\'', "é")"##).code,
            r##"f("", "", ' ', ' ', "")"##
        );
        assert_eq!(only("fn f<'a>(x: &'a str)").code, "fn f<'a>(x: &'a str)");
        assert_eq!(only(r"('\u{1F600}', '\\')").code, "(' ', ' ')");
    }

    #[test]
    fn strings_and_comments_span_lines() {
        let lines = split("let a = \"one\n// two\n\"; /* three\nfour */ b");
        let code: Vec<_> = lines.iter().map(|line| line.code.as_str()).collect();
        assert_eq!(code, ["let a = \"", "", "\"; ", " b"]);
        assert_eq!(lines[2].comment, "/* three");
        assert_eq!(lines[3].comment, "four */");
    }

    #[test]
    fn test_modules_end_with_their_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
        let marks: Vec<_> = split(text).iter().map(|line| line.in_test_module).collect();
        assert_eq!(marks, [false, true, true, true, true, false, true, true, false]);
    }
}
