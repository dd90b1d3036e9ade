// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a cluster, or with how it is asked, is said in time with cause and remedy; a full pool is no broken one;
//! connections that fail cost the host nothing.

use std::{
    fmt::Write,
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::Stage;
use crate::{
    ceph::{BACKEND, Ceph, POOL},
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    hostile::vitals::Vitals,
    nbd::{Client, Command, Error, NO_SPACE},
    program::until,
};

const MIB: u32 = 1 << 20;
const VOLUME: &str = "full";
const SIZE: u64 = 256 << 20;
/// Where `volume write` writes, which nobody else does.
const TAIL: u64 = SIZE - 2 * MIB as u64;
const TAIL_LEN: usize = 2 * MIB as usize;
/// Bytes of an object of the volume, each of which hears of a quota by itself.
const OBJECT: usize = 4 << 20;
/// The last mebibyte of an object, in which most objects have nothing yet.
const LAST: u64 = OBJECT as u64 - MIB as u64;
const CONNECT_SECS: u64 = 5;
/// What a refusal may take: the limit, and some time for the host and whoever asks.
const IN_TIME: Duration = Duration::from_secs(CONNECT_SECS + 3);
/// How the command line ends for lack of room.
const NO_ROOM: i32 = 7;
/// How long OSDs have to hear that the pool is full, or is not.
const PATIENCE: Duration = Duration::from_secs(90);
/// A key as the cluster has them, but none of it.
const WRONG_KEY: &str = "AQDRhRlnAAAAABAAmNpyYNGGeSAqtDwkHMo0LQ==";
/// Failed attempts whose costs are not counted: the host's threads and caches come to be.
const FIRST: u32 = 30;
const FAILED: u32 = 200;
/// What the host's memory may move by.
const KIB_TO_SPARE: u64 = 16 << 10;

/// A backend that does not open.
struct Case {
    name: &'static str,
    user: &'static str,
    pool: &'static str,
    options: &'static str,
    /// What the cause must say.
    why: &'static [&'static str],
    /// What the remedy must say.
    remedy: &'static [&'static str],
    /// Whether the cluster itself refuses, which it does at once.
    at_once: bool,
}

const SOUND: Case = Case {
    name: "",
    user: "novastor",
    pool: POOL,
    options: "",
    why: &[],
    remedy: &[],
    at_once: true,
};

const CASES: [Case; 5] = [
    Case {
        name: "wrong-key",
        options: "key = { secret = \"wrong\" }",
        why: &["client.novastor", "its key is wrong"],
        remedy: &["ceph auth get client.novastor"],
        ..SOUND
    },
    Case {
        name: "stranger",
        user: "stranger",
        options: "key = { secret = \"wrong\" }",
        why: &["client.stranger", "no such user"],
        remedy: &["ceph auth get client.stranger"],
        ..SOUND
    },
    Case {
        name: "unreachable",
        options: "monitors = [\"v2:127.0.0.1:1\"]",
        why: &["no monitor answered within 5 s", "127.0.0.1:1"],
        remedy: &["connect_timeout_secs"],
        at_once: false,
        ..SOUND
    },
    Case {
        name: "no-pool",
        pool: "nowhere",
        why: &["no pool", "nowhere"],
        remedy: &["ceph osd pool create nowhere"],
        ..SOUND
    },
    Case {
        name: "no-namespace",
        options: "namespace = \"nowhere\"",
        why: &["no namespace", "nowhere"],
        remedy: &["rbd namespace create volumes/nowhere"],
        ..SOUND
    },
];

