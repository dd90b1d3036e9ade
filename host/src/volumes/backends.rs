// SPDX-License-Identifier: Apache-2.0
//! The configured backends: opened at start, kept as unavailable with the reason where that fails, opened again when
//! their driver appears or the operator asks.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use driver_api::{Error, ErrorKind, OpContext, OptionSpec, Result};

use crate::plugins::GuardedBackend;

/// How long a driver gets for an operation on a volume's life before its outcome counts as unknown.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);

/// A future without a type of its own.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Opens backends: knows configuration and drivers.
pub trait Opener: Send + Sync + 'static {
    /// Opens the backend of this name.
    fn open(&self, name: &str) -> Boxed<Result<Opened>>;
}

/// A backend as it was opened.
pub struct Opened {
    /// The driver's version.
    pub version: String,
    /// The backend.
    pub handle: GuardedBackend,
    /// The options that the driver got, defaults filled in, without secrets.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The options that its volumes take at create.
    pub volume_options: Vec<OptionSpec>,
}

/// An open backend.
pub struct OpenBackend {
    /// Its name in the configuration.
    pub name: String,
    /// What the opener gave.
    pub opened: Opened,
    degraded: Mutex<Option<String>>,
}

impl fmt::Debug for OpenBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBackend").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The context of an operation on a volume's life.
pub fn control() -> OpContext {
    OpContext::new().with_timeout(CONTROL_TIMEOUT)
}

impl OpenBackend {
    /// The backend's handle.
    pub fn handle(&self) -> &GuardedBackend {
        &self.opened.handle
    }

    /// Awaits an operation of this backend; a panic in it marks the backend degraded.
    pub async fn call<T>(
        &self,
        operation: &str,
        op: impl IntoFuture<Output = Result<T>>,
    ) -> Result<T> {
        self.note(operation, op.await)
    }

