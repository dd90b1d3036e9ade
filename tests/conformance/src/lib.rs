// SPDX-License-Identifier: Apache-2.0
//! Every promise of a volume and of an object, asked of a finished driver through the handles that the host uses.
//!
//! ```no_run
//! # async fn show(open: impl conformance::Reopen) {
//! let plan = conformance::Plan { volume_size: 16 << 20, ..conformance::Plan::default() };
//! let report = conformance::run(&open, plan, &mut |check| println!("{check}")).await;
//! println!("{report}");
//! assert_eq!(report.failed(), 0);
//! # }
//! ```
//!
//! Each check makes its own volumes or bucket, under [`Plan::prefix`], and removes them also when it fails. Every awaited answer
//! has a deadline, so that a driver that never answers fails a check by the operation's name. A driver that holds the
//! calling thread instead of answering cannot be timed from that thread: run the suite where that is watched.
//! Content is a function of [`Plan::seed`]; the order in which concurrent operations meet is the machine's.

mod case;
mod checks;
mod cleanup;
mod history;
mod objects;
mod pattern;
mod plan;
mod report;
mod run;
mod volume;
mod writers;

pub use checks::{Described, all};
pub use plan::{Plan, Reopen};
pub use report::{CheckResult, Outcome, Report};
pub use run::run;
