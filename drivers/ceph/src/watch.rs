// SPDX-License-Identifier: Apache-2.0
//! How the cluster and the pools are: asked now and then and when the host asks, kept with their age for the figures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{Health, OpContext, Result, Stats, Usage};
use serde_json::Value;

use crate::{blocking::blocking, error::internal, heard::Heard, store::Store};

/// Between two questions that nobody else asked for.
const PAUSE: Duration = Duration::from_secs(15);

/// The states of a cluster, as the monitors call them.
const STATES: [&str; 3] = ["HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"];

/// A check of the cluster that fails.
#[derive(Clone)]
struct Trouble {
    check: String,
    message: String,
}

/// What the monitors say of the cluster.
#[derive(Clone)]
struct Cluster {
    status: String,
    troubles: Vec<Trouble>,
    /// All OSDs, those that are up, those that are in.
    osds: [u64; 3],
}

/// How full a pool is.
#[derive(Clone)]
struct Pool {
    name: String,
    stored: u64,
    used: u64,
    available: u64,
    objects: u64,
}

/// What the volumes take.
#[derive(Clone, Copy)]
struct Volumes {
    count: u64,
    provisioned: u64,
    used: u64,
}

/// The answers, as they came last.
#[derive(Default)]
pub(crate) struct Watch {
    cluster: Heard<Cluster>,
    pools: Heard<Vec<Pool>>,
    volumes: Heard<Volumes>,
}

impl Watch {
    /// The figures: what was heard last, and how long ago.
    pub fn stats(&self, mut stats: Stats) -> Stats {
        let age = |at: Instant| at.elapsed().as_secs_f64();
        if let Some((at, cluster)) = self.cluster.get() {
            for state in STATES {
                let is = if state == cluster.status { 1.0 } else { 0.0 };
                stats = stats.gauge_of("cluster_health", ("status", state), is);
            }
            for trouble in &cluster.troubles {
                stats = stats.gauge_of("cluster_check_failed", ("check", &trouble.check), 1.0);
            }
            let [all, up, within] = cluster.osds.map(|count| count as f64);
            stats = stats.gauge("osds", all).gauge("osds_up", up).gauge("osds_in", within);
            stats = stats.gauge_of("asked_seconds_ago", ("what", "cluster"), age(at));
        }
        if let Some((at, pools)) = self.pools.get() {
            for pool in &pools {
                let of = ("pool", pool.name.as_str());
                stats = stats
                    .gauge_of("pool_stored_bytes", of, pool.stored as f64)
                    .gauge_of("pool_used_bytes", of, pool.used as f64)
                    .gauge_of("pool_available_bytes", of, pool.available as f64)
                    .gauge_of("pool_objects", of, pool.objects as f64);
            }
            stats = stats.gauge_of("asked_seconds_ago", ("what", "pools"), age(at));
        }
        if let Some((at, volumes)) = self.volumes.get() {
            stats = stats
                .gauge("volumes", volumes.count as f64)
                .gauge("volumes_provisioned_bytes", volumes.provisioned as f64)
                .gauge("volumes_used_bytes", volumes.used as f64)
                .gauge_of("asked_seconds_ago", ("what", "volumes"), age(at));
        }
        stats
    }
}

