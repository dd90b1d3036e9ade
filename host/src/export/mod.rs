// SPDX-License-Identifier: Apache-2.0
//! Ways in for clients.

pub mod nbd;
pub mod relay;
