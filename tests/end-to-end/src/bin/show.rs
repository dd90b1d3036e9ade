// SPDX-License-Identifier: Apache-2.0
//! `tests/show`: lists the scenes, or plays them.

use std::process::ExitCode;

use end_to_end::{
    failure::{Failure, Outcome},
    show::{self, Form, SHOWS, TOTAL_BUDGET_SECS},
};

const USAGE: &str = "\
tests/show                   lists what every release must show
tests/show NAME... [--long]  plays scenes, in their short form unless --long
tests/show --all [--long]    plays all of them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match answer(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tests/show: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: &[String]) -> Outcome {
    let is_option = |argument: &&String| argument.starts_with('-');
    let (options, names): (Vec<_>, Vec<_>) = arguments.iter().partition(is_option);
    let form =
        if options.iter().any(|option| *option == "--long") { Form::Long } else { Form::Short };
    if let Some(unknown) =
        options.iter().find(|option| !["--long", "--all"].contains(&option.as_str()))
    {
        return Err(Failure::new(format!("no option is called {unknown}\n{USAGE}")));
    }
    if options.iter().any(|option| *option == "--all") {
        // The clone's own test run would clone again.
        let nested = std::env::var_os("NOVASTOR_SHOW_NESTED").is_some();
        return show::run_all(form, if nested { &["house-1"] } else { &[] });
    }
    if names.is_empty() {
        list();
    }
    names.into_iter().try_for_each(|name| show::run(name, form))
}

fn list() {
    println!("{USAGE}\n\n{:<10} {:>6}  shows", "name", "secs");
    for show in SHOWS {
        println!("{:<10} {:>6}  {}", show.name, show.budget_secs, show.title);
    }
    println!("{:<10} {:>6}  all short forms together", "--all", TOTAL_BUDGET_SECS);
}
