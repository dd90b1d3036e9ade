// SPDX-License-Identifier: Apache-2.0
//! A few threads for system calls that may wait for the disk.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads end when the pool is dropped and its queue is empty.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                // The waiter of a job that panicked sees its channel close, and reports it.
                let _ = catch_unwind(AssertUnwindSafe(job));
                queue = self.queue();
            } else if queue.closed {
                return;
            } else {
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Pool {
    /// Starts `threads` threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let pool = Self { shared: Arc::default() };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("nova-local-io{number}"))
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Runs `job` on one of the threads; it runs to its end even if nobody waits for the answer.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, receiver) = oneshot::channel();
        let job = Box::new(move || {
            // Nobody waits any more: the operation's effect counts, not its answer.
            let _ = answer.send(job());
        });
        self.shared.queue().jobs.push_back(job);
        self.shared.more.notify_one();
        receiver
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_job_takes_no_thread_away() {
        let pool = Pool::new(1).expect("a thread");
        let failed = pool.run(|| panic!("on purpose"));
        assert!(failed.blocking_recv().is_err());
        assert_eq!(pool.run(|| 7).blocking_recv(), Ok(7));
    }
}
