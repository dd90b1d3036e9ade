// SPDX-License-Identifier: Apache-2.0
//! Each check can fail: a reference that breaks one promise is caught by the check that asks for it.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use conformance::{Outcome, Plan, Report, run};
use driver_api::{Abilities, Fencing};
use support::{ALL, Defect, Store, open};

/// Every defect, the check that must catch it, and a word of the reason it must give.
const CAUGHT: &[(Defect, &str, &str)] = &[
    (Defect::ListForgets, "lifecycle/create-show-list-delete", "not in the list"),
    (Defect::NamesLowered, "lifecycle/names", "came back as"),
    (Defect::CreateAgainWipes, "lifecycle/create-again", "created again"),
    (Defect::ExistsIgnored, "lifecycle/already-exists", "succeeded"),
    (Defect::WrongKind, "lifecycle/not-found", "NotFound"),
    (Defect::OptionsIgnored, "lifecycle/unknown-option", "succeeded"),
    (Defect::DeleteWhileAttached, "lifecycle/delete-in-use", "succeeded"),
    (Defect::RecreateKeepsData, "lifecycle/recreated", "deleted one's name"),
    (Defect::RenameForgetsSnapshots, "lifecycle/rename", "has the snapshots"),
    (Defect::RenameKeepsOld, "lifecycle/rename", "there are"),
    (
        Defect::RenameOverwrites,
        "lifecycle/rename-refused",
        "renaming onto another volume succeeded",
    ),
    (Defect::RenameWhileAttached, "lifecycle/rename-refused", "succeeded"),
    (Defect::SizeRounded, "lifecycle/sizes", "asked for"),
    (Defect::LargeOffsetsWrap, "lifecycle/sparse", "far place"),
    (Defect::NewNotZero, "data/new-reads-zeros", "in a new volume"),
    (Defect::ReadPanics, "data/new-reads-zeros", "`read` panicked"),
    (Defect::ShortRead, "data/alignments", "gave"),
    (Defect::HeadLost, "data/alignments", "were changed"),
    (Defect::PastEndAccepted, "data/boundaries", "OutOfRange"),
    (Defect::ZeroLengthPanics, "data/zero-length", "panicked"),
    (Defect::LargeIoTruncated, "data/max-io", "written at once"),
    (Defect::FuaDropped, "data/fua", "with FUA"),
    (Defect::StaleRead, "data/read-your-writes", "were changed"),
    (Defect::VolumesShareStorage, "data/isolation", "other volumes"),
    (Defect::ReadSharesMemory, "data/read-buffers", "changed with a later write"),
    (Defect::WriteBufferKept, "data/write-buffers", "still held"),
    (Defect::WriteBufferScribbled, "data/write-buffers", "changed a buffer"),
    (Defect::LentBufferUnfilled, "data/host-buffers", "lent buffer"),
    (Defect::LostUpdate, "data/concurrent", "sector"),
    (Defect::LostUpdate, "data/concurrent-neighbours", "concurrent writes"),
    (Defect::DetachForgets, "durability/detach", "after detach"),
    (Defect::FlushForgotten, "durability/flush", "after a flush"),
    (Defect::FlushHangs, "durability/flush", "`flush` did not answer"),
    (Defect::FlushPartial, "durability/flush-covers-all", "one flush"),
    (Defect::FuaForgotten, "durability/fua", "with FUA"),
    (Defect::ReopenForgetsVolumes, "durability/volumes", "after a restart"),
    (Defect::PrefetchClears, "data/prefetch", "after prefetches"),
    (Defect::DiscardKeepsData, "zero/discard", "were changed"),
    (Defect::DiscardTouchesNeighbour, "zero/discard", "were changed"),
    (Defect::DiscardPastEnd, "zero/discard-range", "OutOfRange"),
    (Defect::ZeroesKeepData, "zero/write-zeroes", "were changed"),
    (Defect::ZeroesPastEnd, "zero/write-zeroes-range", "OutOfRange"),
    (Defect::FastOnlyHalf, "zero/fast-only", "FAST_ONLY"),
    (Defect::FastZeroRefused, "zero/fast-zero", "failed"),
    (Defect::ExtentGap, "allocation/shape", "does not follow"),
    (Defect::ExtentLimitIgnored, "allocation/shape", "at most"),
    (Defect::ExtentLies, "allocation/truth", "called zero"),
    (Defect::NoHoleIgnored, "allocation/no-hole", "is a hole"),
    (Defect::ChangesMissed, "changes/truth", "is not told"),
    (Defect::ChangesLie, "changes/truth", "is called zero"),
    (Defect::ChangesUnlimited, "changes/truth", "at most"),
    (Defect::ChangesOfCut, "changes/resized", "is not told"),
    (Defect::ChangesPastEnd, "changes/refusals", "OutOfRange"),
    (Defect::ChangesBackwards, "changes/refusals", "backwards succeeded"),
    (Defect::GrowLeaks, "resize/grow", "grew by"),
    (Defect::GrowLosesData, "resize/grow", "after growing"),
    (Defect::ShrinkUnasked, "resize/shrink-asked", "succeeded"),
    (Defect::ShrinkKeepsTail, "resize/shrink", "cut off"),
    (Defect::ResizeLosesWrites, "resize/under-writes", "grow"),
    (Defect::SnapshotsSorted, "snapshots/list", "are listed as"),
    (Defect::SnapshotOverwritten, "snapshots/list", "succeeded"),
    (Defect::SnapshotFollows, "snapshots/fixed", "in a snapshot"),
    (Defect::RollbackKeepsSize, "snapshots/rollback", "bytes"),
    (Defect::RollbackDropsSnapshot, "snapshots/rollback", "the snapshots are"),
    (Defect::SnapshotDeleteCorrupts, "snapshots/delete", "neighbours were deleted"),
    (Defect::ProtectIgnored, "snapshots/protect", "succeeded"),
    (Defect::ProtectForgotten, "snapshots/protect", "listed as protected"),
    (Defect::ProtectedGoesWithVolume, "snapshots/protect", "with a protected snapshot succeeded"),
    (Defect::SnapshotTorn, "snapshots/one-moment", "picture"),
    (Defect::SnapshotsForgotten, "snapshots/survive", "after a restart"),
    (Defect::CloneShares, "clones/independent", "clone"),
    (Defect::CloneOfLive, "clones/of-snapshot", "clone of a snapshot"),
    (Defect::CloneTailDirty, "clones/sizes", "larger clone"),
    (Defect::CloneSmallerAccepted, "clones/sizes", "succeeded"),
    (Defect::CloneOverwrites, "clones/refusals", "succeeded"),
    (Defect::CloneTorn, "clones/one-moment", "picture"),
    (Defect::DeleteBreaksClone, "clones/dependents", "its source was to be deleted"),
    (Defect::FlattenKeepsNeed, "clones/flatten", "still needs"),
    (Defect::FlattenLosesData, "clones/flatten", "after flattening"),
    (Defect::FlattenMute, "clones/flatten-ended", "no reason"),
    (Defect::SecondAttachAllowed, "attach/exclusive", "succeeded"),
    (Defect::HolderUnnamed, "attach/exclusive", "naming the holder"),
    (Defect::ReadersRefused, "attach/readers", "further reader"),
    (Defect::ReaderBesideWriter, "attach/reader-or-writer", "succeeded"),
    (Defect::DetachKeepsLock, "attach/detach", "after a detach"),
    (Defect::DetachLeavesWrites, "attach/detach-race", "after a detach"),
    (Defect::DetachedStillWrites, "attach/after-detach", "succeeded"),
    (Defect::EpochForgotten, "attach/lower-epoch", "succeeded"),
    (Defect::ZombieWrites, "attach/take-over", "succeeded"),
    (Defect::ZombieMisnamed, "attach/take-over", "Fenced"),
    (Defect::ZombieLate, "attach/take-over-race", "after"),
    (Defect::OpensDoNotMeet, "attach/take-over-host", "succeeded"),
    (Defect::SessionReadsFlushed, "sessions/own-writes", "in the session that wrote it"),
    (Defect::SessionTokenBindsNobody, "sessions/own-writes", "with the token of who wrote it"),
    (Defect::SessionEndUndoes, "sessions/ends", "after the session that wrote it has ended"),
    (Defect::DetachForgetsTokens, "sessions/ends", "`open session` failed"),
    (Defect::SessionTokenUnread, "sessions/tokens", "succeeded"),
    (Defect::ClaimWithoutAbility, "errors/claims", "no accessor"),
    (Defect::AbilityWithoutClaim, "errors/claims", "not claimed"),
    (Defect::VolumeClaimsMore, "errors/capabilities", "its backend does not"),
    (Defect::ErrorsMute, "errors/texts", "empty message"),
    (Defect::WrongKind, "errors/texts", "internal"),
    (Defect::DroppedReadPoisons, "cancellation/reads", "left behind"),
    (Defect::DroppedWriteTears, "cancellation/writes", "whole write"),
    (Defect::StatsBadName, "info/stats", "named"),
    (Defect::CounterFalls, "info/stats", "went from"),
    (Defect::UsageOverfull, "info/usage", "exceed the capacity"),
    (Defect::ProvisionedStuck, "info/usage", "provisioned"),
    (Defect::HealthMute, "info/health", "degraded"),
    (Defect::UnknownCommandRuns, "info/commands", "succeeded"),
    (Defect::IncarnationWobbles, "info/incarnation", "incarnation"),
    (Defect::ListTruncated, "concurrency/create-many", "listed 0 times"),
    (Defect::CreateRace, "concurrency/create-same", "create"),
    (Defect::DeleteRace, "concurrency/delete-same", "deletes of one volume"),
    (Defect::AttachRace, "concurrency/attach-same", "of 16 exclusive"),
];

