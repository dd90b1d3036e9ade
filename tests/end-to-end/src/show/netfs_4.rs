// SPDX-License-Identifier: Apache-2.0
//! A second host takes a volume on an NFSv4 and on an SMB share over from one that stands still with writes under way and goes
//! on later: it finds every flushed write, nothing of the first lands afterwards, and the first says that it is fenced.
//! From one that lives an NFSv4 server lets nobody take a file; an SMB server ends that one's login and does. On NFSv3 a second
//! host is refused.

use std::{
    fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    Stage,
    second_host::{all_refused, all_stopped, figure, read_all, same},
    writers::{Course, Writers},
};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    ledger::{SECTOR, content},
    nbd::{Client, Command},
    netfs::{Netfs, Server, Way},
    program::until,
    random::Random,
};

const MIB: u64 = 1 << 20;
const STEP: u32 = 1 << 20;
const SIZE: u64 = 8 * MIB;
const SECTORS: u64 = SIZE / 512;
/// Begins the versions that the second host writes: far beyond what a client of the first comes to.
const SECOND: u64 = 1 << 40;
/// The version of the writes that wait at the door of a host that stands still.
const PARKED: u64 = 1 << 41;
const PARKED_WRITES: u64 = 32;
/// How long the second host looks whether something of the first lands: in the long form longer than the servers' leases.
const LOOKING: Duration = Duration::from_secs(3);
const LONG_LOOKING: Duration = Duration::from_secs(7);
const PATIENCE: Duration = Duration::from_secs(40);
const OPTIONS: &str = "operation_timeout_secs = 30\nsilence_timeout_secs = 3\n";
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
    servers: &'s Netfs,
    first: Host,
    second: Host,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let servers = Netfs::start(&stage.path("servers"))?;
    let short: &[Way] = &[Way::Nfs41, Way::Smb];
    let long: &[Way] = &[Way::Nfs40, Way::Nfs41, Way::Nfs42, Way::Smb, Way::SmbEncrypted];
    let ways = if stage.is_long() { long } else { short };
    let all = [&[Way::Nfs3], ways].concat();
    let first = servers.host(&stage.artifacts, &all, OPTIONS)?;
    let second = servers.host(&stage.artifacts, &all, OPTIONS)?;
    let mut play = Play { stage, servers: &servers, first, second };
    play.rounds(ways, &mut random).context(format!("NOVASTOR_SEED={seed}"))?;
    play.first.stop()?;
    play.second.stop()
}

