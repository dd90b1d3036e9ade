// SPDX-License-Identifier: Apache-2.0
//! Holds the healing of one attached volume back, by what its clients feel.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use distributed_core::{Event, HealingPace, Pace, Settings, Throttle, ThrottleRules, Time};

use crate::{engine::Engine, meters::Histogram};

/// The rules of a volume at this pace.
fn rules(pace: HealingPace) -> ThrottleRules {
    let Settings { copies_in_flight, copy_bytes, .. } = Settings::default();
    let rules = ThrottleRules::new(pace);
    ThrottleRules { most_copies: copies_in_flight, most_bytes: copy_bytes, ..rules }
}

/// Decides again and again while the engine works, by what these clients feel: the volume's own, or if it has none those of
/// all others.
pub(crate) async fn run(engine: Weak<Engine>, clients: Arc<Histogram>) {
    let (mut throttle, begun) = (Throttle::new(rules(HealingPace::default())), Instant::now());
    let mut last = None;
    loop {
        let pause = {
            let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closed()) else {
                return;
            };
            // A core that panicked heals nothing any more.
            let Ok(healing) = engine.healing() else { return };
            throttle.obey(rules(engine.healing_pace()));
            let now = Time(begun.elapsed().as_nanos() as u64);
            let pace = throttle.decide(now, &clients.take(), healing);
            if last.replace(pace) != Some(pace) {
                let Pace { copies, bytes, rate } = pace;
                Arc::clone(&engine).tell(vec![Event::Throttle { copies, bytes, rate }]);
            }
            Duration::from_nanos(throttle.interval(healing))
        };
        tokio::time::sleep(pause).await;
    }
}
