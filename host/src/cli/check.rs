// SPDX-License-Identifier: Apache-2.0
//! Checks that need no running host: of a configuration, and of a finished driver.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use driver_api::{BackendConfig, BackendHandle, Error, ErrorKind, Result};

use super::{
    Output,
    args::{pair, size},
    check_lend::CheckLender,
    load, show,
};
use crate::{
    config::{Loaded, check_options, resolve_secret},
    daemon,
    export::nbd::TlsKeys,
    plugins::{LoadedDriver, PluginSettings, PluginState, Registry, TracingLog},
};

/// `novastor driver check`
#[derive(Args, Debug)]
pub struct Check {
    /// The shared library
    pub(super) file: PathBuf,
    /// Size of the volumes it makes
    #[arg(long, value_parser = size, default_value = "64MiB")]
    pub(super) size: u64,
    /// An option of the driver's own for each volume
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) options: Vec<(String, String)>,
    /// Only this area, or this check, such as data/boundaries
    #[arg(long)]
    pub(super) only: Vec<String>,
    /// More rounds of what is random
    #[arg(long)]
    pub(super) long: bool,
    /// What random content is made from
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// What the names of its volumes and buckets begin with
    #[arg(long, default_value = "conformance-")]
    pub(super) prefix: String,
}

/// The backend that a driver is checked as where the configuration has none for it.
const STAND_IN: &str = "check";

/// `novastor serve --check`: what the configuration says fits the drivers that are there.
pub(super) fn configuration(loaded: Loaded) -> Result<()> {
    let settings = &loaded.settings;
    for name in settings.secrets.keys() {
        resolve_secret(settings, name)?;
    }
    if let Some(files) = daemon::tls_files(&settings.nbd) {
        TlsKeys::load(files)?;
    }
    let room = Room::new()?;
    let registry = Registry::new(
        PluginSettings {
            dir: settings.plugins.dir.clone(),
            private_dir: room.0.join("private"),
            allow_sha256: Some(settings.plugins.allow_sha256.clone()).filter(|l| !l.is_empty()),
        },
        Arc::new(TracingLog),
    );
    registry.rescan()?;
    for (name, backend) in &settings.backends {
        let driver = registry.driver(&backend.driver).map_err(|error| {
            let origin = loaded.origin(&["backends", name, "driver"]);
            error.with("key", format!("backends.{name}.driver")).with("where", origin)
        })?;
        check_options(&loaded, name, &driver.info)?;
    }
    show::print("the configuration is sound\n")
}

/// A directory of this process's own, gone with it.
struct Room(PathBuf);

impl Room {
    fn new() -> Result<Self> {
        // One of the same name may be left from a process that had this number before, and was killed.
        let mut number = 0;
        loop {
            let name = format!("novastor-check-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 100 => {
                    number += 1;
                }
                Err(error) => {
                    let told = format!("no directory for the check: {error}");
                    return Err(Error::from_io(told, &error).with("directory", path.display()));
                }
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), "left behind: {error}");
        }
    }
}

/// Loads one file as the host loads it: the same checks, on a private copy.
fn load_driver(file: &Path, room: &Room) -> Result<(Arc<Registry>, Arc<LoadedDriver>)> {
    let plugins = room.0.join("plugins.d");
    let failed = |error: std::io::Error| {
        Error::from_io(format!("the driver cannot be read: {error}"), &error)
            .with("file", file.display())
    };
    fs::DirBuilder::new().mode(0o700).create(&plugins).map_err(failed)?;
    // Copied with its mode: a file that others may write is refused here as it would be there.
    fs::copy(file, plugins.join("checked.so")).map_err(failed)?;
    let settings =
        PluginSettings { dir: plugins, private_dir: room.0.join("private"), allow_sha256: None };
    let registry = Registry::new(settings, Arc::new(TracingLog));
    registry.rescan()?;
    let status = registry.list().into_iter().next().ok_or_else(|| {
        Error::new(ErrorKind::INTERNAL, "the driver was not looked at").with("file", file.display())
    })?;
    if status.state == PluginState::Refused {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, status.reason)
            .with("file", file.display())
            .remedy(status.remedy));
    }
    let driver = registry.driver(&status.name)?;
    Ok((registry, driver))
}

/// The options of the backend that the configuration has for this driver, or the driver's defaults.
fn options_for(
    driver: &LoadedDriver,
    config: Option<PathBuf>,
) -> Result<(String, serde_json::Value)> {
    let loaded = load(config.clone(), Vec::new())?;
    let configured =
        loaded.settings.backends.iter().find(|(_, backend)| backend.driver == driver.name);
    if let Some((name, _)) = configured {
        return Ok((name.clone(), check_options(&loaded, name, &driver.info)?));
    }
    let stand_in = format!("backends.{STAND_IN}.driver={}", driver.name);
    let loaded = load(config, vec![stand_in])?;
    Ok((STAND_IN.to_owned(), check_options(&loaded, STAND_IN, &driver.info)?))
}

/// `novastor driver check`: puts the driver through the conformance suite.
pub(super) async fn driver(asked: &Check, config: Option<PathBuf>, output: Output) -> Result<()> {
    let plan = conformance::Plan {
        volume_options: asked.options.clone(),
        volume_size: asked.size,
        seed: asked.seed,
        only: asked.only.clone(),
        long: asked.long,
        prefix: asked.prefix.clone(),
        ..conformance::Plan::default()
    };
    let room = Room::new()?;
    let (registry, driver) = load_driver(&asked.file, &room)?;
    let lender =
        CheckLender::open(load(config.clone(), Vec::new())?, &driver.name, &room.0).await?;
    registry.lend(Arc::new(lender));
    let (name, options) = options_for(&driver, config)?;
    if output == Output::Table {
        let text = format!("{} {}: {}\n", driver.name, driver.version, driver.info.summary);
        show::print(&text)?;
    }
    let opener = {
        let driver = driver.clone();
        move || {
            let (driver, config) = (driver.clone(), BackendConfig::new(&name, &options));
            async move { Ok::<BackendHandle, Error>(driver.open(config).await?.handle().clone()) }
        }
    };
    // Its own thread may be held by a driver; this one then still tells how far it came.
    let checking = tokio::spawn(async move {
        conformance::run(&opener, plan, &mut |check| {
            if output == Output::Table {
                // A reader that is gone does not end the check.
                let _ = show::print(&format!("{check}\n"));
            }
        })
        .await
    });
    let report = checking.await.map_err(|panic| {
        Error::new(ErrorKind::INTERNAL, format!("the check ended in a panic: {panic}"))
    })?;
    match output {
        Output::Table => show::print(&format!("{report}\n"))?,
        Output::Json => show::json(&report)?,
    }
    match report.failed() {
        0 => Ok(()),
        failed => Err(Error::new(
            ErrorKind::INVALID_ARGUMENT,
            format!("driver `{}` breaks {failed} promises", driver.name),
        )
        .remedy("each failed check above names the promise and what was seen instead")),
    }
}