pub(super) fn play(stage: &Stage) -> Outcome {
    let ceph = Ceph::start(&stage.path("ceph"))?;
    let secret = stage.path("wrong.key");
    fs::write(&secret, WRONG_KEY).context(secret.display())?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).context(secret.display())?;
    let mut host = Host::start(&stage.artifacts, &sections(&ceph, &secret)?)?;
    let began = Instant::now();
    install(&stage.artifacts.ceph()?, &host.plugins())?;
    for case in &CASES {
        shown(&host, case, began).context(case.name)?;
    }
    stage.tell(format!(
        "{} backends that cannot open said why and what to do {:.1} s after the driver came (limit {} s)",
        CASES.len(),
        began.elapsed().as_secs_f64(),
        IN_TIME.as_secs()
    ));
    for case in &CASES {
        let millis = refused(&host, case).context(case.name)?;
        stage.tell(format!("{}: refused after {millis} ms", case.name));
    }
    until(PATIENCE, || host.cli().ask().args(["backend", "open", BACKEND]).run())?;
    full_pool(stage, &ceph, &host)?;
    failures_cost_nothing(stage, &host)?;
    host.stop()
}

fn sections(ceph: &Ceph, secret: &Path) -> Outcome<String> {
    let mut text = format!("\n[secrets]\nwrong = {{ file = \"{}\" }}\n", secret.display());
    text += &ceph.section(BACKEND, "");
    for Case { name, user, pool, options, .. } in &CASES {
        write!(
            text,
            "\n[backends.{name}]\ndriver = \"ceph\"\nconf_file = \"{}\"\nuser = \"{user}\"\n\
             pool = \"{pool}\"\nconnect_timeout_secs = {CONNECT_SECS}\n{options}\n",
            ceph.conf().display()
        )
        .context("sections")?;
    }
    Ok(text)
}

/// Looks whether the backend's state says what is wrong.
fn says_so(host: &Host, case: &Case) -> Outcome {
    let said = host.cli().ask().args(["backend", "show", case.name, "--output", "json"]).run()?;
    let view: Value = serde_json::from_str(&said.stdout).context("backend show")?;
    let has = |key: &str, words: &[&str]| {
        let text = view[key].as_str().unwrap_or_default();
        words.iter().all(|word| text.contains(word))
    };
    ensure(
        view["state"] == "unavailable" && has("why", case.why) && has("remedy", case.remedy),
        || format!("the host does not say {:?} and {:?}: {view}", case.why, case.remedy),
    )
}

fn shown(host: &Host, case: &Case, began: Instant) -> Outcome {
    until(IN_TIME.saturating_sub(began.elapsed()), || says_so(host, case))
}

/// Opens it, in vain; how many milliseconds that took.
fn refused(host: &Host, case: &Case) -> Outcome<u128> {
    let began = Instant::now();
    let said = open_in_vain(host, case)?;
    let took = began.elapsed();
    let limit = if case.at_once { IN_TIME / 2 } else { IN_TIME };
    ensure(took < limit, || format!("the refusal took {} ms", took.as_millis()))?;
    let missing = case.why.iter().chain(case.remedy).find(|word| !said.contains(**word));
    ensure(missing.is_none(), || format!("{missing:?} is not in the refusal:\n{said}"))?;
    says_so(host, case)?;
    Ok(took.as_millis())
}

fn open_in_vain(host: &Host, case: &Case) -> Outcome<String> {
    let said = host.cli().ask().args(["backend", "open", case.name]).codes(&[]).run()?;
    ensure(said.code != 0, || format!("it opened:\n{}", said.stdout))?;
    Ok(said.stderr)
}

