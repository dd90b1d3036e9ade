// SPDX-License-Identifier: Apache-2.0
//! Figures that the host pulls: a driver counts, nobody is called per operation.

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

use crate::Histogram;

/// What a figure is.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricKind(u32);

impl MetricKind {
    /// It only grows.
    pub const COUNTER: Self = Self(0);
    /// It goes up and down.
    pub const GAUGE: Self = Self(1);
    /// One of the figures that together are a histogram, whose name is what stands before the end of theirs: `_bucket` with
    /// the label `le`, `_sum` or `_count`. Since 1.3; an older host takes it for a gauge.
    pub const HISTOGRAM: Self = Self(2);
}

/// One figure.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Metric {
    /// Name with unit, as Prometheus has it: `read_bytes_total`.
    pub name: RString,
    /// Counter, gauge or part of a histogram.
    pub kind: MetricKind,
    /// The value.
    pub value: f64,
    /// Labels.
    pub labels: RVec<Tuple2<RString, RString>>,
}

/// Figures at one moment.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default)]
pub struct Stats {
    /// The figures.
    pub metrics: RVec<Metric>,
}

impl Stats {
    /// No figures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a counter.
    pub fn counter(mut self, name: &str, value: u64) -> Self {
        self.push(name, MetricKind::COUNTER, value as f64);
        self
    }

    /// Adds a gauge.
    pub fn gauge(mut self, name: &str, value: f64) -> Self {
        self.push(name, MetricKind::GAUGE, value);
        self
    }

    /// Adds a histogram of durations, in seconds: `read_seconds`. Since 1.3.
    pub fn histogram(mut self, name: &str, histogram: &Histogram) -> Self {
        let mut count = 0;
        for (label, counted) in histogram.cumulative() {
            self.push(&format!("{name}_bucket"), MetricKind::HISTOGRAM, counted as f64);
            self.label(("le", label));
            count = counted;
        }
        self.push(&format!("{name}_sum"), MetricKind::HISTOGRAM, histogram.seconds());
        // What the last bucket says, which may have been counted on since.
        self.push(&format!("{name}_count"), MetricKind::HISTOGRAM, count as f64);
        self
    }

    /// Adds a counter with a label. Since 1.3.
    pub fn counter_of(mut self, name: &str, label: (&str, &str), value: u64) -> Self {
        self.push(name, MetricKind::COUNTER, value as f64);
        self.label(label);
        self
    }

    /// Adds a gauge with a label, such as `("node", "n1")`.
    pub fn gauge_of(mut self, name: &str, label: (&str, &str), value: f64) -> Self {
        self.push(name, MetricKind::GAUGE, value);
        self.label(label);
        self
    }

    fn label(&mut self, label: (&str, &str)) {
        if let Some(metric) = self.metrics.last_mut() {
            metric.labels.push(Tuple2(label.0.into(), label.1.into()));
        }
    }

    fn push(&mut self, name: &str, kind: MetricKind, value: f64) {
        self.metrics.push(Metric { name: name.into(), kind, value, labels: RVec::new() });
    }
}
