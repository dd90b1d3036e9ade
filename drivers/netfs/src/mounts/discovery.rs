// SPDX-License-Identifier: Apache-2.0
//! What a server has to mount: MOUNT's list (NFSv3), the root of its names (NFSv4), its list of shares (SMB).

use std::{sync::Arc, time::Instant};

use driver_api::{Error, ErrorKind};
use serde::Serialize;

use crate::{
    config::{Place, Protocol},
    counters::Figures,
    error::Fault,
    share::{Kind, Share as _, nfs3, nfs4, smb},
};

/// Something that a server has to mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Export {
    /// What to say as `share`.
    pub export: String,
    /// To whom it is exported, where the server says so; to everybody if it is empty.
    pub clients: Vec<String>,
    /// What the server says about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Asks the server, by the first version that it speaks.
pub(super) async fn exports(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<Export>, Fault> {
    match place.protocol {
        Protocol::Nfs => {}
        Protocol::Smb => return shares(place, figures, until).await,
        Protocol::Kernel => {
            let what = "a directory of this machine has no server that could be asked";
            return Err(Error::new(ErrorKind::UNSUPPORTED, what).into());
        }
    }
    let mut left = place.versions.len();
    for version in &place.versions {
        left -= 1;
        let listed = match version.as_str() {
            "3" => of_mount(place, figures, until).await,
            version => of_root(place, nfs4::minor_of(version)?, figures, until).await,
        };
        match listed {
            Err(fault) if left > 0 && nfs4::may_fall_back(&fault) => {}
            done => return done,
        }
    }
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, "`versions` is empty").into())
}

async fn of_mount(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<Export>, Fault> {
    let listed = nfs3::exports(place, figures, until).await?;
    let export = |(export, clients)| Export { export, clients, comment: String::new() };
    Ok(listed.into_iter().map(export).collect())
}

/// The directories of the server's root, as another client than the one that volumes are used by.
async fn of_root(
    place: &Place,
    minor: u32,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<Export>, Fault> {
    let client = fastrand::u64(..);
    let root = Place { share: "/".into(), path: Vec::new(), client, ..place.clone() };
    let share = nfs4::mount(&root, minor, figures, until).await?;
    let listed = share.list(until).await;
    if let Err(fault) = share.unmount(until).await {
        tracing::debug!(mount = place.name, %fault, "the server keeps a client until its lease is over");
    }
    let is_directory = |kind: Option<Kind>| kind.is_none_or(|kind| kind == Kind::Directory);
    let mut exports: Vec<Export> = listed?
        .into_iter()
        .filter(|entry| is_directory(entry.facts.map(|facts| facts.kind)))
        .map(|entry| Export {
            export: format!("/{}", entry.name),
            clients: Vec::new(),
            comment: String::new(),
        })
        .collect();
    exports.sort_by(|one, other| one.export.cmp(&other.export));
    Ok(exports)
}

async fn shares(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<Export>, Fault> {
    let listed = smb::shares(place, figures, until).await?;
    let export = |(export, comment)| Export { export, clients: Vec::new(), comment };
    Ok(listed.into_iter().map(export).collect())
}
