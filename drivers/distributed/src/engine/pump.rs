// SPDX-License-Identifier: Apache-2.0
//! The task that polls what bricks did not answer at once, and ticks.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use distributed_core::Event;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use super::{Ended, Engine, Job};

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
    let mut due = u64::MAX;
    let mut tick = pin!(sleep_until(when(&engine, due)));
    loop {
        if engine.closed.load(Ordering::Acquire) && flying.is_empty() && jobs.is_empty() {
            return;
        }
        let armed = engine.armed.load(Ordering::Acquire);
        if armed != due || tick.is_elapsed() {
            due = armed;
            tick.as_mut().reset(when(&engine, due));
        }
        let woken = tokio::select! {
            Some(job) = jobs.recv() => Woken::Job(job),
            Some(ended) = flying.next() => Woken::Ended(ended),
            () = engine.rearm.notified() => Woken::Rearmed,
            () = &mut tick => Woken::Tick,
        };
        let mut ends = Vec::new();
        match woken {
            Woken::Job(job) => flying.push(job),
            Woken::Ended(ended) => ends.push(ended),
            Woken::Tick => {
                engine.armed.store(u64::MAX, Ordering::Release);
                engine.run(vec![Event::Tick], None);
            }
            Woken::Rearmed => {}
        }
        // All that has come and ended by now is one round of the core.
        while let Ok(job) = jobs.try_recv() {
            flying.push(job);
        }
        while let Some(Some(ended)) = flying.next().now_or_never() {
            ends.push(ended);
        }
        engine.answered(ends.into_iter().map(|ended| engine.answer_of(ended)).collect(), None);
    }
}

/// The moment of a time of the core.
fn when(engine: &Engine, due: u64) -> Instant {
    Instant::now() + Duration::from_nanos(due.saturating_sub(engine.now().0)).min(LONGEST)
}
