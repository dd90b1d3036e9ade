// SPDX-License-Identifier: Apache-2.0
//! What the state keeps of a volume.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a volume is in its life.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// The backend may have been asked to create it; its content is not there yet.
    Creating,
    /// It can be used.
    Available,
    /// The backend may have been asked to delete it.
    Deleting,
}

impl VolumeState {
    /// The state's name, as the API shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Deleting => "deleting",
        }
    }
}

/// Whether this host holds a volume.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
pub enum AttachState {
    /// Nobody here holds it.
    #[default]
    Detached,
    /// The backend may have been asked to attach it.
    Attaching,
    /// This host holds it.
    Attached,
    /// The backend may have been asked to detach it.
    Detaching,
}

impl AttachState {
    /// The state's name, as the API shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// A lasting wish that a volume be attached; it survives a restart.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The holder only reads.
    pub read_only: bool,
}

/// A volume as the state keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// The backend that holds it.
    pub backend: String,
    /// Its name there.
    pub inner_name: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was created, in seconds since 1970.
    pub created_unix_secs: u64,
    /// The operator's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The driver's options that it was created with.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Where it is in its life.
    pub state: VolumeState,
    /// The epoch of its latest attachment; never lowered.
    pub epoch: u64,
    /// Whether this host holds it.
    #[serde(default)]
    pub attach: AttachState,
    /// Lasting wishes that it be attached, by holder: `operator`, `export NAME`.
    #[serde(default)]
    pub holds: BTreeMap<String, Hold>,
    /// The job that fills it; while set, the volume is its job's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// What was under way and may be half done after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// The name that it is being given: until that is settled nobody knows which one it has in the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renaming: Option<String>,
    /// The snapshot that is being taken of it and of others at one point: after a crash it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taking: Option<String>,
    /// What the operator should know, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl VolumeRecord {
    /// Where it is in its life, as the API shows it.
    pub fn shown_state(&self) -> &'static str {
        if self.renaming.is_some() { "renaming" } else { self.state.name() }
    }

    /// Whether this is the volume that the backend calls so, or may call so by now.
    pub fn is_called(&self, backend: &str, inner_name: &str) -> bool {
        self.backend == backend
            && (self.inner_name == inner_name || self.renaming.as_deref() == Some(inner_name))
    }
}

/// An export as the state keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ExportRecord {
    /// The exported volume.
    pub volume: String,
    /// Clients may only read.
    pub read_only: bool,
    /// Rules that name the clients it admits; none: whoever may connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// It is served to clients that name no export.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// When it was added, in seconds since 1970.
    pub created_unix_secs: u64,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
