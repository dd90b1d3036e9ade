// SPDX-License-Identifier: Apache-2.0
//! Answers for people: tables that fit the terminal, and cards of one object.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use driver_api::{Error, ErrorKind, Result};
use serde::Serialize;

use super::args::Output;
use crate::{
    api::types::{
        BackendView, CommandView, DriverView, ExportView, JobView, MemberView, MetricView,
        SnapshotView, StatusView, VolumeView,
    },
    config::format_size,
    volumes::unix_now,
};

/// A row of a list.
pub(super) trait Row: Serialize {
    /// The columns' names.
    const HEAD: &'static [&'static str];
    /// The cells.
    fn cells(&self) -> Vec<String>;
    /// What one sees of a single one.
    fn card(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}

pub(super) fn print(text: &str) -> Result<()> {
    raw(text.as_bytes())
}

pub(super) fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as in `novastor volume list | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| Error::from_io("the answer cannot be written", &error)),
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(ErrorKind::INTERNAL, "the answer cannot be encoded").caused_by(&error)
    })?;
    print(&format!("{text}\n"))
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

pub(super) fn list<R: Row>(output: Output, rows: &[R]) -> Result<()> {
    if output == Output::Json {
        return json(&rows);
    }
    let mut table = table();
    table.set_header(R::HEAD.iter().map(|head| head.to_uppercase()));
    for row in rows {
        table.add_row(row.cells());
    }
    print(&lines(&table))
}

pub(super) fn one<R: Row>(output: Output, row: &R) -> Result<()> {
    if output == Output::Json {
        return json(row);
    }
    let mut table = table();
    for (name, value) in row.card().into_iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([name.to_owned(), value]);
    }
    print(&lines(&table))
}

pub(super) fn size(bytes: u64) -> String {
    format_size(bytes)
}

fn ago(then: u64) -> String {
    if then == 0 {
        return String::new();
    }
    match unix_now().saturating_sub(then) {
        secs @ 0..120 => format!("{secs} s ago"),
        secs @ 120..7200 => format!("{} min ago", secs / 60),
        secs @ 7200..172_800 => format!("{} h ago", secs / 3600),
        secs => format!("{} days ago", secs / 86_400),
    }
}

fn pairs<'p>(pairs: impl IntoIterator<Item = (&'p String, &'p String)>) -> String {
    let texts: Vec<String> =
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    texts.join(" ")
}

/// The figures for a card. Of histograms sum and count: what is in which bucket is for machines.
fn figures(stats: &[MetricView]) -> impl Iterator<Item = (&'static str, String)> + '_ {
    let shown =
        stats.iter().filter(|one| one.kind != "histogram" || !one.labels.contains_key("le"));
    shown.map(|metric| {
        let of = pairs(&metric.labels);
        let of = if of.is_empty() { of } else { format!("{{{of}}}") };
        ("figure", format!("{}{of} {}", metric.name, metric.value))
    })
}

impl Row for VolumeView {
    const HEAD: &'static [&'static str] =
        &["name", "backend", "size", "used", "state", "attached", "used by"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.backend.clone(),
            size(self.size),
            self.used.map(size).unwrap_or_else(|| "?".to_owned()),
            self.state.clone(),
            self.attach.clone(),
            self.users.join(", "),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.extend([
            ("bytes", self.size.to_string()),
            ("epoch", self.epoch.to_string()),
            ("created", ago(self.created_unix_secs)),
            ("labels", pairs(&self.labels)),
            ("facts", pairs(&self.facts)),
            ("job", self.job.map(|job| job.to_string()).unwrap_or_default()),
            ("note", self.note.clone().unwrap_or_default()),
        ]);
        if self.inner_name != self.name {
            card.push(("there", self.inner_name.clone()));
        }
        card.extend(figures(&self.stats));
        card
    }
}

impl Row for BackendView {
    const HEAD: &'static [&'static str] =
        &["name", "driver", "state", "capacity", "used", "available", "active", "why"];

    fn cells(&self) -> Vec<String> {
        let space = |of: fn(&crate::api::types::UsageView) -> u64| {
            self.usage.as_ref().map(|usage| size(of(usage))).unwrap_or_default()
        };
        vec![
            self.name.clone(),
            self.driver.clone(),
            self.state.clone(),
            space(|usage| usage.capacity),
            space(|usage| usage.used),
            space(|usage| usage.available),
            if self.active { "active" } else { "" }.to_owned(),
            self.why.clone().unwrap_or_default(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.extend([
            ("remedy", self.remedy.clone().unwrap_or_default()),
            ("version", self.version.clone().unwrap_or_default()),
            ("can", self.abilities.join(" ")),
            ("fencing", self.fencing.clone().unwrap_or_default()),
        ]);
        for (key, value) in &self.options {
            card.push(("option", format!("{key} = {value}")));
        }
        card.extend(figures(&self.stats));
        card
    }
}

impl Row for DriverView {
    const HEAD: &'static [&'static str] = &["name", "version", "role", "state", "file", "why"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.version.clone(),
            self.role.clone(),
            self.state.clone(),
            self.file.clone(),
            self.why.clone().unwrap_or_default(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.extend([
            ("remedy", self.remedy.clone().unwrap_or_default()),
            ("summary", self.summary.clone()),
            ("abi", self.abi.clone()),
            ("sha256", self.sha256.clone()),
            ("in use by", format!("{} backends", self.backends_in_use)),
            ("blocked", self.last_blocked.clone().unwrap_or_default()),
        ]);
        let groups = [("option", &self.options), ("volume option", &self.volume_options)];
        for (group, options) in groups {
            for option in options {
                let mut text = format!("{} ({})", option.name, option.kind);
                if let Some(default) = &option.default {
                    text.push_str(&format!(", default {default}"));
                }
                if !option.choices.is_empty() {
                    text.push_str(&format!(", one of {}", option.choices.join(", ")));
                }
                for (flag, word) in [(option.required, ", required"), (option.secret, ", secret")] {
                    if flag {
                        text.push_str(word);
                    }
                }
                card.push((group, format!("{text}: {}", option.help)));
            }
        }
        card
    }
}

impl Row for CommandView {
    const HEAD: &'static [&'static str] = &["name", "changes", "example", "help"];

    fn cells(&self) -> Vec<String> {
        let changes = if self.mutates { "yes" } else { "no" }.to_owned();
        vec![self.name.clone(), changes, self.example.clone(), self.help.clone()]
    }
}

impl Row for SnapshotView {
    const HEAD: &'static [&'static str] =
        &["name", "size", "used", "created", "method", "protected"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            size(self.size),
            size(self.used),
            ago(self.created_unix_secs),
            self.method.clone(),
            if self.protected { "yes" } else { "" }.to_owned(),
        ]
    }
}

impl Row for MemberView {
    const HEAD: &'static [&'static str] =
        &["volume", "name", "size", "used", "created", "method", "protected"];

    fn cells(&self) -> Vec<String> {
        std::iter::once(self.volume.clone()).chain(self.snapshot.cells()).collect()
    }
}

impl Row for ExportView {
    const HEAD: &'static [&'static str] =
        &["name", "default", "volume", "access", "allowed", "clients", "state", "uri"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            if self.default { "yes" } else { "" }.to_owned(),
            self.volume.clone(),
            if self.read_only { "read-only" } else { "read-write" }.to_owned(),
            if self.allow.is_empty() { "all".to_owned() } else { self.allow.join(", ") },
            self.connections.to_string(),
            self.state.clone(),
            self.uri.clone(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.push(("durability", self.durability.clone().unwrap_or_default()));
        card
    }
}

impl Row for JobView {
    const HEAD: &'static [&'static str] = &["job", "kind", "state", "progress", "started", "what"];

    fn cells(&self) -> Vec<String> {
        let progress = match (self.done, self.total) {
            (_, 0) => String::new(),
            (done, total) => format!("{}% of {}", done * 100 / total, size(total)),
        };
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.state.clone(),
            progress,
            ago(self.started_unix_secs),
            self.detail.clone(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        if let Some(walk) = &self.walk {
            card.push(("found", super::cluster::found(walk)));
            card.extend(walk.ranges.iter().map(|range| ("differs", range.to_string())));
        }
        if let Some(error) = &self.error {
            card.extend([("error", error.message.clone()), ("remedy", error.remedy.clone())]);
        }
        card
    }
}

impl Row for StatusView {
    const HEAD: &'static [&'static str] = &[
        "version",
        "process",
        "up",
        "active",
        "backends",
        "volumes",
        "exports",
        "jobs running",
        "nbd",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.clone(),
            self.pid.to_string(),
            format!("{} s", self.uptime_secs),
            self.active.clone().unwrap_or_else(|| "none".to_owned()),
            format!("{} of {} open", self.backends.0, self.backends.1),
            self.volumes.to_string(),
            self.exports.to_string(),
            self.jobs_running.to_string(),
            [std::slice::from_ref(&self.nbd_socket), &self.nbd_listen].concat().join(" "),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.extend(self.attention.iter().map(|text| ("attention", text.clone())));
        card
    }
}
