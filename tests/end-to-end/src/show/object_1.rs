// SPDX-License-Identifier: Apache-2.0
//! The test suite of the crate `object_store`, function by function: on our Swift, and on S3, Azure and Google Cloud Storage as
//! the driver configures them. What a server lacks by nature is named here; a lack that is none any more is told, too.

use std::{collections::BTreeMap, fs, thread};

use serde_json::json;

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    objects::{Front, Objects, STORES, Store, chosen},
    program::Program,
};

const SHORT: [Store; 5] = [Store::Swift, Store::Moto, Store::Radosgw, Store::Azurite, Store::Gcs];

/// A bucket for the suite alone: some stores are two ways to one account.
fn bucket(store: Store) -> String {
    format!("novastor-suite-{}", store.name())
}

/// What a server lacks, whoever asks it.
struct Lack {
    store: Store,
    function: &'static str,
    why: &'static str,
}

const fn lack(store: Store, function: &'static str, why: &'static str) -> Lack {
    Lack { store, function, why }
}

const NO_UPDATES: &str = "Swift ignores If-Match on PUT: an update cannot be conditional";
const NO_COPY_ONCE: &str =
    "copies of S3 have no condition on their target: object_store refuses them";
const QUOTES: &str = "radosgw 16 takes If-Match on PUT only without quotes around the ETag; object_store has them, as the standard wants";
const DASHES: &str = "the server tells dashes for underscores in names of metadata";
const NO_CREATION: &str =
    "Swift of radosgw overwrites what it is asked to create: the driver refuses it";
const SHORT_PAGES: &str = "Swift of radosgw ends pages early without a word: another is asked for";
const NO_OPTIONS: &str = "object_store's client of Azure takes nothing that is to be said of an object that is written in parts";

/// All that is known.
const LACKS: &[Lack] = &[
    lack(Store::Swift, "put_opts, update", NO_UPDATES),
    lack(Store::Keystone, "put_opts, update", NO_UPDATES),
    lack(Store::RadosgwSwift, "put_opts, update", NO_UPDATES),
    lack(Store::SwiftS3, "put_opts", NO_UPDATES),
    lack(Store::SwiftS3, "multipart_with_opts", DASHES),
    lack(Store::SwiftS3, "put_get_attributes", DASHES),
    lack(Store::RadosgwSwift, "put_opts", NO_CREATION),
    lack(Store::RadosgwSwift, "copy_if_not_exists", NO_CREATION),
    lack(Store::RadosgwSwift, "list_paginated", SHORT_PAGES),
    lack(Store::Radosgw, "copy_if_not_exists", NO_COPY_ONCE),
    lack(Store::Radosgw, "put_opts", QUOTES),
    lack(Store::Radosgw, "multipart_with_opts", DASHES),
    lack(Store::Radosgw, "put_get_attributes", DASHES),
    lack(Store::Azurite, "multipart_with_opts", NO_OPTIONS),
];

/// What came of the functions on a server: the reason of each that failed.
type Column = BTreeMap<String, Option<String>>;

pub(super) fn play(stage: &Stage) -> Outcome {
    let stores = chosen(if stage.is_long() { &STORES } else { &SHORT })?;
    let objects = Objects::start(&stage.path("servers"), &stores)?;
    stage.tell(format!("{} stores answer", stores.len()));
    let backends: Vec<_> = stores.iter().map(|store| crate::objects::Backend::of(*store)).collect();
    // The suite wants a bucket of its own, which no crate makes that knows objects only.
    let mut host = objects.host(&stage.artifacts, &backends)?;
    for store in &stores {
        let front = Front::new(host.cli(), store.name(), &stage.path("state"));
        let bucket = bucket(*store);
        front.run(&["bucket", "create", &bucket]).context(store.name())?;
        if *store == Store::Gcs {
            // What names its versions without being asked is asked for old ones.
            front.run(&["bucket", "versioning", &bucket, "on"]).context(store.name())?;
        }
    }
    host.stop()?;
    let columns: Vec<Outcome<Column>> = thread::scope(|scope| {
        let objects = &objects;
        let begin = |store: &Store| {
            let store = *store;
            scope.spawn(move || column(stage, objects, store).context(store.name()))
        };
        let running: Vec<_> = stores.iter().map(begin).collect();
        let panicked = |_| Err(Failure::new("a suite panicked"));
        running.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
    });
    let columns: Outcome<Vec<_>> = columns.into_iter().collect();
    let columns = columns?;
    stage.tell_all(&table(&stores, &columns));
    let wrong: Vec<_> =
        stores.iter().zip(&columns).flat_map(|(store, column)| judge(*store, column)).collect();
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

/// Plays the suite on a server.
fn column(stage: &Stage, objects: &Objects, store: Store) -> Outcome<Column> {
    let ask = json!({ "bucket": bucket(store), "options": objects.plain_options(store)? });
    let file = stage.path(&format!("suite-{}.json", store.name()));
    fs::write(&file, ask.to_string()).context(file.display())?;
    let said = Program::new(stage.artifacts.object_suite()?).arg(&file).limit_secs(900).run()?;
    read(&said.stdout)
}

/// Reads what the suite says: a line a function, and why it failed if it did.
fn read(said: &str) -> Outcome<Column> {
    let mut column = Column::new();
    for line in said.lines() {
        let mut words = line.splitn(3, '\t');
        let (name, verdict) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let why = words.next().map(ToOwned::to_owned);
        match verdict {
            "passed" => column.insert(name.to_owned(), None),
            "failed" => column.insert(name.to_owned(), Some(why.unwrap_or_default())),
            _ => return Err(Failure::new(format!("the suite said {line:?}"))),
        };
    }
    ensure(column.len() >= 15, || format!("the suite has only {} functions", column.len()))?;
    Ok(column)
}

fn known(store: Store, function: &str) -> Option<&'static Lack> {
    LACKS.iter().find(|lack| lack.store == store && lack.function == function)
}

