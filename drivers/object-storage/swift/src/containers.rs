// SPDX-License-Identifier: Apache-2.0

//! Containers of the account: made, deleted, listed, shown, changed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, StatusCode};
use object_store::Result;
use serde::Deserialize;

use crate::account::number;
use crate::attributes;
use crate::client::{Call, Target};
use crate::error::{Failure, FailureKind};
use crate::store::Swift;

/// How a container keeps what is overwritten or deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Versioning {
    /// Not at all.
    #[default]
    Off,
    /// Every version, listed and read by its id.
    Enabled,
    /// It did; versions of that time are still there.
    Suspended,
    /// Overwritten objects go to this container, and come back when their successor is deleted.
    Location(String),
    /// Overwritten and deleted objects go to this container, and stay there.
    History(String),
}

/// A container as its account lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEntry {
    /// Its name.
    pub name: String,
    /// Objects in it.
    pub objects: u64,
    /// Their bytes. Servers count with some delay.
    pub bytes: u64,
    /// When it was last changed, if the server tells.
    pub last_modified: Option<DateTime<Utc>>,
}

/// A container and its settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Objects in it.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who may read, such as `.r:*,.rlistings`.
    pub read_acl: String,
    /// Who may write.
    pub write_acl: String,
    /// What it keeps of the past.
    pub versioning: Versioning,
    /// The storage policy, if the server tells.
    pub policy: Option<String>,
    /// The most bytes and objects it may have.
    pub quota: (Option<u64>, Option<u64>),
    /// Other metadata, names in lower case.
    pub metadata: BTreeMap<String, String>,
}

/// Settings to be changed; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct ContainerUpdate {
    /// Who may read; empty is nobody but the account.
    pub read_acl: Option<String>,
    /// Who may write.
    pub write_acl: Option<String>,
    /// What it keeps of the past.
    pub versioning: Option<Versioning>,
    /// The storage policy: for new containers only.
    pub policy: Option<String>,
    /// The most bytes; zero is no limit.
    pub quota_bytes: Option<u64>,
    /// Metadata; an empty value removes it.
    pub metadata: BTreeMap<String, String>,
}

const META: &str = "x-container-meta-";

impl ContainerUpdate {
    fn apply(&self, mut call: Call) -> Call {
        let text = |value: &Option<String>| value.clone();
        let settings = [
            ("X-Container-Read", text(&self.read_acl)),
            ("X-Container-Write", text(&self.write_acl)),
        ];
        for (name, value) in settings.into_iter().chain([("X-Storage-Policy", text(&self.policy))])
        {
            if let Some(value) = value {
                call = call.header(name, value);
            }
        }
        call = match &self.versioning {
            None => call,
            Some(Versioning::Off) => call
                .header("X-Remove-Versions-Location", "x")
                .header("X-Remove-History-Location", "x"),
            Some(Versioning::Enabled) => call.header("X-Versions-Enabled", "true"),
            Some(Versioning::Suspended) => call.header("X-Versions-Enabled", "false"),
            Some(Versioning::Location(place)) => {
                call.header("X-Versions-Location", crate::encode::name(place))
            }
            Some(Versioning::History(place)) => {
                call.header("X-History-Location", crate::encode::name(place))
            }
        };
        if let Some(bytes) = self.quota_bytes {
            let bytes = if bytes == 0 { String::new() } else { bytes.to_string() };
            call = call.header("X-Container-Meta-Quota-Bytes", bytes);
        }
        for (name, value) in &self.metadata {
            call = call.header(format!("{META}{name}"), value);
        }
        call
    }
}

#[derive(Deserialize)]
struct Told {
    name: String,
    count: u64,
    bytes: u64,
    last_modified: Option<String>,
}

fn shown(name: &str, headers: &HeaderMap) -> Container {
    let text =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let place = |name: &str| {
        let encoded = text(name)?;
        Some(percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy().into_owned())
    };
    let versioning =
        match text("x-versions-enabled").map(|value| value.eq_ignore_ascii_case("true")) {
            Some(true) => Versioning::Enabled,
            Some(false) => Versioning::Suspended,
            None => match (place("x-versions-location"), place("x-history-location")) {
                (Some(place), _) => Versioning::Location(place),
                (_, Some(place)) => Versioning::History(place),
                _ => Versioning::Off,
            },
        };
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(META)?;
        // Keys are secrets.
        let told = !name.starts_with("temp-url-key") && !name.starts_with("quota-");
        told.then(|| Some((name.to_owned(), value.to_str().ok()?.to_owned())))?
    });
    Container {
        name: name.to_owned(),
        objects: number(headers, "x-container-object-count").unwrap_or_default(),
        bytes: number(headers, "x-container-bytes-used").unwrap_or_default(),
        read_acl: text("x-container-read").unwrap_or_default(),
        write_acl: text("x-container-write").unwrap_or_default(),
        versioning,
        policy: text("x-storage-policy"),
        quota: (
            number(headers, "x-container-meta-quota-bytes"),
            number(headers, "x-container-meta-quota-count"),
        ),
        metadata: metadata.collect(),
    }
}

