// SPDX-License-Identifier: Apache-2.0
//! What is counted: requests, their answers, what they took, and how operations ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use driver_api::{Error, ErrorKind, Histogram, Metric, MetricKind, Stats, Tuple2};
use http::StatusCode;

/// Counters of a backend.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    purposes: Mutex<BTreeMap<&'static str, Arc<Counts>>>,
    errors: Mutex<BTreeMap<u32, u64>>,
    /// Bytes of requests' bodies.
    pub sent: AtomicU64,
    /// Bytes of answers' bodies.
    pub received: AtomicU64,
    /// Requests that were sent again.
    pub retries: AtomicU64,
    /// Answers that asked for patience: 429 and 503.
    pub slowed: AtomicU64,
    /// Mutations whose outcome stayed unknown.
    pub unknown: AtomicU64,
}

/// The answers that requests of one purpose got.
#[derive(Debug, Default)]
struct Counts {
    /// By hundreds of the status; 0: no answer.
    classes: [AtomicU64; 6],
    took: Histogram,
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Traffic {
    /// Counts a request of this purpose: the status of its answer, if there was one, and how long it took to come.
    pub fn count(
        &self,
        purpose: &'static str,
        status: Option<StatusCode>,
        took: Duration,
        sent: u64,
    ) {
        let counts = {
            let mut purposes = self.purposes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(purposes.entry(purpose).or_default())
        };
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        counts.classes[class].fetch_add(1, Relaxed);
        counts.took.observe(took);
        self.sent.fetch_add(sent, Relaxed);
        if matches!(status.map(|status| status.as_u16()), Some(429 | 503)) {
            self.slowed.fetch_add(1, Relaxed);
        }
    }

    /// Counts an operation that failed.
    pub fn failed(&self, error: &Error) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(error.kind().code()).or_default() += 1;
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::new()
            .counter("sent_bytes_total", self.sent.load(Relaxed))
            .counter("received_bytes_total", self.received.load(Relaxed))
            .counter("retries_total", self.retries.load(Relaxed))
            .counter("slow_down_answers_total", self.slowed.load(Relaxed))
            .counter("unknown_outcomes_total", self.unknown.load(Relaxed));
        let purposes = self.purposes.lock().unwrap_or_else(PoisonError::into_inner);
        for (purpose, counts) in purposes.iter() {
            for (class, count) in CLASSES.iter().zip(&counts.classes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    stats.metrics.push(counter(
                        "requests_total",
                        count,
                        &[("operation", purpose), ("status", class)],
                    ));
                }
            }
            let name = format!("{}_request_seconds", purpose.replace(' ', "_"));
            stats = stats.histogram(&name, &counts.took);
        }
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for (&kind, &count) in errors.iter() {
            stats = stats.counter_of(
                "errors_total",
                ("kind", ErrorKind::from_code(kind).name()),
                count,
            );
        }
        stats
    }
}

fn counter(name: &str, value: u64, labels: &[(&str, &str)]) -> Metric {
    Metric {
        name: name.into(),
        kind: MetricKind::COUNTER,
        value: value as f64,
        labels: labels.iter().map(|&(key, value)| Tuple2(key.into(), value.into())).collect(),
    }
}
