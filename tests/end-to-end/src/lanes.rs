// SPDX-License-Identifier: Apache-2.0
//! Several jobs at a time, where they do not disturb each other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

/// How a job gets along with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It keeps processors busy for as long as it lasts: never beside another one that does.
    Computes,
    /// It mostly waits, for disks, other processes or a clock, and has time to spare.
    Waits,
    /// It measures, or has little time: never beside anything.
    Measures,
}

/// A job, as far as its turn depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// How it gets along.
    pub manner: Manner,
    /// About how long it takes, in seconds.
    pub secs: u64,
}

/// Which jobs run, and which may begin.
#[derive(Debug)]
pub struct Plan {
    lanes: usize,
    manners: Vec<Manner>,
    /// In the order of their turn.
    waiting: Vec<usize>,
    running: Vec<usize>,
}

impl Plan {
    /// At most so many jobs at a time. First come those that compute, with those that wait beside them, the longest first;
    /// then those that measure, in their order. With one lane everything has its turn in its order.
    pub fn new(lanes: usize, jobs: &[Job]) -> Self {
        let mut waiting: Vec<usize> = (0..jobs.len()).collect();
        if lanes > 1 {
            waiting.sort_by_key(|&job| match jobs[job] {
                Job { manner: Manner::Computes, secs } => (0, u64::MAX - secs),
                Job { manner: Manner::Waits, secs } => (1, u64::MAX - secs),
                Job { manner: Manner::Measures, .. } => (2, 0),
            });
        }
        let manners = jobs.iter().map(|job| job.manner).collect();
        Self { lanes: lanes.max(1), manners, waiting, running: Vec::new() }
    }

    /// The next job that may begin, which from now on runs; none as long as it has to wait for another one's end.
    pub fn begin(&mut self) -> Option<usize> {
        let runs = |manner| self.running.iter().any(|&job| self.manners[job] == manner);
        if self.running.len() >= self.lanes || runs(Manner::Measures) {
            return None;
        }
        let may_begin = |job: &usize| match self.manners[*job] {
            Manner::Computes => !runs(Manner::Computes),
            Manner::Waits => true,
            Manner::Measures => self.running.is_empty(),
        };
        let turn = self.waiting.iter().position(may_begin)?;
        let job = self.waiting.remove(turn);
        self.running.push(job);
        Some(job)
    }

    /// A job that ran has ended.
    pub fn end(&mut self, job: usize) {
        self.running.retain(|&other| other != job);
    }
}

/// Does all jobs of a plan. `ended` gets the result of each, or its panic, as soon as it has ended.
pub fn run<R: Send>(
    mut plan: Plan,
    work: impl Fn(usize) -> R + Sync,
    mut ended: impl FnMut(usize, thread::Result<R>),
) {
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        loop {
            while let Some(job) = plan.begin() {
                let (sender, work) = (sender.clone(), &work);
                scope.spawn(move || {
                    let result = catch_unwind(AssertUnwindSafe(|| work(job)));
                    // The other end is there until every job that began has ended.
                    let _ = sender.send((job, result));
                });
            }
            if plan.running.is_empty() {
                break;
            }
            let Ok((job, result)) = results.recv() else { break };
            plan.end(job);
            ended(job, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::{
        Job,
        Manner::{self, Computes, Measures, Waits},
        Plan, run,
    };

    fn jobs(jobs: &[(Manner, u64)]) -> Vec<Job> {
        jobs.iter().map(|&(manner, secs)| Job { manner, secs }).collect()
    }

    #[test]
    fn who_computes_begins_with_the_longest_that_waits_beside() {
        let mut plan = Plan::new(2, &jobs(&[(Waits, 5), (Computes, 3), (Waits, 9), (Computes, 4)]));
        assert_eq!([plan.begin(), plan.begin(), plan.begin()], [Some(3), Some(2), None]);
        plan.end(2);
        // The other one computes, too.
        assert_eq!([plan.begin(), plan.begin()], [Some(0), None]);
        plan.end(3);
        assert_eq!([plan.begin(), plan.begin()], [Some(1), None]);
        plan.end(0);
        assert_eq!(plan.begin(), None);
    }

    #[test]
    fn never_two_compute() {
        let mut plan = Plan::new(3, &jobs(&[(Computes, 1), (Computes, 1)]));
        assert_eq!([plan.begin(), plan.begin()], [Some(0), None]);
        plan.end(0);
        assert_eq!(plan.begin(), Some(1));
    }

    #[test]
    fn who_measures_comes_last_and_is_alone() {
        let mut plan =
            Plan::new(2, &jobs(&[(Measures, 1), (Waits, 1), (Measures, 9), (Computes, 1)]));
        assert_eq!([plan.begin(), plan.begin(), plan.begin()], [Some(3), Some(1), None]);
        plan.end(3);
        assert_eq!(plan.begin(), None);
        plan.end(1);
        assert_eq!([plan.begin(), plan.begin()], [Some(0), None]);
        plan.end(0);
        assert_eq!([plan.begin(), plan.begin()], [Some(2), None]);
    }

    #[test]
    fn one_lane_keeps_the_order() {
        let mut plan = Plan::new(1, &jobs(&[(Measures, 1), (Waits, 2), (Computes, 9)]));
        for job in 0..3 {
            assert_eq!([plan.begin(), plan.begin()], [Some(job), None]);
            plan.end(job);
        }
        assert_eq!(plan.begin(), None);
    }

    #[test]
    fn every_job_ends_once_also_one_that_panics() {
        let all = jobs(&[(Waits, 1), (Computes, 1), (Waits, 1), (Measures, 1), (Waits, 1)]);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut ends = vec![None; all.len()];
        run(
            Plan::new(2, &all),
            |job| {
                let others = now.fetch_add(1, Ordering::SeqCst);
                assert!(all[job].manner != Measures || others == 0, "not alone");
                most.fetch_max(others + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
                now.fetch_sub(1, Ordering::SeqCst);
                assert!(job != 2, "as it should");
                job * 10
            },
            |job, result| assert_eq!(ends[job].replace(result.ok()), None),
        );
        assert_eq!(
            ends,
            [Some(Some(0)), Some(Some(10)), Some(None), Some(Some(30)), Some(Some(40))]
        );
        assert_eq!(most.into_inner(), 2);
    }
}
