// SPDX-License-Identifier: Apache-2.0
//! A volume grows under clients: those that are there reach the new area and learn the size, new ones are told it.

use super::super::Stage;
use crate::{failure::Outcome, host::Host, libnbd::Libnbd};

const MIB: u64 = 1 << 20;

pub fn play(stage: &Stage, libnbd: &Libnbd) -> Outcome {
    let host = Host::start(&stage.artifacts, "")?;
    for format in ["raw", "qcow2"] {
        host.volume(format, 16 * MIB, format)?;
        libnbd
            .script("grows.py")
            .arg(host.uri(format))
            .args([(16 * MIB).to_string(), (48 * MIB).to_string()])
            .args(host.cli().words(&["volume", "resize", format, "48MiB"]))
            .run()?;
    }
    stage.tell("a volume grows under a client, which reaches the new area and sees the new size");
    Ok(())
}
