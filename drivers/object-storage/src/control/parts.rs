// SPDX-License-Identifier: Apache-2.0
//! What parts of uploads have in common in all stores.

use driver_api::RString;
use driver_api::{
    Error, ErrorKind, Result,
    ext::{PartInfo, PartPage},
};

use crate::{error::invalid, wire::nonsense};

/// The store got other bytes than were sent.
pub(crate) fn damaged(sent: &str, told: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        format!("the store has other bytes than were sent: its sum is {told:?} instead of {sent}"),
    )
    .during("put part")
    .remedy(
        "write the part again; if it happens again, look for a proxy or memory that changes data",
    )
}

/// The checksum that an ETag is, if it is one.
pub(crate) fn md5_of_etag(etag: &str) -> RString {
    let is_sum = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_sum { format!("md5:{}", etag.to_ascii_lowercase()).into() } else { RString::new() }
}

/// Fails if a page of parts does not go forward from `after`.
pub(crate) fn check_page(after: u32, page: &PartPage) -> Result<()> {
    let mut last = after;
    for part in &page.parts {
        if part.number <= last {
            return Err(nonsense(format!("part {} is listed after part {last}", part.number)));
        }
        last = part.number;
    }
    if page.more && page.parts.is_empty() {
        return Err(nonsense("the list of parts has more, and does not advance"));
    }
    Ok(())
}

/// Fails if an object that was made of these parts has another size than they have together. Sizes that are not known, of
/// parts that somebody else wrote, are 0.
pub(crate) fn whole(parts: &[PartInfo], size: u64) -> Result<()> {
    let sum = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.size));
    if sum == Some(size) || parts.iter().any(|part| part.size == 0) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::CORRUPTED, "the object has another size than its parts together")
        .with("size", size)
        .with("size_of_parts", sum.unwrap_or(u64::MAX))
        .remedy("compare the object with its source, and upload it again"))
}

/// Checks the parts that an object is to be made of.
pub(crate) fn check(parts: &[PartInfo], max_parts: u32) -> Result<()> {
    if parts.is_empty() {
        return Err(invalid("an upload without parts makes no object"));
    }
    let mut last = 0;
    for part in parts {
        if part.number <= last || part.number > max_parts {
            return Err(invalid(format!(
                "part {} after part {last}: parts go from 1 to {max_parts}, in order",
                part.number
            )));
        }
        if part.etag.is_empty() {
            return Err(invalid(format!("part {} has no ETag", part.number)));
        }
        last = part.number;
    }
    Ok(())
}
