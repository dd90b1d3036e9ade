// SPDX-License-Identifier: Apache-2.0
//! The command line of `novastor`, as users type it. Nothing else in this crate knows it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    failure::{Context, Failure, Outcome},
    program::{Program, Said},
};

/// The command line of one host.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    socket: PathBuf,
}

/// A driver as `driver list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its state, such as `loaded` or `refused`.
    pub state: String,
    /// The ABI it was built for.
    pub abi: String,
    /// Why it is in this state.
    pub why: String,
    /// The last call that held a thread of the host.
    pub last_blocked: String,
}

impl Cli {
    /// The command line of this program for the host behind this socket.
    pub fn new(program: &Path, socket: &Path) -> Self {
        Self { program: program.to_owned(), socket: socket.to_owned() }
    }

    /// The socket of the host.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `novastor serve`.
    pub fn serve(&self, config: &Path) -> Program {
        Program::new(&self.program).args(["serve", "--config"]).arg(config)
    }

    /// `novastor serve --check`: reads the configuration, says what is wrong, serves nothing.
    pub fn check_config(&self, config: &Path) -> Program {
        self.serve(config).arg("--check").codes(&[]).limit_secs(30)
    }

    /// A command to the host, to be completed.
    pub fn ask(&self) -> Program {
        Program::new(&self.program).arg("--socket").arg(&self.socket).limit_secs(60)
    }

    /// The words of a command to the host, for others to run.
    pub fn words(&self, words: &[&str]) -> Vec<OsString> {
        let host = [self.program.as_os_str(), OsStr::new("--socket"), self.socket.as_os_str()];
        host.into_iter().chain(words.iter().map(OsStr::new)).map(ToOwned::to_owned).collect()
    }

    /// The host's program, as the first of such words.
    pub fn program(&self) -> Vec<OsString> {
        vec![self.program.clone().into()]
    }

    /// `novastor status`.
    ///
    /// # Errors
    /// When the host does not answer.
    pub fn status(&self) -> Outcome<Said> {
        self.ask().arg("status").run()
    }

    /// `novastor volume create`, on the active backend unless another is named.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn create_volume(
        &self,
        name: &str,
        size: u64,
        backend: Option<&str>,
        options: &[(&str, &str)],
    ) -> Outcome {
        let mut program = self.ask().args(["volume", "create", name, "--size", &size.to_string()]);
        if let Some(backend) = backend {
            program = program.args(["--backend", backend]);
        }
        for (key, value) in options {
            program = program.arg("--option").arg(format!("{key}={value}"));
        }
        program.run().map(drop)
    }

    /// `novastor volume clone`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn clone_volume(&self, source: &str, target: &str) -> Outcome {
        self.ask().args(["volume", "clone", source, target]).run().map(drop)
    }

    /// `novastor export add`.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn add_export(&self, volume: &str) -> Outcome {
        self.ask().args(["export", "add", volume]).run().map(drop)
    }

    /// `novastor backend run`: a command of the backend's driver, and its answer.
    ///
    /// # Errors
    /// When the host or the driver refuses, or the answer is no JSON.
    pub fn run_on_backend(
        &self,
        backend: &str,
        command: &str,
        arguments: &Value,
    ) -> Outcome<Value> {
        let arguments = arguments.to_string();
        let said = self.ask().args(["backend", "run", backend, command, &arguments]).run()?;
        serde_json::from_str(&said.stdout).context(format!("answer of {command}: {}", said.stdout))
    }

    /// `novastor driver list`.
    ///
    /// # Errors
    /// When the host does not answer, or not in JSON.
    pub fn drivers(&self) -> Outcome<Vec<Driver>> {
        let said = self.ask().args(["driver", "list", "--output", "json"]).run()?;
        parse_drivers(&said.stdout)
    }

    /// `novastor driver check`: puts a driver through the conformance suite, without a host.
    ///
    /// # Errors
    /// When the driver breaks a promise.
    pub fn check_driver(&self, file: &Path, config: &Path) -> Outcome<Said> {
        self.check_driver_with(file, config, &[])
    }

    /// The same with further options.
    ///
    /// # Errors
    /// When the driver breaks a promise.
    pub fn check_driver_with(&self, file: &Path, config: &Path, more: &[&str]) -> Outcome<Said> {
        Program::new(&self.program)
            .args(["driver", "check"])
            .arg(file)
            .arg("--config")
            .arg(config)
            .args(more)
            .limit_secs(900)
            .run()
    }
}

/// Reads the answer of `driver list --output json`: a list, or an object with the list under `drivers`.
fn parse_drivers(text: &str) -> Outcome<Vec<Driver>> {
    let answer: Value = serde_json::from_str(text).context(format!("driver list: {text}"))?;
    let list = answer.as_array().or_else(|| answer["drivers"].as_array());
    let list = list.ok_or_else(|| Failure::new(format!("driver list gives no list: {text}")))?;
    let field = |driver: &Value, key: &str| driver[key].as_str().unwrap_or_default().to_owned();
    Ok(list
        .iter()
        .map(|driver| Driver {
            name: field(driver, "name"),
            state: field(driver, "state"),
            abi: field(driver, "abi"),
            why: field(driver, "why"),
            last_blocked: field(driver, "last_blocked"),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::{Driver, parse_drivers};

    #[test]
    fn drivers_are_read_from_both_shapes() {
        let expected = [Driver {
            name: "local".into(),
            state: "loaded".into(),
            abi: "1.1".into(),
            why: String::new(),
            last_blocked: String::new(),
        }];
        let list =
            r#"[{ "name": "local", "state": "loaded", "abi": "1.1", "last_blocked": null }]"#;
        assert_eq!(parse_drivers(list).unwrap(), expected);
        assert_eq!(parse_drivers(&format!(r#"{{ "drivers": {list} }}"#)).unwrap(), expected);
        assert!(parse_drivers("no json").is_err());
        assert!(parse_drivers("{}").is_err());
    }
}
