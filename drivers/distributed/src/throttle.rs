// SPDX-License-Identifier: Apache-2.0
//! Holds the healing of one attached volume back, by what its clients feel.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use distributed_core::{Event, Pace, Settings, Throttle, ThrottleRules, Time};

use crate::{engine::Engine, meters::Histogram};

/// The bounds within which a throttle decides.
pub(crate) fn rules(settings: &Settings) -> ThrottleRules {
    ThrottleRules {
        most_copies: settings.copies_in_flight,
        most_bytes: settings.copy_bytes,
        ..ThrottleRules::default()
    }
}

/// Decides again and again while the engine works, by what these clients feel: the volume's own, or if it has none those of
/// all others.
pub(crate) async fn run(engine: Weak<Engine>, rules: ThrottleRules, clients: Arc<Histogram>) {
    let (mut throttle, begun) = (Throttle::new(rules), Instant::now());
    let mut last = None;
    loop {
        let pause = {
            let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closed()) else {
                return;
            };
            // A core that panicked heals nothing any more.
            let Ok(healing) = engine.healing() else { return };
            let now = Time(begun.elapsed().as_nanos() as u64);
            let pace = throttle.decide(now, &clients.take(), healing);
            if last.replace(pace) != Some(pace) {
                let Pace { copies, bytes, rate } = pace;
                Arc::clone(&engine).tell(vec![Event::Throttle { copies, bytes, rate }]);
            }
            Duration::from_nanos(throttle.pause(healing))
        };
        tokio::time::sleep(pause).await;
    }
}
