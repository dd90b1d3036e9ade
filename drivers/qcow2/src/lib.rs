// SPDX-License-Identifier: Apache-2.0
//! What drivers that keep qcow2 images have in common, wherever the image's file is.
//!
//! | module | what |
//! |---|---|
//! | [`header`] | what an image says of itself, judged before it is trusted |
//! | [`check`] | whether an image that was not closed in good order may be written again |
//! | [`blank`] | an empty image, as bytes |
//!
//! The blocks themselves are read and written by the crate imago, over each driver's own files.

pub mod blank;
mod bytes;
pub mod check;
pub mod header;

pub use bytes::ReadAt;
pub use check::WriteAt;
