// SPDX-License-Identifier: Apache-2.0
//! What `tests/run` runs all tests with: those of `cargo test --workspace`, several programs at a time.

use std::process::ExitCode;

fn main() -> ExitCode {
    match end_to_end::suite::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
