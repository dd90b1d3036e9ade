// SPDX-License-Identifier: Apache-2.0
//! The task that polls what bricks did not answer at once, and ticks.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use distributed_core::{Event, Outcome};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Answer, Ended, Engine, Job};

/// A tick that is due in the far future waits for this long at most.
const LONGEST: Duration = Duration::from_secs(3600);

/// What the pump was woken for.
enum Woken {
    Job(Job),
    Ended(Ended),
    Tick,
    Rearmed,
}

/// Polls every operation to its end; ends when the engine is closed and nothing is under way.
pub(super) async fn run(engine: Arc<Engine>, mut jobs: UnboundedReceiver<Job>) {
    let mut flying = FuturesUnordered::new();
    loop {
        if engine.closed.load(Ordering::Acquire) && flying.is_empty() && jobs.is_empty() {
            return;
        }
        let woken = tokio::select! {
            Some(job) = jobs.recv() => Woken::Job(job),
            Some(ended) = flying.next() => Woken::Ended(ended),
            () = engine.rearm.notified() => Woken::Rearmed,
            () = tokio::time::sleep(until_tick(&engine)) => Woken::Tick,
        };
        match woken {
            Woken::Job(job) => flying.push(job),
            Woken::Ended(Ended::Answered(answer)) => engine.answered(answer),
            Woken::Ended(Ended::Late(io, rest)) => {
                flying.push(rest);
                let (outcome, data, opened) = (Outcome::Unknown, None, None);
                engine.answered(Answer { io, incarnation: 0, outcome, data, opened });
            }
            Woken::Tick => {
                engine.armed.store(u64::MAX, Ordering::Release);
                engine.run(vec![Event::Tick]);
            }
            Woken::Rearmed => {}
        }
    }
}

fn until_tick(engine: &Engine) -> Duration {
    let due = engine.armed.load(Ordering::Acquire);
    Duration::from_nanos(due.saturating_sub(engine.now().0)).min(LONGEST)
}

impl Engine {
    fn answered(self: &Arc<Self>, answer: Answer) {
        let mut answers = vec![answer];
        while !answers.is_empty() {
            answers = self.step(Vec::new(), answers);
        }
    }
}
