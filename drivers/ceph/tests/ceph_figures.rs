// SPDX-License-Identifier: Apache-2.0
//! The figures of volumes and backends, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::PathBuf,
    time::{Duration, Instant},
};

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, HealthState, MetricKind, Stats, Volume, WriteFlags,
};
use serde_json::json;
use support::{CX, MIB, admin, bytes, figure, made, open, service, size_of_process, value};

fn signal(signal: &str) {
    for osd in ["osd.0", "osd.1", "osd.2"] {
        service(&["daemon", osd, signal]);
    }
}

/// How many operations a histogram has counted up to a bound.
fn up_to(stats: &Stats, histogram: &str, bound: &str) -> f64 {
    let bucket = figure(stats, &format!("{histogram}_bucket"), &[("le", bound)]).expect("a bucket");
    assert_eq!(bucket.kind, MetricKind::HISTOGRAM);
    bucket.value
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_volume_counts_what_it_does_and_how_long_that_takes() {
    let backend = open(json!({ "osd_op_timeout_secs": 4 })).await;
    let volume = made(&backend, "counted", 16 * MIB).await;
    for at in 0..10 {
        volume.write(&CX, at * 4096, bytes(1, 4096), WriteFlags::NONE).await.expect("written");
    }
    for _ in 0..3 {
        volume.read(&CX, 0, 8192).await.expect("read");
    }
    volume.flush(&CX).await.expect("flushed");
    volume.discard(&CX, 0, MIB).await.expect("discarded");
    let stats = volume.stats();
    for (name, expected) in [
        ("write_operations_total", 10.0),
        ("write_bytes_total", 40960.0),
        ("write_seconds_count", 10.0),
        ("write_errors_total", 0.0),
        ("write_in_flight", 0.0),
        ("read_operations_total", 3.0),
        ("read_bytes_total", 24576.0),
        ("flush_operations_total", 1.0),
        ("zero_operations_total", 1.0),
        ("zero_bytes_total", MIB as f64),
    ] {
        assert_eq!(value(&stats, name), expected, "{name}");
    }
    assert_eq!(up_to(&stats, "write_seconds", "+Inf"), 10.0);
    assert_eq!(up_to(&stats, "write_seconds", "0.00001"), 0.0, "no disk is that fast");
    let sum = value(&stats, "write_seconds_sum");
    assert!(sum > 10.0 * 0.00001 && sum < 60.0, "{sum}");

    // What the cluster does not answer is in flight, then an error that took as long as the limit.
    signal("STOP");
    let written = volume.write(&CX, 0, bytes(2, 4096), WriteFlags::NONE).into_future();
    let pending = tokio::spawn(written);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let (of_volume, of_backend) = (volume.stats(), backend.stats());
    let asked = begun.elapsed();
    let outcome = pending.await.expect("joined");
    signal("CONT");
    assert!(asked < Duration::from_millis(50), "figures took {asked:?}");
    assert_eq!(value(&of_volume, "write_in_flight"), 1.0);
    assert_eq!(value(&of_backend, "calls_timed_out_total"), 0.0);
    assert_eq!(outcome.expect_err("nobody answered").kind(), ErrorKind::TIMED_OUT);
    let stats = volume.stats();
    assert_eq!(value(&stats, "write_in_flight"), 0.0);
    assert_eq!(value(&stats, "write_errors_total"), 1.0);
    assert_eq!(value(&stats, "write_operations_total"), 11.0);
    assert_eq!(value(&stats, "write_bytes_total"), 40960.0);
    assert_eq!(up_to(&stats, "write_seconds", "2"), 10.0);
    assert_eq!(up_to(&stats, "write_seconds", "10"), 11.0);
    assert_eq!(value(&backend.stats(), "calls_timed_out_total"), 1.0);
    assert_eq!(value(&stats, "writes_in_doubt"), 1.0);
    while value(&volume.stats(), "renewing") > 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "its client is not replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(value(&volume.stats(), "renewals_total"), 1.0);
    assert_eq!(value(&volume.stats(), "writes_in_doubt"), 1.0, "nobody was told");
    volume.flush(&CX).await.expect_err("a flush lied");
    let stats = volume.stats();
    assert_eq!(value(&stats, "flush_errors_total"), 1.0);
    assert_eq!(value(&stats, "flush_operations_total"), 2.0);
    assert_eq!(value(&stats, "flush_in_flight"), 0.0);
    assert_eq!(value(&stats, "writes_in_doubt"), 0.0);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "counted").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_backend_tells_how_cluster_pool_and_connections_are() {
    let backend = open(json!({})).await;
    let volume = made(&backend, "told", 16 * MIB).await;
    volume.write(&CX, 0, bytes(1, MIB), WriteFlags::NONE).await.expect("written");
    // It asks by itself.
    let begun = Instant::now();
    while figure(&backend.stats(), "osds_up", &[]).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing is asked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pool = &[("pool", "volumes")];
    // The cluster counts a pool's objects now and then.
    let begun = Instant::now();
    let usage = loop {
        let usage = backend.usage(&CX).await.expect("told");
        if figure(&backend.stats(), "pool_objects", pool).is_some_and(|one| one.value >= 1.0) {
            break usage;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the pool's objects are not counted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let health = backend.health(&CX).await.expect("told");
    let stats = backend.stats();
    let of = |name: &str, labels: &[(&str, &str)]| {
        figure(&stats, name, labels).unwrap_or_else(|| panic!("no {name}")).value
    };
    assert_eq!((of("osds", &[]), of("osds_up", &[]), of("osds_in", &[])), (3.0, 3.0, 3.0));
    assert_eq!(of("pool_available_bytes", pool), usage.available as f64);
    assert_eq!(of("pool_stored_bytes", pool), usage.used as f64);
    assert_eq!(of("volumes_provisioned_bytes", &[]), usage.provisioned as f64);
    assert!(usage.provisioned >= 16 * MIB);
    assert!(of("volumes_used_bytes", &[]) >= 4.0 * MIB as f64);
    for what in ["cluster", "pools", "volumes"] {
        assert!(of("asked_seconds_ago", &[("what", what)]) < 10.0, "{what}");
    }
    assert_eq!(of("connections_made_total", &[]), 2.0);
    assert_eq!(of("connections_blocklisted_total", &[]), 0.0);
    let well = of("cluster_health", &[("status", "HEALTH_OK")]) == 1.0;
    assert_eq!(well, health.state == HealthState::HEALTHY);

    admin(&["osd", "set", "noout"]);
    let begun = Instant::now();
    let warned = loop {
        let health = backend.health(&CX).await.expect("told");
        if health.reason.contains("OSDMAP_FLAGS") {
            break health;
        }
        if begun.elapsed() > Duration::from_secs(20) {
            break health;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let stats = backend.stats();
    admin(&["osd", "unset", "noout"]);
    println!("{}", warned.reason);
    assert_eq!(warned.state, HealthState::DEGRADED);
    assert!(warned.reason.contains("HEALTH_WARN (OSDMAP_FLAGS: noout"), "{}", warned.reason);
    assert!(figure(&stats, "cluster_check_failed", &[("check", "OSDMAP_FLAGS")]).is_some());
    let warning = figure(&stats, "cluster_health", &[("status", "HEALTH_WARN")]).expect("told");
    assert_eq!(warning.value, 1.0);

    // A volume that another takes over is a connection that was fenced.
    let other = open(json!({})).await;
    let attach = Attach::new(AttachMode::EXCLUSIVE, 2, "another").force();
    let taken = other.attach(&CX, "told", attach).await.expect("taken over");
    let error = volume.write(&CX, 0, bytes(2, 4096), WriteFlags::NONE).await;
    assert_eq!(error.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert_eq!(value(&backend.stats(), "connections_blocklisted_total"), 1.0);
    assert_eq!(value(&volume.stats(), "fenced"), 1.0);
    taken.detach(&CX).await.expect("detached");
    other.delete(&CX, "told").await.expect("deleted");
}

/// The directories of sockets that this process has.
fn sockets() -> Vec<PathBuf> {
    let given = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].map(std::env::var_os);
    let places = given.into_iter().flatten().map(PathBuf::from).chain([std::env::temp_dir()]);
    let own = format!("novastor-ceph-{}-", std::process::id());
    let entries = places.filter_map(|place| place.read_dir().ok()).flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    named.map(|entry| entry.path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn librbds_own_counters_are_figures_where_they_are_wanted() {
    let without = open(json!({})).await;
    let plain = made(&without, "plain", 16 * MIB).await;
    assert!(sockets().is_empty());
    let backend = open(json!({ "librbd_counters": true })).await;
    let before = size_of_process();
    let volume = made(&backend, "perf", 16 * MIB).await;
    let after = size_of_process();
    let third = made(&without, "third", 16 * MIB).await;
    println!(
        "threads and KiB: {before:?}, with counters {after:?}, without {:?}",
        size_of_process()
    );
    let own = sockets();
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0].metadata().expect("there").mode() & 0o777, 0o700);
    let listening = own[0].read_dir().expect("read").flatten();
    let mut types = listening.map(|entry| entry.file_type().expect("a type"));
    assert!(types.all(|kind| kind.is_socket()), "{own:?}");

    for at in 0..5 {
        volume.write(&CX, at * 4096, bytes(1, 4096), WriteFlags::NONE).await.expect("written");
    }
    volume.read(&CX, 0, 8192).await.expect("read");
    volume.flush(&CX).await.expect("flushed");
    let begun = Instant::now();
    backend.health(&CX).await.expect("told");
    println!("health with counters: {:?}", begun.elapsed());
    let stats = volume.stats();
    for (name, expected) in [
        ("librbd_wr_total", 5.0),
        ("librbd_wr_bytes_total", 20480.0),
        ("librbd_wr_latency_seconds_count", 5.0),
        ("librbd_rd_total", 1.0),
        ("librbd_rd_bytes_total", 8192.0),
    ] {
        assert_eq!(value(&stats, name), expected, "{name}");
    }
    // One is librbd's own, when it takes the lock.
    assert!(value(&stats, "librbd_flush_total") >= 1.0);
    let (theirs, ours) =
        (value(&stats, "librbd_wr_latency_seconds_sum"), value(&stats, "write_seconds_sum"));
    // Its clock has steps of some milliseconds.
    assert!(theirs >= 0.0 && theirs < ours + 0.1, "librbd's {theirs} s, ours {ours} s");
    assert!(value(&stats, "librbd_asked_seconds_ago") < 5.0);
    assert!(figure(&plain.stats(), "librbd_wr_total", &[]).is_none());
    for (volume, backend, name) in
        [(plain, &without, "plain"), (third, &without, "third"), (volume, &backend, "perf")]
    {
        volume.detach(&CX).await.expect("detached");
        drop(volume);
        backend.delete(&CX, name).await.expect("deleted");
    }
    // A reader's librbd tells as well.
    made(&backend, "perf", 16 * MIB).await.detach(&CX).await.expect("detached");
    let reader = Attach::new(AttachMode::READ_ONLY, 2, "reader");
    let reader = backend.attach(&CX, "perf", reader).await.expect("attached");
    reader.read(&CX, 0, 4096).await.expect("read");
    backend.health(&CX).await.expect("told");
    assert_eq!(value(&reader.stats(), "librbd_rd_total"), 1.0);
    reader.detach(&CX).await.expect("detached");
    drop(reader);
    backend.delete(&CX, "perf").await.expect("deleted");
    backend.close(&CX).await.expect("closed");
    assert!(sockets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn connections_that_are_lost_and_made_anew_are_counted() {
    let limits = json!({ "connect_timeout_secs": 2, "mon_op_timeout_secs": 2 });
    let backend = open(limits).await;
    assert_eq!(value(&backend.stats(), "connections_made_total"), 1.0);
    let health = async || backend.health(&CX).await.expect("told");
    assert_ne!(health().await.state, HealthState::FAILED);
    service(&["daemon", "mon.a", "STOP"]);
    // An answer may be on its way.
    let mut silent = health().await;
    for _ in 0..3 {
        if silent.state != HealthState::FAILED {
            silent = health().await;
        }
    }
    let refused = health().await;
    let stats = backend.stats();
    service(&["daemon", "mon.a", "CONT"]);
    println!("{}\n{}", silent.reason, refused.reason);
    assert_eq!((silent.state, refused.state), (HealthState::FAILED, HealthState::FAILED));
    assert!(value(&stats, "connections_lost_total") >= 1.0);
    assert!(value(&stats, "connections_failed_total") >= 1.0);
    assert!(value(&stats, "calls_timed_out_total") >= 1.0);
    assert!(figure(&stats, "connection", &[("state", "lost")]).is_some());
    // What was heard last is still told, with its age.
    let age = figure(&stats, "asked_seconds_ago", &[("what", "cluster")]).expect("told").value;
    assert!(age > 3.0, "{age}");
    assert_eq!(value(&stats, "osds"), 3.0);
    let begun = Instant::now();
    while health().await.state == HealthState::FAILED {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not connect anew");
    }
    assert_eq!(value(&backend.stats(), "connections_made_total"), 2.0);
    backend.close(&CX).await.expect("closed");
}
