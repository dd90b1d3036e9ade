// SPDX-License-Identifier: Apache-2.0
//! What a backend and its volumes say of themselves.

use driver_api::{ErrorKind, HealthState, MetricKind, Stats, Usage};

use crate::{
    case::Case,
    volume::{Checked, broken, ensure, not_claimed, refusal, success},
};

fn is_name(name: &str, colons: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(allowed)
}

fn well_formed(whose: &str, stats: &Stats) -> Checked {
    let mut seen = Vec::new();
    for metric in &stats.metrics {
        let name = metric.name.as_str();
        ensure(is_name(name, true), || format!("{whose} has a figure named {name:?}"))?;
        ensure(metric.value.is_finite(), || format!("{whose}'s {name} is {}", metric.value))?;
        for label in &metric.labels {
            let fits = is_name(&label.0, false) && !label.0.starts_with("__");
            ensure(fits, || format!("{whose}'s {name} has a label named {:?}", label.0))?;
        }
        let identity = (name, &metric.labels);
        ensure(!seen.contains(&identity), || format!("{whose} has {name} twice"))?;
        seen.push(identity);
    }
    Ok(())
}

fn never_falls(whose: &str, before: &Stats, after: &Stats) -> Checked {
    for old in before.metrics.iter().filter(|metric| metric.kind == MetricKind::COUNTER) {
        let same = |new: &&driver_api::Metric| new.name == old.name && new.labels == old.labels;
        let Some(new) = after.metrics.iter().find(same) else {
            continue;
        };
        ensure(new.value >= old.value && old.value >= 0.0, || {
            format!("{whose}'s counter {} went from {} to {}", old.name, old.value, new.value)
        })?;
    }
    Ok(())
}

pub(super) async fn stats(case: &Case<'_>) -> Checked {
    let backend = case.backend();
    let vol = case.fresh("v").await?;
    let data = case.random().bytes(64 << 10);
    let mut earlier = (success("stats", backend.stats())?, success("stats", vol.handle.stats())?);
    for round in 0..8 {
        vol.write_whole(round << 17, &data).await?;
        vol.expect(round << 17, &data, "while figures are taken").await?;
        vol.flush().await?;
        let now = (success("stats", backend.stats())?, success("stats", vol.handle.stats())?);
        well_formed("the backend", &now.0)?;
        well_formed("the volume", &now.1)?;
        never_falls("the backend", &earlier.0, &now.0)?;
        never_falls("the volume", &earlier.1, &now.1)?;
        earlier = now;
    }
    vol.detach().await?;
    case.delete(&vol.name).await?;
    let last = success("stats", backend.stats())?;
    well_formed("the backend", &last)?;
    never_falls("the backend", &earlier.0, &last)
}

pub(super) async fn usage(case: &Case<'_>) -> Checked {
    let usage = async || case.done("usage", case.backend().usage(&case.cx())).await;
    let before = usage().await?;
    let vol = case.fresh("v").await?;
    vol.write_whole(0, &case.random().bytes(1 << 20)).await?;
    vol.flush().await?;
    let during = usage().await?;
    if during == Usage::default() {
        return not_claimed("usage is not known");
    }
    for usage in [&before, &during] {
        let known = usage.capacity > 0;
        let fits = usage.used <= usage.capacity && usage.available <= usage.capacity;
        ensure(fits || !known, || format!("used or available exceed the capacity: {usage:?}"))?;
    }
    let grown = during.provisioned.checked_sub(before.provisioned);
    ensure(grown == Some(case.plan.volume_size), || {
        format!(
            "a volume of {} bytes took provisioned from {} to {}",
            case.plan.volume_size, before.provisioned, during.provisioned
        )
    })?;
    vol.detach().await?;
    case.delete(&vol.name).await?;
    let after = usage().await?;
    ensure(after.provisioned == before.provisioned, || {
        format!("{} bytes stay provisioned for a deleted volume", after.provisioned)
    })
}

pub(super) async fn health(case: &Case<'_>) -> Checked {
    let health = case.done("health", case.backend().health(&case.cx())).await?;
    match (health.state, health.reason.is_empty()) {
        (HealthState::HEALTHY, true) | (HealthState::DEGRADED, false) => Ok(()),
        (state, _) => {
            broken(format!("a serving backend is {}, for {:?}", state.name(), health.reason))
        }
    }
}

pub(super) async fn commands(case: &Case<'_>) -> Checked {
    let Some(commands) = success("commands", case.backend().commands())? else {
        return broken("commands are claimed, but there is no accessor");
    };
    let list = success("list of commands", commands.list())?;
    ensure(!list.is_empty(), || "commands are claimed, but none is listed".to_owned())?;
    for command in &list {
        ensure(!command.name.is_empty() && !command.help.is_empty(), || {
            format!("a command lacks name or help: {command:?}")
        })?;
        let json = command.example.is_empty()
            || serde_json::from_str::<serde_json::Value>(&command.example).is_ok();
        ensure(json, || format!("{}'s example is not JSON: {}", command.name, command.example))?;
        let times = list.iter().filter(|other| other.name == command.name).count();
        ensure(times == 1, || format!("{} is listed {times} times", command.name))?;
    }
    let op = commands.run(&case.cx(), "no-such-command-of-any-driver", "{}");
    let answer = case.answer("command", op).await?;
    refusal("an unknown command", answer, &[ErrorKind::UNSUPPORTED]).map(|_| ())
}

pub(super) async fn incarnation(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let first = success("incarnation", vol.handle.incarnation())?;
    for at in 0..8 {
        vol.write(at << 17, &case.random().bytes(vol.sector())).await?;
        vol.flush().await?;
        let now = success("incarnation", vol.handle.incarnation())?;
        ensure(now == first, || format!("the incarnation went from {first} to {now}"))?;
    }
    Ok(())
}
