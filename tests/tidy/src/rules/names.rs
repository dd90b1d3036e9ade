// SPDX-License-Identifier: Apache-2.0
//! Names say what is inside.

use crate::{Violation, source::Source};

const RULE: &str = "telling names";
const BANNED: [&str; 7] = ["utils", "util", "helper", "helpers", "common", "misc", "manager2"];

/// The rule: no part of a path and no module bears a name that says nothing.
pub fn telling_names(file: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    for part in file.path.split('/').map(stem).filter(|part| BANNED.contains(&part.as_str())) {
        violations.push(file.violation(
            0,
            RULE,
            format!("the name {part:?} does not say what is inside"),
        ));
    }
    for (number, line) in (1..).zip(&file.lines) {
        let words: Vec<_> = line.code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "mod" && BANNED.contains(&pair[1])) {
            violations.push(file.violation(
                number,
                RULE,
                format!("the module {:?} does not say what is inside", pair[1]),
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::telling_names;
    use crate::source::Source;

    #[test]
    fn empty_names_are_found() {
        let lines = |path, text| {
            telling_names(&Source::new(path, text)).iter().map(|v| v.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("host/src/utils.rs", ""), [0]);
        assert_eq!(lines("host/src/helpers/read.rs", ""), [0]);
        assert_eq!(lines("drivers/common/Cargo.toml", ""), [0]);
        assert_eq!(lines("host/src/lib.rs", "\npub(crate) mod util;\nmod misc { }"), [2, 3]);
        assert_eq!(
            lines(
                "host/src/utilisation.rs",
                "mod helpers_of_none;\n// mod util\nuse common::mode;"
            ),
            [0; 0]
        );
    }
}
