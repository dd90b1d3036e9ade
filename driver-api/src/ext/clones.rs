// SPDX-License-Identifier: Apache-2.0
use crate::{Op, OpContext, VolumeInfo, VolumeSpec};

/// New volumes with the content of others.
pub trait Clones: Send + Sync {
    /// Creates the volume `target` from `source`, or from its snapshot if `snapshot` is not empty. `[any thread · backend open]`
    ///
    /// The clone is a volume of its own, writable, and holds every write to `source` acknowledged before the call. `target.size` zero: the source's size; otherwise not smaller.
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo>;
}
