// SPDX-License-Identifier: Apache-2.0
//! Each check of objects can fail: a store that breaks one promise is caught by the check that asks for it.

/// The driver of tests, in this process.
#[path = "../../drivers/objects/src/lib.rs"]
mod test_objects;

use std::{collections::BTreeSet, sync::Arc};

use conformance::{Outcome, Plan, Report, run};
use driver_api::{Abilities, BackendHandle, OpContext, ext::BucketSpec};

/// Every defect, the check that must catch it, and a word of the reason it must give.
const CAUGHT: &[(&str, &str, &str)] = &[
    ("deletes-full-buckets", "objects/buckets", "succeeded"),
    ("one-etag", "objects/whole", "ETags"),
    ("forgets-metadata", "objects/metadata", "came back as"),
    ("keys-lowered", "objects/keys", "listed as"),
    ("range-off", "objects/ranges", "gave others"),
    ("stream-off", "objects/streams", "other bytes"),
    ("stream-repeats", "objects/streams", "other bytes"),
    ("create-over", "objects/create-only", "succeeded"),
    ("forgets-marks", "objects/create-only", "the repeated put"),
    ("update-over", "objects/update", "succeeded"),
    ("create-over", "objects/race", "succeeded"),
    ("page-skips", "objects/listing", "listed as"),
    ("bulk-forgets", "objects/deletion", "without a and b"),
    ("copy-forgets", "objects/copies", "the copy's head"),
    ("forgets-tags", "objects/tags", "tags are"),
    ("signs-for-ever", "objects/signed", "no end"),
    ("parts-by-arrival", "uploads/parts", "other bytes"),
    ("abort-keeps", "uploads/given-up", "after it was given up"),
    ("complete-over", "uploads/conditions", "succeeded"),
];

fn ask(backend: &BackendHandle, only: &[&str]) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let backend = Arc::new(backend.clone());
    let opener = move || {
        let backend = Arc::clone(&backend);
        async move { Ok(BackendHandle::clone(&backend)) }
    };
    let only = only.iter().map(|name| (*name).to_owned()).collect();
    let plan = Plan { only, ..Plan::default() };
    runtime.block_on(run(&opener, plan, &mut |_| ()))
}

fn failures(report: &Report) -> Vec<String> {
    let failed = report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_)));
    failed.map(ToString::to_string).collect()
}

fn of_objects() -> impl Iterator<Item = conformance::Described> {
    conformance::all().filter(|check| check.needs.has(Abilities::OBJECTS))
}

#[test]
fn an_honest_store_passes_and_is_asked_for_no_volumes() {
    let backend = test_objects::open("");
    let report = ask(&backend, &[]);
    assert_eq!(failures(&report), Vec::<String>::new());
    // Health and commands are the backend's own.
    let asked = of_objects().count() + 2;
    assert_eq!(report.passed(), asked, "{report}");
    assert_eq!(report.shown, report.claimed);
    assert!(report.claimed.contains(&"objects") && report.shown.contains(&"objects"), "{report}");
    let rest = report.checks.iter().filter(|check| check.outcome != Outcome::Passed);
    let told = rest.filter(|check| check.outcome == Outcome::NotClaimed("volumes".to_owned()));
    assert_eq!(told.count(), conformance::all().count() - asked);
    assert_eq!(failures(&ask(&backend, &[])), Vec::<String>::new(), "nothing was left behind");
}

#[test]
fn every_defect_is_caught_by_its_check_and_every_check_by_a_defect() {
    let mut uncaught = Vec::new();
    for (defect, check, word) in CAUGHT {
        let said = failures(&ask(&test_objects::open(defect), &[check])).join("\n");
        if !said.contains(check) || !said.contains(word) {
            uncaught.push(format!("{defect} by {check}: {said:?}"));
        }
    }
    assert!(uncaught.is_empty(), "not caught:\n{}", uncaught.join("\n"));
    let caught: BTreeSet<&str> = CAUGHT.iter().map(|row| row.1).collect();
    let all = of_objects().map(|check| format!("{}/{}", check.area, check.name));
    let never: Vec<_> = all.filter(|name| !caught.contains(name.as_str())).collect();
    assert!(never.is_empty(), "no defect shows that these can fail: {never:?}");
}

#[test]
fn a_bucket_of_an_earlier_run_stops_the_check() {
    let backend = test_objects::open("");
    let objects = backend.objects().expect("an answer").expect("the ability");
    let left = BucketSpec::new("conformance-left");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let making = async { objects.create_bucket(&OpContext::new(), left).await };
    runtime.block_on(making).expect("a bucket");
    let report = ask(&backend, &[]);
    assert_eq!(report.checks.len(), 1);
    assert!(failures(&report)[0].contains("conformance-left"), "{report}");
}
