// SPDX-License-Identifier: Apache-2.0
//! What a client waits with.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use distributed_core::RequestId;
use driver_api::{IoBuf, Result};

use super::{Engine, Job, requests::Unfulfilled};

/// Reads of bricks for one request that are polled by whoever waits for it.
pub(super) struct Reads {
    pub request: RequestId,
    pub jobs: Vec<Job>,
}

impl Reads {
    /// Of this request, none yet.
    pub fn of(request: RequestId) -> Self {
        Self { request, jobs: Vec::new() }
    }
}

/// A request that was not finished at once.
pub(super) struct Waiting {
    engine: Arc<Engine>,
    reads: Reads,
    done: bool,
    /// When it began, if it is one of those whose time is counted.
    begun: Option<Instant>,
}

impl Waiting {
    /// Waits for the request that these reads are for.
    pub fn new(engine: &Arc<Engine>, reads: Reads) -> Self {
        Self { engine: Arc::clone(engine), reads, done: false, begun: None }
    }

    /// Has its time counted.
    pub fn counted(mut self, begun: Option<Instant>) -> Self {
        self.begun = begun;
        self
    }

    pub fn poll_result(&mut self, task: &mut Context<'_>) -> Poll<Result<IoBuf, Unfulfilled>> {
        self.poll_reads(task);
        let polled = self.engine.take(self.reads.request, Some(task.waker()));
        self.done = polled.is_ready();
        polled
    }

    fn poll_reads(&mut self, task: &mut Context<'_>) {
        let mut next = 0;
        while let Some(job) = self.reads.jobs.get_mut(next) {
            match job.as_mut().poll(task) {
                Poll::Pending => next += 1,
                Poll::Ready(ended) => {
                    drop(self.reads.jobs.swap_remove(next));
                    let answer = self.engine.answer_of(ended);
                    // A read that failed may be followed by one of another replica, at the end of the list.
                    self.engine.answered(vec![answer], Some(&mut self.reads));
                }
            }
        }
    }
}

impl Future for Waiting {
    type Output = Result<IoBuf>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<IoBuf>> {
        let polled = self.poll_result(task);
        if polled.is_ready() {
            let begun = self.begun.take();
            self.engine.note_client(begun);
        }
        let volume = &self.engine.volume;
        polled.map(|result| result.map_err(|failure| failure.into_error(volume)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for job in self.reads.jobs.drain(..) {
            self.engine.leave_to_pump(job);
        }
        if !self.done
            && let Ok(mut inner) = self.engine.inner()
        {
            inner.requests.abandon(self.reads.request);
        }
    }
}
