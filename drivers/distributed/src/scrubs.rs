// SPDX-License-Identifier: Apache-2.0
//! Begins scrubs by itself, as often as a volume's options say.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{catalog::Catalog, engine::Engine, recover::unix_millis};

/// Between two looks at what time it is.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks again and again while the engine works. The scrubs of an interval repair nothing: they find, and say so.
pub(crate) async fn run(engine: Weak<Engine>, catalog: Catalog) {
    let begun = unix_millis();
    loop {
        {
            let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closed()) else {
                return;
            };
            look(&engine, &catalog, begun).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(engine: &Arc<Engine>, catalog: &Catalog, begun: u64) {
    let interval = match catalog.chosen(engine.volume()).await {
        Ok(chosen) => chosen.scrub_interval_secs,
        Err(error) => {
            tracing::info!(volume = engine.volume(), %error, "its options cannot be read");
            return;
        }
    };
    // A core that panicked scrubs nothing any more.
    let Ok((status, _)) = engine.scrubbed() else { return };
    if is_due(interval, status.map(|status| (status.started, status.is_over)), begun, unix_millis())
    {
        engine.scrub(true, false);
    }
}

/// Whether a scrub is to begin now: the last one, if there was one, began so long ago. One that never was is counted from
/// the attachment. Times in milliseconds since 1970.
fn is_due(interval_secs: u64, last: Option<(u64, bool)>, begun: u64, now: u64) -> bool {
    let (started, is_over) = last.unwrap_or((begun, true));
    let due = started.saturating_add(interval_secs.saturating_mul(1000));
    // A clock that was set back must not put scrubs off for ever.
    interval_secs > 0 && is_over && (now >= due || started > now)
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn scrubs_begin_in_their_interval_and_not_while_one_is_under_way() {
        assert!(!is_due(0, Some((1_000, true)), 0, u64::MAX), "switched off");
        assert!(!is_due(10, Some((1_000, true)), 0, 10_999));
        assert!(is_due(10, Some((1_000, true)), 0, 11_000));
        assert!(!is_due(10, Some((1_000, false)), 0, 20_000), "one is under way");
        assert!(!is_due(10, None, 5_000, 14_999) && is_due(10, None, 5_000, 15_000));
        assert!(is_due(10, Some((90_000, true)), 0, 20_000), "the clock was set back");
    }
}