impl Play<'_> {
    fn rounds(&self, ways: &[Way], random: &mut Random) -> Outcome {
        self.without_a_lock().context("NFSv3")?;
        let rounds = if self.stage.is_long() { 3 } else { 1 };
        for round in 1..=rounds {
            for way in ways {
                let volume = format!("{}-still-{round}", way.name());
                self.round(*way, &volume, First::StandsStill, random).context(volume)?;
                if way.server() == Server::Samba {
                    let volume = format!("{}-serves-{round}", way.name());
                    self.round(*way, &volume, First::Serves, random).context(volume)?;
                }
            }
        }
        Ok(())
    }

    /// Where no server keeps a second writer away, the record of who has the volume does.
    fn without_a_lock(&self) -> Outcome {
        let (way, volume) = (Way::Nfs3, "nfs3");
        self.first.cli().create_volume(volume, SIZE, Some(way.name()), &[])?;
        self.first.cli().add_export(volume)?;
        let adopt = ["volume", "adopt", volume, "--backend", way.name()];
        self.second.cli().ask().args(adopt).run()?;
        let said = self.ask_politely(volume)?;
        self.stage.tell_all(&said);
        self.first.cli().ask().args(["export", "remove", volume]).run()?;
        self.second.cli().add_export(volume)?;
        self.second.cli().ask().args(["export", "remove", volume]).run()?;
        self.stage.tell("nfs3: refused while the first host has it, and had once that has let go");
        Ok(())
    }

    fn round(&self, way: Way, volume: &str, how: First, random: &mut Random) -> Outcome {
        self.first.cli().create_volume(volume, SIZE, Some(way.name()), &[])?;
        self.first.cli().add_export(volume)?;
        let (writers, course) = (Writers::new(SECTORS, 2, random), Course::default());
        let mut found = Vec::new();
        let socket = self.first.nbd_socket();
        writers.during((&socket, volume), &course, || {
            let adopt = ["volume", "adopt", volume, "--backend", way.name()];
            self.second.cli().ask().args(adopt).run()?;
            self.ask_politely(volume)?;
            if way.server() == Server::Ganesha && self.stage.is_long() {
                self.ask_with_force(volume)?;
            }
            thread::sleep(Duration::from_millis(random.within(300..1500)));
            let before = self.replayed(way)?;
            let parked = match how {
                First::Serves => None,
                First::StandsStill => Some(self.stand_still(volume, &course)?),
            };
            let outcome = self.taken_over((way, volume), &course, &mut found, parked, random);
            if outcome.is_err() && how == First::StandsStill {
                // Its clients wait for it.
                self.first.signal(Signal::CONT)?;
            }
            let replayed = outcome?.unwrap_or(before);
            ensure(self.replayed(way)? == replayed, || {
                "the first host wrote again what another one has".to_owned()
            })
        })?;
        writers.verify(&found)?;
        self.first_gives_up(volume)?;
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
    fn ask_politely(&self, volume: &str) -> Outcome<String> {
        let asked = self.second.cli().ask().args(["export", "add", volume]);
        let said = asked.codes(&[IN_USE]).run()?.stderr;
        ensure(said.contains("--take-over"), || format!("the remedy is not said:\n{said}"))?;
        Ok(said)
    }

    /// From a host that lives an NFSv4 server lets nobody take a lock.
    fn ask_with_force(&self, volume: &str) -> Outcome {
        let began = Instant::now();
        let asked = self.second.cli().ask().args(["export", "add", volume, "--take-over"]);
        let said = asked.codes(&[IN_USE]).run()?.stderr;
        self.stage.tell(format!(
            "{volume}: from a host that lives it was not taken, for {:.1} s: {}",
            began.elapsed().as_secs_f64(),
            said.lines().next().unwrap_or_default()
        ));
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

    /// The second host takes the volume over and makes it its own. `parked` is a client of a first host that stands still. Of
    /// one that serves, what it had written again until then: while it has the volume, it may log in anew and do so.
    fn taken_over(
        &self,
        (way, volume): (Way, &str),
        course: &Course,
        found: &mut Vec<u8>,
        parked: Option<Client>,
        random: &mut Random,
    ) -> Outcome<Option<f64>> {
        course.may_fail.store(true, Ordering::SeqCst);
        let began = Instant::now();
        self.second.cli().ask().args(["export", "add", volume, "--take-over"]).run()?;
        let took = began.elapsed();
        course.must_fail.store(true, Ordering::SeqCst);
        let replayed = if parked.is_none() { Some(self.replayed(way)?) } else { None };
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
        let looking = if self.stage.is_long() { LONG_LOOKING } else { LOOKING };
        while began.elapsed() < looking {
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
        let file = self.servers.files(way)?.join(format!("{volume}.raw"));
        same(&fs::read(&file).context(file.display())?, &own).context("the server's file")?;
        self.stage.tell(format!(
            "{volume}: taken over in {:.1} s; the second host's own bytes in {looks} looks, and in the server's file",
            took.as_secs_f64()
        ));
        self.stage.tell_all(&said);
        Ok(replayed)
    }

    /// What the first host says of its volume, once it says that it is fenced: in the figures, and in its log.
    fn says_fenced(&self, volume: &str) -> Outcome<String> {
        let fenced = figure(&self.figures(&["volume", "show", volume])?, "fenced")?;
        ensure(fenced == 1.0, || format!("fenced is {fenced}"))?;
        let log = fs::read_to_string(self.first.path("host.log")).context("host.log")?;
        let of = |line: &&str| line.contains(WORDS) && line.contains(volume);
        let line = log.lines().find(of).map(ToOwned::to_owned);
        line.ok_or_else(|| Failure::new(format!("its log has no line of {volume} with: {WORDS}")))
    }

    /// What the first host has written again on a new connection.
    fn replayed(&self, way: Way) -> Outcome<f64> {
        figure(&self.figures(&["backend", "show", way.name()])?, "mount_replayed_bytes_total")
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
        // Nobody has the volume now, but another host had it since: it is had again where that is wanted.
        let asked = self.first.cli().ask().args(["export", "add", volume]);
        let said = asked.codes(&[TAKEN_OVER]).run()?.stderr;
        ensure(said.contains("--take-over"), || format!("the remedy is not said: {said}"))?;
        self.first.cli().ask().args(["export", "add", volume, "--take-over"]).run()?;
        self.first.cli().ask().args(["export", "remove", volume]).run().map(drop)
    }
}
