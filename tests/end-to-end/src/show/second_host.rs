// SPDX-License-Identifier: Apache-2.0
//! What scenes share in which a second host takes a volume over.

use std::fs;

use serde_json::Value;

use super::writers::FENCED;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    ledger::SECTOR,
    nbd::{Client, Command},
};

const STEP: u32 = 1 << 20;

/// A figure of the answer of `volume show` or `backend show`.
pub(super) fn figure(answer: &Value, name: &str) -> Outcome<f64> {
    let stats = answer["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = stats.iter().find(|metric| metric["name"] == name);
    let value = found.and_then(|metric| metric["value"].as_f64());
    value.ok_or_else(|| Failure::new(format!("there is no figure {name}: {answer}")))
}

/// Fails unless every thread of the process stands still.
pub(super) fn all_stopped(id: u32) -> Outcome {
    for task in fs::read_dir(format!("/proc/{id}/task")).context("threads")? {
        let path = task.context("thread")?.path().join("stat");
        let stat = fs::read_to_string(&path).context(path.display())?;
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
        ensure(state == Some('T'), || format!("a thread is in state {state:?}"))?;
    }
    Ok(())
}

/// All bytes of an export of this size.
pub(super) fn read_all(client: &mut Client, size: u64) -> Outcome<Vec<u8>> {
    let parts = (0..size).step_by(STEP as usize);
    let read = |offset| client.call(Command::Read, offset, STEP, &[]).context("read");
    Ok(parts.map(read).collect::<Outcome<Vec<_>>>()?.concat())
}

/// Takes the replies to what was sent to a host that stood still.
pub(super) fn all_refused(mut parked: Client) -> Outcome {
    while parked.in_flight() > 0 {
        let (number, result) = parked.receive_any().context("parked")?;
        ensure(result.as_ref().err() == Some(&FENCED), || {
            let result = result.map(|_| "a success");
            format!("request {number}, sent while the host stood still: {result:?}")
        })?;
    }
    Ok(())
}

/// Fails if a sector is not the second host's own.
pub(super) fn same(found: &[u8], own: &[u8]) -> Outcome {
    ensure(found.len() == own.len(), || format!("{} bytes of {}", found.len(), own.len()))?;
    let sectors = found.chunks(SECTOR as usize).zip(own.chunks(SECTOR as usize));
    let foreign = (0..).zip(sectors).filter(|(_, (found, own))| found != own);
    let foreign: Vec<_> = foreign
        .map(|(sector, (found, _))| (sector, crate::ledger::decode(sector, found)))
        .collect();
    ensure(foreign.is_empty(), || {
        format!(
            "{} sectors are not the second host's, such as {:?}",
            foreign.len(),
            &foreign[..foreign.len().min(3)]
        )
    })
}