impl Swift {
    /// Makes a container, with `settings`.
    ///
    /// # Errors
    /// It exists already; a name with a slash or of more than 256 bytes; settings that the server refuses.
    pub async fn create_container(&self, name: &str, settings: &ContainerUpdate) -> Result<()> {
        let call = settings.apply(Call::container(Method::PUT, name));
        if name.is_empty() || name.contains('/') || name.len() > 256 {
            let cause = "a container's name has 1 to 256 bytes and no slash";
            return Err(call.failure(FailureKind::Rejected, cause).into());
        }
        // A PUT on a container that exists changes its settings and says 202: look first, so that nothing is changed.
        let head = self.client().send(&Call::container(Method::HEAD, name)).await;
        let exists = |unknown| {
            call.failure(FailureKind::AlreadyExists, "the container exists already")
                .unknown(unknown)
        };
        match head {
            Ok(_) => return Err(exists(false).into()),
            Err(failure) if failure.kind() == FailureKind::NotFound => {}
            Err(failure) => return Err(failure.into()),
        }
        let answer = self.client().send(&call).await?;
        // Somebody made it in between.
        if answer.status == StatusCode::ACCEPTED { Err(exists(false).into()) } else { Ok(()) }
    }

    /// Deletes an empty container.
    ///
    /// # Errors
    /// It is not empty, or not there.
    pub async fn delete_container(&self, name: &str) -> Result<()> {
        match self.client().send(&Call::container(Method::DELETE, name)).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind() == FailureKind::NotFound && failure.outcome_unknown() => Ok(()),
            Err(failure) if failure.status() == Some(409) => Err(failure
                .remedy("it is not empty: delete its objects and their versions; a server may take seconds to notice")
                .into()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The account's containers whose names begin with `prefix`, in order.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn list_containers(&self, prefix: &str) -> Result<Vec<ContainerEntry>> {
        let mut containers: Vec<ContainerEntry> = Vec::new();
        loop {
            let mut call = Call::new(Method::GET, Target::Account).query("format", "json");
            let marker = containers.last().map(|last| last.name.clone()).unwrap_or_default();
            for (name, value) in [("prefix", prefix), ("marker", &marker)] {
                if !value.is_empty() {
                    call = call.query(name, value);
                }
            }
            let body = self.client().send(&call).await?.bytes().await?;
            let page: Vec<Told> = if body.is_empty() {
                Vec::new()
            } else {
                serde_json::from_slice(&body).map_err(|error| {
                    call.failure(
                        FailureKind::Rejected,
                        format!("the listing cannot be read: {error}"),
                    )
                })?
            };
            let Some(last) = page.last() else { return Ok(containers) };
            if last.name.as_str() <= marker.as_str() {
                let cause = "the list of containers does not advance";
                return Err(call.failure(FailureKind::Corrupt, cause).into());
            }
            containers.extend(page.into_iter().map(|told| ContainerEntry {
                name: told.name,
                objects: told.count,
                bytes: told.bytes,
                last_modified: told.last_modified.as_deref().and_then(attributes::listed_time),
            }));
        }
    }

    /// A container and its settings.
    ///
    /// # Errors
    /// It is not there.
    pub async fn container(&self, name: &str) -> Result<Container> {
        let head = self.client().send(&Call::container(Method::HEAD, name)).await?;
        Ok(shown(name, &head.headers))
    }

    /// Changes settings of a container, and checks that the server took them.
    ///
    /// # Errors
    /// It is not there; the server refuses a setting, or ignores it.
    pub async fn update_container(&self, name: &str, settings: &ContainerUpdate) -> Result<()> {
        let call = settings.apply(Call::container(Method::POST, name));
        if settings.policy.is_some() {
            let cause = "a container's storage policy is chosen when it is made";
            return Err(call.failure(FailureKind::Unsupported, cause).into());
        }
        self.client().send(&call).await?;
        let now = self.container(name).await?;
        let ignored = settings.versioning.as_ref().is_some_and(|wanted| *wanted != now.versioning);
        if ignored {
            let cause = format!("the server keeps {:?} as its versioning", now.versioning);
            let failure: Failure = call.failure(FailureKind::Unsupported, cause);
            return Err(failure
                .remedy("have its versioned_writes and object versioning enabled")
                .into());
        }
        Ok(())
    }
}
