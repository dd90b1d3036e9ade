// SPDX-License-Identifier: Apache-2.0
//! `novastor`: the host and its command line in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    novastor::memory::bound_what_is_kept();
    novastor::cli::main()
}
