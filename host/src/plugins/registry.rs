// SPDX-License-Identifier: Apache-2.0
//! The drivers there are. A file of the plugin directory is
//!
//! ```text
//!   found ──verified, opened──▶ loaded ──panic──▶ degraded
//!     │                            │ removed or replaced   │
//!     └──any check fails──▶ refused   └──────▶ draining ◀──┘
//! ```
//!
//! A draining build serves the backends that use it, gets no new ones, and leaves the list with the last of them.
//! A file that is refused after it was loaded leaves its last good build in service.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use driver_api::{Error, ErrorKind, Result, Retry, descriptor::Role};
use serde::Serialize;

pub use super::load::{InUse, Lender, LoadedDriver};
use super::{
    load::{Outcome, Services, load},
    log::DriverLog,
    scan::{Stamp, scan},
    verify::{Rules, sweep},
};

/// A missing driver may be any refused file while there are no more of these.
const FEW: usize = 3;

/// Where drivers come from and what they must satisfy.
#[derive(Clone, Debug)]
pub struct PluginSettings {
    /// The directory that holds the drivers.
    pub dir: PathBuf,
    /// The directory for private copies, of this host's user alone and not mounted noexec.
    pub private_dir: PathBuf,
    /// If given: the sha256 sums of the only files that may be loaded.
    pub allow_sha256: Option<Vec<String>>,
}

/// What a plugin is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Seen, not yet decided: it is still being written.
    Found,
    /// Not loaded, for the reason given.
    Refused,
    /// In service.
    Loaded,
    /// In service, but it panicked.
    Degraded,
    /// Serving what it serves, and no more.
    Draining,
}

/// A plugin as the operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    /// The file's name in the plugin directory.
    pub file: String,
    /// The driver's name; empty if it is not known.
    pub name: String,
    /// The driver's version; empty if it is not known.
    pub version: String,
    /// The ABI it was built for, as in `1.0`; empty if it is not known.
    pub abi: String,
    /// `driver` or `layer`; empty if it is not known.
    pub role: String,
    /// The sha256 of its content; empty if it was not loaded.
    pub sha256: String,
    /// What it is doing.
    pub state: PluginState,
    /// Why it is in this state; empty if nothing is wrong.
    pub reason: String,
    /// What to do about it; empty if nothing is known.
    pub remedy: String,
    /// How many backends and layered volumes use it.
    pub backends_in_use: usize,
    /// When it was loaded, in seconds since 1970; zero if it was not.
    pub loaded_unix_secs: u64,
    /// How many of its calls held a thread of the host for too long.
    pub blocked_calls: u64,
    /// The last such call.
    pub last_blocked: Option<String>,
    /// Whether its calls run on a thread of their own because of that.
    pub isolated: bool,
}

/// All drivers of this process.
pub struct Registry {
    dir: PathBuf,
    rules: Rules,
    services: Arc<Services>,
    /// Held while the directory is scanned: one scan at a time, while the list stays readable.
    scanning: Mutex<()>,
    plugins: Mutex<Plugins>,
}

#[derive(Default)]
struct Plugins {
    files: BTreeMap<PathBuf, Entry>,
    /// Every build ever loaded, in the order in which they came into service.
    builds: Vec<Arc<LoadedDriver>>,
}

struct Entry {
    stamp: Stamp,
    /// The last good build of this file.
    build: Option<Arc<LoadedDriver>>,
    /// Why the file as it is now is not loaded.
    trouble: Option<Error>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry that has looked at nothing yet.
    pub fn new(settings: PluginSettings, log: Arc<dyn DriverLog>) -> Arc<Self> {
        sweep(&settings.private_dir);
        Arc::new(Self {
            dir: settings.dir,
            rules: Rules { private_dir: settings.private_dir, allow_sha256: settings.allow_sha256 },
            services: Arc::new(Services { log, lender: OnceLock::new() }),
            scanning: Mutex::new(()),
            plugins: Mutex::default(),
        })
    }

