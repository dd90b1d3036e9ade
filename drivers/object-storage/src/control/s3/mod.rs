// SPDX-License-Identifier: Apache-2.0
//! S3: AWS and what speaks like it.

pub(crate) mod buckets;
pub(crate) mod bulk;
pub(crate) mod change;
pub(crate) mod lifecycle;
pub(crate) mod listing;
pub(crate) mod policy;
pub(crate) mod sign;
pub(crate) mod tags;
pub(crate) mod uploads;
pub(crate) mod versioning;
