// SPDX-License-Identifier: Apache-2.0
//! What must not happen: bytes of two contents in one object, files of others that are lost, and outcomes that are told
//! as known when they are not.

use std::{
    fs::{File, FileTimes},
    io::Write,
    os::unix::fs::symlink,
    process::Stdio,
};

use serde_json::json;

use super::house::{House, bytes, ended, interrupt, kill, read, until};

/// The store's largest part is 64 KiB.
const LARGE: usize = 40 * 65_536 - 1000;

fn put<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["object", "put", file, "photos/k"], more].concat()
}

/// Kills a command when some parts of its file are there.
fn broken_off(house: &House, file: &str) {
    house.slow("put_part", 100);
    let child = house.begin(&put(file, &[]));
    until("some parts are there", || house.asked("put_part") >= 8);
    kill(child);
}

#[test]
fn a_file_that_changed_under_its_old_date_begins_anew() {
    let house = House::new();
    let file = house.write("f", &bytes(1, LARGE));
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    broken_off(&house, &file);
    let content = bytes(2, LARGE);
    let mut open = File::options().write(true).open(&file).unwrap();
    open.write_all(&content).unwrap();
    open.set_times(FileTimes::new().set_modified(modified)).unwrap();
    house.say(&put(&file, &[]));
    assert!(house.content("photos/k") == content, "no byte of the old content is used");
}

#[test]
fn a_file_whose_length_the_system_does_not_know_is_not_cut_short() {
    let house = House::new();
    let (code, text) = house.refuse(&put("/proc/cpuinfo", &[]));
    assert_eq!(code, 16, "{text}");
    assert!(text.contains("object put - "), "it says what to type: {text}");
    assert!(!house.exists("photos/k"));
}

#[test]
fn an_object_that_is_damaged_is_not_told_as_written_by_who_repeats() {
    let house = House::with("checksum = \"wrong-whole\"");
    let file = house.write("f", &bytes(3, LARGE));
    for _ in 0..2 {
        let (code, text) = house.refuse(&put(&file, &[]));
        assert_eq!(code, 12, "{text}");
        assert!(text.contains("damaged"), "{text}");
        assert_eq!((house.uploads(), house.journals().len()), (0, 0));
    }
}

#[test]
fn a_key_press_at_the_end_leaves_an_outcome_that_is_unknown() {
    for (size, call) in [(1000, "put"), (LARGE, "complete_upload")] {
        let house = House::new();
        let content = bytes(4, size);
        let file = house.write("f", &content);
        house.fault(json!({ "call": call, "wait_ms": 1500 }));
        let child = house.begin(&put(&file, &["--no-resume"]));
        until("the store is at it", || house.asked(call) >= 1);
        interrupt(&child);
        let (code, text) = ended(child);
        assert_eq!(code, 11, "{text}");
        assert!(text.contains("unknown") && text.contains("object put"), "{text}");
        until("the store has done it", || house.exists("photos/k"));
        assert!(house.content("photos/k") == content);
        assert_eq!(house.asked("abort_upload"), 0, "what may be the object is not given up");
    }
}

#[test]
fn a_condition_that_the_store_would_ignore_is_refused_before_anything_is_sent() {
    let house = House::with("without = \"create-only-complete\"");
    let arguments = ["object", "put", "-", "photos/k", "--create-only"];
    for (size, wanted) in [(1000, Some(0)), (LARGE, Some(14))] {
        house.run(&["object", "delete", "photos/k"]);
        let mut child = house.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&bytes(5, size));
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), wanted, "{text}");
        assert_eq!((house.asked("put_part"), house.uploads()), (0, 0));
    }
}

#[test]
fn a_write_that_is_repeated_with_its_request_id_is_done_or_was() {
    let house = House::new();
    let content = bytes(6, LARGE);
    let file = house.write("f", &content);
    for more in [&["--request-id", "a"][..], &["--request-id", "b", "--create-only"]] {
        house.say(&put(&file, more));
        house.say(&put(&file, more));
        assert!(house.content("photos/k") == content);
        assert_eq!((house.uploads(), house.journals().len()), (0, 0));
        house.say(&["object", "delete", "photos/k"]);
    }
}

#[test]
fn another_content_under_the_same_request_id_is_another_write() {
    for size in [1000, LARGE] {
        let house = House::new();
        let content = bytes(7, size);
        let (one, other) = (house.write("f", &content), house.write("g", &bytes(8, size)));
        let more = ["--create-only", "--request-id", "x"];
        house.say(&put(&one, &more));
        let (code, text) = house.refuse(&put(&other, &more));
        assert_eq!(code, 4, "{text}");
        assert!(house.content("photos/k") == content);
    }
}

