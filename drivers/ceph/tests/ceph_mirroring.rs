// SPDX-License-Identifier: Apache-2.0
//! What a mirrored volume says of itself, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::time::{Duration, Instant};

use ceph::{CephBackend, CephVolume};
use driver_api::{Attach, AttachMode, Backend, Stats, Volume};
use serde_json::json;
use support::{CX, MIB, attach, figure, made, open, remove, service, tool};

/// Longer than the driver waits between two questions.
const ASKED_AGAIN: Duration = Duration::from_secs(25);

async fn fact(backend: &CephBackend, volume: &str, key: &str) -> Option<String> {
    let info = backend.show(&CX, volume).await.expect("shown");
    info.labels.iter().find(|label| label.0 == key).map(|label| label.1.to_string())
}

/// The volume's figures, once they are as wanted.
async fn figures(volume: &CephVolume, wanted: impl Fn(&Stats) -> bool) -> Stats {
    let begun = Instant::now();
    loop {
        let stats = volume.stats();
        if wanted(&stats) {
            return stats;
        }
        assert!(begun.elapsed() < ASKED_AGAIN, "{:?}", stats.metrics);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn primary(stats: &Stats) -> Option<f64> {
    figure(stats, "mirror_primary", &[]).map(|metric| metric.value)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_mirrored_volume_says_how_it_is_mirrored() {
    let backend = open(json!({})).await;
    made(&backend, "far", 16 * MIB).await.detach(&CX).await.expect("detached");
    let alone = made(&backend, "near", 16 * MIB).await;
    assert_eq!(fact(&backend, "far", "mirrored").await, None);
    tool("rbd", &["mirror", "pool", "enable", "volumes", "image"]);
    assert_eq!(fact(&backend, "far", "mirrored").await, None);
    tool("rbd", &["mirror", "image", "enable", "volumes/far", "snapshot"]);

    assert_eq!(fact(&backend, "far", "mirrored").await.as_deref(), Some("snapshot"));
    assert_eq!(fact(&backend, "far", "mirror_role").await.as_deref(), Some("primary"));
    let state = fact(&backend, "far", "mirror_state").await;
    assert_eq!(state.as_deref(), Some("local unknown (down)"), "no daemon runs here");
    assert_eq!(fact(&backend, "near", "mirrored").await, None);

    let volume = attach(&backend, "far", 2).await;
    let stats = figures(&volume, |stats| primary(stats).is_some()).await;
    assert_eq!(primary(&stats), Some(1.0));
    let of =
        |name: &str, labels: &[(&str, &str)]| figure(&stats, name, labels).map(|one| one.value);
    assert_eq!(of("mirror_state", &[("site", "local"), ("state", "unknown")]), Some(1.0));
    assert_eq!(of("mirror_up", &[("site", "local")]), Some(0.0));
    assert_eq!(primary(&alone.stats()), None);

    // Figures do not ask the cluster.
    for osd in ["osd.0", "osd.1", "osd.2"] {
        service(&["daemon", osd, "STOP"]);
    }
    let begun = Instant::now();
    let told = volume.stats();
    let took = begun.elapsed();
    for osd in ["osd.0", "osd.1", "osd.2"] {
        service(&["daemon", osd, "CONT"]);
    }
    assert!(took < Duration::from_millis(50) && primary(&told) == Some(1.0), "{took:?}");

    // The other site becomes the primary one: here it can be read.
    volume.detach(&CX).await.expect("detached");
    tool("rbd", &["mirror", "image", "demote", "volumes/far"]);
    assert_eq!(fact(&backend, "far", "mirror_role").await.as_deref(), Some("secondary"));
    let reader = Attach::new(AttachMode::READ_ONLY, 3, "reader");
    let reader = backend.attach(&CX, "far", reader).await.expect("attached");
    let stats = figures(&reader, |stats| primary(stats).is_some()).await;
    assert_eq!(primary(&stats), Some(0.0));
    reader.detach(&CX).await.expect("detached");
    tool("rbd", &["mirror", "image", "promote", "volumes/far"]);

    let volume = attach(&backend, "far", 4).await;
    figures(&volume, |stats| primary(stats) == Some(1.0)).await;
    tool("rbd", &["mirror", "image", "disable", "volumes/far"]);
    assert_eq!(fact(&backend, "far", "mirrored").await, None);
    figures(&volume, |stats| primary(stats).is_none()).await;
    tool("rbd", &["mirror", "pool", "disable", "volumes"]);
    for (volume, name) in [(volume, "far"), (alone, "near")] {
        volume.detach(&CX).await.expect("detached");
        remove(&backend, name).await;
    }
    backend.close(&CX).await.expect("closed");
}