    /// Marks the backend degraded if the result is a panic, and names backend and operation in the error.
    pub fn note<T>(&self, operation: &str, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if error.kind() == ErrorKind::PANIC {
                let why = format!("its driver panicked in {operation}: {}", error.message());
                tracing::error!(backend = %self.name, operation, "{why}");
                *self.degraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
            error.during(operation).with("backend", &self.name)
        })
    }

    /// Why the host holds the backend for degraded, if it does.
    pub fn degraded(&self) -> Option<String> {
        if let Some(why) = self.opened.handle.meter().and_then(|meter| meter.degraded()) {
            return Some(why);
        }
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether a configured backend can be used.
#[derive(Clone, Debug)]
pub enum BackendStatus {
    /// It is open.
    Open(Arc<OpenBackend>),
    /// It is not, for this reason.
    Unavailable(Error),
}

/// The configured backends. A cheap handle.
#[derive(Clone)]
pub struct Backends(Arc<Inner>);

struct Inner {
    active: Option<String>,
    drivers: BTreeMap<String, String>,
    status: RwLock<BTreeMap<String, BackendStatus>>,
    opening: tokio::sync::Mutex<()>,
    /// The open ones in the order in which they were opened: one may be built on earlier ones.
    opened: Mutex<Vec<String>>,
    opener: Box<dyn Opener>,
}

impl Backends {
    /// Backends by name with their drivers' names, none of them open yet.
    pub fn new(
        active: Option<String>,
        drivers: BTreeMap<String, String>,
        opener: impl Opener,
    ) -> Self {
        let waiting =
            Error::new(ErrorKind::UNAVAILABLE, "it has not been opened yet; the host is starting");
        let status = drivers
            .keys()
            .map(|name| (name.clone(), BackendStatus::Unavailable(waiting.clone())))
            .collect();
        Self(Arc::new(Inner {
            active,
            drivers,
            status: RwLock::new(status),
            opening: tokio::sync::Mutex::new(()),
            opened: Mutex::default(),
            opener: Box::new(opener),
        }))
    }

    fn status_map(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, BackendStatus>> {
        self.0.status.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend that takes volumes which name none.
    pub fn active(&self) -> Option<&str> {
        self.0.active.as_deref()
    }

    /// The driver of a configured backend.
    pub fn driver_of(&self, name: &str) -> &str {
        self.0.drivers.get(name).map_or("", String::as_str)
    }

    /// All backends with their status, by name.
    pub fn list(&self) -> Vec<(String, BackendStatus)> {
        self.status_map().iter().map(|(name, status)| (name.clone(), status.clone())).collect()
    }

    /// One backend's status.
    pub fn status(&self, name: &str) -> Result<BackendStatus> {
        self.status_map().get(name).cloned().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let near = self
            .0
            .drivers
            .keys()
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let remedy = match near {
            Some((_, known)) => format!("did you mean `{known}`? novastor backend list"),
            None => format!("configure [backends.{name}], or choose one of: novastor backend list"),
        };
        Error::new(ErrorKind::NOT_FOUND, format!("no backend `{name}` is configured"))
            .remedy(remedy)
    }

    /// An open backend.
    pub fn get(&self, name: &str) -> Result<Arc<OpenBackend>> {
        match self.status(name)? {
            BackendStatus::Open(backend) => Ok(backend),
            BackendStatus::Unavailable(why) => Err(Error::new(
                ErrorKind::UNAVAILABLE,
                format!("backend `{name}` is unavailable: {}", why.message()),
            )
            .caused_by(&why)
            .remedy(format!("correct the cause, then: novastor backend open {name}"))),
        }
    }

    /// The named backend, or the active one.
    pub fn choose(&self, name: Option<&str>) -> Result<Arc<OpenBackend>> {
        let name = name.or(self.active()).ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "no backend was named and none is active")
                .remedy("name one with --backend, or set active = \"…\" in the configuration")
        })?;
        self.get(name)
    }

    /// Opens a backend that is not open; one that is stays as it is.
    pub async fn open(&self, name: &str) -> Result<Arc<OpenBackend>> {
        let _one_at_a_time = self.0.opening.lock().await;
        if let BackendStatus::Open(backend) = self.status(name)? {
            return Ok(backend);
        }
        let status = match self.0.opener.open(name).await {
            Ok(opened) => {
                self.opened_names().push(name.to_owned());
                tracing::info!(backend = name, version = %opened.version, "backend is open");
                BackendStatus::Open(Arc::new(OpenBackend {
                    name: name.to_owned(),
                    opened,
                    degraded: Mutex::new(None),
                }))
            }
            Err(error) => {
                // Tried again and again, it is logged only once for each reason.
                let known = matches!(self.status(name), Ok(BackendStatus::Unavailable(why))
                    if why.message() == error.message());
                if !known {
                    tracing::warn!(backend = name, "backend is unavailable: {error:#}");
                }
                BackendStatus::Unavailable(error)
            }
        };
        self.0
            .status
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), status.clone());
        match status {
            BackendStatus::Open(backend) => Ok(backend),
            BackendStatus::Unavailable(error) => Err(error),
        }
    }

    /// Tries every backend that is not open, and gives the names of those that now are.
    ///
    /// One may be built on another: as long as some succeed, the others are tried again.
    pub async fn open_missing(&self) -> Vec<String> {
        let mut opened = Vec::new();
        loop {
            let before = opened.len();
            for (name, status) in self.list() {
                let missing = matches!(status, BackendStatus::Unavailable(_));
                if missing && self.open(&name).await.is_ok() {
                    opened.push(name);
                }
            }
            if opened.len() == before {
                return opened;
            }
        }
    }

    fn opened_names(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all backends, those first that may be built on others. Their volumes must be detached.
    pub async fn close_all(&self) {
        let names: Vec<String> = self.opened_names().drain(..).rev().collect();
        for name in names {
            let Ok(BackendStatus::Open(backend)) = self.status(&name) else { continue };
            let closing = backend.call("close backend", backend.handle().close(&control()));
            match tokio::time::timeout(CONTROL_TIMEOUT, closing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("{error:#}"),
                Err(_) => tracing::error!(backend = %name, "the driver does not finish closing"),
            }
        }
    }
}
