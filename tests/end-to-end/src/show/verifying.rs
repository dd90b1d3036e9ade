// SPDX-License-Identifier: Apache-2.0
//! A client that verifies what it writes for as long as something goes on.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{clients, failure::Outcome};

/// Writes every block of a part of an export in some seconds, reads back, and fails at the first error or wrong byte; over
/// and over until it is over, at least once. How often it did. The part is given in fio's words, such as `--size=16M`.
pub(super) fn client(uri: &str, part: &[&str], first_seed: u64, over: &AtomicBool) -> Outcome<u64> {
    let mut rounds = 0;
    while rounds == 0 || !over.load(Ordering::SeqCst) {
        let job = clients::fio("part", uri, &["--rw=randwrite", "--bs=4k"]).args(part).args([
            format!("--randseed={}", first_seed + rounds),
            "--rate_iops=600".into(),
            "--iodepth=8".into(),
            "--fsync=32".into(),
            "--verify_backlog=64".into(),
        ]);
        job.run()?;
        rounds += 1;
    }
    Ok(rounds)
}
