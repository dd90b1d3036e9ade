// SPDX-License-Identifier: Apache-2.0
//! Ways in that are no socket of the host's own: a socket that it is given, standard input and output, a relay.

use std::fs;

use super::super::Stage;
use crate::{
    failure::{Context, Outcome, ensure},
    host::Host,
    libnbd::Libnbd,
};

const MIB: u64 = 1 << 20;

pub fn play(stage: &Stage, libnbd: &Libnbd) -> Outcome {
    let mut host = Host::start(&stage.artifacts, "")?;
    host.volume("disk", 4 * MIB, "raw")?;
    let script = |mode: &str, words: Vec<std::ffi::OsString>| {
        libnbd
            .script("doors.py")
            .arg(mode)
            .args(words)
            .limit_secs(60)
            .run()
            .context(mode.to_owned())
    };
    script("command", host.cli().words(&["export", "connect", "disk"]))?;
    stage.tell("`export connect` relays to the running host");

    host.stop()?;
    let config = host.config();
    let serve = ["serve", "--config", &config.display().to_string()].map(ToOwned::to_owned);
    let words = |more: &[&str]| {
        let mut words = host.cli().program();
        words.extend(serve.iter().map(Into::into));
        words.extend(more.iter().map(Into::into));
        words
    };
    script("command", words(&["--stdio"]))?;
    stage.tell("`serve --stdio` serves one client on standard input and output, and ends with it");
    script("activation", words(&[]))?;
    stage.tell("a host that is given its socket serves on it");

    // libnbd's own programs do the same with brackets.
    let bracketed = |more: &[&str]| {
        let mut all = vec!["[".into()];
        all.extend(words(more));
        all.push("]".into());
        all
    };
    let said = libnbd.program("nbdinfo").args(["--json", "--"]).args(bracketed(&[])).run()?;
    ensure(said.stdout.contains("\"export-size\": 4194304"), || said.stdout)?;
    let back = stage.path("activated");
    libnbd.program("nbdcopy").arg("--").args(bracketed(&[])).arg(&back).run()?;
    let bytes = fs::read(&back).context(back.display())?;
    let tail = &bytes[usize::try_from(MIB).context("size")?..];
    ensure(bytes.starts_with(b"activation") && tail.iter().all(|byte| *byte == 0), || {
        "nbdcopy copied something else".to_owned()
    })?;
    stage.tell("nbdinfo and nbdcopy start it themselves");
    host.restart()
}
