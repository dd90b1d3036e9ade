// SPDX-License-Identifier: Apache-2.0
//! The command line: a client of the management API, and `serve`. Commands translate and call.

mod args;
mod buckets;
mod changes;
mod check;
mod check_lend;
mod client;
mod cluster;
mod connect;
mod jobs;
mod mounts;
mod movement;
mod objects;
mod promotion;
mod scrubs;
mod show;
mod volumes;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};
use driver_api::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

use crate::{
    api::changes::ProtectSnapshot,
    api::types::{
        BackendView, CommandView, CreateExport, CreateGroup, CreateSnapshot, DriverView,
        ExportView, GroupView, SnapshotView, StatusView, VolumeView,
    },
    config::{Loaded, Settings, Sources, Variables},
    daemon,
    errors::exit_code,
};
use args::{BackendCommand, Command, DriverCommand, ExportCommand, SnapshotCommand, Watched};
pub use args::{Cli, Output};
pub use client::Client;
use client::part;
use mounts::Mounts;
use show::Row;

/// Runs what was typed, and gives the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::from_io("no threads to run on", &error)),
    };
    let result = runtime.block_on(run(cli));
    // What a driver still has under way at the end must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("novastor: {error}");
    for source in error.sources() {
        eprintln!("  because: {source}");
    }
    let remedy = error.remedy_text();
    if !remedy.is_empty() {
        let word = if remedy.starts_with("novastor ") { "try: " } else { "" };
        eprintln!("  {word}{remedy}");
    }
    ExitCode::from(exit_code(error.kind()))
}

struct Session {
    client: Client,
    output: Output,
}

async fn run(cli: Cli) -> Result<()> {
    match &cli.command {
        Command::Serve(serve) => {
            let loaded = load(cli.config.clone(), serve.overrides.clone())?;
            if serve.check {
                return check::configuration(loaded);
            }
            if serve.stdio {
                return daemon::serve_stdio(loaded).await;
            }
            return daemon::serve(loaded).await;
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "novastor", &mut text);
            return show::print(&String::from_utf8_lossy(&text));
        }
        Command::Driver(DriverCommand::Check(asked)) => {
            return check::driver(asked, cli.config, cli.output).await;
        }
        _ => {}
    }
    let socket = match cli.socket {
        Some(socket) => socket,
        None => load(cli.config, Vec::new())?.settings.api.socket,
    };
    let client = Client::new(&socket, cli.request_id)?;
    Session { client, output: cli.output }.run(cli.command).await
}

fn load(config: Option<PathBuf>, overrides: Vec<String>) -> Result<Loaded> {
    Settings::load(&Sources { config, variables: Variables::of_process(), overrides })
}

impl Session {
    async fn run(&self, command: Command) -> Result<()> {
        match command {
            Command::Status(watched) => self.show::<StatusView>("/v1/status", watched).await,
            Command::Driver(command) => self.driver(command).await,
            Command::Backend(command) => self.backend(command).await,
            Command::Node(command) => self.node(command).await,
            Command::Volume(command) => self.volume(command).await,
            Command::Shard(command) => self.shard(command).await,
            Command::Snapshot(command) => self.snapshot(command).await,
            Command::Export(command) => self.export(command).await,
            Command::Bucket(command) => self.bucket(command).await,
            Command::Object(command) => self.object(command).await,
            Command::Job(command) => self.job(command).await,
            Command::Serve(_) | Command::Completions { .. } => {
                Err(Error::new(ErrorKind::INTERNAL, "this command needs no host"))
            }
        }
    }

    fn one<R: Row>(&self, row: &R) -> Result<()> {
        show::one(self.output, row)
    }

    fn done(&self, text: &str) -> Result<()> {
        match self.output {
            Output::Table => show::print(&format!("{text}\n")),
            Output::Json => show::json(&serde_json::json!({ "done": text })),
        }
    }

