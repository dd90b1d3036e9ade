// SPDX-License-Identifier: Apache-2.0
//! Applies every rule to the repository.

use novastor_tidy::{
    Violation,
    rules::{FILE_RULES, arrows},
    tree,
};

#[test]
fn the_repository_is_tidy() {
    let root = tree::root();
    let files = tree::files(&root).unwrap();
    let packages = tree::packages(&root).unwrap();
    assert!(
        files.iter().any(|file| file.path == "tests/tidy/tests/repository.rs"),
        "the list of files lacks this one"
    );
    assert!(
        packages.iter().any(|package| package.place == "driver-api"),
        "the list of crates lacks driver-api"
    );

    let mut violations: Vec<Violation> = arrows::one_way(&packages);
    for file in &files {
        violations.extend(FILE_RULES.iter().flat_map(|rule| rule(file)));
    }
    violations.sort();
    let list: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} violations\n{}", list.len(), list.join("\n"));
}
