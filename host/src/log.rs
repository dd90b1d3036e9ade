// SPDX-License-Identifier: Apache-2.0
//! The log: one filter and one stream for the host and all its drivers.
//!
//! A driver has a tracing dispatcher of its own. It asks [`LogGate::enabled`] for each place that logs, and what passes
//! comes here as a record, which [`LogGate::forward`] makes an event of the host's, with the driver's name and target,
//! spans and fields as fields.

use std::{fmt, str::FromStr, sync::Arc};

use driver_api::{Error, ErrorKind, Result, host::LogRecord};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, Targets, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
};

use crate::config::{LogFormat, LogSettings};

const VARIABLE: &str = "RUST_LOG";
/// The target of forwarded events; the filter decided about the driver's own target before.
const FORWARDED: &str = "novastor::driver";

/// What is logged. A cheap handle.
#[derive(Clone, Debug)]
pub struct LogGate {
    targets: Arc<Targets>,
}

/// Starts logging to the standard error stream, once in the life of the process. `RUST_LOG` wins over the settings.
pub fn init(settings: &LogSettings) -> Result<LogGate> {
    let variable = match std::env::var(VARIABLE) {
        Ok(text) => Some(text),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => return Err(refuse("it is not UTF-8")),
    };
    let gate = LogGate::new(settings, variable.as_deref())?;
    let subscriber = gate.subscriber(settings.format, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|error| {
        Error::new(ErrorKind::INTERNAL, "the log was started already").caused_by(&error)
    })?;
    Ok(gate)
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, format!("this is not a log filter: {why}"))
        .with("variable", VARIABLE)
        .remedy("write levels and targets, such as RUST_LOG=info,novastor=debug")
}

/// Parses a filter such as `info,novastor=debug`.
pub fn parse_filter(text: &str) -> Result<Targets, String> {
    if text.contains('[') {
        return Err("it filters by span or field, which the log cannot".into());
    }
    Targets::from_str(text.trim()).map_err(|error| error.to_string())
}

/// The level with this number; what a newer driver numbers higher is finer still.
fn level(number: u32) -> Level {
    match number {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

impl LogGate {
    fn new(settings: &LogSettings, variable: Option<&str>) -> Result<Self> {
        let targets = match variable.filter(|text| !text.trim().is_empty()) {
            Some(text) => parse_filter(text).map_err(|why| refuse(&why))?,
            None => parse_filter(&settings.filter).map_err(|why| {
                Error::new(ErrorKind::INVALID_ARGUMENT, format!("this is not a log filter: {why}"))
                    .with("key", "log.filter")
                    .remedy("write levels and targets, such as \"info,novastor=debug\"")
            })?,
        };
        Ok(Self { targets: Arc::new(targets) })
    }

    /// Whether a record of this level (1 error … 5 trace) and target is kept.
    pub fn enabled(&self, number: u32, target: &str) -> bool {
        self.targets.would_enable(target, &level(number))
    }

    /// Logs a driver's record, if it is kept.
    pub fn forward(&self, driver: &str, record: &LogRecord<'_>) {
        let source = record.target.as_str();
        if !self.enabled(record.level, source) {
            return;
        }
        let (spans, fields) = (Spans(record), Fields(record));
        let message = record.message.as_str();
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(
                    target: FORWARDED,
                    $level,
                    driver,
                    target = source,
                    spans = %spans,
                    fields = %fields,
                    "{message}"
                )
            };
        }
        // The level of an event must be known when it is compiled.
        match level(record.level) {
            Level::ERROR => emit!(Level::ERROR),
            Level::WARN => emit!(Level::WARN),
            Level::INFO => emit!(Level::INFO),
            Level::DEBUG => emit!(Level::DEBUG),
            Level::TRACE => emit!(Level::TRACE),
        }
    }

    fn subscriber<W>(&self, format: LogFormat, writer: W) -> Box<dyn Subscriber + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let forwarded = filter_fn(|metadata: &Metadata<'_>| metadata.target() == FORWARDED);
        let filter = FilterExt::or(forwarded, (*self.targets).clone());
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        match format {
            LogFormat::Text => {
                let lines = lines.with_ansi(false);
                Box::new(Registry::default().with(lines.with_filter(filter)))
            }
            LogFormat::Json => Box::new(Registry::default().with(lines.json().with_filter(filter))),
        }
    }
}

struct Spans<'r>(&'r LogRecord<'r>);

impl fmt::Display for Spans<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, span) in self.0.spans.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{span}")?;
        }
        Ok(())
    }
}

struct Fields<'r>(&'r LogRecord<'r>);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.fields.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{}={}", field.0, field.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
