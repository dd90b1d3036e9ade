// SPDX-License-Identifier: Apache-2.0
//! Calls that wait for the cluster, on threads that may, each with a deadline of its own.

use std::{
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use driver_api::{Error, ErrorKind, Op, OpContext, Result, Retry};
use tokio::sync::Semaphore;

use crate::error::internal;

/// Calls at once; one that the cluster never answers keeps its thread.
const THREADS: usize = 64;
/// What a call may take where the caller has no deadline: rolling back or removing a large image takes minutes.
const PATIENCE: Duration = Duration::from_secs(3600);

static FREE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(THREADS)));

fn gone() -> Error {
    internal("the operation's thread panicked")
}

fn too_long(what: &str) -> Error {
    Error::new(ErrorKind::TIMED_OUT, "the cluster did not answer before the deadline")
        .during(what)
        .with_retry(Retry::TEMPORARY)
        .remedy("look how the cluster is (ceph -s); what was asked may still happen")
}

/// Does `work` to its end on a thread, whether or not anybody waits for it; the answer says `TimedOut` once the caller's
/// deadline has passed.
pub(crate) fn blocking<T: Send + 'static>(
    cx: &OpContext,
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Op<T> {
    let limit = cx.time_left().unwrap_or(PATIENCE);
    let task = tokio::spawn(async move {
        let free = Arc::clone(&FREE).acquire_owned().await.map_err(|_| gone())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(free);
            done
        });
        done.await.map_err(|_| gone())?
    });
    to_the_end(what, limit, async move { task.await.map_err(|_| gone())? })
}

/// Waits for `done` until the limit.
pub(crate) fn to_the_end<T: Send + 'static>(
    what: &'static str,
    limit: Duration,
    done: impl Future<Output = Result<T>> + Send + 'static,
) -> Op<T> {
    Op::run(async move {
        let answer = tokio::time::timeout(limit, done).await;
        answer.unwrap_or_else(|_| Err(too_long(what))).map_err(|error| error.during(what))
    })
}
