// SPDX-License-Identifier: Apache-2.0
//! What the fuzz targets have in common: the input as a script, and the client's reading of answers, which shares no
//! code with the server's writing of them.

pub mod answers;
pub mod options;
pub mod script;
pub mod volume;
