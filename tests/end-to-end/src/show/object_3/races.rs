// SPDX-License-Identifier: Apache-2.0
//! Several want to be the first to write an object: one of them is told that it is. Equal content that another one wrote is
//! never taken for one's own.

use std::{sync::Arc, thread};

use super::{PATIENCE, Scene, UNKNOWN};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    faults::{Fault, Rule},
    objects::{Store, scattered},
    program::Said,
};

/// How the command line ends when there is an object already, when it is another one, or when the store cannot do this.
const EXISTS: i32 = 4;
const CONFLICT: i32 = 16;
const UNSUPPORTED: i32 = 14;
const WRITERS: u64 = 6;

/// How the writers of a race differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Race {
    /// Each has a content of its own.
    Different,
    /// All write the same.
    Equal,
    /// Each has its own, and every other answer is lost.
    Lossy,
    /// Each has its own, in parts.
    Parts,
}

impl Scene<'_> {
    /// What another writer has written long ago.
    pub(super) fn place_ahead(&self) -> Outcome {
        for key in ["ahead-plain", "ahead-500", "ahead-lost"] {
            self.plain.put(&self.file("new"), &self.object(key), &[])?;
        }
        Ok(())
    }

    pub(super) fn races(&self) -> Outcome {
        if !self.can("create-only") {
            self.tell("no conditional writes, so no races");
            return Ok(());
        }
        let mut told = Vec::new();
        for race in [Race::Different, Race::Equal, Race::Lossy, Race::Parts] {
            told.push(self.race(race).context(format!("{race:?}"))?);
        }
        self.anothers().context("content of another writer")?;
        self.tell(format!(
            "{WRITERS} create-only writers: {}; another's equal content is nobody's own",
            told.join(", ")
        ));
        Ok(())
    }

    /// A race, and who won it, in words.
    fn race(&self, race: Race) -> Outcome<String> {
        self.faults.calm();
        let key = format!("race-{race:?}");
        let object = self.object(&key);
        if race == Race::Lossy {
            for nth in 0..WRITERS {
                let rule = Rule::new(Fault::LoseAnswer).methods(&["PUT"]).with(&key);
                self.faults.arm(rule.skip(nth * 2).times(1));
            }
        }
        let contents: Outcome<Vec<_>> = (0..WRITERS)
            .map(|writer| {
                let file = self.file(&format!("{key}-{writer}"));
                let seed = if race == Race::Equal { 99 } else { 100 + writer };
                scattered(&file, if race == Race::Parts { 6 << 20 } else { 20_000 }, seed)?;
                Ok(file)
            })
            .collect();
        let contents = contents?;
        let ended: Vec<Outcome<Said>> = thread::scope(|scope| {
            let begin = |file| {
                let program = self.through.ask(&["object", "put"]).arg(file).arg(&object);
                let mut program = program.args(["--create-only", "--patience", PATIENCE]);
                if race == Race::Parts {
                    program = program.args(["--part-size", "5MiB"]);
                }
                scope.spawn(move || program.codes(&[]).run())
            };
            let running: Vec<_> = contents.iter().map(begin).collect();
            let panicked = |_| Err(Failure::new("a writer panicked"));
            running.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
        });
        let (mut winners, mut unknown, mut cannot) = (Vec::new(), Vec::new(), 0);
        for (writer, said) in ended.into_iter().enumerate() {
            let said = said?;
            match said.code {
                0 => winners.push(writer),
                UNKNOWN => unknown.push(writer),
                EXISTS | CONFLICT => {}
                UNSUPPORTED if race == Race::Parts => cannot += 1,
                code => {
                    return Err(Failure::new(format!(
                        "writer {writer} ended with {code}: {}",
                        said.stderr
                    )));
                }
            }
        }
        if cannot == WRITERS {
            ensure(!self.plain.has(&object)?, || "refused, and yet it is there".to_owned())?;
            return Ok("in parts refused, as the store keeps no such condition".to_owned());
        }
        // Swift and moto look, and then write: two that look at once are both first, and the last one's content stays.
        let looks = matches!(self.store, Store::Swift | Store::Moto);
        let most = if looks { winners.len() } else { 1 };
        ensure(winners.len() <= most, || format!("{winners:?} were told that they were first"))?;
        ensure(!winners.is_empty() || !unknown.is_empty(), || "nobody was first".to_owned())?;
        ensure(race == Race::Lossy || !winners.is_empty(), || {
            format!("nobody was told to be first; {unknown:?} do not know")
        })?;
        let seen = self.file(&format!("{key}-seen"));
        self.plain.get(&object, &seen, &[])?;
        let seen = std::fs::read(&seen).context(seen.display())?;
        let whose = |writer: &usize| {
            let file = &contents[*writer];
            std::fs::read(file).is_ok_and(|content| content == seen)
        };
        let possible = if winners.is_empty() { &unknown } else { &winners };
        ensure(possible.iter().any(whose), || "another one's content is there".to_owned())?;
        Ok(match winners.len() {
            1 => format!("{race:?} one first"),
            0 => format!("{race:?} {} do not know", unknown.len()),
            many => format!("{race:?} {many} first, as the store looks before it writes"),
        })
    }

    fn create(&self, key: &str, more: &[&str]) -> Outcome<Said> {
        let (file, object) = (self.file("new").display().to_string(), self.object(key));
        let words = [&["object", "put", &file, &object, "--patience", PATIENCE], more].concat();
        self.through.attempt(&words)
    }

    /// The same content, but somebody else wrote it.
    fn anothers(&self) -> Outcome {
        self.faults.calm();
        let only = &["--create-only"][..];
        let ended = |said: Said, codes: &[i32], why: &str| {
            ensure(codes.contains(&said.code), || {
                format!("{why}: ended with {}, not {codes:?}: {}", said.code, said.stderr)
            })
        };
        ended(self.create("ahead-plain", only)?, &[EXISTS], "it was there long ago")?;
        let before = Rule::new(Fault::Answer { status: 500, retry_after: None });
        self.faults.arm(before.methods(&["PUT"]).with("ahead-500").times(1));
        ended(
            self.create("ahead-500", only)?,
            &[EXISTS],
            "it was there long ago, first answer 500",
        )?;
        let lost = Rule::new(Fault::LoseAnswer).methods(&["PUT"]).with("ahead-lost").times(1);
        self.faults.arm(lost);
        ended(
            self.create("ahead-lost", only)?,
            &[EXISTS],
            "it was there long ago, first answer lost",
        )?;
        // Just now, between the first try and the second.
        self.meanwhile("meanwhile-new");
        ended(self.create("meanwhile-new", only)?, &[EXISTS, UNKNOWN], "it came meanwhile")?;
        if self.can("update") {
            let object = self.object("meanwhile-if");
            self.plain.put(&self.file("old"), &object, &[])?;
            let etag = self.plain.head(&object)?["etag"].as_str().unwrap_or_default().to_owned();
            self.meanwhile("meanwhile-if");
            let said = self.create("meanwhile-if", &["--if-match", &etag])?;
            ended(said, &[CONFLICT, UNKNOWN], "it was replaced meanwhile")?;
        }
        Ok(())
    }

    /// Another writer puts the same content while the first try fails.
    fn meanwhile(&self, key: &str) {
        let (plain, file, object) = (self.plain.clone(), self.file("new"), self.object(key));
        let act = move || {
            if let Err(failure) = plain.put(&file, &object, &[]) {
                eprintln!("the other writer: {failure}");
            }
        };
        let rule = Rule::new(Fault::Meanwhile(Arc::new(act)));
        self.faults.arm(rule.methods(&["PUT"]).with(key).times(1));
    }
}