    /// The plugin directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives drivers access to what `lender` lends, from now on. Only the first lender counts.
    pub fn lend(&self, lender: Arc<dyn Lender>) {
        if self.services.lender.set(lender).is_err() {
            tracing::error!("a second lender was offered to the drivers; the first one stays");
        }
    }

    /// Looks at every file that is new or changed since the last time, in the order of their names, and forgets those
    /// that are gone. A file that is refused is no failure of the scan.
    pub fn rescan(&self) -> Result<()> {
        self.rescan_resting(|_| true)
    }

    /// As [`Registry::rescan`], leaving alone the files that do not rest.
    pub(super) fn rescan_resting(&self, rests: impl Fn(&Path) -> bool) -> Result<()> {
        let _one_at_a_time = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        let found = scan(&self.dir)?;
        self.plugins().files.retain(|file, entry| {
            let stays = found.contains_key(file);
            if !stays && let Some(build) = &entry.build {
                tracing::info!(file = %file.display(), driver = build.name, "driver removed");
            }
            stays
        });
        for (file, stamp) in found {
            let decided = self.plugins().files.get(&file).is_some_and(|entry| {
                entry.stamp == stamp && !entry.trouble.as_ref().is_some_and(is_temporary)
            });
            if !decided && rests(&file) {
                self.consider(file, stamp);
            }
        }
        Ok(())
    }

    fn consider(&self, file: PathBuf, stamp: Stamp) {
        let outcome = load(&file, &self.rules, &self.services, |sha256| {
            self.plugins().builds.iter().any(|build| build.sha256 == sha256)
        });
        let mut plugins = self.plugins();
        let (build, trouble) = match outcome {
            Ok(Outcome::Loaded(driver)) => {
                tracing::info!(
                    file = %file.display(),
                    driver = driver.name,
                    version = driver.version,
                    sha256 = driver.sha256,
                    "driver loaded"
                );
                plugins.builds.push(driver.clone());
                (Some(driver), None)
            }
            Ok(Outcome::Known(sha256)) => (plugins.serve_again(&sha256), None),
            Err(error) => {
                if !is_temporary(&error) {
                    tracing::warn!(file = %file.display(), "driver refused: {error:#}");
                }
                let last_good = plugins.files.get(&file).and_then(|entry| entry.build.clone());
                (last_good, Some(error))
            }
        };
        plugins.files.insert(file, Entry { stamp, build, trouble });
    }

    /// Every plugin, by file name, then the draining builds whose files are gone or replaced.
    pub fn list(&self) -> Vec<PluginStatus> {
        let plugins = self.plugins();
        let mut list = Vec::new();
        for (file, entry) in &plugins.files {
            if let Some(build) = &entry.build {
                list.push(plugins.status_of(build, file, entry.trouble.as_ref()));
            }
            if let Some(trouble) = &entry.trouble {
                list.push(status_of_refused(file, trouble));
            }
        }
        for build in &plugins.builds {
            if !plugins.has_file(build) && build.backends_in_use() > 0 {
                list.push(plugins.status_of(build, &build.file, None));
            }
        }
        list
    }