#[test]
fn a_tag_that_is_given_twice_is_refused() {
    let house = House::new();
    let file = house.write("f", b"content");
    assert_eq!(house.refuse(&put(&file, &["--tag", "a=1", "--tag", "a=2"])).0, 2);
    assert!(!house.exists("photos/k"));
    house.say(&put(&file, &["--tag", "a=1"]));
    let change = ["object", "change", "photos/k", "--tag", "a=2", "--tag", "a=3"];
    assert_eq!(house.refuse(&change).0, 2);
}

#[test]
fn a_file_of_somebody_else_beside_is_neither_overwritten_nor_removed() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    let get = ["object", "get", "photos/k", "out"];
    house.write("out.partial", b"of another program");
    let (code, text) = house.refuse(&get);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("out.partial"), "{text}");
    assert_eq!(read(&house.file("out.partial")), b"of another program");
    std::fs::remove_file(house.file("out.partial")).unwrap();
    for ending in ["partial", "partial.journal"] {
        house.write("precious", b"of another person");
        let link = house.file(&format!("out.{ending}"));
        symlink(house.file("precious"), &link).unwrap();
        house.refuse(&get);
        assert_eq!(read(&house.file("precious")), b"of another person", "{ending}");
        std::fs::remove_file(link).unwrap();
    }
    house.say(&get);
    assert_eq!(read(&house.file("out")), b"content");
}

#[test]
fn a_link_stays_a_link() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    house.write("real", b"old");
    symlink("real", house.file("out")).unwrap();
    let get = ["object", "get", "photos/k", "out"];
    assert_eq!(house.refuse(&get).0, 4);
    house.say(&[&get[..], &["--force"]].concat());
    assert!(house.file("out").is_symlink());
    assert_eq!(read(&house.file("real")), b"content");
    std::fs::remove_file(house.file("real")).unwrap();
    let (code, text) = house.refuse(&get);
    assert_eq!((code, house.asked("open")), (4, 1), "before a byte is read: {text}");
    assert!(house.file("out").is_symlink());
}

#[test]
fn names_as_long_as_they_can_be_are_files_too() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    let name = "n".repeat(255);
    house.say(&["object", "get", "photos/k", &name]);
    assert_eq!(read(&house.file(&name)), b"content");
}

#[test]
fn a_folder_that_is_not_there_is_told_as_that() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    let (code, text) = house.refuse(&["object", "get", "photos/k", "nowhere/out"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("folder") && !text.contains("journal"), "{text}");
}

#[test]
fn each_deletion_of_many_is_told_even_if_some_cannot_be_asked_for() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    let both = ["object", "delete", "nobucket/a", "photos/k", "zzz/b", "--output", "json"];
    let output = house.run(&both);
    assert_eq!(output.status.code(), Some(3));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told: Vec<_> = told.as_array().unwrap().iter().collect();
    let of = |at: usize| (told[at]["bucket"].as_str(), told[at]["key"].as_str(), &told[at]["gone"]);
    assert_eq!(of(0), (Some("nobucket"), Some("a"), &json!(false)));
    assert_eq!(of(1), (Some("photos"), Some("k"), &json!(true)));
    assert_eq!(of(2), (Some("zzz"), Some("b"), &json!(false)));
    assert!(!house.exists("photos/k"));
}

#[test]
fn a_deletion_of_which_nobody_knows_is_not_told_as_one_that_failed() {
    let house = House::with("without = \"bulk-delete\"");
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    house.fault(json!({ "call": "delete", "kind": 10, "after": true }));
    let (code, text) = house.refuse(&["object", "delete", "photos/k", "photos/l"]);
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("unknown") && !text.contains("photos/k is not deleted"), "{text}");
}

#[test]
fn an_etag_or_a_version_that_is_empty_is_no_condition_and_no_version() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&put(&file, &[]));
    house.say(&["object", "put", &file, "photos/l"]);
    let copy = ["object", "copy", "photos/k", "photos/l"];
    for more in [["--if-match", ""], ["--source-if-match", ""], ["--version", ""]] {
        let (code, text) = house.refuse(&[&copy[..], &more].concat());
        assert_eq!(code, 2, "{more:?}: {text}");
    }
    let delete = ["object", "delete", "photos/k"];
    for more in [["--if-match", ""], ["--version", ""]] {
        let (code, text) = house.refuse(&[&delete[..], &more].concat());
        assert_eq!(code, 2, "{more:?}: {text}");
    }
    assert!(house.exists("photos/k"));
}

#[test]
fn a_rule_of_no_days_is_refused() {
    let house = House::new();
    for rule in [
        json!({ "id": "a", "expire_days": 0, "abort_upload_days": 3 }),
        json!({ "id": "a", "transition_days": 3, "transition_class": "" }),
    ] {
        let rules = house.write("rules.json", json!({ "rules": [rule] }).to_string().as_bytes());
        let (code, text) = house.refuse(&["bucket", "lifecycle", "set", "photos", &rules]);
        assert_eq!(code, 2, "{text}");
    }
}
