// SPDX-License-Identifier: Apache-2.0
//! A second host takes a volume over from one that serves it, and from one that stands still with writes under way and goes
//! on later: it finds every flushed write, nothing of the first lands afterwards, and the first says that it is fenced.

use std::{
    fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{
    Stage,
    second_host::{all_refused, all_stopped, figure, read_all, same},
    writers::{Course, Writers},
};
use crate::{
    ceph::{BACKEND, Ceph, POOL},
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    ledger::{SECTOR, content},
    load::Load,
    nbd::{Client, Command},
    program::until,
    random::Random,
};
use rustix::process::Signal;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const STEP: u32 = 1 << 20;
const SIZE: u64 = 16 * MIB;
const SECTORS: u64 = SIZE / 512;
/// What the first host serves all the time.
const OTHER: &str = "other";
/// Begins the versions that the second host writes: far beyond what a client of the first comes to.
const SECOND: u64 = 1 << 40;
/// The version of the writes that wait at the door of a host that stands still.
const PARKED: u64 = 1 << 41;
const PARKED_WRITES: u64 = 32;
/// How long the second host looks whether something of the first lands.
const LOOKING: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);
/// How the command line ends because somebody has the volume, and because it was taken over.
const IN_USE: i32 = 5;
const TAKEN_OVER: i32 = 13;
const WORDS: &str = "another attachment took this volume over";

/// How the first host is when it is taken over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Serves,
    StandsStill,
}

struct Play<'s> {
    stage: &'s Stage,
    ceph: &'s Ceph,
    first: Host,
    second: Host,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let ceph = Ceph::start(&stage.path("ceph"))?;
    let first = ceph.host(&stage.artifacts, "")?;
    let second = ceph.host(&stage.artifacts, "")?;
    let mut play = Play { stage, ceph: &ceph, first, second };
    play.rounds(&mut random).context(format!("NOVASTOR_SEED={seed}"))?;
    play.first.stop()?;
    play.second.stop()
}

