// SPDX-License-Identifier: Apache-2.0
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use driver_api::RString;

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(filter: &str, format: LogFormat) -> LogSettings {
    LogSettings { filter: filter.into(), format }
}

fn gate(filter: &str) -> LogGate {
    LogGate::new(&settings(filter, LogFormat::Text), None).unwrap()
}

/// What is written while `work` logs.
fn written(gate: &LogGate, format: LogFormat, work: impl FnOnce()) -> String {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = gate.subscriber(format, move || writer.clone());
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(std::mem::take(&mut *sink.0.lock().unwrap())).unwrap()
}

fn forward(gate: &LogGate, level: u32, target: &str) {
    let fields = [("bytes", "7"), ("why", "a b")];
    let fields: Vec<_> = fields
        .map(|(key, value)| abi_stable::std_types::Tuple2(RString::from(key), RString::from(value)))
        .into();
    let spans = [RString::from("open{name=a}"), RString::from("read")];
    gate.forward(
        "local",
        &LogRecord {
            level,
            target: target.into(),
            message: "said {it}".into(),
            fields: fields.as_slice().into(),
            spans: spans.as_slice().into(),
            reserved: [0; 2],
        },
    );
}

#[test]
fn a_debug_record_passes_exactly_when_the_filter_says_so() {
    for (filter, passes) in [
        ("info", false),
        ("debug", true),
        ("trace", true),
        ("info,local=debug", true),
        ("info,local::x=debug", true),
        ("info,local::x::y=debug", false),
        ("debug,local=info", false),
        ("debug,local=info,local::x=trace", true),
        ("debug,local::x=off", false),
        ("novastor=debug", false),
        ("off", false),
    ] {
        let gate = gate(filter);
        assert_eq!(gate.enabled(4, "local::x"), passes, "{filter}");
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = written(&gate, format, || forward(&gate, 4, "local::x"));
            assert_eq!(text.lines().count(), usize::from(passes), "{filter}: {text}");
        }
    }
}

#[test]
fn levels_are_ordered() {
    let gate = gate("warn");
    let enabled: Vec<bool> = (0..8).map(|level| gate.enabled(level, "x")).collect();
    assert_eq!(enabled, [true, true, true, false, false, false, false, false]);
}

#[test]
fn host_and_driver_share_one_stream() {
    let gate = gate("info,local=debug");
    let text = written(&gate, LogFormat::Json, || {
        tracing::info!(target: "novastor::x", size = 3, "kept");
        tracing::debug!(target: "novastor::x", "dropped");
        forward(&gate, 4, "local::x");
        forward(&gate, 5, "local::x");
        forward(&gate, 1, "other");
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0]["fields"]["message"], "kept");
    assert_eq!((&lines[1]["level"], &lines[2]["level"]), (&"DEBUG".into(), &"ERROR".into()));
    let fields = &lines[1]["fields"];
    assert_eq!(fields["message"], "said {it}");
    assert_eq!(fields["driver"], "local");
    assert_eq!(fields["target"], "local::x");
    assert_eq!(fields["spans"], "open{name=a}:read");
    assert_eq!(fields["fields"], "bytes=7 why=a b");
}

#[test]
fn the_variable_wins_and_is_named_when_it_is_wrong() {
    let settings = settings("info", LogFormat::Text);
    let gate = LogGate::new(&settings, Some("local=trace")).unwrap();
    assert!(gate.enabled(5, "local") && !gate.enabled(1, "other"));
    assert!(LogGate::new(&settings, Some(" ")).unwrap().enabled(3, "other"));
    for wrong in ["a=loud", "a[span]=info"] {
        let error = LogGate::new(&settings, Some(wrong)).unwrap_err();
        assert!(format!("{error:#}").contains("RUST_LOG"), "{error:#}");
    }
}