/// What driver-api itself refuses, before any driver's code: only a driver built without it can fail these.
const KEPT_BY_THE_GLUE: &[&str] = &["attach/read-only", "data/write-flags", "lifecycle/too-large"];

/// What the reference can be asked: those of objects are in `objects.rs`.
fn of_volumes() -> impl Iterator<Item = conformance::Described> {
    conformance::all().filter(|check| !check.needs.has(Abilities::OBJECTS))
}

fn ask(store: Store, change: impl FnOnce(&mut Plan)) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let store = Arc::new(store);
    let opener = move || {
        let store = Arc::clone(&store);
        async move { Ok(open(&store)) }
    };
    let mut plan = Plan { volume_size: 8 << 20, ..Plan::default() };
    change(&mut plan);
    runtime.block_on(run(&opener, plan, &mut |_| ()))
}

fn failures(report: &Report) -> Vec<String> {
    let failed = report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_)));
    failed.map(ToString::to_string).collect()
}

#[test]
fn a_reference_without_defect_passes_every_check() {
    let report = ask(Store::new(ALL, Fencing::EXCLUSIVE_LOCK, None), |_| ());
    assert_eq!(failures(&report), Vec::<String>::new());
    assert_eq!(report.passed(), of_volumes().count(), "{report}");
    assert_eq!(report.shown, report.claimed);
}