/// Asks now and then, as long as the backend is there.
pub(crate) fn watch(store: &Arc<Store>) {
    let store = Arc::downgrade(store);
    tokio::spawn(async move {
        loop {
            let Some(store) = store.upgrade().filter(|store| !store.cluster.is_closed()) else {
                return;
            };
            let asked = blocking(&OpContext::new(), "watch the cluster", move || {
                store.ask_librbd();
                store.ask_cluster().map(drop).and(store.ask_pools().map(drop))?;
                store.ask_mirroring()
            });
            if let Err(error) = asked.await {
                tracing::warn!(%error, "the figures of the cluster are not renewed");
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}

impl Store {
    fn ask_cluster(&self) -> Result<Cluster> {
        let answer = self.cluster.with(|connection| connection.ask_monitors("status"))?;
        let cluster = parse_status(&answer)?;
        self.watch.cluster.note(cluster.clone());
        Ok(cluster)
    }

    /// The pools of the images and of their data.
    fn ask_pools(&self) -> Result<Vec<Pool>> {
        let config = &self.cluster.config;
        let mut names = vec![config.pool.as_str()];
        if !config.data_pool.is_empty() && config.data_pool != config.pool {
            names.push(&config.data_pool);
        }
        let answer = self.cluster.with(|connection| connection.ask_monitors("df"))?;
        let pools: Result<Vec<_>> = names.iter().map(|name| parse_pool(&answer, name)).collect();
        let pools = pools?;
        self.watch.pools.note(pools.clone());
        Ok(pools)
    }

    /// Space in the pool of the data.
    pub fn usage(&self) -> Result<Usage> {
        let list = self.list()?;
        let volumes = Volumes {
            count: list.len() as u64,
            provisioned: list.iter().map(|volume| volume.size).sum(),
            used: list.iter().map(|volume| volume.used).sum(),
        };
        self.watch.volumes.note(volumes);
        let pools = self.ask_pools()?;
        let data = pools.last().ok_or_else(|| internal("no pool was asked for"))?;
        Ok(Usage {
            capacity: data.stored.saturating_add(data.available),
            used: data.stored,
            available: data.available,
            provisioned: volumes.provisioned,
            reserved: [0; 4],
        })
    }

    /// What the monitors say of the cluster.
    pub fn health(&self) -> Result<Health> {
        self.ask_librbd();
        let cluster = match self.ask_cluster() {
            Ok(cluster) => cluster,
            Err(error) => {
                let (state, why) = self.cluster.state();
                return Ok(Health::failed(&format!("the connection is {state}: {error:#} {why}")));
            }
        };
        let attachments = self.attachments();
        let renewing: Vec<_> = attachments
            .iter()
            .filter(|volume| volume.is_renewing())
            .map(|volume| volume.name.as_str())
            .collect();
        if !renewing.is_empty() {
            return Ok(Health::degraded(&format!(
                "after writes whose outcome is not known, clients are being replaced, and operations wait: {}",
                renewing.join(", ")
            )));
        }
        if cluster.status == "HEALTH_OK" {
            return Ok(Health::healthy());
        }
        let texts: Vec<_> =
            cluster.troubles.iter().map(|one| format!("{}: {}", one.check, one.message)).collect();
        let status = cluster.status;
        Ok(Health::degraded(&format!("the cluster says {status} ({})", texts.join("; "))))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn parse_status(answer: &Value) -> Result<Cluster> {
    let health = &answer["health"];
    let osd = |name: &str| {
        answer["osdmap"][name]
            .as_u64()
            .ok_or_else(|| internal(format!("the monitors do not tell {name}")))
    };
    let checks = health["checks"].as_object().into_iter().flatten();
    let troubles = checks.map(|(name, check)| Trouble {
        check: name.clone(),
        message: text(&check["summary"]["message"]),
    });
    Ok(Cluster {
        status: text(&health["status"]),
        troubles: troubles.collect(),
        osds: [osd("num_osds")?, osd("num_up_osds")?, osd("num_in_osds")?],
    })
}

fn parse_pool(answer: &Value, name: &str) -> Result<Pool> {
    let pools = answer["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(found) = pools.iter().find(|one| one["name"] == name) else {
        return Err(internal("the monitors do not know how full the pool is").with("pool", name));
    };
    let figure = |figure: &str| {
        found["stats"][figure].as_u64().ok_or_else(|| {
            internal(format!("the monitors do not tell {figure} of the pool")).with("pool", name)
        })
    };
    Ok(Pool {
        name: name.to_owned(),
        stored: figure("stored")?,
        used: figure("bytes_used")?,
        available: figure("max_avail")?,
        objects: figure("objects")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_monitors_say_becomes_figures() {
        let answer = serde_json::json!({
            "health": { "status": "HEALTH_WARN", "checks": { "OSD_DOWN": {
                "severity": "HEALTH_WARN", "summary": { "message": "1 osds down", "count": 1 },
            } } },
            "osdmap": { "num_osds": 3, "num_up_osds": 2, "num_in_osds": 3 },
        });
        let watch = Watch::default();
        assert!(watch.stats(Stats::new()).metrics.is_empty());
        watch.cluster.note(parse_status(&answer).expect("a status"));
        let stats = watch.stats(Stats::new());
        let value = |name: &str, label: &str| {
            let metrics = stats.metrics.iter().filter(|metric| metric.name == name);
            let mut fitting = metrics.filter(|metric| {
                label.is_empty() || metric.labels.iter().any(|one| one.1 == label)
            });
            fitting.next().map(|metric| metric.value)
        };
        assert_eq!(value("cluster_health", "HEALTH_WARN"), Some(1.0));
        assert_eq!(value("cluster_health", "HEALTH_OK"), Some(0.0));
        assert_eq!(value("cluster_check_failed", "OSD_DOWN"), Some(1.0));
        assert_eq!((value("osds", ""), value("osds_up", "")), (Some(3.0), Some(2.0)));
        assert!(parse_pool(&answer, "volumes").is_err());
    }
}
