// SPDX-License-Identifier: Apache-2.0
//! A large object goes up and comes down in parts. The command is killed in the middle, then the host; what has gone does not
//! go again, nothing half is seen, and the end is the same bytes, also to a client that knows nothing of us.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{MIB, Scene};
use crate::{
    failure::{Context, Outcome, ensure},
    faults::{Fault, Rule},
    objects::{Store, open, scattered, sha256},
    program::{Running, until},
};

const GIB: u64 = 1 << 30;
/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How much later each part goes, so that there is a middle in which to kill.
const LATER: Duration = Duration::from_millis(60);
/// Parts on the way at a time.
const PARALLEL: u64 = 4;

/// Which way bytes go.
#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// A transfer that was killed twice.
struct Killed {
    /// Whether the command outlived the host and went on by itself.
    went_on: bool,
    /// Bytes that passed, all in all.
    passed: u64,
    took: Duration,
}

impl Scene<'_> {
    fn size(&self) -> u64 {
        match (self.store, self.stage.is_long()) {
            // It keeps everything in memory, and reads all of it for each range.
            (Store::Moto, false) => 64 * MIB,
            (Store::Moto, true) => 512 * MIB,
            (_, false) => 512 * MIB,
            (_, true) => 5 * GIB,
        }
    }

    fn part(&self) -> u64 {
        if self.size() > GIB { 32 * MIB } else { 8 * MIB }
    }

    pub(super) fn transfers(&mut self) -> Outcome {
        let (source, target) = (self.file("big"), self.file("big-back"));
        let object = self.object("big");
        let seed = self.size() ^ self.store.name().len() as u64;
        scattered(&source, self.size(), seed)?;
        let sum = sha256(&source)?;
        self.faults.arm(Rule::new(Fault::Delay(LATER)).methods(&["PUT", "GET"]));

        let words = [PathBuf::from("object"), "put".into(), source.clone(), object.clone().into()];
        let up = self.killed(Way::Up, &words).context("upload")?;
        let said = self.front.head(&object)?;
        ensure(said["size"] == self.size(), || format!("it should be whole: {said}"))?;
        if self.can("list-uploads") {
            let left = self.front.uploads(&self.bucket)?;
            ensure(left.is_empty(), || format!("uploads were left: {left:?}"))?;
        }
        fs::remove_file(&source).context(source.display())?;

        let words = [PathBuf::from("object"), "get".into(), object.clone().into(), target.clone()];
        let down = self.killed(Way::Down, &words).context("download")?;
        ensure(sha256(&target)? == sum, || "other bytes came down than went up".to_owned())?;
        fs::remove_file(&target).context(target.display())?;
        self.faults.calm();

        // A client that knows neither parts nor us.
        let signed = self.front.sign(&object, "GET", "15m")?;
        let fetched = signed.send(self.objects, self.store, None, &target)?;
        ensure(fetched.is_done(), || format!("curl got {fetched:?}"))?;
        ensure(sha256(&target)? == sum, || "curl got other bytes".to_owned())?;
        fs::remove_file(&target).context(target.display())?;
        self.abandoned().context("an upload that is given up")?;
        let tell = |killed: &Killed| {
            let after = if killed.went_on { "went on by itself" } else { "typed again" };
            let (passed, secs) = (killed.passed / MIB, killed.took.as_secs_f64());
            format!("{passed} MiB passed in {secs:.1} s, {after} after the host's end")
        };
        self.tell(format!(
            "{} MiB, command and host killed in the middle: up {}; down {}; equal sums, to curl as well",
            self.size() / MIB,
            tell(&up),
            tell(&down)
        ));
        Ok(())
    }

    fn passed(&self, way: Way) -> u64 {
        let counts = self.faults.counts();
        match way {
            Way::Up => counts.up,
            Way::Down => counts.down,
        }
    }

    /// A transfer whose command is killed after a quarter, and whose host is after half.
    fn killed(&mut self, way: Way, words: &[PathBuf]) -> Outcome<Killed> {
        let (since, before, size) = (Instant::now(), self.passed(way), self.size());
        let log = self.file("transfer.log");
        let mut command = self.begin(words, &log)?;
        self.pass(way, before + size / 4, &mut command)?;
        command.kill9()?;
        self.half(way, words).context("after the command's end")?;

        let mut command = self.begin(words, &log)?;
        self.pass(way, before + size / 2, &mut command)?;
        self.host.kill9()?;
        self.host.restart()?;
        open(&self.host, self.store.name())?;
        let went_on = command.wait(PATIENCE)?.success();
        if !went_on {
            self.half(way, words).context("after the host's end")?;
            let mut command = self.begin(words, &log)?;
            let status = command.wait(PATIENCE)?;
            ensure(status.success(), || format!("it ended with {status}: {}", command.said()))?;
        }
        let (passed, took) = (self.passed(way) - before, since.elapsed());
        // What was on the way when it was killed goes again, and nothing else.
        let again = 2 * 2 * PARALLEL * self.part();
        ensure(passed <= size + again + size / 16, || {
            format!("{} MiB passed of {} MiB: it began anew", passed / MIB, size / MIB)
        })?;
        Ok(Killed { went_on, passed, took })
    }

    fn begin(&self, words: &[PathBuf], log: &Path) -> Outcome<Running> {
        let (part, parallel) = (format!("{}MiB", self.part() / MIB), PARALLEL.to_string());
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let program = self.front.ask(&words);
        program.args(["--part-size", &part, "--parallel", &parallel, "--patience", "2m"]).start(log)
    }

    /// Waits until so many bytes have passed.
    fn pass(&self, way: Way, wanted: u64, command: &mut Running) -> Outcome {
        until(PATIENCE, || {
            if command.still_runs().is_err() {
                return Ok(Err(command.said()));
            }
            let passed = self.passed(way);
            ensure(passed >= wanted, || format!("{passed} of {wanted} bytes passed"))?;
            Ok(Ok(()))
        })?
        .map_err(|said| crate::failure::Failure::new(format!("it ended too early: {said}")))
    }

    /// Nobody sees anything half.
    fn half(&self, way: Way, words: &[PathBuf]) -> Outcome {
        match way {
            Way::Up => {
                let object = self.object("big");
                ensure(!self.front.has(&object)?, || "a half object is there".to_owned())?;
                let keys = self.front.keys(&self.bucket, "")?;
                ensure(!keys.iter().any(|key| key.contains("big")), || format!("listed: {keys:?}"))
            }
            Way::Down => {
                let target = &words[3];
                ensure(!target.exists(), || format!("{} is there, half", target.display()))
            }
        }
    }

    /// An upload that is begun, killed and given up is gone with its parts.
    fn abandoned(&self) -> Outcome {
        if !self.can("list-uploads") {
            return Ok(());
        }
        let file = self.file("abandoned");
        scattered(&file, 48 * MIB, 7)?;
        self.faults.arm(Rule::new(Fault::Delay(LATER * 5)).methods(&["PUT"]));
        let object = self.object("abandoned").into();
        let words = [PathBuf::from("object"), "put".into(), file.clone(), object];
        let before = self.passed(Way::Up);
        let mut command = self.begin(&words, &self.file("abandoned.log"))?;
        self.pass(Way::Up, before + 8 * MIB, &mut command)?;
        command.kill9()?;
        self.faults.calm();
        // A part that is under way may come to lie after an upload is given up.
        until(PATIENCE, || {
            let passed = self.passed(Way::Up);
            std::thread::sleep(LATER * 20);
            ensure(self.passed(Way::Up) == passed, || "parts are still under way".to_owned())
        })?;
        let uploads = self.front.uploads(&self.bucket)?;
        ensure(!uploads.is_empty(), || "the upload is not listed".to_owned())?;
        for (key, id) in uploads {
            ensure(key == "abandoned", || format!("an upload of {key} is listed"))?;
            self.front.run(&["bucket", "abort", &self.bucket, &key, &id])?;
        }
        let left = self.front.uploads(&self.bucket)?;
        ensure(left.is_empty(), || format!("there are still {left:?}"))?;
        ensure(!self.front.has(&self.object("abandoned"))?, || "it is there".to_owned())?;
        fs::remove_file(&file).context(file.display())
    }
}