#[test]
fn what_is_not_claimed_is_not_asked_for() {
    let report = ask(Store::new(Abilities::WRITE, Fencing::NONE, None), |_| ());
    assert_eq!(failures(&report), Vec::<String>::new());
    assert_eq!(report.claimed, ["write"]);
    assert_eq!(report.shown, ["write"]);
    assert!(report.passed() > 30 && report.passed() < report.checks.len(), "{report}");
}

/// What the suite says of a defect, if that is not what it should.
fn missed(defect: Defect, check: &str, word: &str, seed: u64) -> Option<String> {
    let claimed = match defect {
        Defect::AbilityWithoutClaim => {
            ALL.without(Abilities::SNAPSHOT).without(Abilities::ROLLBACK)
        }
        _ => ALL,
    };
    let report = ask(Store::new(claimed, Fencing::EXCLUSIVE_LOCK, Some(defect)), |plan| {
        plan.only = vec![check.to_owned()];
        plan.seed = seed;
        if matches!(defect, Defect::FlushHangs | Defect::WriteBufferKept) {
            plan.deadline = Duration::from_millis(500);
        }
    });
    let found: Vec<_> =
        report.checks.iter().map(|check| format!("{}/{}", check.area, check.name)).collect();
    let said = failures(&report).join("\n");
    let caught = found == [check] && !said.is_empty() && said.contains(word);
    (!caught).then(|| format!("{defect:?} by {check}: {found:?} said {said:?}"))
}

