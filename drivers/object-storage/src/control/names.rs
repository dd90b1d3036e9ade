// SPDX-License-Identifier: Apache-2.0
//! Buckets that are to be created or deleted.

use driver_api::{
    Error, ErrorKind, Result,
    ext::{BucketInfo, BucketSpec, Versioning},
};

use crate::error::invalid;

/// An option that buckets of this store do not have.
pub(crate) fn unknown_option(name: &str, known: &str) -> Error {
    let known = if known.is_empty() { "none".to_owned() } else { format!("`{known}`") };
    invalid(format!("buckets of this store have no option `{name}`"))
        .remedy(format!("use: {known}"))
}

/// A bucket that is to be deleted is not empty.
pub(crate) fn not_empty(bucket: &str, left: &str) -> Error {
    Error::new(ErrorKind::IN_USE, format!("the bucket is not empty: it has {left}"))
        .during("delete bucket")
        .with("bucket", bucket)
        .remedy("delete what is in it first: `novastor bucket delete NAME --with-objects` does so")
}

/// Fails if a bucket that exists is not as it was to be created.
pub(crate) fn same_bucket(info: &BucketInfo, region: &str, spec: &BucketSpec) -> Result<()> {
    let versions = info.versioning == Versioning::ON;
    let other = if info.region != region {
        format!("is in {:?} instead of {region:?}", info.region)
    } else if versions != spec.versioning && info.versioning != Versioning::UNKNOWN {
        format!("{} versions", if versions { "keeps" } else { "does not keep" })
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::ALREADY_EXISTS, format!("the bucket exists, and {other}"))
        .during("create bucket")
        .with("bucket", &info.name)
        .remedy("use it as it is, change it, or choose another name"))
}
