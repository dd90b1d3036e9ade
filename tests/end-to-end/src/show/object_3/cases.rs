// SPDX-License-Identifier: Apache-2.0
//! Operations, the faults that they meet, and how one sees what came of them.

use std::{fs, path::PathBuf, time::Duration};

use super::{PATIENCE, Scene};
use crate::{
    failure::{Context, Failure, Outcome},
    faults::{Fault, Rule},
    objects::{Store, keys},
    program::Said,
};

/// What is done with an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Another content.
    Put,
    /// A new object, if there is none.
    PutNew,
    /// Another content, if it is still the one that was seen.
    PutIf,
    /// Another content in parts, with the fault at their begin.
    Begin,
    /// The same with the fault at a part.
    Part,
    /// The same with the fault at their completion.
    Complete,
    /// A new object in parts, if there is none, with the fault at their completion.
    CompleteNew,
    Get,
    GetParts,
    List,
    Copy,
    Delete,
}

/// What one sees who looks past the faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// What was before.
    Old,
    /// What was wanted.
    New,
    /// Neither.
    Half,
}

/// An operation and the fault that it meets.
pub(super) struct Case {
    pub op: Op,
    name: &'static str,
    fault: Fault,
    /// How many requests meet it.
    times: u64,
    /// Whether it has to be done in spite of it.
    pub must: bool,
    /// Whether it cannot be done.
    pub fails: bool,
}

/// What is typed, and where its result is.
pub(super) struct Run {
    pub words: Vec<String>,
    output: PathBuf,
}

const CHANGING: &[&str] = &["PUT", "POST", "DELETE", "COPY"];

impl Op {
    /// The ability of the store that it needs.
    pub fn needs(self) -> Option<&'static str> {
        match self {
            Self::PutNew => Some("create-only"),
            Self::CompleteNew => Some("create-only-complete"),
            Self::PutIf => Some("update"),
            _ => None,
        }
    }

    pub fn changes(self) -> bool {
        !matches!(self, Self::Get | Self::GetParts | Self::List)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::PutNew => "put-new",
            Self::PutIf => "put-if",
            Self::Begin => "begin",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::CompleteNew => "complete-new",
            Self::Get => "get",
            Self::GetParts => "get-parts",
            Self::List => "list",
            Self::Copy => "copy",
            Self::Delete => "delete",
        }
    }

    fn in_parts(self) -> bool {
        matches!(
            self,
            Self::Begin | Self::Part | Self::Complete | Self::CompleteNew | Self::GetParts
        )
    }

    /// Whether there is an object before.
    fn replaces(self) -> bool {
        !matches!(self, Self::PutNew | Self::CompleteNew | Self::Copy)
    }
}

