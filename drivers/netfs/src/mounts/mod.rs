// SPDX-License-Identifier: Apache-2.0
//! Mounts: one [`Share`] at a time for each place, made when it is needed and made anew when it has ended.
//!
//! ```text
//!            first use                      mounted
//!   idle ---------------> mounting ----------------------> mounted (generation n)
//!    ^                     ^    |                            |    |
//!    |                     |    | failed                     |    | unused for `idle_unmount_secs`
//!    |     backoff is over |    v                            |    |
//!    |                    waiting <--------------------------+    |
//!    |                             connection ended               |
//!    +------------------------------------------------------------+
//! ```
//!
//! A connection that ends takes its share with it; nothing of it is used again. Whoever holds something of a share
//! (handles, locks) keeps the generation beside it and asks anew when that has moved.

mod discovery;
mod state;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Stats};

use discovery::Export;
pub(crate) use state::Shown;
use state::{Seen, State};

use crate::{
    config::{Place, Protocol},
    counters::Figures,
    error::Fault,
    share::{Offers, Share, Space, kernel, nfs3, nfs4, smb},
};

/// The first pause after a failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One attempt to mount.
    pub mount: Duration,
    /// One operation.
    pub operation: Duration,
    /// Without use, before a share is unmounted.
    pub idle: Duration,
    /// Between two questions whether a mount in use lives.
    pub keep_alive: Duration,
}

/// A place and the share that is mounted from it, if one is.
pub(crate) struct Mount {
    /// Where it is.
    pub place: Place,
    /// How long things may take.
    pub patience: Patience,
    /// What happened on its connections.
    pub figures: Arc<Figures>,
    state: Mutex<State>,
    generation: AtomicU64,
    /// Held by whoever mounts.
    mounting: tokio::sync::Mutex<()>,
    /// Volumes that are attached.
    users: AtomicUsize,
    /// When it was last used, in milliseconds since `born`.
    used: AtomicU64,
    born: Instant,
    /// What the server said of its space when it was last asked.
    space: Mutex<Option<Space>>,
    /// What the server was seen to do with ranges of files.
    seen: Mutex<Seen>,
    /// What one connection leaves behind for the next.
    past: Arc<smb::Past>,
}

/// Keeps a mount from being unmounted for idleness.
pub(crate) struct InUse(Arc<Mount>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::AcqRel);
        self.0.touch();
    }
}

/// One attempt of an operation.
#[derive(Clone)]
pub(crate) struct Attempt {
    /// The share to do it on.
    pub share: Arc<dyn Share>,
    /// Which share of this mount it is.
    pub generation: u64,
    /// Whether an earlier attempt may have had its effect.
    pub again: bool,
}

impl Mount {
    /// A mount that is not mounted yet.
    pub fn new(place: Place, patience: Patience) -> Arc<Self> {
        let mount = Arc::new(Self {
            place,
            patience,
            figures: Arc::default(),
            state: Mutex::new(State::Idle),
            generation: AtomicU64::new(0),
            mounting: tokio::sync::Mutex::new(()),
            users: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            born: Instant::now(),
            space: Mutex::new(None),
            seen: Mutex::default(),
            past: Arc::default(),
        });
        tokio::spawn(attend(Arc::downgrade(&mount), patience));
        mount
    }

    /// When an operation that begins now has to end.
    pub fn until(&self, left: Option<Duration>) -> Instant {
        Instant::now() + left.unwrap_or(self.patience.operation).min(self.patience.operation)
    }

