// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RString};

use crate::{Error, ErrorKind, Op, OpContext, VolumeInfo, VolumeSpec};

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

    /// Begins to give a volume all that it shares with the one it was cloned from, so that the source is not needed any
    /// more; the volume serves meanwhile, and its content stays as it is. Asked for while it is under way: that one goes on.
    /// A volume that needs no other is flat already: success. With `on` false, ends the one under way; what it has copied
    /// stays copied. It ends with the attachment, and goes on when it is asked for anew. A volume that this backend has not
    /// attached for writing is refused with `InvalidArgument`. Needs [`Abilities::FLATTEN`](crate::Abilities::FLATTEN).
    /// Since 1.3. `[any thread · volume attached]`
    fn flatten(&self, _cx: &OpContext, _volume: &str, _on: bool) -> Op<()> {
        Op::err(no_flattening("flatten"))
    }

    /// How far a volume's flattening is, or how the last one of this attachment ended. Since 1.3.
    /// `[any thread · volume attached]`
    fn flattening(&self, _cx: &OpContext, _volume: &str) -> Op<Flattening> {
        Op::err(no_flattening("flattening"))
    }
}

/// How far a volume's flattening is. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Flattening {
    /// Whether it is under way.
    pub running: bool,
    /// Bytes that were copied, or needed no copying.
    pub done: u64,
    /// Bytes in all; zero while unknown.
    pub total: u64,
    /// The volume that this one still needs, as `VOLUME@SNAPSHOT` where it has such a name; empty: it needs none.
    pub needs: RString,
    /// Why the last flattening ended before its end; empty if it did not.
    pub reason: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What a driver from before 1.3 answers, and one whose clones are no others' or stay so.
pub(crate) fn no_flattening(operation: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot flatten volumes").during(operation).remedy(
        "copy the volume instead: novastor volume export, then import; or install a version of the driver that can, \
         built with driver-api 1.3 or later",
    )
}
