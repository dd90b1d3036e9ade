// SPDX-License-Identifier: Apache-2.0
//! Figures that the host pulls: a driver counts, nobody is called per operation.

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

/// Whether a figure only grows.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricKind(u32);

impl MetricKind {
    /// It only grows.
    pub const COUNTER: Self = Self(0);
    /// It goes up and down.
    pub const GAUGE: Self = Self(1);
}

/// One figure.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Metric {
    /// Name with unit, as Prometheus has it: `read_bytes_total`.
    pub name: RString,
    /// Counter or gauge.
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

    /// Adds a gauge with a label, such as `("node", "n1")`.
    pub fn gauge_of(mut self, name: &str, label: (&str, &str), value: f64) -> Self {
        self.push(name, MetricKind::GAUGE, value);
        if let Some(metric) = self.metrics.last_mut() {
            metric.labels.push(Tuple2(label.0.into(), label.1.into()));
        }
        self
    }

    fn push(&mut self, name: &str, kind: MetricKind, value: f64) {
        self.metrics.push(Metric { name: name.into(), kind, value, labels: RVec::new() });
    }
}