impl Play<'_> {
    fn rounds(&self, random: &mut Random) -> Outcome {
        self.first.cli().create_volume(OTHER, SIZE, Some(BACKEND), &[])?;
        self.first.cli().add_export(OTHER)?;
        let other = Load::new(SECTORS, 1, random.number());
        let rounds = if self.stage.is_long() { 10 } else { 1 };
        other.during(&self.first.nbd_socket(), OTHER, || {
            self.round("served", First::Serves, random).context("a host that serves")?;
            (1..=rounds).try_for_each(|round| {
                let volume = format!("still-{round}");
                let played = self.round(&volume, First::StandsStill, random);
                played.context(format!("round {round}: a host that stands still"))
            })
        })?;
        other.verify(&mut self.first.connect(OTHER)?)?;
        self.stage.tell(format!(
            "another volume of the first host served on: {} acknowledged flushes, no error",
            other.flushes()
        ));
        Ok(())
    }

    fn round(&self, volume: &str, how: First, random: &mut Random) -> Outcome {
        self.first.cli().create_volume(volume, SIZE, Some(BACKEND), &[])?;
        self.first.cli().add_export(volume)?;
        let (writers, course) = (Writers::new(SECTORS, 2, random), Course::default());
        let mut found = Vec::new();
        let socket = self.first.nbd_socket();
        writers.during((&socket, volume), &course, || {
            self.second
                .cli()
                .ask()
                .args(["volume", "adopt", volume, "--backend", BACKEND])
                .run()?;
            self.ask_politely(volume)?;
            thread::sleep(Duration::from_millis(random.within(300..2000)));
            let parked = match how {
                First::Serves => None,
                First::StandsStill => Some(self.stand_still(volume, &course)?),
            };
            let outcome = self.taken_over(volume, &course, &mut found, parked, random);
            if outcome.is_err() && how == First::StandsStill {
                // Its clients wait for it.
                self.first.signal(Signal::CONT)?;
            }
            outcome
        })?;
        writers.verify(&found)?;
        self.first_gives_up(volume)?;
        self.first_takes_it_back(volume)?;
        ensure(course.refused() > 0 && course.flushes() > 0, || {
            "the first host's clients did nothing before or after".to_owned()
        })?;
        self.stage.tell(format!(
            "{volume}: all {} acknowledged flushes were there; of the first host {} requests under way failed, and all {} later ones",
            course.flushes(),
            course.interrupted(),
            course.refused()
        ));
        Ok(())
    }

    /// Without `--take-over` the second host is refused, and told what it could do.
    fn ask_politely(&self, volume: &str) -> Outcome {
        let asked = self.second.cli().ask().args(["export", "add", volume]);
        let said = asked.codes(&[IN_USE]).run()?.stderr;
        let holder = format!("process {}", self.first.id()?);
        for words in ["attached by", &holder, "writer", "--take-over"] {
            ensure(said.contains(words), || format!("it is not said: {words}\n{said}"))?;
        }
        if volume == "served" {
            self.stage.tell_all(&said);
        }
        Ok(())
    }

    /// Stops the first host in the midst of what it does, and sends it some more.
    fn stand_still(&self, volume: &str, course: &Course) -> Outcome<Client> {
        let mut parked = self.first.connect(volume)?;
        course.may_fail.store(true, Ordering::SeqCst);
        self.first.signal(Signal::STOP)?;
        until(PATIENCE, || all_stopped(self.first.id()?))?;
        course.must_fail.store(true, Ordering::SeqCst);
        let share = SECTORS / PARKED_WRITES;
        for part in 0..PARKED_WRITES {
            let sectors = part * share..part * share + 8;
            let (offset, data) = (sectors.start * u64::from(SECTOR), content(sectors, PARKED));
            let len = u32::try_from(data.len()).context("length")?;
            parked.send(Command::Write { fua: false }, offset, len, &data).context("parked")?;
        }
        Ok(parked)
    }

    /// The second host takes the volume over and makes it its own. `parked` is a client of a first host that stands still.
    fn taken_over(
        &self,
        volume: &str,
        course: &Course,
        found: &mut Vec<u8>,
        parked: Option<Client>,
        random: &mut Random,
    ) -> Outcome {
        course.may_fail.store(true, Ordering::SeqCst);
        let began = Instant::now();
        self.second.cli().ask().args(["export", "add", volume, "--take-over"]).run()?;
        let took = began.elapsed();
        course.must_fail.store(true, Ordering::SeqCst);
        let mut client = self.second.connect(volume)?;
        *found = read_all(&mut client, SIZE)?;
        let mut own = content(0..SECTORS, SECOND);
        for (offset, part) in (0..).step_by(STEP as usize).zip(own.chunks(STEP as usize)) {
            client.call(Command::Write { fua: false }, offset, STEP, part).context("write")?;
        }
        client.call(Command::Flush, 0, 0, &[]).context("flush")?;
        if parked.is_some() {
            self.first.signal(Signal::CONT)?;
        }
        let (began, mut looks) = (Instant::now(), 0);
        while began.elapsed() < LOOKING {
            same(&read_all(&mut client, SIZE)?, &own).context("the second host reads")?;
            // It goes on working, too.
            looks += 1;
            let first = random.within(0..SIZE / MIB) * (MIB / u64::from(SECTOR));
            let sectors = first..first + MIB / u64::from(SECTOR);
            let (offset, data) = (first * u64::from(SECTOR), content(sectors, SECOND + looks));
            client.call(Command::Write { fua: true }, offset, STEP, &data).context("write")?;
            let start = usize::try_from(offset).context("offset")?;
            own[start..start + data.len()].copy_from_slice(&data);
        }
        if let Some(parked) = parked {
            all_refused(parked)?;
        }
        let said = until(PATIENCE, || self.says_fenced(volume))?;
        drop(client);
        self.second.cli().ask().args(["export", "remove", volume]).run()?;
        // The first host's clients still try, and nobody has the volume now.
        thread::sleep(Duration::from_millis(500));
        let image = self.stage.path(volume);
        let path = image.display().to_string();
        self.ceph.rbd(&["export", "--no-progress", &format!("{POOL}/{volume}"), &path])?;
        same(&fs::read(&image).context(&path)?, &own).context("rbd export")?;
        fs::remove_file(&image).context(&path)?;
        self.stage.tell(format!(
            "{volume}: taken over in {:.1} s; the second host's own bytes in {looks} looks, and for rbd export",
            took.as_secs_f64()
        ));
        if volume == "served" {
            self.stage.tell_all(&said);
        }
        Ok(())
    }

    /// What the first host says of its volume, once it says that it is fenced: in the figures, and in its log.
    fn says_fenced(&self, volume: &str) -> Outcome<String> {
        let figures = self.figures(&["volume", "show", volume])?;
        let fenced = figure(&figures, "fenced")?;
        ensure(fenced == 1.0, || format!("fenced is {fenced}"))?;
        let backend = self.figures(&["backend", "show", BACKEND])?;
        let lost = figure(&backend, "connections_blocklisted_total")?;
        ensure(lost >= 1.0, || format!("{lost} connections were fenced"))?;
        let log = fs::read_to_string(self.first.path("host.log")).context("host.log")?;
        let of = |line: &&str| line.contains(WORDS) && line.contains(volume);
        let line = log.lines().find(of).map(ToOwned::to_owned);
        line.ok_or_else(|| Failure::new(format!("its log has no line of {volume} with: {WORDS}")))
    }

    fn figures(&self, words: &[&str]) -> Outcome<Value> {
        let said = self.first.cli().ask().args(words).args(["--output", "json"]).run()?;
        serde_json::from_str(&said.stdout).context(format!("the answer: {}", said.stdout))
    }

    /// The first host's export is removed, which says what has become of the volume; it keeps its record.
    fn first_gives_up(&self, volume: &str) -> Outcome {
        let removed = self.first.cli().ask().args(["export", "remove", volume]);
        let said = removed.codes(&[TAKEN_OVER]).run()?.stderr;
        ensure(said.contains(WORDS), || format!("removing the export says: {said}"))?;
        let shown = self.figures(&["volume", "show", volume])?;
        ensure(shown["attach"] == "detached" || shown["attached"] == "detached", || {
            format!("the first host still has it: {shown}")
        })?;
        let note = shown["note"].as_str().unwrap_or_default();
        ensure(note.contains(WORDS), || format!("the volume's note is: {note}"))
    }

    /// Nobody has the volume now, but another host had it since: the first one has it again where that is wanted.
    fn first_takes_it_back(&self, volume: &str) -> Outcome {
        let asked = self.first.cli().ask().args(["export", "add", volume]);
        let said = asked.codes(&[TAKEN_OVER]).run()?.stderr;
        ensure(said.contains("--take-over"), || format!("the remedy is not said: {said}"))?;
        self.first.cli().ask().args(["export", "add", volume, "--take-over"]).run()?;
        let mut client = self.first.connect(volume)?;
        let block = vec![1; SECTOR as usize];
        client.call(Command::Write { fua: true }, 0, SECTOR, &block).context("taken back")?;
        let read = client.call(Command::Read, 0, SECTOR, &[]).context("taken back")?;
        ensure(read == block, || "what was written is not read".to_owned())?;
        drop(client);
        self.first.cli().ask().args(["export", "remove", volume]).run().map(drop)
    }
}
