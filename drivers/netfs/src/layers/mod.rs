// SPDX-License-Identifier: Apache-2.0
//! Volumes of several files: snapshots, where the server has none.
//!
//! | module | what |
//! |---|---|
//! | [`tree`] | which layers there are and what is to be done with them next, without I/O |
//! | [`stack`] | what an attached volume reads and writes |
//! | [`files`] | the files of layers and their headers |
//! | [`changes`] | freezing, going back: changes of the tree at one moment |
//! | [`merging`] | bringing the content of one layer into another |
//! | [`work`] | the layers of an attached volume, and merging them in the background |
//!
//! Whoever changes layers takes, in this order: the store's turn of the volume, the attachment's `work`, its `stack` alone.
//! The record on the share is what counts: it changes at once, and what it does not name is removed afterwards.

pub(crate) mod changes;
pub(crate) mod files;
pub(crate) mod merging;
pub(crate) mod stack;
pub(crate) mod tree;
pub(crate) mod work;