    /// The newest build of the driver `name`.
    pub fn driver(&self, name: &str) -> Result<Arc<LoadedDriver>> {
        let plugins = self.plugins();
        if let Some(build) = plugins.active(name) {
            return Ok(build.clone());
        }
        let mut names: Vec<&str> = plugins
            .builds
            .iter()
            .filter(|build| plugins.has_file(build))
            .map(|build| build.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let mut error = Error::new(ErrorKind::NOT_FOUND, format!("no driver `{name}` is loaded"))
            .with("loaded", there)
            .remedy(format!("put the driver's .so into {}", self.dir.display()));
        let refused = plugins.files.values().filter(|entry| entry.trouble.is_some()).count();
        for (file, entry) in &plugins.files {
            if let Some(trouble) = &entry.trouble
                && (refused <= FEW || may_be(file, name))
            {
                let file = file_name(file);
                error = error
                    .with("refused", format_args!("{file}: {}", trouble.message()))
                    .remedy(format!("{file}: {}", trouble.remedy_text()));
            }
        }
        Err(error)
    }

    fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugins {
    fn has_file(&self, build: &Arc<LoadedDriver>) -> bool {
        self.files
            .values()
            .any(|entry| entry.build.as_ref().is_some_and(|of_file| Arc::ptr_eq(of_file, build)))
    }

    /// The name of a file that has this build now, or had it when it was loaded.
    fn file_of(&self, build: &Arc<LoadedDriver>) -> String {
        let has = |entry: &Entry| entry.build.as_ref().is_some_and(|of| Arc::ptr_eq(of, build));
        let now = self.files.iter().find(|(_, entry)| has(entry)).map(|(file, _)| file);
        file_name(now.unwrap_or(&build.file))
    }

    /// The build of `name` that new backends get.
    fn active(&self, name: &str) -> Option<&Arc<LoadedDriver>> {
        self.builds.iter().rev().find(|build| build.name == name && self.has_file(build))
    }

    /// A build whose content was dropped again becomes the newest one.
    fn serve_again(&mut self, sha256: &str) -> Option<Arc<LoadedDriver>> {
        let at = self.builds.iter().position(|build| build.sha256 == sha256)?;
        let build = self.builds.remove(at);
        self.builds.push(build.clone());
        Some(build)
    }

    fn status_of(
        &self,
        build: &Arc<LoadedDriver>,
        file: &Path,
        trouble: Option<&Error>,
    ) -> PluginStatus {
        let active = self.active(&build.name);
        let degraded = build.meter.degraded();
        let (state, reason) = match active {
            Some(active) if Arc::ptr_eq(active, build) => match (degraded, trouble) {
                (Some(why), _) => (PluginState::Degraded, why),
                (None, Some(_)) => (
                    PluginState::Loaded,
                    "its file was replaced by one that is not loaded: a restart would miss it"
                        .to_owned(),
                ),
                (None, None) => (PluginState::Loaded, String::new()),
            },
            Some(active) => (
                PluginState::Draining,
                with_panic(format!("replaced by {}", self.file_of(active)), degraded),
            ),
            None => {
                (PluginState::Draining, with_panic("its file was removed".to_owned(), degraded))
            }
        };
        PluginStatus {
            file: file_name(file),
            name: build.name.clone(),
            version: build.version.clone(),
            abi: build.abi.clone(),
            role: role_name(build.role).to_owned(),
            sha256: build.sha256.clone(),
            state,
            reason,
            remedy: String::new(),
            backends_in_use: build.backends_in_use(),
            loaded_unix_secs: build.loaded_unix_secs,
            blocked_calls: build.meter.blocked_calls(),
            last_blocked: build.meter.last_blocked(),
            isolated: build.meter.isolated(),
        }
    }
}

fn status_of_refused(file: &Path, trouble: &Error) -> PluginStatus {
    let state = if is_temporary(trouble) { PluginState::Found } else { PluginState::Refused };
    PluginStatus {
        file: file_name(file),
        name: String::new(),
        version: String::new(),
        abi: String::new(),
        role: String::new(),
        sha256: String::new(),
        state,
        reason: trouble.message().to_owned(),
        remedy: trouble.remedy_text().to_owned(),
        backends_in_use: 0,
        loaded_unix_secs: 0,
        blocked_calls: 0,
        last_blocked: None,
        isolated: false,
    }
}

/// Whether the file may be fit the next time, unchanged.
fn is_temporary(trouble: &Error) -> bool {
    trouble.retry() == Retry::TEMPORARY
}

fn with_panic(reason: String, degraded: Option<String>) -> String {
    match degraded {
        Some(why) => format!("{reason}; {why}"),
        None => reason,
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Driver => "driver",
        Role::Layer => "layer",
    }
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a refused file could be the driver `name`, as far as its own name tells.
fn may_be(file: &Path, name: &str) -> bool {
    let plain = |text: &str| text.replace('_', "-").to_lowercase();
    plain(&file_name(file)).contains(&plain(name))
}
