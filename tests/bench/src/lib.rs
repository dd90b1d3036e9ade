// SPDX-License-Identifier: Apache-2.0
//! What benchmarks of drivers share: loads, the client that has the driver, and the table.

pub mod client;
pub mod load;
pub mod plan;
pub mod table;
