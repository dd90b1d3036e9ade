// SPDX-License-Identifier: Apache-2.0
//! Plays scenes and keeps the time.

use std::time::Instant;

use super::{Form, SHOWS, Show, Stage, TOTAL_BUDGET_SECS};
use crate::failure::{Failure, Outcome, ensure};

/// One line of the table at the end.
struct Played {
    name: &'static str,
    secs: f64,
    budget_secs: u64,
    passed: bool,
}

fn play(show: &Show, form: Form) -> (Played, Outcome) {
    println!("{}: {}", show.name, show.title);
    let since = Instant::now();
    let outcome = Stage::new(form).and_then(|stage| (show.play)(&stage));
    let secs = since.elapsed().as_secs_f64();
    match &outcome {
        Ok(()) => println!("  {secs:>6.1} s  shown\n"),
        Err(failure) => println!("  {secs:>6.1} s  FAILED: {failure}\n"),
    }
    let played =
        Played { name: show.name, secs, budget_secs: show.budget_secs, passed: outcome.is_ok() };
    (played, outcome)
}

/// Plays the scene of this name.
///
/// # Errors
/// When there is none, or it fails.
pub fn run(name: &str, form: Form) -> Outcome {
    let show = SHOWS.iter().find(|show| show.name == name);
    let show = show.ok_or_else(|| {
        Failure::new(format!("no scene is called {name:?}: tests/show lists them"))
    })?;
    play(show, form).1.map_err(|_| Failure::new(format!("{name} failed")))
}

/// Plays all scenes but the `skipped` ones, then prints how long each took.
///
/// # Errors
/// When one fails, or all short forms together take longer than their budget.
pub fn run_all(form: Form, skipped: &[&str]) -> Outcome {
    let shows = SHOWS.iter().filter(|show| !skipped.contains(&show.name));
    let played: Vec<_> = shows.map(|show| play(show, form).0).collect();
    print!("{}", table(&played, form));
    let failed: Vec<_> =
        played.iter().filter(|played| !played.passed).map(|played| played.name).collect();
    ensure(failed.is_empty(), || format!("failed: {}", failed.join(", ")))?;
    ensure(form == Form::Long || total(&played) <= budget(), || {
        "the scenes take longer than their budget".to_owned()
    })
}

fn total(played: &[Played]) -> f64 {
    played.iter().map(|played| played.secs).sum()
}

/// A fraction of a second is no reason to fail.
fn budget() -> f64 {
    f64::from(u32::try_from(TOTAL_BUDGET_SECS).unwrap_or(u32::MAX))
}

fn table(played: &[Played], form: Form) -> String {
    let mut text = format!("{:<12} {:>8} {:>8}  verdict\n", "scene", "seconds", "budget");
    for Played { name, secs, budget_secs, passed } in played {
        let slow = form == Form::Short
            && secs.ceil() > f64::from(u32::try_from(*budget_secs).unwrap_or(u32::MAX));
        let verdict = match (passed, slow) {
            (false, _) => "FAILED",
            (true, true) => "shown, over its budget",
            (true, false) => "shown",
        };
        let budget = if form == Form::Short { budget_secs.to_string() } else { "-".to_owned() };
        text += &format!("{name:<12} {secs:>8.1} {budget:>8}  {verdict}\n");
    }
    let total = total(played);
    let verdict = match (
        played.iter().all(|played| played.passed),
        form == Form::Short && total > budget(),
    ) {
        (false, _) => "FAILED",
        (true, true) => "OVER BUDGET",
        (true, false) => "shown",
    };
    let budget = if form == Form::Short { TOTAL_BUDGET_SECS.to_string() } else { "-".to_owned() };
    text + &format!("{:<12} {total:>8.1} {budget:>8}  {verdict}\n", "all")
}

#[cfg(test)]
mod tests {
    use super::{Form, Played, TOTAL_BUDGET_SECS, run, table};

    fn played(secs: f64, passed: bool) -> Played {
        Played { name: "house-9", secs, budget_secs: 10, passed }
    }

    #[test]
    fn the_table_tells_failure_and_overrun() {
        let last = |played: &[Played]| {
            table(played, Form::Short).lines().last().unwrap_or_default().to_owned()
        };
        assert!(last(&[played(9.0, true)]).ends_with("  shown"));
        assert!(
            table(&[played(11.0, true)], Form::Short)
                .contains("house-9          11.0       10  shown, over its budget")
        );
        assert!(!table(&[played(11.0, true)], Form::Long).contains("over"));
        assert!(last(&[played(9.0, true), played(9.0, false)]).ends_with("FAILED"));
        let long = f64::from(u32::try_from(TOTAL_BUDGET_SECS).unwrap()) + 1.0;
        assert!(last(&[played(long, true)]).ends_with("OVER BUDGET"));
    }

    #[test]
    fn an_unknown_scene_is_refused() {
        assert!(run("house-0", Form::Short).unwrap_err().to_string().contains("house-0"));
    }
}