/// What is not as it should be.
fn judge(store: Store, column: &Column) -> Vec<String> {
    let say = |(function, why): (&String, &Option<String>)| match (why, known(store, function)) {
        (None, None) | (Some(_), Some(_)) => None,
        (Some(why), None) => Some(format!("{}: {function} failed: {why}", store.name())),
        (None, Some(lack)) => Some(format!(
            "{}: {function} passes, but should not ({}): strike it from the list of lacks",
            store.name(),
            lack.why
        )),
    };
    let unplayed = LACKS.iter().filter(|lack| lack.store == store);
    let unplayed = unplayed.filter(|lack| !column.contains_key(lack.function));
    let unplayed =
        unplayed.map(|lack| format!("{}: {} was not played", store.name(), lack.function));
    column.iter().filter_map(say).chain(unplayed).collect()
}

/// One line a function, one column a server, and what the servers lack.
fn table(stores: &[Store], columns: &[Column]) -> String {
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>13}")).collect();
        format!("{name:<34}{cells}\n")
    };
    let names: Vec<_> = stores.iter().map(|store| store.name().to_owned()).collect();
    let mut text = line("function", &names);
    let functions: std::collections::BTreeSet<_> =
        columns.iter().flat_map(BTreeMap::keys).collect();
    for function in functions {
        let cell = |(store, column): (&Store, &Column)| {
            let word = match (column.get(function), known(*store, function)) {
                (None, _) => "-",
                (Some(None), _) => "passed",
                (Some(Some(_)), Some(_)) => "lacks",
                (Some(Some(_)), None) => "FAILED",
            };
            word.to_owned()
        };
        let cells: Vec<_> = stores.iter().zip(columns).map(cell).collect();
        text += &line(function, &cells);
    }
    for lack in LACKS.iter().filter(|lack| stores.contains(&lack.store)) {
        text += &format!("{}: {}: {}\n", lack.store.name(), lack.function, lack.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Column, judge, read, table};
    use crate::objects::Store;

    fn column(put_opts: Option<&str>, other: Option<&str>) -> Column {
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        [("put_opts, update".to_owned(), own(put_opts)), ("other".to_owned(), own(other))].into()
    }

    #[test]
    fn a_lack_that_is_known_is_none_of_ours_and_one_that_is_gone_is_told() {
        assert!(judge(Store::Swift, &column(Some("x"), None)).is_empty());
        assert_eq!(judge(Store::Swift, &column(Some("x"), Some("y"))).len(), 1);
        assert!(judge(Store::Swift, &column(None, None))[0].contains("strike it"));
        assert!(
            judge(Store::Azurite, &column(Some("x"), None))[0]
                .contains("put_opts, update failed: x")
        );
        assert!(judge(Store::Swift, &Column::new())[0].contains("was not played"));
    }

    #[test]
    fn the_servers_stand_beside_each_other() {
        let columns = [column(Some("x"), None), column(None, Some("y"))];
        let text = table(&[Store::Swift, Store::Azurite], &columns);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("other ") && lines[1].ends_with("FAILED"), "{text}");
        assert!(lines[2].contains(" lacks ") && lines[2].ends_with("passed"), "{text}");
        assert!(lines[3].starts_with("swift: put_opts, update: Swift ignores"), "{text}");
    }

    #[test]
    fn the_suite_says_enough() {
        let passed: String = (0..15).map(|number| format!("f{number}\tpassed\n")).collect();
        let column = read(&format!("{passed}g\tfailed\tone\ttwo\n")).unwrap();
        assert_eq!(column["g"].as_deref(), Some("one\ttwo"));
        assert!(read("f\tpassed\n").is_err());
        assert!(read(&format!("{passed}nonsense\n")).is_err());
    }
}
