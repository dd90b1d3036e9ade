// SPDX-License-Identifier: Apache-2.0
//! Where drivers' log records go: into this process's own tracing, under the targets that the drivers gave them, so
//! that one filter and one stream cover everything.

use std::{
    collections::HashMap,
    sync::{OnceLock, PoisonError, RwLock},
};

use driver_api::host::LogRecord;
use tracing::{
    Event, Level, Metadata,
    callsite::{Callsite, Identifier},
    field::{FieldSet, Value},
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
        // A look at the level comes first: it is all that a disabled debug event costs.
        if level_of(level) > tracing::level_filters::LevelFilter::current() {
            return false;
        }
        let metadata = site(level, target).metadata();
        tracing::dispatcher::get_default(|dispatch| dispatch.enabled(metadata))
    }

    fn log(&self, driver: &str, record: &LogRecord<'_>) {
        let metadata = site(record.level, &record.target).metadata();
        let join = |parts: Vec<String>, with: &str| (!parts.is_empty()).then(|| parts.join(with));
        let details = record.fields.iter().map(|pair| format!("{}={}", pair.0, pair.1)).collect();
        let details = join(details, " ");
        let spans = join(record.spans.iter().map(ToString::to_string).collect(), ":");
        let message = record.message.as_str();
        tracing::dispatcher::get_default(|dispatch| {
            if !dispatch.enabled(metadata) {
                return;
            }
            let fields = metadata.fields();
            let mut named = fields.iter();
            let (Some(a), Some(b), Some(c), Some(d)) =
                (named.next(), named.next(), named.next(), named.next())
            else {
                return;
            };
            let values = [
                (&a, Some(&tracing::field::display(message) as &dyn Value)),
                (&b, Some(&driver as &dyn Value)),
                (&c, details.as_ref().map(|text| text as &dyn Value)),
                (&d, spans.as_ref().map(|text| text as &dyn Value)),
            ];
            dispatch.event(&Event::new(metadata, &fields.value_set(&values)));
        });
    }
}

static FIELDS: &[&str] = &["message", "driver", "fields", "spans"];

/// A place in a driver that logs. Tracing wants such places to live for ever; there is one for each level and target.
struct Site {
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for Site {
    fn set_interest(&self, _interest: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        Site::metadata(self)
    }
}

impl Site {
    fn metadata(&self) -> &Metadata<'static> {
        static NOWHERE: Site = Site { metadata: OnceLock::new() };
        // Filled where the site is made, before anybody can see it.
        self.metadata.get_or_init(|| described(&NOWHERE, Level::ERROR, "driver"))
    }
}

fn described(site: &'static Site, level: Level, target: &'static str) -> Metadata<'static> {
    let fields = FieldSet::new(FIELDS, Identifier(site));
    Metadata::new("driver event", target, level, None, None, None, fields, Kind::EVENT)
}

fn site(level: u32, target: &str) -> &'static Site {
    type Sites = HashMap<String, [Option<&'static Site>; 5]>;
    static SITES: OnceLock<RwLock<Sites>> = OnceLock::new();
    let sites = SITES.get_or_init(RwLock::default);
    let at = (level.clamp(1, 5) - 1) as usize;
    let known = sites.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(Some(site)) = known.get(target).map(|levels| levels[at]) {
        return site;
    }
    drop(known);
    let mut sites = sites.write().unwrap_or_else(PoisonError::into_inner);
    let place = &mut sites.entry(target.to_owned()).or_default()[at];
    place.get_or_insert_with(|| {
        let site: &'static Site = Box::leak(Box::new(Site { metadata: OnceLock::new() }));
        let target: &'static str = Box::leak(target.to_owned().into_boxed_str());
        site.metadata.get_or_init(|| described(site, level_of(level), target));
        site
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