/// The cases for a store.
pub(super) fn all(store: Store, long: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let second = Duration::from_secs(1);
    let storm = |status, retry_after| Fault::Answer { status, retry_after };
    // Passing ones, in spite of which it has to be done; where a condition is told to have failed by a repetition, the proof
    // may be wanting.
    let passing = [
        ("503", storm(503, Some(1)), 2),
        ("429", storm(429, None), 3),
        ("500", storm(500, None), 2),
        ("late", Fault::Delay(second), 1),
        ("hole", Fault::BlackHole, 1),
        ("half-open", Fault::HalfOpen { after: 1000 }, 1),
        ("reset", Fault::Reset { after: 1000 }, 1),
        ("lost", Fault::LoseAnswer, 1),
        ("false-500", Fault::FalseStatus(500), 1),
        ("false-503", Fault::FalseStatus(503), 1),
    ];
    let changing: &[Op] = match store.kind() {
        // Parts begin with the first of them.
        "azure" | "swift" => &[
            Op::Put,
            Op::PutNew,
            Op::PutIf,
            Op::Part,
            Op::Complete,
            Op::CompleteNew,
            Op::Copy,
            Op::Delete,
        ],
        _ => &[
            Op::Put,
            Op::PutNew,
            Op::PutIf,
            Op::Begin,
            Op::Part,
            Op::Complete,
            Op::CompleteNew,
            Op::Copy,
            Op::Delete,
        ],
    };
    for (nth, op) in changing.iter().enumerate() {
        for (other, (name, fault, times)) in passing.iter().enumerate() {
            // In the short form every other one, but all that leave the outcome open.
            let is_open = matches!(fault, Fault::LoseAnswer | Fault::FalseStatus(500));
            if !long && !is_open && (nth + other) % 2 == 1 {
                continue;
            }
            // What has no body is not cut in it.
            let bodiless =
                matches!(op, Op::Begin | Op::Complete | Op::CompleteNew | Op::Copy | Op::Delete);
            let fault = match fault {
                Fault::HalfOpen { .. } if bodiless => Fault::HalfOpen { after: 0 },
                Fault::Reset { .. } if bodiless => Fault::Reset { after: 0 },
                other => other.clone(),
            };
            let must = *op != Op::CompleteNew;
            cases.push(Case { op: *op, name, fault, times: *times, must, fails: false });
        }
    }
    let reading = [
        ("503", storm(503, Some(1)), 2, true),
        ("429", storm(429, None), 3, true),
        ("500", storm(500, None), 2, true),
        ("hole", Fault::BlackHole, 1, true),
        ("reset", Fault::Reset { after: 0 }, 1, true),
        ("lost", Fault::LoseAnswer, 1, true),
        ("truncated", Fault::Truncate { after: 100 }, 1, true),
        ("stalled", Fault::Stall { after: 100 }, 1, true),
        ("drip", Fault::Drip { bytes: 64, every: Duration::from_millis(20) }, 1, false),
    ];
    for op in [Op::Get, Op::GetParts, Op::List] {
        for (name, fault, times, must) in &reading {
            let (fault, times) = (fault.clone(), *times);
            cases.push(Case { op, name, fault, times, must: *must, fails: false });
        }
    }
    // One byte that is another one; a list that is changed there is no XML or JSON any more.
    let corrupt = || Fault::Corrupt { at: 20 };
    for op in [Op::Get, Op::List] {
        let (name, fault) = ("corrupted", corrupt());
        cases.push(Case { op, name, fault, times: 1, must: false, fails: false });
    }
    // Those that do not end.
    let endless = [
        ("endless-503", storm(503, Some(1))),
        ("endless-429", storm(429, None)),
        ("endless-hole", Fault::BlackHole),
        ("endless-reset", Fault::Reset { after: 0 }),
    ];
    let ops: &[Op] = if long {
        &[Op::Put, Op::PutNew, Op::Part, Op::Complete, Op::Get, Op::List, Op::Copy, Op::Delete]
    } else {
        &[Op::Put, Op::Complete, Op::Get, Op::Delete]
    };
    for op in ops {
        for (name, fault) in &endless {
            let fault = fault.clone();
            cases.push(Case { op: *op, name, fault, times: u64::MAX, must: false, fails: true });
        }
    }
    // Done each time, and told never.
    for (op, name, fault) in [
        (Op::Put, "endless-lost", Fault::LoseAnswer),
        (Op::PutNew, "endless-lost", Fault::LoseAnswer),
        (Op::Delete, "endless-lost", Fault::LoseAnswer),
        (Op::Complete, "endless-false-500", Fault::FalseStatus(500)),
    ] {
        cases.push(Case { op, name, fault, times: u64::MAX, must: false, fails: false });
    }
    for (name, fault) in
        [("endless-corrupted", corrupt()), ("endless-truncated", Fault::Truncate { after: 100 })]
    {
        cases.push(Case { op: Op::Get, name, fault, times: u64::MAX, must: false, fails: true });
    }
    cases
}

impl Case {
    /// Whether every request meets the fault.
    pub fn is_endless(&self) -> bool {
        self.times == u64::MAX
    }

    pub fn name(&self) -> String {
        format!("{}, {}", self.op.name(), self.name)
    }

    /// The key of its object, which no other case's key begins with.
    pub fn key(&self) -> String {
        format!("case-{}-{}-x", self.op.name(), self.name)
    }

    fn content(&self, which: &str) -> String {
        if self.op.in_parts() { format!("{which}-parts") } else { which.to_owned() }
    }

    /// Which requests meet the fault.
    pub fn rule(&self, store: Store) -> Rule {
        let rule = Rule::new(self.fault.clone()).with(self.key()).times(self.times);
        match (self.op, store.kind()) {
            (Op::Get | Op::GetParts | Op::List, _) => rule.methods(&["GET"]),
            (Op::Begin, _) => rule.methods(&["POST"]).with("uploads").without("uploadId="),
            (Op::Part, "azure") => rule.methods(&["PUT"]).with("blockid="),
            (Op::Part, "swift") => rule.methods(&["PUT"]).without("multipart-manifest"),
            (Op::Part, _) => rule.methods(&["PUT"]).with("partNumber="),
            (Op::Complete | Op::CompleteNew, "azure") => {
                rule.methods(&["PUT"]).with("comp=blocklist")
            }
            (Op::Complete | Op::CompleteNew, "swift") => {
                rule.methods(&["PUT"]).with("multipart-manifest=put")
            }
            (Op::Complete | Op::CompleteNew, _) => rule.methods(&["POST"]).with("uploadId="),
            (Op::Copy, _) => rule.methods(CHANGING).with(format!("{}-to", self.key())),
            _ => rule.methods(CHANGING),
        }
    }

