// SPDX-License-Identifier: Apache-2.0
//! Where drivers' log records go: into this process's own tracing, under the targets that the drivers gave them, so
//! that one filter and one stream cover everything.

use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use driver_api::host::LogRecord;
use tracing::{
    Event, Level, Metadata,
    callsite::{Callsite, Identifier},
    field::{FieldSet, Value, display},
    level_filters::LevelFilter,
    metadata::Kind,
    subscriber::Interest,
};

/// Keeps drivers' log records. Called from any thread; must not panic.
pub trait DriverLog: Send + Sync + 'static {
    /// Whether a record of this level (1 error … 5 trace) and target would be kept.
    fn enabled(&self, level: u32, target: &str) -> bool;
    /// Keeps a record of this driver.
    fn log(&self, driver: &str, record: &LogRecord<'_>);
}

/// Passes records to this process's tracing subscriber.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingLog;

impl DriverLog for TracingLog {
    fn enabled(&self, level: u32, target: &str) -> bool {
        // A look at the level comes first: it is all that a disabled event costs.
        level_of(level) <= LevelFilter::current()
            && tracing::dispatcher::get_default(|dispatch| dispatch.enabled(place(level, target)))
    }

    fn log(&self, driver: &str, record: &LogRecord<'_>) {
        let metadata = place(record.level, &record.target);
        let details: Vec<String> =
            record.fields.iter().map(|pair| format!("{}={}", pair.0, pair.1)).collect();
        let spans: Vec<&str> = record.spans.iter().map(|span| span.as_str()).collect();
        let (details, spans) = (details.join(" "), spans.join(":"));
        let message = display(record.message.as_str());
        let texts: [&dyn Value; 4] = [&message, &driver, &details.as_str(), &spans.as_str()];
        let names = metadata.fields();
        let mut pairs = names.iter().zip(texts).map(|(name, text)| {
            let empty = matches!(name.name(), "fields") && details.is_empty()
                || matches!(name.name(), "spans") && spans.is_empty();
            (name, (!empty).then_some(text))
        });
        let (Some(a), Some(b), Some(c), Some(d)) =
            (pairs.next(), pairs.next(), pairs.next(), pairs.next())
        else {
            return;
        };
        let values = [(&a.0, a.1), (&b.0, b.1), (&c.0, c.1), (&d.0, d.1)];
        let values = names.value_set(&values);
        tracing::dispatcher::get_default(|dispatch| {
            if dispatch.enabled(metadata) {
                dispatch.event(&Event::new(metadata, &values));
            }
        });
    }
}

/// The place in the source from which, as tracing sees it, all drivers log.
struct Drivers;

static DRIVERS: Drivers = Drivers;

impl Callsite for Drivers {
    fn set_interest(&self, _interest: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        static METADATA: LazyLock<Metadata<'static>> =
            LazyLock::new(|| describe(Level::ERROR, "driver"));
        &METADATA
    }
}

fn describe(level: Level, target: &'static str) -> Metadata<'static> {
    let names = &["message", "driver", "fields", "spans"];
    let fields = FieldSet::new(names, Identifier(&DRIVERS));
    Metadata::new("driver event", target, level, None, None, None, fields, Kind::EVENT)
}

/// Tracing wants metadata that live for ever: one for each level and target that ever logged.
fn place(level: u32, target: &str) -> &'static Metadata<'static> {
    type Places = HashMap<String, [Option<&'static Metadata<'static>>; 5]>;
    static PLACES: LazyLock<RwLock<Places>> = LazyLock::new(RwLock::default);
    let at = (level.clamp(1, 5) - 1) as usize;
    let known = PLACES.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(Some(metadata)) = known.get(target).map(|levels| levels[at]) {
        return metadata;
    }
    drop(known);
    let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
    places.entry(target.to_owned()).or_default()[at].get_or_insert_with(|| {
        let target: &'static str = Box::leak(target.to_owned().into_boxed_str());
        Box::leak(Box::new(describe(level_of(level), target)))
    })
}

fn level_of(number: u32) -> Level {
    match number {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
