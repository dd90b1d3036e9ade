// SPDX-License-Identifier: Apache-2.0
//! Plays scenes, some of them at the same time, and keeps the time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{Audience, Form, SHOWS, Show, Stage, TOTAL_BUDGET_SECS};
use crate::{
    failure::{Failure, Outcome, ensure},
    lanes::{self, Job, Plan},
};

/// How many scenes play at a time. Long forms measure more than short ones, and have less time to spare.
const fn lanes(form: Form) -> usize {
    match form {
        Form::Short => 3,
        Form::Long => 1,
    }
}

/// One line of the table at the end.
struct Played {
    name: &'static str,
    secs: f64,
    budget_secs: u64,
    passed: bool,
}

fn play(show: &Show, form: Form, audience: &Audience) -> Played {
    audience.tell(format_args!("{}: {}", show.name, show.title));
    let since = Instant::now();
    let outcome = Stage::new(form, audience.clone()).and_then(|stage| (show.play)(&stage));
    let secs = since.elapsed().as_secs_f64();
    match &outcome {
        Ok(()) => audience.tell(format_args!("  {secs:>6.1} s  shown\n")),
        Err(failure) => audience.tell(format_args!("  {secs:>6.1} s  FAILED: {failure}\n")),
    }
    Played { name: show.name, secs, budget_secs: show.budget_secs, passed: outcome.is_ok() }
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
    let played = play(show, form, &Audience::Here);
    ensure(played.passed, || format!("{name} failed"))
}

/// Plays all scenes but the `skipped` ones, short forms that bear it beside each other, then prints how long each took. What
/// such a scene tells is printed when it has ended.
///
/// # Errors
/// When one fails, or all short forms together take longer than their budget.
pub fn run_all(form: Form, skipped: &[&str]) -> Outcome {
    let shows: Vec<&Show> = SHOWS.iter().filter(|show| !skipped.contains(&show.name)).collect();
    let since = Instant::now();
    let played = play_all(&shows, form);
    let secs = since.elapsed().as_secs_f64();
    print!("{}", table(&played, secs, form));
    let failed: Vec<_> =
        played.iter().filter(|played| !played.passed).map(|played| played.name).collect();
    ensure(failed.is_empty(), || format!("failed: {}", failed.join(", ")))?;
    ensure(form == Form::Long || secs <= budget(), || {
        "the scenes take longer than their budget".to_owned()
    })
}

/// Plays them in lanes; their results are in their own order.
fn play_all(shows: &[&Show], form: Form) -> Vec<Played> {
    let job = |show: &&Show| Job { manner: show.manner, secs: show.budget_secs };
    let plan = Plan::new(lanes(form), &shows.iter().map(job).collect::<Vec<_>>());
    let texts: Vec<Arc<Mutex<String>>> = shows.iter().map(|_| Arc::default()).collect();
    // Who is alone can be watched.
    let is_alone = |show: &Show| lanes(form) == 1 || show.manner == lanes::Manner::Measures;
    let mut played: Vec<Option<Played>> = shows.iter().map(|_| None).collect();
    let begin = |index: usize| {
        let audience = match is_alone(shows[index]) {
            true => Audience::Here,
            false => Audience::Later(texts[index].clone()),
        };
        play(shows[index], form, &audience)
    };
    let since = Instant::now();
    lanes::run(plan, begin, |index, result| {
        print!("{}", texts[index].lock().unwrap_or_else(PoisonError::into_inner));
        let show = shows[index];
        played[index] = Some(result.unwrap_or_else(|_| {
            println!("{}  FAILED: it panicked\n", show.name);
            let secs = since.elapsed().as_secs_f64();
            Played { name: show.name, secs, budget_secs: show.budget_secs, passed: false }
        }));
    });
    played.into_iter().flatten().collect()
}

/// A fraction of a second is no reason to fail.
fn budget() -> f64 {
    f64::from(u32::try_from(TOTAL_BUDGET_SECS).unwrap_or(u32::MAX))
}

fn table(played: &[Played], total: f64, form: Form) -> String {
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
    use super::{Audience, Form, Played, Show, TOTAL_BUDGET_SECS, play, play_all, run, table};
    use crate::{
        failure::{Failure, Outcome},
        lanes::Manner,
    };

    fn played(secs: f64, passed: bool) -> Played {
        Played { name: "house-9", secs, budget_secs: 10, passed }
    }

    fn show(name: &'static str, manner: Manner, play: fn(&super::Stage) -> Outcome) -> Show {
        Show { name, title: "A scene.", manner, budget_secs: 10, play }
    }

    #[test]
    fn the_table_tells_failure_and_overrun() {
        let last = |played: &[Played], secs: f64| {
            table(played, secs, Form::Short).lines().last().unwrap_or_default().to_owned()
        };
        assert!(last(&[played(9.0, true)], 9.0).ends_with("  shown"));
        assert!(
            table(&[played(11.0, true)], 11.0, Form::Short)
                .contains("house-9          11.0       10  shown, over its budget")
        );
        assert!(!table(&[played(11.0, true)], 11.0, Form::Long).contains("over"));
        assert!(last(&[played(9.0, true), played(9.0, false)], 9.0).ends_with("FAILED"));
        let long = f64::from(u32::try_from(TOTAL_BUDGET_SECS).unwrap()) + 1.0;
        assert!(last(&[played(9.0, true)], long).ends_with("OVER BUDGET"));
    }

    #[test]
    fn an_unknown_scene_is_refused() {
        assert!(run("house-0", Form::Short).unwrap_err().to_string().contains("house-0"));
    }

    #[test]
    fn a_scene_that_fails_or_panics_fails_alone_and_results_keep_their_order() {
        let shows = [
            show("measures", Manner::Measures, |_| Ok(())),
            show("panics", Manner::Waits, |_| panic!("as it should")),
            show("fails", Manner::Computes, |_| Err(Failure::new("no"))),
            show("waits", Manner::Waits, |_| Ok(())),
        ];
        for form in [Form::Short, Form::Long] {
            let played = play_all(&shows.iter().collect::<Vec<_>>(), form);
            let verdicts: Vec<_> = played.iter().map(|one| (one.name, one.passed)).collect();
            let expected =
                [("measures", true), ("panics", false), ("fails", false), ("waits", true)];
            assert_eq!(verdicts, expected, "{form:?}");
        }
    }

    #[test]
    fn what_is_told_later_is_complete() {
        let told = std::sync::Arc::default();
        let scene = show("house-9", Manner::Waits, |stage| {
            stage.tell("something");
            stage.tell_all("a table\nof two lines\n");
            Err(Failure::new("it broke"))
        });
        assert!(!play(&scene, Form::Short, &Audience::Later(std::sync::Arc::clone(&told))).passed);
        let told = told.lock().unwrap();
        let lines: Vec<_> = told.lines().map(|line| line.get(12..).unwrap_or(line)).collect();
        assert_eq!(lines.len(), 6, "{told}");
        assert!(lines[1].ends_with("something") && told.contains("a table\nof two lines\n"));
        assert!(lines[4].ends_with("FAILED: it broke"));
    }
}
