// SPDX-License-Identifier: Apache-2.0
//! Runs the checks one after the other.

use std::{
    sync::{Mutex, atomic::AtomicU64},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use driver_api::{Abilities, BackendHandle, Capabilities, ErrorKind};

use crate::{
    CheckResult, Outcome, Plan, Reopen, Report,
    case::{Case, Session},
    checks::{CHECKS, Check},
    cleanup::remove_all,
    objects::left_over,
    volume::{Checked, Stop, broken, ensure, success},
};

/// Abilities of the backend; all others are asked of a volume, which may have fewer than its backend.
pub(crate) const OF_THE_BACKEND: Abilities = Abilities::CLONE
    .and(Abilities::COMMANDS)
    .and(Abilities::OBJECTS)
    .and(Abilities::CLUSTER)
    .and(Abilities::PERSISTENT)
    .and(Abilities::RENAME)
    .and(Abilities::SHARED_READ);

/// Checks that need neither volumes nor objects.
const WITHOUT_VOLUMES: [(&str, &str); 2] = [("info", "health"), ("info", "commands")];

/// Puts a backend through every check of the plan. `progress` hears of each as it ends.
///
/// Needs a tokio with time; with several threads, more of what is concurrent runs in parallel.
pub async fn run(
    opener: &dyn Reopen,
    plan: Plan,
    progress: &mut (dyn FnMut(&CheckResult) + Send),
) -> Report {
    let mut report = Report { fencing: "unknown", ..Report::default() };
    let started = Instant::now();
    let session = match begin(opener, &plan).await {
        Ok(session) => session,
        Err(stop) => {
            let result = CheckResult {
                area: "setup",
                name: "begin",
                promise: "A backend opens, and a volume of the plan can be created and attached, if it has volumes.",
                outcome: outcome(stop),
                millis: started.elapsed().as_millis() as u64,
                needs: Abilities::NONE,
            };
            progress(&result);
            report.checks.push(result);
            return report;
        }
    };
    report.fencing = session.caps.fencing.name();
    report.claimed = session.caps.abilities.names().collect();
    for check in CHECKS.iter().filter(|check| plan.wants(check.area, check.name)) {
        let result = one(&session, check).await;
        progress(&result);
        report.checks.push(result);
    }
    report.conclude();
    report
}

fn outcome(stop: Stop) -> Outcome {
    match stop {
        Stop::Failed(reason) => Outcome::Failed(reason),
        Stop::NotClaimed(reason) => Outcome::NotClaimed(reason),
    }
}

async fn one(session: &Session<'_>, check: &Check) -> CheckResult {
    let started = Instant::now();
    let claimed = session.caps.abilities;
    let missing = check.needs.without(claimed);
    let of_volumes = !check.needs.has(Abilities::OBJECTS)
        && !WITHOUT_VOLUMES.contains(&(check.area, check.name));
    let outcome = if of_volumes && !claimed.has_volumes() {
        Outcome::NotClaimed("volumes".to_owned())
    } else if missing == Abilities::NONE {
        let case = Case::new(session, &format!("{}-{}", check.area, check.name));
        let ended = (check.run)(&case).await;
        let removed = remove_all(&case).await;
        // What went wrong first explains what was left behind.
        match ended.and(removed) {
            Ok(()) => Outcome::Passed,
            Err(stop) => outcome(stop),
        }
    } else {
        Outcome::NotClaimed(missing.names().collect::<Vec<_>>().join(", "))
    };
    CheckResult {
        area: check.area,
        name: check.name,
        promise: check.promise,
        outcome,
        millis: started.elapsed().as_millis() as u64,
        needs: check.needs,
    }
}

/// Opens the backend and learns from a first volume what volumes of this plan can do.
async fn begin<'a>(opener: &'a dyn Reopen, plan: &'a Plan) -> Checked<Session<'a>> {
    ensure(plan.volume_size >= 4 << 20, || "the plan's volume_size is under 4 MiB".to_owned())?;
    ensure(!plan.prefix.is_empty(), || "the plan's prefix is empty".to_owned())?;
    if let Some(only) = plan.only.iter().find(|only| !is_known(only)) {
        return broken(format!("the plan asks for `{only}`, which is neither an area nor a check"));
    }
    let Ok(opened) = tokio::time::timeout(plan.deadline, opener.reopen()).await else {
        return broken(format!("`open` did not answer within {:?}", plan.deadline));
    };
    let backend = success("open", opened)?;
    let caps = success("capabilities", backend.capabilities())?;
    let mut session = with_backend(opener, plan, backend, caps);
    let case = Case::new(&session, "begin");
    if caps.has(Abilities::OBJECTS)
        && let Some(bucket) = left_over(&case).await?.first()
    {
        return broken(format!(
            "there is a bucket {bucket}, of an earlier run or somebody's own: delete it, or choose another prefix"
        ));
    }
    if !caps.abilities.has_volumes() {
        return Ok(session);
    }
    if let Some(volume) = case.list().await?.first() {
        return broken(format!(
            "there is a volume {}, of an earlier run or somebody's own: delete it, or choose another prefix",
            volume.name
        ));
    }
    let probed = probe(&case).await;
    let removed = remove_all(&case).await;
    let own = probed?;
    removed?;
    session.caps = Capabilities {
        abilities: own.abilities.without(OF_THE_BACKEND)
            | Abilities::from_bits(caps.abilities.bits() & OF_THE_BACKEND.bits()),
        ..own
    };
    Ok(session)
}

fn is_known(only: &str) -> bool {
    let alone = Plan { only: vec![only.to_owned()], ..Plan::default() };
    CHECKS.iter().any(|check| alone.wants(check.area, check.name))
}

fn with_backend<'a>(
    opener: &'a dyn Reopen,
    plan: &'a Plan,
    backend: BackendHandle,
    caps: Capabilities,
) -> Session<'a> {
    // Above the epochs of every earlier run, which a backend may remember by name.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = AtomicU64::new(now.as_millis() as u64);
    Session { plan, opener, backend: Mutex::new(backend), caps, epoch }
}

async fn probe(case: &Case<'_>) -> Checked<Capabilities> {
    if !case.has(Abilities::WRITE) {
        // The first one that is made tells what a driver without a claim to writing has at all.
        let made = case.try_create(&case.name("first"), case.plan.volume_size).await?;
        if made.is_err_and(|error| error.kind() == ErrorKind::UNSUPPORTED) {
            return broken(
                "the driver makes no volumes, and claims no objects: there is nothing to check",
            );
        }
    }
    let vol = case.fresh("probe").await?;
    let block = vol.caps.min_block;
    ensure(block.is_power_of_two() && block <= 4096, || {
        format!("min_block is {block}: not a power of two up to 4 KiB")
    })?;
    ensure(case.plan.volume_size.is_multiple_of(vol.sector()), || {
        format!("the plan's volume_size is no multiple of {} bytes", vol.sector())
    })?;
    ensure(vol.caps.max_io >= 64 << 10, || {
        format!("max_io is {}: less than 64 KiB", vol.caps.max_io)
    })?;
    vol.detach().await?;
    Ok(vol.caps)
}
