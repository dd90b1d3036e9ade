// SPDX-License-Identifier: Apache-2.0
//! The object store of one backend: found by name, asked under watch and within a deadline.

use std::{sync::Arc, time::Duration};

use driver_api::{
    Abilities, Error, ErrorKind, IoBuf, ObjectReaderHandle, ObjectsHandle, Op, OpContext, Result,
    ext::ObjectFeatures,
};

use crate::{
    plugins::{Call, GuardedReader},
    volumes::{BackendStatus, CONTROL_TIMEOUT, OpenBackend, Volumes},
};

/// For operations in which the store itself moves bytes, such as copies.
pub const LONG: Duration = Duration::from_secs(600);

/// The name that stands for the only backend with objects.
const ONLY: &str = "-";

/// A backend that has objects. A cheap handle.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Arc<OpenBackend>,
    features: Arc<ObjectFeatures>,
}

impl Store {
    pub(super) fn choose(volumes: &Volumes, name: &str) -> Result<Self> {
        let backend = match name {
            ONLY => only(volumes)?,
            name => volumes.backends().get(name)?,
        };
        if !volumes.backend_has(&backend, Abilities::OBJECTS)? {
            let why = format!("backend `{}` has volumes, and no objects", backend.name);
            return Err(Error::new(ErrorKind::UNSUPPORTED, why)
                .with("driver", volumes.backends().driver_of(&backend.name))
                .remedy("see which backend has `objects`: novastor backend list --output json"));
        }
        let features = backend.note("features", backend.handle().object_features())?;
        Ok(Self { backend, features: Arc::new(features) })
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.backend.name
    }

    /// What the store can do, and its limits.
    pub fn features(&self) -> &ObjectFeatures {
        &self.features
    }

    /// Asks the store, within the time of an operation on a volume's life.
    pub async fn ask<T: Send + 'static>(
        &self,
        call: Call,
        begin: impl FnOnce(&ObjectsHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Result<T> {
        self.ask_within(CONTROL_TIMEOUT, call, begin).await
    }

    /// Watches a reader that this store has opened.
    pub fn reader(&self, reader: ObjectReaderHandle) -> Reader {
        let reader = self.backend.handle().reader(reader);
        Reader { backend: Arc::clone(&self.backend), reader }
    }

    /// Asks the store. A change that is not answered in time is told as one whose outcome is unknown.
    pub async fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        call: Call,
        begin: impl FnOnce(&ObjectsHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Result<T> {
        let cx = OpContext::new().with_timeout(patience);
        let asking = self.backend.handle().objects(call, &cx, begin);
        let answer = self.backend.call(call.name(), asking).await;
        answer.map_err(|error| match call.mutates() && error.kind() == ErrorKind::TIMED_OUT {
            true => {
                let error = error.with("outcome", "unknown");
                match error.remedy_text() {
                    "" => error.remedy("look at the object or bucket before you repeat it"),
                    _ => error,
                }
            }
            false => error,
        })
    }
}

/// An object of a store that is read in order.
#[derive(Debug)]
pub struct Reader {
    backend: Arc<OpenBackend>,
    reader: GuardedReader,
}

impl Reader {
    /// The next bytes; none at the end.
    pub async fn next(&self) -> Result<IoBuf> {
        let cx = OpContext::new().with_timeout(CONTROL_TIMEOUT);
        self.backend.call(Call::ReadObject.name(), self.reader.next(&cx)).await
    }
}

/// The only open backend with objects.
fn only(volumes: &Volumes) -> Result<Arc<OpenBackend>> {
    let (mut found, mut closed) = (Vec::new(), Vec::new());
    for (name, status) in volumes.backends().list() {
        match status {
            BackendStatus::Open(backend)
                if volumes.backend_has(&backend, Abilities::OBJECTS)? =>
            {
                found.push(backend);
            }
            BackendStatus::Open(_) => {}
            BackendStatus::Unavailable(_) => closed.push(name),
        }
    }
    let refused = |why: String, remedy: &str| {
        Error::new(ErrorKind::INVALID_ARGUMENT, why).during("choose backend").remedy(remedy)
    };
    match (found.len(), found.pop()) {
        // One that cannot be asked may have objects as well.
        (1, Some(backend)) if closed.is_empty() => Ok(backend),
        (1, Some(backend)) => {
            let why = format!(
                "`{}` has objects, and whether {} has some is not known while unavailable",
                backend.name,
                closed.join(", ")
            );
            Err(refused(why, "name one with --backend"))
        }
        (0, _) if closed.is_empty() => {
            let why = "no backend has objects".to_owned();
            Err(refused(why, "configure one whose driver has: novastor driver list"))
        }
        (0, _) => {
            let why = format!("no open backend has objects; not open: {}", closed.join(", "));
            Err(refused(why, "see why: novastor backend list"))
        }
        (_, last) => {
            let names: Vec<&str> =
                found.iter().chain(&last).map(|backend| backend.name.as_str()).collect();
            let why = format!("several backends have objects: {}", names.join(", "));
            Err(refused(why, "name one with --backend"))
        }
    }
}
