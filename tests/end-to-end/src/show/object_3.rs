// SPDX-License-Identifier: Apache-2.0
//! Between the driver and each kind of store is something that misbehaves: requests are refused, hang, are cut and answered
//! falsely, answers are lost, truncated, changed and drip. What comes of each operation is right, or it is told in time, and
//! whoever looks past all this never sees anything half, nor what was told to have failed.

mod cases;
mod races;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cases::Case;

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    faults::Faults,
    host::Host,
    objects::{Backend, Front, Objects, Store, chosen, scattered},
    program::{Said, until},
};

const SHORT: [Store; 4] = [Store::Radosgw, Store::Azurite, Store::Gcs, Store::Swift];
const LONG: [Store; 5] = [Store::Radosgw, Store::Azurite, Store::Gcs, Store::Swift, Store::Moto];

/// The name of the backend that meets the faults, and of the one that does not.
const THROUGH: &str = "through";
const PLAIN: &str = "plain";

/// The driver's deadlines, in seconds.
const DEADLINES: [(&str, &str); 3] =
    [("connect_timeout_secs", "1"), ("request_timeout_secs", "2"), ("operation_timeout_secs", "6")];
/// For how long a command goes on by itself.
const PATIENCE: &str = "3s";
/// What all of it may take: a command begins no operation after its patience, and each ends by its own deadline. A put in parts
/// has three of them in a row.
const IN_TIME: Duration = Duration::from_secs(25);
/// How long after a storm a backend may ask for patience.
const RECOVERY: Duration = Duration::from_secs(30);
/// Cases at a time at each store. They mostly wait.
const SIDE_BY_SIDE: usize = 6;

/// How the command line ends: not now; the outcome is unknown; and what nobody can do anything with.
const UNAVAILABLE: i32 = 10;
const UNKNOWN: i32 = 11;
const DEFECTS: [i32; 3] = [-1, 1, 15];

pub(super) fn play(stage: &Stage) -> Outcome {
    let stores = chosen(if stage.is_long() { &LONG } else { &SHORT })?;
    let objects = Objects::start(&stage.path("servers"), &stores)?;
    stage.tell(format!("{} stores answer", stores.len()));
    let played: Vec<Outcome> = thread::scope(|scope| {
        let objects = &objects;
        let begin = |store: &Store| {
            let store = *store;
            scope.spawn(move || play_at(stage, objects, store).context(store.name()))
        };
        let running: Vec<_> = stores.iter().map(begin).collect();
        let panicked = |_| Err(Failure::new("a scene panicked"));
        running.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
    });
    let failed: Vec<_> = played.into_iter().filter_map(Result::err).collect();
    let text = || failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    ensure(failed.is_empty(), text)
}

fn play_at(stage: &Stage, objects: &Objects, store: Store) -> Outcome {
    let faults = objects.faults(store)?;
    let through = Backend::of(store).through(&faults).named(THROUGH).with(&DEADLINES);
    let mut host = objects.host(&stage.artifacts, &[through, Backend::of(store).named(PLAIN)])?;
    let front = |backend: &str| {
        Front::new(host.cli(), backend, &stage.path(&format!("state-{}-{backend}", store.name())))
    };
    let (through, plain) = (front(THROUGH), front(PLAIN));
    // Servers that run already may have what an earlier play left.
    let bucket = format!("novastor-faults-{}-{}", store.name(), std::process::id());
    plain.run(&["bucket", "create", &bucket])?;
    let mut scene = Scene {
        stage,
        store,
        faults: &faults,
        host: &host,
        abilities: plain.abilities()?,
        through,
        plain,
        bucket,
    };
    scatter(&scene)?;
    if scene.can("create-only") {
        // What the store heeds is known once a condition was asked of it.
        let first = scene.object("conditions");
        scene.plain.put(&scene.file("new"), &first, &["--create-only"])?;
        scene.abilities = scene.plain.abilities()?;
    }
    // They are to be old when somebody asks for them.
    scene.place_ahead()?;
    let (endless, passing): (Vec<_>, Vec<_>) =
        cases::all(store, stage.is_long()).into_iter().partition(Case::is_endless);
    let mut failed = Vec::new();
    failed.extend(scene.cases("passing", &passing).err());
    failed.extend(scene.races().context("races").err());
    // They slow the whole backend: nothing is beside them.
    failed.extend(scene.cases("endless", &endless).err());
    failed.extend(scene.again().context("when it is over").err());
    ensure(failed.is_empty(), || {
        failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    host.stop()
}

/// The contents that objects have before and after.
fn scatter(scene: &Scene<'_>) -> Outcome {
    for (name, size, seed) in [
        ("old", 30_000, 1),
        ("new", 40_000, 2),
        ("old-parts", 12 << 20, 3),
        ("new-parts", 13 << 20, 4),
    ] {
        scattered(&scene.file(name), size, seed)?;
    }
    Ok(())
}

struct Scene<'s> {
    stage: &'s Stage,
    store: Store,
    faults: &'s Faults,
    host: &'s Host,
    abilities: Vec<String>,
    through: Front,
    plain: Front,
    bucket: String,
}

/// What came of a case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Came {
    Right,
    Told,
    Unknown,
    NotOffered,
}

