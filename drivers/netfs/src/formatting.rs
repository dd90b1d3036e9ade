// SPDX-License-Identifier: Apache-2.0
//! Images that nobody has attached: how large the disk in one is, and making an empty one.
//!
//! An image is written from its end to its beginning, the header last: a file without one is half made.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{Error, Result};
use qcow2_image::{
    blank::blank,
    header::{Header, WANTED},
};

use crate::{
    error::{Fault, internal},
    mounts::Mount,
    names::FileName,
    verified,
};

/// The header's cluster, which is written last.
const HEADER: usize = 64 << 10;

/// The size of the disk in an image; `None` if the image is half made.
pub(crate) async fn size_of(
    mount: &Arc<Mount>,
    file: &FileName,
    until: Instant,
) -> Result<Option<u64>, Fault> {
    let beginning = verified::read_beginning(mount, file, WANTED as u32, until).await?;
    if beginning.iter().take(4).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let told = |error: Error| error.with("file", mount.place.shown_file(file));
    let header = Header::parse(&beginning).map_err(told)?;
    Ok(Some(header.size))
}

/// Writes an empty image into a file that has none, durably.
pub(crate) async fn format(
    mount: &Arc<Mount>,
    file: &FileName,
    size: u64,
    until: Instant,
) -> Result<(), Fault> {
    let image = blank(size, None)
        .map_err(|error| internal(format!("an empty image cannot be made: {error}")))?;
    put(mount, file, Bytes::from(image), until).await
}

/// Writes an image into a file that has nothing, durably.
pub(crate) async fn put(
    mount: &Arc<Mount>,
    file: &FileName,
    image: Bytes,
    until: Instant,
) -> Result<(), Fault> {
    let (header, rest) = (image.slice(..HEADER.min(image.len())), image.slice(HEADER..));
    verified::write(mount, file, HEADER as u64, &rest, until).await?;
    verified::write(mount, file, 0, &header, until).await
}