    async fn repeat(&self, watched: Watched, view: impl AsyncFn() -> Result<()>) -> Result<()> {
        if !watched.watch {
            return view().await;
        }
        loop {
            if self.output == Output::Table {
                // Clears the terminal and goes to its first line.
                show::print("\x1b[2J\x1b[H")?;
            }
            view().await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn show<R: Row + DeserializeOwned>(&self, path: &str, watched: Watched) -> Result<()> {
        self.repeat(watched, async || self.one(&self.client.get::<R>(path).await?)).await
    }

    async fn list<R: Row + DeserializeOwned>(&self, path: &str, watched: Watched) -> Result<()> {
        let view = async || show::list(self.output, &self.client.get::<Vec<R>>(path).await?);
        self.repeat(watched, view).await
    }

    async fn driver(&self, command: DriverCommand) -> Result<()> {
        match command {
            DriverCommand::List(watched) => self.list::<DriverView>("/v1/drivers", watched).await,
            DriverCommand::Rescan => {
                let all: Vec<DriverView> =
                    self.client.post("/v1/drivers/rescan", &serde_json::json!({})).await?;
                show::list(self.output, &all)
            }
            DriverCommand::Show { name } => {
                let all: Vec<DriverView> = self.client.get("/v1/drivers").await?;
                let found = all.iter().find(|driver| driver.name == name || driver.file == name);
                self.one(found.ok_or_else(|| {
                    Error::new(ErrorKind::NOT_FOUND, format!("there is no driver `{name}`"))
                        .remedy("novastor driver list")
                })?)
            }
            DriverCommand::Check { .. } => {
                Err(Error::new(ErrorKind::INTERNAL, "this command needs no host"))
            }
        }
    }

    async fn backend(&self, command: BackendCommand) -> Result<()> {
        let nothing = serde_json::json!({});
        match command {
            BackendCommand::List(watched) => {
                self.list::<BackendView>("/v1/backends", watched).await
            }
            BackendCommand::Show { name } => {
                let path = format!("/v1/backends/{}", part(&name));
                self.one(&self.client.get::<BackendView>(&path).await?)
            }
            BackendCommand::Open { name } => {
                let path = format!("/v1/backends/{}/open", part(&name));
                self.one(&self.client.post::<BackendView>(&path, &nothing).await?)
            }
            BackendCommand::Mounts(Mounts { name, watched }) => {
                let view = async || self.mounts(name.as_deref()).await;
                self.repeat(watched, view).await
            }
            BackendCommand::Commands { name } => {
                let path = format!("/v1/backends/{}/commands", part(&name));
                show::list(self.output, &self.client.get::<Vec<CommandView>>(&path).await?)
            }
            BackendCommand::Run { name, command, arguments } => {
                let arguments: serde_json::Value =
                    serde_json::from_str(&arguments).map_err(|error| {
                        Error::new(ErrorKind::INVALID_ARGUMENT, "the arguments are not JSON")
                            .caused_by(&error)
                            .remedy(format!("novastor backend commands {name}"))
                    })?;
                let path = format!("/v1/backends/{}/commands/{}", part(&name), part(&command));
                show::json(&self.client.post::<serde_json::Value>(&path, &arguments).await?)
            }
        }
    }

    async fn snapshot(&self, command: SnapshotCommand) -> Result<()> {
        let all = |volume: &str| format!("/v1/volumes/{}/snapshots", part(volume));
        match command {
            SnapshotCommand::Create { volume, name, with, longest_pause } if !with.is_empty() => {
                let volumes = std::iter::once(volume).chain(with).collect();
                let body = CreateGroup { name, volumes, longest_pause_secs: longest_pause };
                self.group(&self.client.post("/v1/snapshots", &body).await?)
            }
            SnapshotCommand::Create { volume, name, .. } => {
                let made: SnapshotView =
                    self.client.post(&all(&volume), &CreateSnapshot { name }).await?;
                self.one(&made)
            }
            SnapshotCommand::List { volume, watched } => {
                self.list::<SnapshotView>(&all(&volume), watched).await
            }
            SnapshotCommand::Delete { volume, name } => {
                self.client.delete(&format!("{}/{}", all(&volume), part(&name))).await?;
                self.done(&format!("snapshot {name} of volume {volume} is deleted"))
            }
            SnapshotCommand::Protect { volume, name, undo } => {
                let path = format!("{}/{}/protect", all(&volume), part(&name));
                let body = ProtectSnapshot { on: !undo };
                self.one(&self.client.post::<SnapshotView>(&path, &body).await?)
            }
            SnapshotCommand::Rollback { volume, name } => {
                let path = format!("{}/{}/rollback", all(&volume), part(&name));
                let _: VolumeView = self.client.post(&path, &serde_json::json!({})).await?;
                self.done(&format!("volume {volume} is as it was in snapshot {name}"))
            }
        }
    }

    fn group(&self, group: &GroupView) -> Result<()> {
        if self.output == Output::Json {
            return show::json(group);
        }
        show::list(self.output, &group.snapshots)?;
        self.done(&format!("all of one point, for which changes were held {} ms", group.paused_ms))
    }

    async fn export(&self, command: ExportCommand) -> Result<()> {
        match command {
            ExportCommand::Add { volume, name, read_only, allow, default, take_over } => {
                let body = CreateExport { volume, name, read_only, allow, default, take_over };
                let added: ExportView = self.client.post("/v1/exports", &body).await?;
                if self.output == Output::Json {
                    return self.one(&added);
                }
                let ExportView { name, volume, uri, durability, .. } = added;
                self.done(&format!(
                    "volume {volume} is exported as {name}\n{uri}\nlook at it: nbdinfo '{uri}'"
                ))?;
                if let Some(durability) = durability {
                    eprintln!("{durability}");
                }
                Ok(())
            }
            ExportCommand::List(watched) => self.list::<ExportView>("/v1/exports", watched).await,
            ExportCommand::Show { name } => {
                let path = format!("/v1/exports/{}", part(&name));
                self.one(&self.client.get::<ExportView>(&path).await?)
            }
            ExportCommand::Connect { name } => connect::run(&self.client, name).await,
            ExportCommand::Remove { name } => {
                self.client.delete(&format!("/v1/exports/{}", part(&name))).await?;
                self.done(&format!("export {name} is removed"))
            }
        }
    }
}