fn full_pool(stage: &Stage, ceph: &Ceph, host: &Host) -> Outcome {
    host.cli().create_volume(VOLUME, SIZE, Some(BACKEND), &[])?;
    host.cli().add_export(VOLUME)?;
    let mut client = host.connect(VOLUME)?;
    fill(&mut client, 0, 1).context("before the quota")?;
    flush(&mut client).context("before the quota")?;
    quota(ceph, "1000000")?;
    let began = Instant::now();
    let refused = until_full(&mut client)?;
    ensure(refused == NO_SPACE, || format!("a write to a full pool failed with error {refused}"))?;
    stage.tell(format!(
        "a client was told ENOSPC {:.1} s after the quota was set",
        began.elapsed().as_secs_f64()
    ));
    let said = write_file(stage, host, &[7; TAIL_LEN], &[NO_ROOM])?;
    ensure(said.contains("quota exceeded") && said.contains("raise the pool's quota"), || {
        format!("`volume write` does not say cause and remedy:\n{said}")
    })?;
    stage.tell_all(&said);
    flush(&mut client).context("a write that was refused is no lost one")?;
    // Reads go on, and what is there is whole.
    for at in (0..SIZE).step_by(OBJECT) {
        let found = client.call(Command::Read, at, MIB, &[]).context("read from a full pool")?;
        ensure(matches!(found[0], 1 | 2) && found.iter().all(|byte| *byte == found[0]), || {
            format!("neither the old content nor the new one at {at}")
        })?;
    }
    quota(ceph, "0")?;
    let lifted = Instant::now();
    until(PATIENCE, || {
        fill(&mut client, LAST, 3).context("after the quota")?;
        flush(&mut client).context("after the quota")
    })?;
    stage.tell(format!(
        "the same client wrote and flushed {:.1} s after it was lifted",
        lifted.elapsed().as_secs_f64()
    ));
    write_file(stage, host, &[4; TAIL_LEN], &[0])?;
    let found = client.call(Command::Read, TAIL, 2 * MIB, &[]).context("read")?;
    ensure(found.iter().all(|byte| *byte == 4), || {
        "`volume write` wrote something else".to_owned()
    })?;
    Ok(())
}

fn quota(ceph: &Ceph, bytes: &str) -> Outcome {
    ceph.admin(&["osd", "pool", "set-quota", POOL, "max_bytes", bytes]).map(drop)
}

/// Writes a mebibyte of each object.
fn fill(client: &mut Client, within: u64, value: u8) -> Result<(), Error> {
    let data = vec![value; MIB as usize];
    (0..SIZE).step_by(OBJECT).try_for_each(|at| {
        client.call(Command::Write { fua: false }, at + within, MIB, &data).map(drop)
    })
}

fn flush(client: &mut Client) -> Result<(), Error> {
    client.call(Command::Flush, 0, 0, &[]).map(drop)
}

/// Writes until a write is refused; the error's number.
fn until_full(client: &mut Client) -> Outcome<u32> {
    let (began, data) = (Instant::now(), vec![2; MIB as usize]);
    // What needs no more room than it has is not refused: everything here is written for the first time.
    for at in (0..SIZE * 3 / 4).step_by(MIB as usize) {
        client.send(Command::Write { fua: false }, at, MIB, &data).context("write")?;
        if let (_, Err(error)) = client.receive_any().context("write")? {
            return Ok(error);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::new(format!("the pool is not full after {} s", began.elapsed().as_secs())))
}

/// `novastor volume write`, which must end with one of these codes; what it says on standard error.
fn write_file(stage: &Stage, host: &Host, bytes: &[u8], codes: &[i32]) -> Outcome<String> {
    let path = stage.path("bytes");
    let mut file = fs::File::create(&path).context(path.display())?;
    file.write_all(bytes).context(path.display())?;
    let program = host
        .cli()
        .ask()
        .args(["volume", "write", VOLUME, "--offset", &TAIL.to_string()])
        .reading(&path)?;
    Ok(program.codes(codes).run()?.stderr)
}

fn failures_cost_nothing(stage: &Stage, host: &Host) -> Outcome {
    let quick: Vec<_> = CASES.iter().filter(|case| case.at_once).collect();
    let attempts = |count: u32| {
        quick
            .iter()
            .cycle()
            .zip(0..count)
            .try_for_each(|(case, _)| open_in_vain(host, case).context(case.name).map(drop))
    };
    attempts(FIRST)?;
    let (before, began) = (Vitals::of(host.id()?)?, Instant::now());
    attempts(FAILED)?;
    let after = before.regained_by(host.id()?, KIB_TO_SPARE).context("the host's cost")?;
    stage.tell(format!(
        "{FAILED} failed connections in {:.1} s: {before} before, {after} after",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}
