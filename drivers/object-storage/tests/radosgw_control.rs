// SPDX-License-Identifier: Apache-2.0
//! Everything but the bytes of objects on a Ceph gateway: `NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with`.

#[macro_use]
mod control;

on! { radosgw }
