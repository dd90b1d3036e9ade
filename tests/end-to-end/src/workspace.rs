// SPDX-License-Identifier: Apache-2.0
//! Runs test programs of the workspace as `cargo test --workspace` builds them, so that nothing is built twice.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{
    failure::{Context, Outcome, ensure},
    program::{Program, Said},
};

/// The top of the repository.
pub fn root() -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_root.ancestors().nth(2).unwrap_or(crate_root).to_owned()
}

/// A built test program.
#[derive(Debug, PartialEq, Eq)]
pub struct TestProgram {
    /// The crate's directory, where it wants to run.
    pub directory: PathBuf,
    /// The target's name.
    pub target: String,
    /// The program.
    pub program: PathBuf,
}

/// Builds all test programs and lists them.
///
/// # Errors
/// When something does not compile.
pub fn test_programs() -> Outcome<Vec<TestProgram>> {
    let build = ["test", "--workspace", "--locked", "--no-run"];
    let said = cargo().args(build).arg("--message-format=json-render-diagnostics").run()?;
    parse(&said.stdout)
}

/// `cargo` at the top of the repository, with half an hour's time.
pub fn cargo() -> Program {
    // A variable of an outer cargo would point the inner one at the outer one's crate.
    Program::giving_way("cargo")
        .directory(&root())
        .without_env("CARGO_MANIFEST_DIR")
        .limit_secs(1800)
}

/// Runs a test program and returns what it said.
///
/// # Errors
/// When a test fails, or none ran.
pub fn run_tests(program: &TestProgram, limit_secs: u64) -> Outcome<Said> {
    as_cargo_would(Program::new(&program.program), program).limit_secs(limit_secs).run()
}

/// Has a test program, which `program` starts, run where and with what cargo would run it.
pub fn as_cargo_would(program: Program, test: &TestProgram) -> Program {
    program.directory(&test.directory).env("CARGO_MANIFEST_DIR", &test.directory)
}

/// How many tests passed, by what the program said last.
pub fn passed(said: &Said) -> u64 {
    let counts = said.stdout.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    counts.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn parse(lines: &str) -> Outcome<Vec<TestProgram>> {
    let mut programs = Vec::new();
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("message of cargo")?;
        let is_test =
            message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        if let (true, Some(program), Some(manifest), Some(target)) = (
            is_test,
            text(&message["executable"]),
            text(&message["manifest_path"]),
            text(&message["target"]["name"]),
        ) {
            let directory = Path::new(&manifest).parent().unwrap_or(Path::new("/")).to_owned();
            programs.push(TestProgram { directory, target, program: program.into() });
        }
    }
    ensure(!programs.is_empty(), || "cargo built no test program".to_owned())?;
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Said, parse, passed};

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let lines = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/x/a/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":"/t/a"}"#,
            "\nwarning: text\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/x/a/Cargo.toml","target":{"name":"b"},"profile":{"test":true},"executable":"/t/b"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let programs = parse(lines).unwrap();
        assert_eq!(programs.len(), 1);
        assert_eq!(
            (programs[0].target.as_str(), programs[0].directory.as_path()),
            ("b", Path::new("/x/a"))
        );
        assert!(parse("").is_err());
    }

    #[test]
    fn passed_tests_are_counted() {
        let stdout = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n".to_owned();
        assert_eq!(passed(&Said { code: 0, stdout, stderr: String::new() }), 2);
    }
}
