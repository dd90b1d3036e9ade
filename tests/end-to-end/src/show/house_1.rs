// SPDX-License-Identifier: Apache-2.0
//! A fresh clone: the demo starts as the README says, what it prints to type next works, Ctrl-C ends it cleanly; the
//! long form optimises as a user's build does, and runs the tests there, too.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    program::{Program, until},
    workspace::root,
};

/// What the demo says once everything it printed can be typed.
const READY: &str = "Ctrl-C";

pub(super) fn play(stage: &Stage) -> Outcome {
    let clone = stage.path("novastor");
    Program::new("git")
        .args(["clone", "--quiet", "--no-hardlinks"])
        .arg(root())
        .arg(&clone)
        .run()?;
    stage.tell("cloned");
    let readme = fs::read_to_string(clone.join("README.md")).context("README.md")?;
    let [demo, test] = commands(&readme)?;
    let target = target(stage, &clone)?;
    if !stage.is_long() {
        build_quickly(stage, &clone)?;
        stage.tell("the dependencies are there");
    }

    let (room, log) = (stage.path("demo"), stage.path("demo.log"));
    // As a shell at the top of the clone would run it: Ctrl-C ends it there, also where all this was started in the
    // background of a script, which has it ignored.
    let shell = ["--default-signal=INT", "bash", "-c", &format!("exec {demo}")];
    let program = Program::giving_way("env").args(shell).directory(&clone);
    let mut running =
        program.env("CARGO_TARGET_DIR", &target).env("NOVASTOR_DEMO_DIR", &room).start(&log)?;
    until(Duration::from_secs(1200), || {
        let said = fs::read_to_string(&log).context(log.display())?;
        match running.still_runs() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => {
                ensure(said.contains(READY), || format!("{demo} is not ready:\n{said}")).map(Ok)
            }
        }
    })??;
    stage.tell(format!("`{demo}` serves"));

    let said = fs::read_to_string(&log).context(log.display())?;
    let typed = to_type(&said);
    ensure(typed.len() >= 3, || format!("{demo} printed too little to type next:\n{said}"))?;
    for command in &typed {
        Program::new("bash").args(["-euc", command]).directory(&clone).run()?;
        running.still_runs()?;
        stage.tell(format!("`{command}` works"));
    }

    running.signal_group(Signal::INT)?;
    let status = running.wait(Duration::from_secs(30))?;
    ensure(status.success(), || format!("{demo} ended with {status}:\n{}", running.said()))?;
    let sockets = sockets(&room)?;
    ensure(sockets.is_empty(), || format!("left behind: {}", sockets.join(", ")))?;
    stage.tell("Ctrl-C ended it cleanly");

    if stage.is_long() {
        let program = Program::new("bash").args(["-c", &test]).directory(&clone).limit_secs(3600);
        program.env("CARGO_TARGET_DIR", &target).env("NOVASTOR_SHOW_NESTED", "1").run()?;
        stage.tell(format!("`{test}` passes"));
    }
    Ok(())
}

/// Has our own crates built without optimisation, in which most of the time would go: the release build is another one's
/// matter, that of the program that plays this. What is set above the clone changes nothing in it, and its dependencies
/// stay the same.
fn build_quickly(stage: &Stage, clone: &Path) -> Outcome {
    let ask = ["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"];
    let said = Program::new("cargo").args(ask).directory(clone).run()?;
    let told: Value = serde_json::from_str(&said.stdout).context("cargo metadata")?;
    let packages = told["packages"].as_array().into_iter().flatten();
    let sections = packages
        .filter_map(|package| package["name"].as_str())
        .map(|name| format!("[profile.release.package.{name}]\nopt-level = 0\ndebug = false\n\n"));
    let config = stage.path(".cargo");
    fs::create_dir(&config).context(config.display())?;
    let config = config.join("config.toml");
    fs::write(&config, sections.collect::<String>()).context(config.display())
}

/// Where the clone is built: the long form from nothing; the short form starts with copies of the dependencies.
fn target(stage: &Stage, clone: &Path) -> Outcome<std::path::PathBuf> {
    if stage.is_long() {
        return Ok(clone.join("target"));
    }
    let target = stage.artifacts.target().join("house-1");
    let release = target.join("release");
    if !release.exists() {
        fs::create_dir_all(&release).context(release.display())?;
        let built = stage.artifacts.target().join("release");
        for part in ["deps", "build", ".fingerprint"] {
            let program = Program::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(built.join(part))
                .arg(&release);
            program.limit_secs(300).run()?;
        }
    }
    Ok(target)
}

/// The README's two commands, in the order of its text: the demo, then the tests.
fn commands(readme: &str) -> Outcome<[String; 2]> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in readme.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fenced = language == "sh";
        } else if fenced && (line.starts_with("host/") || line.starts_with("tests/run")) {
            found.push(line.split('#').next().unwrap_or_default().trim().to_owned());
        }
    }
    <[String; 2]>::try_from(found)
        .map_err(|found| Failure::new(format!("the README has other commands: {found:?}")))
}

/// The commands that the demo printed behind a `$`.
fn to_type(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| line.trim_start().strip_prefix("$ "))
        .map(ToOwned::to_owned)
        .collect()
}

fn sockets(room: &Path) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(room).context(room.display())? {
        let name = entry.context(room.display())?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sock") {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{commands, to_type};
    use crate::workspace::root;

    #[test]
    fn the_readme_has_two_commands() {
        let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
        assert_eq!(commands(&readme).unwrap(), ["host/demo", "tests/run"]);
        assert!(commands("```sh\nhost/demo\n```\n").is_err());
        assert!(commands("host/demo\ntests/run\n").is_err());
    }

    #[test]
    fn what_to_type_stands_behind_a_dollar() {
        assert_eq!(
            to_type("now type\n    $ nbdinfo x\nor\n  $ qemu-img y 'z $ z'\n$5"),
            ["nbdinfo x", "qemu-img y 'z $ z'"]
        );
    }
}
