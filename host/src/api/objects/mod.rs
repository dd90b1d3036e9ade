// SPDX-License-Identifier: Apache-2.0
//! Buckets and objects: `/v1/backends/NAME/buckets` and what is below.

pub mod types;
