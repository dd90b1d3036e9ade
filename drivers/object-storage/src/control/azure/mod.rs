// SPDX-License-Identifier: Apache-2.0
//! Azure Blob.
//!
//! An upload is known by 128 random bits, which the ids of its blocks begin with; the id that the caller gets also has what
//! is said of the object, since Azure takes that at the end only. Azure has no way to give blocks up that is not seen as an
//! object for a moment, so an upload that is given up gets a block that says so, and Azure discards it after a week.
//!
//! ```text
//!   begin    block `<upload> 00000000`     the upload can be found
//!   part 7   block `<upload> 00000007`
//!   abort    block `<upload> 99999999`     nobody finds or completes it any more
//!   complete Put Block List of the parts' blocks, with metadata and conditions; all other blocks go
//! ```

pub(crate) mod change;
pub(crate) mod containers;
pub(crate) mod listing;
pub(crate) mod policy;
pub(crate) mod sign;
pub(crate) mod uploads;

/// Why there are no lifecycle rules here.
pub(crate) const NO_LIFECYCLE: &str = "lifecycle rules of Azure belong to the storage account and are set in its management plane \
     (Azure Resource Manager), which credentials for blobs do not reach";
/// Why versioning cannot be set here.
pub(crate) const NO_VERSIONING: &str = "versioning of Azure belongs to the storage account and is set in its management plane (Azure Resource Manager)";
