// SPDX-License-Identifier: Apache-2.0
//! A few threads for system calls that may wait for the disk.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
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
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

/// The pools of the devices that open backends lie on.
static DEVICES: LazyLock<Mutex<HashMap<u64, Weak<Pool>>>> = LazyLock::new(Mutex::default);

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
                queue.idle += 1;
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
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

    /// The pool of the device that a directory lies on, of `threads` threads: backends on one device share it, since
    /// more threads do not make a disk faster, and busy ones need not be woken.
    pub fn of_device(directory: &Path, threads: usize) -> io::Result<Arc<Self>> {
        let device = fs::metadata(directory)?.dev();
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = devices.get(&device).and_then(Weak::upgrade) {
            return Ok(pool);
        }
        let pool = Arc::new(Self::new(threads)?);
        devices.retain(|_, pool| pool.strong_count() > 0);
        devices.insert(device, Arc::downgrade(&pool));
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
        let mut queue = self.shared.queue();
        queue.jobs.push_back(job);
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.shared.more.notify_one();
        }
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