impl Scene<'_> {
    fn tell(&self, text: impl std::fmt::Display) {
        self.stage.tell(format!("{:<8} {text}", self.store.name()));
    }

    fn can(&self, ability: &str) -> bool {
        self.abilities.iter().any(|one| one == ability)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.stage.path(&format!("{}-{name}", self.store.name()))
    }

    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    /// A command through the faults, whatever its end, and how long it took.
    fn attempt(&self, words: &[&str]) -> Outcome<(Said, Duration)> {
        let since = Instant::now();
        let said = self.through.attempt(words)?;
        Ok((said, since.elapsed()))
    }

    /// All cases, some side by side; each has an object of its own. All failures are told.
    fn cases(&self, which: &str, cases: &[Case]) -> Outcome {
        let since = Instant::now();
        let (next, came) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Came, usize>::new()));
        let failed = Mutex::new(Vec::new());
        let longest = Mutex::new(Duration::ZERO);
        let work = || {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.case(case) {
                    Ok((one, took)) => {
                        *lock(&came).entry(one).or_default() += 1;
                        let mut longest = lock(&longest);
                        *longest = took.max(*longest);
                    }
                    Err(failure) => lock(&failed).push(format!("{}: {failure}", case.name())),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE {
                scope.spawn(work);
            }
        });
        let count = |one| lock(&came).get(&one).copied().unwrap_or_default();
        self.tell(format!(
            "{} {which} cases in {:.0} s: {} right, {} told, {} told to be unknown, {} not offered; none took more than {:.1} s",
            cases.len(),
            since.elapsed().as_secs_f64(),
            count(Came::Right),
            count(Came::Told),
            count(Came::Unknown),
            count(Came::NotOffered),
            lock(&longest).as_secs_f64(),
        ));
        let failed = lock(&failed);
        ensure(failed.is_empty(), || {
            format!("{} of {} cases:\n  {}", failed.len(), cases.len(), failed.join("\n  "))
        })
    }

    /// One case: what is before it, the operation, and what is after it.
    fn case(&self, case: &Case) -> Outcome<(Came, Duration)> {
        if case.op.needs().is_some_and(|ability| !self.can(ability)) {
            return Ok((Came::NotOffered, Duration::ZERO));
        }
        let run = case.prepare(self).context("before it")?;
        let rule = self.faults.arm(case.rule(self.store));
        let words: Vec<&str> = run.words.iter().map(String::as_str).collect();
        let (said, took) = self.attempt(&words)?;
        let met = self.faults.hits(rule);
        let told = || {
            let text = format!("{}{}", said.stdout, said.stderr);
            let key = case.key();
            let last = self.faults.last(200);
            let last: Vec<_> = last.lines().filter(|line| line.contains(&key)).collect();
            format!(
                "ended with {} after {took:.1?}: {}\n{}",
                said.code,
                text.trim(),
                last.join("\n")
            )
        };
        // In a storm the driver may know that a request's turn does not come in time.
        let is_spared = case.is_endless() && said.code == UNAVAILABLE;
        ensure(met > 0 || is_spared, || format!("the fault was not met: {}", told()))?;
        ensure(took <= IN_TIME, || format!("not in time: {}", told()))?;
        let state = case
            .state(self, &run, &said)
            .context("after it")
            .map_err(|failure| Failure::new(format!("{failure}; {}", told())))?;
        ensure(state != cases::State::Half, || format!("something half is seen: {}", told()))?;
        if said.code == 0 {
            ensure(state == cases::State::New, || {
                format!("success, but it is not so: {}", told())
            })?;
            ensure(!case.fails, || format!("this cannot succeed: {}", told()))?;
            return Ok((Came::Right, took));
        }
        ensure(!case.must, || format!("it should have been done: {}", told()))?;
        ensure(!DEFECTS.contains(&said.code) && said.stderr.trim().len() > 20, || {
            format!("not told clearly: {}", told())
        })?;
        if said.code == UNKNOWN && case.op.changes() {
            return Ok((Came::Unknown, took));
        }
        ensure(state == cases::State::Old, || {
            format!("told to have failed, but it is done: {}", told())
        })?;
        Ok((Came::Told, took))
    }

    /// When it is over, everything works again, soon.
    fn again(&self) -> Outcome {
        self.faults.calm();
        let object = self.object("afterwards");
        let since = Instant::now();
        let words = ["--patience", "1s"];
        until(RECOVERY, || self.through.put(&self.file("new"), &object, &words))?;
        let took = since.elapsed();
        let left: Vec<_> = self.plain.keys(&self.bucket, "").into_iter().flatten().collect();
        self.plain.run(&["bucket", "delete", &self.bucket, "--with-objects"])?;
        let vitals = crate::hostile::vitals::Vitals::of(self.host.id()?)?;
        let counts = self.faults.counts();
        self.tell(format!(
            "over: a put is done after {} ms; {} of {} requests met a fault; {} objects; the host has {vitals}",
            took.as_millis(),
            counts.faults,
            counts.requests,
            left.len()
        ));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
