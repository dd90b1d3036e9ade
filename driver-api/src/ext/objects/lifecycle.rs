// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RString};

/// What a bucket's store does by itself with old objects. A number of days that is 0 is not set. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Its name within the bucket; where the store has no names for rules, the driver makes one of its place.
    pub id: RString,
    /// Whether it is in force.
    pub enabled: bool,
    /// The keys that it is for begin with this; empty: all.
    pub prefix: RString,
    /// Objects go so many days after they were written.
    pub expire_days: u32,
    /// Versions that are no longer the latest go after so many days.
    pub expire_noncurrent_days: u32,
    /// Uploads that are neither completed nor given up go after so many days.
    pub abort_upload_days: u32,
    /// Objects move to `transition_class` after so many days.
    pub transition_days: u32,
    /// The storage class that they move to; empty unless `transition_days` is set.
    pub transition_class: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}