#[test]
fn every_block_size_and_smaller_sets_of_abilities_are_served() {
    let few =
        ALL.without(Abilities::CLONE).without(Abilities::FLATTEN).without(Abilities::PERSISTENT);
    let readers = Abilities::WRITE.and(Abilities::SNAPSHOT).and(Abilities::SHARED_READ);
    for (min_block, max_io, abilities) in
        [(1, 1 << 20, ALL), (4096, 64 << 10, ALL), (512, 1 << 20, few), (512, 1 << 20, readers)]
    {
        let mut store = Store::new(abilities, Fencing::EPOCH_NAMESPACE, None);
        (store.min_block, store.max_io) = (min_block, max_io);
        let report = ask(store, |plan| plan.volume_size = 4 << 20);
        assert_eq!(failures(&report), Vec::<String>::new(), "with blocks of {min_block}");
        assert_eq!(report.shown, report.claimed);
    }
}

#[test]
fn every_defect_is_caught_by_its_check() {
    let mut uncaught = Vec::new();
    for (defect, check, word) in CAUGHT {
        // Some defects are races, which need not happen in each run; a check that misses one five times is no check.
        let attempts: Vec<_> =
            (1..=5).map_while(|seed| missed(*defect, check, word, seed)).collect();
        if let Some(last) = attempts.get(4) {
            uncaught.push(last.clone());
        }
    }
    assert!(uncaught.is_empty(), "not caught:\n{}", uncaught.join("\n"));
}

#[test]
fn what_cannot_be_removed_stops_the_run() {
    let defect = Some(Defect::DeleteRefused);
    let report = ask(Store::new(ALL, Fencing::EXCLUSIVE_LOCK, defect), |_| ());
    assert_eq!(report.checks.len(), 1);
    assert!(failures(&report)[0].contains("volumes are for ever"), "{report}");
}

#[test]
fn every_check_is_caught_failing_by_some_defect() {
    let caught: BTreeSet<&str> = CAUGHT.iter().map(|row| row.1).collect();
    let all: Vec<String> =
        of_volumes().map(|check| format!("{}/{}", check.area, check.name)).collect();
    let never: Vec<_> = all
        .iter()
        .filter(|name| {
            !caught.contains(name.as_str()) && !KEPT_BY_THE_GLUE.contains(&name.as_str())
        })
        .collect();
    assert!(never.is_empty(), "no defect shows that these can fail: {never:?}");
}

#[test]
fn a_missing_ability_shows_in_the_matrix() {
    let defect = Some(Defect::FuaForgotten);
    let report = ask(Store::new(ALL, Fencing::EXCLUSIVE_LOCK, defect), |plan| {
        plan.only = vec!["durability".to_owned()];
    });
    assert!(report.claimed.contains(&"fua") && !report.shown.contains(&"fua"));
    let text = report.to_string();
    let line = text.lines().find(|line| line.starts_with("fua ")).expect("a line");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["fua", "yes", "NO"]);
    assert!(text.contains("FAILED") && text.contains("1 failed"), "{text}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["fencing"], "exclusive_lock");
    let fua = json["checks"].as_array().and_then(|all| all.iter().find(|c| c["name"] == "fua"));
    assert_eq!(fua.expect("the check")["outcome"], "failed");
}

#[test]
fn an_unknown_check_is_not_taken_for_a_passed_one() {
    let report = ask(Store::new(ALL, Fencing::NONE, None), |plan| {
        plan.only = vec!["data".to_owned(), "data/bounds".to_owned()];
    });
    assert!(failures(&report)[0].contains("`data/bounds`"), "{report}");
}

#[test]
fn volumes_of_somebody_else_stop_the_run() {
    let store = Store::new(ALL, Fencing::NONE, None);
    store.disks().insert("conformance-mine".to_owned(), Default::default());
    let report = ask(store, |_| ());
    assert_eq!(report.checks.len(), 1);
    assert!(failures(&report)[0].contains("conformance-mine"), "{report}");
}
