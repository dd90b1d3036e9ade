// SPDX-License-Identifier: Apache-2.0
//! A real host, real drivers and real clients: what every release must show.
//!
//! [`show`] holds the scenes, one a file. They stand on a stage: [`host`] runs a `novastor serve` of its own in a
//! temporary directory, [`cli`] is the only place that knows the command line, [`clients`] wraps the programs that users
//! bring, [`nbd`] and [`ledger`] are a client that remembers what it was promised, [`remote`], [`ceph`], [`netfs`] and
//! [`objects`] are storage in other processes, [`wire`] and [`faults`] are what leads there, [`hostile`] are those to be
//! survived.

pub mod artifacts;
pub mod ceph;
pub mod certificates;
pub mod cli;
pub mod clients;
pub mod cluster;
pub mod cpu;
pub mod failure;
pub mod faults;
pub mod host;
pub mod hostile;
pub mod lanes;
pub mod ledger;
pub mod libnbd;
pub mod load;
pub mod mount;
pub mod nbd;
pub mod netfs;
pub mod objects;
pub mod program;
pub mod random;
pub mod remote;
pub mod show;
pub mod suite;
pub mod wire;
pub mod workspace;
