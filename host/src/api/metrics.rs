// SPDX-License-Identifier: Apache-2.0
//! `/v1/metrics`, in the text format of Prometheus.

use std::{collections::BTreeMap, fmt::Write};

use axum::{extract::State, http::header, response::IntoResponse};

use super::{
    Answered, Api, backends,
    types::{MetricView, VolumeView},
};

/// Samples by family: the format wants those of one name together, under one type, and all parts of a histogram under
/// the histogram's name.
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
        let family = if kind == "histogram" { histogram(&name) } else { &name };
        let begun = || (kind.to_owned(), Vec::new());
        self.0.entry(family.to_owned()).or_insert_with(begun).1.push(line);
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

/// The histogram that a figure is part of.
fn histogram(part: &str) -> &str {
    let ends = ["_bucket", "_sum", "_count"];
    ends.iter().find_map(|end| part.strip_suffix(end)).unwrap_or(part)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use driver_api::{Histogram, Stats};

    use super::{super::views, Samples};

    /// The parts of a sample: its name, its labels as they stand, its value.
    fn sample(line: &str) -> (&str, &str, f64) {
        let (name, rest) = line.split_once('{').expect("labels");
        let (labels, value) = rest.rsplit_once("} ").expect("a value");
        (name, labels, value.parse().expect("a number"))
    }

    #[test]
    fn a_histogram_is_one_family_whose_buckets_rise_to_its_count() {
        let histogram = Histogram::default();
        for millis in [1, 3, 3, 700, 99_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let stats = Stats::new()
            .counter("read_bytes_total", 7)
            .histogram("read_seconds", &histogram)
            .counter_of("trouble_total", ("of", "\"a\""), 1);
        let mut samples = Samples::default();
        for volume in ["v1", "v2"] {
            samples.add_all("volume", &[("volume", volume)], &views::metrics(&stats));
        }
        let text = samples.text();
        let types: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [
            "# TYPE novastor_volume_read_bytes_total counter",
            "# TYPE novastor_volume_read_seconds histogram",
            "# TYPE novastor_volume_trouble_total counter",
        ];
        assert_eq!(types, expected, "{text}");
        assert!(text.contains(r#"{volume="v2",of="\"a\""} 1"#), "{text}");
        for volume in ["v1", "v2"] {
            let of = format!("volume=\"{volume}\"");
            let samples = text.lines().filter(|line| !line.starts_with('#')).map(sample);
            let own: Vec<_> = samples.filter(|(_, labels, _)| labels.starts_with(&of)).collect();
            let buckets: Vec<_> =
                own.iter().filter(|(name, ..)| name.ends_with("seconds_bucket")).collect();
            let bounds: Vec<f64> = buckets
                .iter()
                .map(|(_, labels, _)| {
                    let le = labels.split_once("le=\"").expect("a bound").1.trim_end_matches('"');
                    le.parse().expect("a number, +Inf included")
                })
                .collect();
            assert!(bounds.is_sorted() && bounds.last() == Some(&f64::INFINITY), "{bounds:?}");
            assert!(buckets.is_sorted_by(|one, next| one.2 <= next.2), "{buckets:?}");
            let part = |name: &str| own.iter().find(|one| one.0 == name).expect("a part").2;
            assert_eq!(part("novastor_volume_read_seconds_count"), 5.0);
            assert_eq!(buckets.last().expect("a bucket").2, 5.0);
            assert_eq!(part("novastor_volume_read_seconds_sum"), 99.707);
        }
    }
}
