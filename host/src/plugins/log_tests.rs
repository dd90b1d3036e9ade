// SPDX-License-Identifier: Apache-2.0
use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use driver_api::RString;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, registry};

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lines").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn record<'a>(level: u32, target: &'a str, spans: &'a [RString]) -> LogRecord<'a> {
    LogRecord {
        level,
        target: target.into(),
        message: "opened".into(),
        fields: Default::default(),
        spans: spans.into(),
        reserved: [0; 2],
    }
}

#[test]
fn records_pass_the_hosts_filter_under_their_own_targets() {
    let lines = Lines::default();
    let written = lines.clone();
    let filter: Targets = "warn,ceph::client=debug".parse().expect("a filter");
    let json = fmt::layer().json().with_writer(move || written.clone());
    tracing::subscriber::with_default(registry().with(filter).with(json), || {
        let log = TracingLog;
        assert!(log.enabled(4, "ceph::client"));
        assert!(!log.enabled(5, "ceph::client"));
        assert!(!log.enabled(3, "netfs"));
        log.log("ceph", &record(4, "ceph::client", &["attach{volume=v}".into()]));
        log.log("netfs", &record(3, "netfs", &[]));
        log.log("netfs", &record(2, "netfs", &[]));
    });
    let text = String::from_utf8(lines.0.lock().expect("lines").clone()).expect("text");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["target"], "ceph::client");
    assert_eq!(lines[0]["level"], "DEBUG");
    assert_eq!(lines[0]["fields"]["message"], "opened");
    assert_eq!(lines[0]["fields"]["driver"], "ceph");
    assert_eq!(lines[0]["fields"]["spans"], "attach{volume=v}");
    assert_eq!(lines[1]["target"], "netfs");
    assert_eq!(lines[1]["fields"].get("spans"), None);
}