    /// Keeps it mounted while the answer lives.
    pub fn hold(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Ordering::AcqRel);
        InUse(Arc::clone(self))
    }

    /// The share, if it is mounted.
    pub fn present(&self) -> Option<(Arc<dyn Share>, u64)> {
        self.state().mounted()
    }

    /// The share, mounted if need be.
    pub async fn share(&self, until: Instant) -> Result<(Arc<dyn Share>, u64), Fault> {
        self.touch();
        if let Some(mounted) = self.state().mounted() {
            return Ok(mounted);
        }
        let arrived = Instant::now();
        let turn = tokio::time::timeout_at(until.into(), self.mounting.lock());
        let Ok(_turn) = turn.await else { return Err(self.gave_up()) };
        loop {
            // What another one has done meanwhile.
            if let Some(mounted) = self.state().mounted() {
                return Ok(mounted);
            }
            if let Some(fault) = self.state().failed_since(arrived) {
                return Err(fault);
            }
            let pause_ends = self.state().pause_ends();
            if let Some(ends) = pause_ends {
                if ends >= until {
                    tokio::time::sleep_until(until.into()).await;
                    return Err(self.gave_up());
                }
                tokio::time::sleep_until(ends.into()).await;
            }
            match self.try_mount(until).await {
                Ok(mounted) => return Ok(mounted),
                Err(fault) if is_lasting(&fault) => return Err(fault),
                Err(_) if Instant::now() >= until => return Err(self.gave_up()),
                Err(_) => {}
            }
        }
    }

    /// Does something, on the next share if the connection ends, and again when the server asks for patience.
    ///
    /// `attempt` must be safe to repeat: it knows from [`Attempt::again`] that an earlier one may have had its effect.
    pub async fn perform<T, F>(
        &self,
        until: Instant,
        mut attempt: impl FnMut(Attempt) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let (mut again, mut pause) = (false, FIRST_PAUSE);
        loop {
            let (share, generation) = match self.share(until).await {
                Ok(mounted) => mounted,
                // What was sent before may still have its effect.
                Err(Fault::TimedOut { why, .. }) => {
                    return Err(Fault::TimedOut { sent: again, why });
                }
                Err(fault) if again => {
                    return Err(Fault::TimedOut { sent: true, why: fault.to_string().into() });
                }
                Err(fault) => return Err(fault),
            };
            match attempt(Attempt { share, generation, again }).await {
                Err(Fault::Lost { sent, why }) => {
                    self.lost(generation, &why);
                    again |= sent;
                    if Instant::now() >= until {
                        return Err(Fault::TimedOut { sent: again, why });
                    }
                    if sent {
                        self.figures.retransmitted();
                    }
                }
                Err(Fault::TimedOut { sent, why }) => {
                    return Err(Fault::TimedOut { sent: sent || again, why });
                }
                Err(Fault::Later) => {
                    self.figures.asked_to_wait();
                    if Instant::now() + pause >= until {
                        return Err(Fault::Later);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Takes a share that has ended away, unless another one took its place already.
    pub fn lost(&self, generation: u64, why: &str) {
        let mut state = self.state();
        if state.end(generation, why) {
            self.figures.lost();
            tracing::warn!(mount = self.place.name, why, "the connection ended, mounting anew");
        }
    }

    /// Unmounts it, if it is mounted. What is under way on it ends with `Lost`.
    pub async fn unmount(&self, until: Instant) {
        let _turn = self.mounting.lock().await;
        let Some((share, _)) = self.state().mounted() else { return };
        *self.state() = State::Idle;
        if let Err(fault) = share.unmount(until).await {
            tracing::debug!(mount = self.place.name, %fault, "the server was not told of the unmounting");
        }
    }

    /// State and reason, for the operator.
    pub fn shown(&self) -> Shown {
        let users = self.users.load(Ordering::Acquire);
        let generation = self.generation.load(Ordering::Acquire);
        let mut shown = self.state().shown();
        shown.name = self.place.name.clone();
        shown.server = self.place.server.clone();
        shown.share = self.place.share.clone();
        shown.location = self.place.shown();
        shown.volumes = users;
        shown.generation = generation;
        shown.seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        shown
    }

    /// Notes what the server was seen to do with an open file.
    pub fn saw(&self, offers: Offers, write: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.allocation_map = Some(offers.map);
        if write {
            seen.discard = Some(offers.punch);
        }
    }

    /// What its server has to mount.
    pub async fn exports(&self, until: Instant) -> Result<Vec<Export>, Fault> {
        discovery::exports(&self.place, &self.figures, until).await
    }

    /// Ends another host's login at the server, with everything that it has open there.
    pub async fn end_session(&self, session: u64, until: Instant) -> Result<(), Fault> {
        let limit = until.min(Instant::now() + self.patience.mount);
        smb::end_session(&self.place, &self.figures, session, limit).await
    }

    /// Space on the server.
    pub async fn space(&self, until: Instant) -> Result<Space, Fault> {
        let space =
            self.perform(until, |attempt| async move { attempt.share.space(until).await }).await?;
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(space);
        Ok(space)
    }

    /// The figures of this mount.
    pub fn stats(&self, stats: Stats) -> Stats {
        let name = self.place.name.as_str();
        let shown = self.shown();
        let mounted = if shown.state == "mounted" { 1.0 } else { 0.0 };
        let stats = self
            .figures
            .stats(name, stats)
            .gauge_of("mount_mounted", ("mount", name), mounted)
            .gauge_of("mount_volumes", ("mount", name), shown.volumes as f64);
        match *self.space.lock().unwrap_or_else(PoisonError::into_inner) {
            None => stats,
            Some(space) => stats
                .gauge_of("mount_total_bytes", ("mount", name), space.total as f64)
                .gauge_of("mount_available_bytes", ("mount", name), space.available as f64),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.used.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn unused_for(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    async fn try_mount(&self, until: Instant) -> Result<(Arc<dyn Share>, u64), Fault> {
        let failures = self.state().begin();
        let limit = until.min(Instant::now() + self.patience.mount);
        let mounted = connect(&self.place, &self.figures, &self.past, limit).await;
        self.figures.tried(mounted.is_ok());
        match mounted {
            Ok(share) => {
                let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
                *self.state() = State::mounted_now(Arc::clone(&share), generation, failures);
                tracing::info!(mount = self.place.name, generation, "mounted");
                Ok((share, generation))
            }
            Err(fault) => {
                let error = fault.clone().told("the share cannot be mounted");
                tracing::warn!(mount = self.place.name, error = %format!("{error:#}"), "not mounted");
                let lasting = is_lasting(&fault).then(|| (Instant::now(), fault.clone()));
                let until = Instant::now() + pause_after(failures);
                *self.state() = State::waiting(failures + 1, until, &error, lasting);
                Err(fault)
            }
        }
    }

    /// What is said when the deadline came before the share.
    fn gave_up(&self) -> Fault {
        let why = match self.state().reason() {
            Some(reason) => format!("the share could not be mounted in time: {reason}"),
            None => "the share was not mounted in time".to_owned(),
        };
        Fault::TimedOut { sent: false, why: why.into() }
    }
}

/// How long to wait after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    // Not all at once, where many hosts wait for one server.
    pause + pause.mul_f64(fastrand::f64() / 4.0)
}

/// Whether a failure to mount will not go away by waiting.
fn is_lasting(fault: &Fault) -> bool {
    match fault {
        Fault::Refused(error) => {
            !matches!(error.kind(), ErrorKind::UNAVAILABLE | ErrorKind::TIMED_OUT)
        }
        Fault::Stale | Fault::NotFound | Fault::Exists => true,
        Fault::Lost { .. } | Fault::TimedOut { .. } | Fault::Later => false,
    }
}

/// Mounts a place by its protocol.
async fn connect(
    place: &Place,
    figures: &Arc<Figures>,
    past: &Arc<smb::Past>,
    until: Instant,
) -> Result<Arc<dyn Share>, Fault> {
    match place.protocol {
        Protocol::Nfs if place.require_encryption => Err(Error::new(
            ErrorKind::UNSUPPORTED,
            "NFS travels in the clear, and `require_encryption` is set",
        )
        .remedy("set require_encryption = false where the network is trusted")
        .into()),
        Protocol::Nfs => connect_nfs(place, figures, until).await,
        Protocol::Smb => Ok(Arc::new(smb::mount(place, figures, past, until).await?)),
        Protocol::Kernel => Ok(Arc::new(kernel::mount(place, until).await?)),
    }
}

/// Mounts by the first version that the server has.
async fn connect_nfs(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Arc<dyn Share>, Fault> {
    let mut refused = Vec::new();
    for (tried, version) in place.versions.iter().enumerate() {
        let fell_back = (!refused.is_empty()).then(|| refused.join("; "));
        let mounted: Result<Arc<dyn Share>, Fault> = if version == "3" {
            let share = nfs3::mount(place, figures, until).await;
            share.map(|share| Arc::new(share.after(fell_back)) as Arc<dyn Share>)
        } else {
            let minor = nfs4::minor_of(version)?;
            let share = nfs4::mount(place, minor, figures, until).await;
            share.map(|share| Arc::new(share.after(fell_back)) as Arc<dyn Share>)
        };
        match mounted {
            Err(fault) if tried + 1 < place.versions.len() && nfs4::may_fall_back(&fault) => {
                let error = fault.told(version);
                tracing::info!(mount = place.name, version, %error, "trying the next version");
                refused.push(error.to_string());
            }
            done => return done,
        }
    }
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, "`versions` is empty").into())
}

/// Keeps a mount in use alive, and unmounts one that nobody uses.
async fn attend(mount: Weak<Mount>, patience: Patience) {
    let step = patience.keep_alive.min(patience.idle);
    loop {
        tokio::time::sleep(step).await;
        let Some(mount) = mount.upgrade() else { return };
        let users = mount.users.load(Ordering::Acquire);
        if users == 0 && mount.unused_for() >= patience.idle {
            mount.unmount(Instant::now() + patience.mount).await;
        } else if users > 0 && mount.unused_for() >= patience.keep_alive {
            let until = Instant::now() + patience.mount;
            let asked =
                mount.perform(until, |attempt| async move { attempt.share.ping(until).await });
            if let Err(fault) = asked.await {
                tracing::warn!(mount = mount.place.name, %fault, "the server does not answer");
            }
        }
    }
}