    /// Makes what is before it, past the faults, and gives what is to be typed.
    pub fn prepare(&self, scene: &Scene<'_>) -> Outcome<Run> {
        let object = scene.object(&self.key());
        let output = scene.file(&format!("{}-output", self.key()));
        if self.op.replaces() || self.op == Op::Copy {
            let content = match self.op {
                // What is read is what was wanted.
                Op::Get | Op::GetParts | Op::List | Op::Copy => self.content("new"),
                _ => self.content("old"),
            };
            let more: &[&str] = if self.op.in_parts() { &["--part-size", "5MiB"] } else { &[] };
            scene.plain.put(&scene.file(&content), &object, more)?;
        }
        let new = scene.file(&self.content("new")).display().to_string();
        let base = ["object", "put", &new, &object, "--patience", PATIENCE];
        let path = output.display().to_string();
        let parts = ["--part-size", "5MiB", "--parallel", "2"];
        let etag;
        let target = format!("{object}-to");
        let words = match self.op {
            Op::Put => base.to_vec(),
            Op::PutNew => [&base[..], &["--create-only"]].concat(),
            Op::PutIf => {
                etag = scene.plain.head(&object)?["etag"].as_str().unwrap_or_default().to_owned();
                [&base[..], &["--if-match", &etag]].concat()
            }
            Op::Begin | Op::Part | Op::Complete => [&base[..], &parts].concat(),
            Op::CompleteNew => [&base[..], &parts, &["--create-only"]].concat(),
            Op::Get => vec!["object", "get", &object, &path, "--patience", PATIENCE],
            Op::GetParts => {
                [&["object", "get", &object, &path, "--patience", PATIENCE], &parts[..]].concat()
            }
            Op::List => vec![
                "object",
                "list",
                &scene.bucket,
                "--prefix",
                object.split_once('/').map_or("", |(_, key)| key),
                "--output",
                "json",
            ],
            Op::Copy => vec!["object", "copy", &object, &target],
            Op::Delete => vec!["object", "delete", &object],
        };
        Ok(Run { words: words.into_iter().map(ToOwned::to_owned).collect(), output })
    }

    /// What one sees who looks past the faults; of a reading, whether what was read is right.
    pub fn state(&self, scene: &Scene<'_>, run: &Run, said: &Said) -> Outcome<State> {
        let (object, key) = (scene.object(&self.key()), self.key());
        let same = |which: &str, bytes: &[u8]| -> Outcome<bool> {
            let file = scene.file(&self.content(which));
            Ok(fs::read(&file).context(file.display())? == bytes)
        };
        match self.op {
            Op::Get | Op::GetParts => {
                // A file that is not there is what is left by who was told that it failed.
                let Ok(bytes) = fs::read(&run.output) else { return Ok(State::Old) };
                Ok(if same("new", &bytes)? { State::New } else { State::Half })
            }
            Op::List if said.code != 0 => Ok(State::Old),
            Op::List => {
                let answer = serde_json::from_str(&said.stdout).context("what was listed")?;
                Ok(if keys(&answer)? == [key] { State::New } else { State::Half })
            }
            Op::Delete => Ok(if scene.plain.has(&object)? { State::Old } else { State::New }),
            _ => {
                let object = if self.op == Op::Copy { format!("{object}-to") } else { object };
                if !scene.plain.has(&object)? {
                    return Ok(if self.op.replaces() { State::Half } else { State::Old });
                }
                let keys = scene.plain.keys(&scene.bucket, &key)?;
                let odd = keys.iter().find(|one| **one != key && **one != format!("{key}-to"));
                if let Some(odd) = odd {
                    return Err(Failure::new(format!("{odd} is listed")));
                }
                let file = scene.file(&format!("{key}-seen"));
                // Whatever is there of an earlier look.
                let _ = fs::remove_file(&file);
                scene.plain.get(&object, &file, &[])?;
                let bytes = fs::read(&file).context(file.display())?;
                fs::remove_file(&file).context(file.display())?;
                Ok(match (same("new", &bytes)?, self.op.replaces() && same("old", &bytes)?) {
                    (true, _) => State::New,
                    (false, true) => State::Old,
                    _ => State::Half,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;
    use crate::objects::Store;

    #[test]
    fn each_case_has_a_key_that_no_other_has_in_it() {
        for store in [Store::Radosgw, Store::Azurite, Store::Swift] {
            let cases = all(store, true);
            let keys: BTreeSet<_> = cases.iter().map(super::Case::key).collect();
            assert_eq!(keys.len(), cases.len());
            for key in &keys {
                let others = keys.iter().filter(|other| *other != key);
                assert!(others.into_iter().all(|other| !other.contains(key.as_str())), "{key}");
            }
        }
    }
}
