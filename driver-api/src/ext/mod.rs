// SPDX-License-Identifier: Apache-2.0
//! Optional abilities, one small trait each. A volume or backend that returns one also declares it in its capabilities.

mod allocation_map;
mod asynchronous;
mod attach;
mod clones;
mod cluster;
mod commands;
mod movement;
mod objects;
mod recovery;
mod resize;
mod scrubbing;
mod sessions;
mod snapshots;

pub(crate) use allocation_map::no_changes;
pub use allocation_map::{AllocationMap, Extent, ExtentFlags};
pub(crate) use asynchronous::no_promotion;
pub use asynchronous::{Lag, Mode, Promote, Promotion};
pub use attach::{Attach, AttachMode};
pub(crate) use clones::no_flattening;
pub use clones::{Clones, Flattening};
pub use cluster::{
    Cluster, Comparison, NodeChange, NodeInfo, NodeSpec, PIECE, ReplicaInfo, ReplicaState,
    ReplicationInfo, ReplicationState, ShardInfo,
};
pub use commands::{CommandSpec, Commands};
pub(crate) use movement::no_movement;
pub use movement::{Movement, MovementPlan, NodeShare, NodeStep, NodeStepKind, Rebalancing};
pub use objects::{
    BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
    ListQuery, ObjectAbilities, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece,
    ObjectReader, ObjectReading, Objects, OpenedObject, PartInfo, PartPage, PutOptions,
    SignRequest, SignedMethod, SignedUrl, UploadInfo, UploadPage, UploadQuery, Versioning,
};
pub(crate) use recovery::no_recovery;
pub use recovery::{BrickPlace, RecoveredVolume, RecoveryOutcome};
pub use resize::Resize;
pub(crate) use scrubbing::no_scrubs;
pub use scrubbing::{Damage, DamageRepair, DamageVerdict, Scrubbing};
pub use sessions::{Consistency, Sessions};
pub(crate) use snapshots::no_protection;
pub use snapshots::{SnapshotInfo, Snapshots};

use crate::{Error, ErrorKind};

/// The answer to an operation that the driver does not have.
pub fn unsupported(operation: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "this driver does not have the operation").during(operation)
}
