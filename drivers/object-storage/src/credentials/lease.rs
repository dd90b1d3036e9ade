// SPDX-License-Identifier: Apache-2.0
//! Credentials that expire: fetched when they are first needed, renewed before they end, and kept in use while a renewal fails
//! and they still hold.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use driver_api::{Error, Result};
use object_store::CredentialProvider;

/// Credentials are renewed so long before they end; those that live shorter than twice that, at half of their life.
const EARLY: Duration = Duration::from_secs(300);
/// How long a renewal may take while there are credentials that still hold: somebody waits for it.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });
/// How long nobody tries again after a renewal has failed, while there are credentials that still hold.
const REST: Duration = Duration::from_secs(10);
/// How long credentials are used that were given out as expired: a clock may be wrong, and the store is the judge.
const AT_LEAST: Duration = Duration::from_secs(10);

/// Credentials, and how long they hold.
pub(super) struct Lease<C> {
    /// The credentials.
    pub credential: C,
    /// How long they hold from now on.
    pub lasts: Duration,
}

/// Who gives out credentials that expire.
pub(super) trait Source: fmt::Debug + Send + Sync + 'static {
    /// What is given out.
    type Credential: fmt::Debug + Send + Sync + 'static;

    /// Asks once. An error that may pass is of a temporary kind.
    fn fetch(&self) -> impl Future<Output = Result<Lease<Self::Credential>>> + Send;
}

/// What is held at present.
struct Held<C> {
    credential: Arc<C>,
    renew: Instant,
    ends: Instant,
}

impl<C> Clone for Held<C> {
    fn clone(&self) -> Self {
        Self { credential: Arc::clone(&self.credential), ..*self }
    }
}

/// Hands out what a source gives, and asks it as seldom as can be.
pub(super) struct Leased<S: Source> {
    source: S,
    held: Mutex<Option<Held<S::Credential>>>,
    /// Held while the source is asked; the last failure, which those who waited for it share.
    asking: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl<S: Source> fmt::Debug for Leased<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<S: Source> Leased<S> {
    pub fn new(source: S) -> Self {
        Self { source, held: Mutex::new(None), asking: tokio::sync::Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held<S::Credential>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held, if it holds at `now`.
    fn valid(&self, now: Instant) -> Option<Held<S::Credential>> {
        self.held().as_ref().filter(|held| now < held.ends).cloned()
    }

    /// Credentials that hold.
    pub async fn get(&self) -> Result<Arc<S::Credential>> {
        let asked = Instant::now();
        if let Some(held) = self.valid(asked) {
            if asked < held.renew {
                return Ok(held.credential);
            }
            // Whoever comes while somebody renews takes what still holds.
            let Ok(mut failed) = self.asking.try_lock() else { return Ok(held.credential) };
            if let Some(newer) = self.valid(asked).filter(|newer| asked < newer.renew) {
                return Ok(newer.credential);
            }
            return Ok(self.renew(&held, &mut failed).await);
        }
        let mut failed = self.asking.lock().await;
        if let Some(held) = self.valid(Instant::now()) {
            return Ok(held.credential);
        }
        if let Some((when, error)) = failed.as_ref()
            && *when >= asked
        {
            return Err(error.clone());
        }
        self.fetch(&mut failed).await
    }

    async fn renew(
        &self,
        held: &Held<S::Credential>,
        failed: &mut Option<(Instant, Error)>,
    ) -> Arc<S::Credential> {
        let why = match tokio::time::timeout(PATIENCE, self.fetch(failed)).await {
            Ok(Ok(credential)) => return credential,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs_f64()),
        };
        let left = held.ends.saturating_duration_since(Instant::now()).as_secs();
        tracing::warn!("credentials could not be renewed, and end in {left} s: {why}");
        if let Some(held) = self.held().as_mut() {
            held.renew = Instant::now() + REST;
        }
        Arc::clone(&held.credential)
    }

    async fn fetch(&self, failed: &mut Option<(Instant, Error)>) -> Result<Arc<S::Credential>> {
        let lease = match self.source.fetch().await {
            Ok(lease) => lease,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let now = Instant::now();
        let lasts = if lease.lasts.is_zero() { AT_LEAST } else { lease.lasts };
        let credential = Arc::new(lease.credential);
        let held = Held {
            credential: Arc::clone(&credential),
            renew: now + lasts.saturating_sub(EARLY).max(lasts / 2),
            ends: now + lasts,
        };
        *self.held() = Some(held);
        *failed = None;
        Ok(credential)
    }
}

#[async_trait]
impl<S: Source> CredentialProvider for Leased<S> {
    type Credential = S::Credential;

    async fn get_credential(&self) -> object_store::Result<Arc<S::Credential>> {
        self.get().await.map_err(super::as_theirs)
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
