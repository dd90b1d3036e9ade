// SPDX-License-Identifier: Apache-2.0
//! Where people look whether a volume is mirrored: its facts, and the figures of one that is attached.

use std::mem;

use driver_api::{Error, ErrorKind, Result, Stats, Tuple2, VolumeInfo};

use crate::{
    attached::Attached,
    cluster::{Connection, check},
    ffi_pool as pool,
    image::{self, Image},
    mirror::{Mirrored, mode_and_role, sites},
    store::Store,
};

/// `RBD_MIRROR_IMAGE_DISABLED`
const DISABLED: i32 = 2;

/// Whether images of the pool may be mirrored at all.
pub(crate) fn pool_is_mirrored(connection: &Connection) -> Result<bool> {
    let mut mode = 0;
    // SAFETY: the ioctx is open, the pointer is valid for the call.
    let asked = unsafe { pool::rbd_mirror_mode_get(connection.io(), &mut mode) };
    check("cannot ask whether the pool is mirrored", asked)?;
    Ok(mode != pool::MIRROR_DISABLED)
}

/// How an image is at each site that has it; nothing if it is not mirrored.
pub(crate) fn of_image(image: &Image) -> Result<Vec<Mirrored>> {
    // SAFETY: all fields are numbers, pointers or false, for which zeros are values.
    let mut status: pool::MirrorStatus = unsafe { mem::zeroed() };
    let size = size_of::<pool::MirrorStatus>();
    // SAFETY: the image is open, the pointer is valid for the call, with its size.
    let asked = unsafe { pool::rbd_mirror_image_get_global_status(image.0, &mut status, size) };
    match check("cannot ask how the image is mirrored", asked) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let is_mirrored = status.info.state != DISABLED;
    // SAFETY: the call filled the status, whose texts are freed once, after they were copied.
    let mut told = unsafe {
        let told = sites(&status);
        pool::rbd_mirror_image_global_status_cleanup(&mut status);
        told
    };
    if !is_mirrored {
        return Ok(Vec::new());
    }
    let (mode, primary) = mode_and_role(image)?;
    for site in &mut told {
        (site.mode, site.primary) = (mode, primary);
    }
    Ok(told)
}

/// The facts of a mirrored volume.
pub(crate) fn add_facts(connection: &Connection, mut info: VolumeInfo) -> Result<VolumeInfo> {
    if !pool_is_mirrored(connection)? {
        return Ok(info);
    }
    let told = image::with(connection, &info.name, false, of_image)?;
    let Some(first) = told.first() else { return Ok(info) };
    info = info.label("mirrored", first.mode).label("mirror_role", role(first.primary));
    let states: Vec<_> = told.iter().map(state_at_site).collect();
    Ok(info.label("mirror_state", &states.join(", ")))
}

fn role(primary: bool) -> &'static str {
    if primary { "primary" } else { "secondary" }
}

fn state_at_site(told: &Mirrored) -> String {
    let down = if told.up { "" } else { " (down)" };
    format!("{} {}{down}", told.site, told.state)
}

/// The figures of a mirrored volume.
pub(crate) fn add_figures(told: &[Mirrored], mut stats: Stats) -> Stats {
    let Some(first) = told.first() else { return stats };
    let figure = |is: bool| if is { 1.0 } else { 0.0 };
    stats = stats.gauge("mirror_primary", figure(first.primary));
    for site in told {
        stats = stats.gauge_of("mirror_up", ("site", &site.site), figure(site.up));
        stats = stats.gauge_of("mirror_state", ("site", &site.site), 1.0);
        if let Some(metric) = stats.metrics.last_mut() {
            metric.labels.push(Tuple2("state".into(), site.state.into()));
        }
    }
    stats
}

impl Store {
    /// Asks how the volumes that are attached here are mirrored, and keeps it for their figures.
    pub fn ask_mirroring(&self) -> Result<()> {
        let mirrored = self.cluster.with(pool_is_mirrored)?;
        for volume in self.all_attached() {
            if volume.is_closed() || volume.is_fenced() {
                continue;
            }
            match if mirrored { volume.with(of_image) } else { Ok(Vec::new()) } {
                Ok(told) => volume.mirrored.note(told),
                Err(_) if volume.is_closed() || volume.is_fenced() => {}
                Err(error) => tell(&volume, &error),
            }
        }
        Ok(())
    }
}

fn tell(volume: &Attached, error: &Error) {
    tracing::warn!(volume = volume.name, %error, "how the volume is mirrored is not known anew");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(site: &str, state: &'static str, up: bool) -> Mirrored {
        Mirrored {
            volume: "v".into(),
            mode: "snapshot",
            primary: true,
            site: site.into(),
            state,
            up,
            description: String::new(),
            last_update_unix_secs: 0,
        }
    }

    #[test]
    fn figures_name_each_site_and_its_state() {
        assert!(add_figures(&[], Stats::new()).metrics.is_empty());
        let all = [told("local", "stopped", true), told("far", "replaying", false)];
        let stats = add_figures(&all, Stats::new());
        let text = |metric: &driver_api::Metric| {
            let labels: Vec<_> =
                metric.labels.iter().map(|label| format!("{}={}", label.0, label.1)).collect();
            format!("{} {} {}", metric.name, labels.join(" "), metric.value)
        };
        let texts: Vec<_> = stats.metrics.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                "mirror_primary  1",
                "mirror_up site=local 1",
                "mirror_state site=local state=stopped 1",
                "mirror_up site=far 0",
                "mirror_state site=far state=replaying 1",
            ]
        );
        assert_eq!(state_at_site(&all[1]), "far replaying (down)");
    }
}
