// SPDX-License-Identifier: Apache-2.0
//! `/v1/metrics`, in the text format of Prometheus.

use std::{collections::BTreeMap, fmt::Write};

use axum::{extract::State, http::header, response::IntoResponse};

use super::{
    Answered, Api, backends,
    types::{MetricView, VolumeView},
};

/// Samples by name: the format wants those of one name together, under one type.
#[derive(Default)]
struct Samples(BTreeMap<String, (String, Vec<String>)>);

impl Samples {
    fn add(&mut self, kind: &str, name: &str, labels: &[(&str, &str)], value: f64) {
        let name = format!("novastor_{}", clean(name));
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{}=\"{}\"", clean(key), escape(value)))
            .collect();
        let line = format!("{name}{{{}}} {value}", labels.join(","));
        self.0.entry(name).or_insert_with(|| (kind.to_owned(), Vec::new())).1.push(line);
    }

    fn add_all(&mut self, prefix: &str, labels: &[(&str, &str)], metrics: &[MetricView]) {
        for metric in metrics {
            let own = metric.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let labels: Vec<_> = labels.iter().copied().chain(own).collect();
            self.add(&metric.kind, &format!("{prefix}_{}", metric.name), &labels, metric.value);
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        for (name, (kind, lines)) in self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    }
}

fn clean(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub(super) async fn metrics(State(api): State<Api>) -> Answered<impl IntoResponse> {
    let mut samples = Samples::default();
    for backend in backends::views(&api).await {
        let labels = [("backend", backend.name.as_str()), ("driver", backend.driver.as_str())];
        let up = f64::from(u8::from(matches!(backend.state.as_str(), "healthy" | "degraded")));
        samples.add("gauge", "backend_up", &labels, up);
        if let Some(usage) = &backend.usage {
            samples.add("gauge", "backend_capacity_bytes", &labels, usage.capacity as f64);
            samples.add("gauge", "backend_used_bytes", &labels, usage.used as f64);
            samples.add("gauge", "backend_available_bytes", &labels, usage.available as f64);
        }
        samples.add_all("backend", &labels, &backend.stats);
    }
    for volume in api.volumes.all_figures().await?.into_iter().map(VolumeView::from) {
        let labels = [("volume", volume.name.as_str()), ("backend", volume.backend.as_str())];
        samples.add("gauge", "volume_size_bytes", &labels, volume.size as f64);
        if let Some(used) = volume.used {
            samples.add("gauge", "volume_used_bytes", &labels, used as f64);
        }
        samples.add_all("volume", &labels, &volume.stats);
    }
    for export in api.volumes.exports().await? {
        let count = api.gates.connections(&export.name) as f64;
        samples.add("gauge", "export_connections", &[("export", &export.name)], count);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], samples.text()))
}
