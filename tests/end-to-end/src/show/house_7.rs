// SPDX-License-Identifier: Apache-2.0
//! Faulty configurations, each answered with file, key, cause and remedy. The long form runs the checks of the code, too.

mod faults;

use std::fs;

use super::Stage;
use crate::{
    cli::Cli,
    failure::{Context, Failure, Outcome, ensure},
    host::{configuration, install},
    program::Program,
    workspace,
};

use faults::{FAULTS, Fault};

pub(super) fn play(stage: &Stage) -> Outcome {
    let faults = FAULTS.iter().enumerate();
    let wrong = faults.filter_map(|(number, fault)| check(stage, number, fault).err());
    let wrong: Vec<_> = wrong.map(|failure| failure.to_string()).collect();
    ensure(wrong.is_empty(), || {
        format!("{} answers say too little:\n{}", wrong.len(), wrong.join("\n"))
    })?;
    stage.tell(format!(
        "{} faulty configurations are answered with file, key, cause and remedy",
        FAULTS.len()
    ));
    sound(stage)?;
    stage.tell("the configuration without a fault is accepted");
    if stage.is_long() {
        checks(stage)?;
    }
    Ok(())
}

/// Asks the host about a configuration; `damage` may change what lies around it. Returns exit code and text.
fn ask(stage: &Stage, name: &str, fault: Option<&Fault>) -> Outcome<(i32, String)> {
    let room = stage.path(name);
    for part in ["plugins.d", "data", "conf.d"] {
        fs::create_dir_all(room.join(part)).context(part)?;
    }
    install(&stage.artifacts.local()?, &room.join("plugins.d"))?;
    let config = room.join("host.toml");
    let sound = configuration(&room);
    let text =
        fault.map_or(Ok(sound.clone()), |fault| fault.apply(&sound)).map_err(Failure::new)?;
    fs::write(&config, text).context(config.display())?;
    let cli = Cli::new(&stage.artifacts.host()?, &room.join("api.sock"));
    let mut program = cli.check_config(&config);
    if let Some(fault) = fault {
        fault.arrange(&room).context(name)?;
        if let Some((key, value)) = fault.variable {
            program = program.env(key, value);
        }
    }
    let said = program.run()?;
    Ok((said.code, said.stdout + &said.stderr))
}

fn check(stage: &Stage, number: usize, fault: &Fault) -> Outcome {
    // A number, for the path stands in the answer, and its words must not count.
    let (code, text) = ask(stage, &number.to_string(), Some(fault)).context(fault.name)?;
    ensure(code != 0, || format!("{}: accepted", fault.name))?;
    let lower = text.to_lowercase();
    let missing: Vec<_> =
        fault.words.iter().filter(|word| !lower.contains(&word.to_lowercase())).collect();
    ensure(missing.is_empty(), || {
        format!("{}: {missing:?} is not in the answer:\n{text}", fault.name)
    })?;
    // The remedy is a line of its own below the refusal.
    ensure(text.lines().any(|line| line.starts_with("  ")), || {
        format!("{}: no remedy in the answer:\n{text}", fault.name)
    })
}

fn sound(stage: &Stage) -> Outcome {
    let (code, text) = ask(stage, "sound", None)?;
    ensure(code == 0, || format!("the sound configuration is refused:\n{text}"))
}

fn checks(stage: &Stage) -> Outcome {
    let checks: [&[&str]; 5] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        &["doc", "--workspace", "--no-deps", "--locked"],
        &["deny", "check", "bans", "licenses", "sources"],
        &["test", "--locked", "-p", "novastor-tidy"],
    ];
    for arguments in checks {
        workspace::cargo().args(arguments).env("RUSTDOCFLAGS", "-Dwarnings").run()?;
        stage.tell(format!("cargo {}", arguments.join(" ")));
    }
    let changes =
        Program::new("git").args(["status", "--porcelain"]).directory(&workspace::root()).run()?;
    ensure(changes.stdout.is_empty(), || format!("the checks changed files:\n{}", changes.stdout))
}
