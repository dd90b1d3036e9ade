// SPDX-License-Identifier: Apache-2.0
//! `novastor object put`.

use std::{io::Write, process::Stdio, time::Duration};

use serde_json::{Value, json};

use super::house::{House, answered, bytes, ended, interrupt, kill, until};

/// The store's largest part is 64 KiB: this has 40 of them, the last one smaller.
const LARGE: usize = 40 * 65_536 - 1000;

fn put<'a>(file: &'a str, object: &'a str) -> Vec<&'a str> {
    vec!["object", "put", file, object, "--output", "json"]
}

#[test]
fn files_of_all_sizes_arrive_as_they_are() {
    let house = House::with("checksum = \"crc32c\"");
    for size in [0, 1, 65_535, 65_536, 65_537, LARGE] {
        let content = bytes(size as u64, size);
        let file = house.write("f", &content);
        let answer = house.json(&["object", "put", &file, "photos/a/ü b%2F"]);
        assert_eq!(answer["size"], size, "{answer}");
        assert_eq!(answer["sent"], size, "{answer}");
        assert_eq!(house.content("photos/a/ü b%2F"), content, "{size}");
    }
    assert!(house.asked("put_part") >= 42, "large files go in parts");
    assert_eq!((house.uploads(), house.journals().len()), (0, 0));
}

#[test]
fn what_is_said_of_an_object_is_told_again() {
    let house = House::new();
    for size in [10, LARGE] {
        let file = house.write("f", &bytes(1, size));
        let said = ["--content-type", "text/plain", "--meta", "Title=50 % ü", "--tag", "a b=c&d"];
        house.say(&[&put(&file, "photos/k")[..], &said].concat());
        let head = house.json(&["object", "head", "photos/k"]);
        assert_eq!(head["content_type"], "text/plain", "{head}");
        assert_eq!(head["metadata"], json!({ "title": "50 % ü" }), "{head}");
        let tags = house.json(&["object", "tags", "get", "photos/k"]);
        assert_eq!(tags, json!({ "tags": { "a b": "c&d" } }));
    }
}

#[test]
fn a_killed_command_goes_on_where_it_was() {
    let house = House::new();
    let content = bytes(2, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let arguments = [&put(&file, "photos/k")[..], &["--parallel", "2"]].concat();
    let child = house.begin(&arguments);
    until("some parts are there", || house.asked("put_part") >= 10);
    kill(child);
    assert!(!house.exists("photos/k"), "nothing is to be seen of it");
    assert_eq!((house.uploads(), house.journals().len()), (1, 1));
    let before = house.asked("put_part");
    let answer = house.json(&arguments);
    let again = house.asked("put_part") - before;
    assert!(again <= 40 - before + 3, "{again} parts were sent again after {before}");
    assert!(answer["sent"].as_u64().unwrap() < LARGE as u64, "{answer}");
    assert_eq!(house.content("photos/k"), content);
    assert_eq!((house.uploads(), house.journals().len()), (0, 0));
}

#[test]
fn a_part_is_kept_by_its_sum_if_the_journal_has_forgotten_it() {
    let house = House::with("checksum = \"md5\"");
    let content = bytes(3, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let arguments = [&put(&file, "photos/k")[..], &["--parallel", "1"]].concat();
    let child = house.begin(&arguments);
    until("some parts are there", || house.asked("put_part") >= 10);
    kill(child);
    // Only the first two lines, the transfer and its upload, survived.
    let journal = &house.journals()[0];
    let text = std::fs::read_to_string(journal).unwrap();
    let lines: Vec<&str> = text.lines().take(2).collect();
    std::fs::write(journal, format!("{}\n", lines.join("\n"))).unwrap();
    let before = house.asked("put_part");
    house.say(&arguments);
    let again = house.asked("put_part") - before;
    assert!(again <= 40 - before + 2, "{again} parts were sent again after {before}");
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn a_key_press_leaves_what_can_go_on() {
    let house = House::new();
    let content = bytes(4, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let arguments = put(&file, "photos/k");
    let child = house.begin(&arguments);
    until("some parts are there", || house.asked("put_part") >= 8);
    interrupt(&child);
    let (code, text) = ended(child);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("interrupted") && text.contains("novastor --socket"), "{text}");
    assert!(text.contains(&format!("object put {file} photos/k")), "{text}");
    assert_eq!((house.uploads(), house.journals().len()), (1, 1));
    let answer = house.json(&arguments);
    assert!(answer["sent"].as_u64().unwrap() < LARGE as u64, "{answer}");
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn without_a_journal_a_key_press_leaves_nothing() {
    let house = House::new();
    let file = house.write("f", &bytes(4, LARGE));
    house.slow("put_part", 100);
    let child = house.begin(&[&put(&file, "photos/k")[..], &["--no-resume"]].concat());
    until("some parts are there", || house.asked("put_part") >= 8);
    interrupt(&child);
    assert_eq!(ended(child).0, 10);
    until("its upload is gone", || house.uploads() == 0);
    assert_eq!(house.journals().len(), 0);
}

#[test]
fn a_host_that_goes_away_is_waited_for() {
    let house = House::new();
    let content = bytes(5, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let child = house.begin(&put(&file, "photos/k"));
    until("some parts are there", || house.asked("put_part") >= 8);
    house.road.close();
    std::thread::sleep(Duration::from_millis(2500));
    house.road.open();
    assert_eq!(answered(child)["size"], LARGE);
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn a_host_that_stays_away_is_not_waited_for_longer_than_was_said() {
    let house = House::new();
    let content = bytes(5, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let arguments = [&put(&file, "photos/k")[..], &["--patience", "1s"]].concat();
    let child = house.begin(&arguments);
    until("some parts are there", || house.asked("put_part") >= 8);
    house.road.close();
    let (code, text) = ended(child);
    assert!(code == 10 || code == 11, "{code}: {text}");
    assert!(text.contains("object put"), "it says what to type: {text}");
    house.road.open();
    let answer = house.json(&arguments);
    assert!(answer["sent"].as_u64().unwrap() < LARGE as u64, "{answer}");
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn a_store_that_is_overloaded_slows_and_does_not_fail() {
    let house = House::new();
    let content = bytes(6, LARGE);
    let file = house.write("f", &content);
    house.fault(json!({ "call": "put_part", "kind": 9, "times": 30 }));
    house.fault(json!({ "call": "begin_upload", "kind": 9, "times": 2 }));
    house.fault(json!({ "call": "complete_upload", "kind": 9, "times": 2 }));
    house.say(&put(&file, "photos/k"));
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn a_file_that_changes_is_refused() {
    let house = House::new();
    let file = house.write("f", &bytes(7, LARGE));
    house.slow("put_part", 100);
    let child = house.begin(&put(&file, "photos/k"));
    until("some parts are there", || house.asked("put_part") >= 8);
    let mut open = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    open.write_all(b"more").unwrap();
    let (code, text) = ended(child);
    assert_eq!(code, 16, "{text}");
    assert!(text.contains("changed"), "{text}");
    assert!(!house.exists("photos/k"));
    assert_eq!((house.uploads(), house.journals().len()), (0, 0));
}

#[test]
fn a_file_that_changed_since_the_crash_begins_anew() {
    let house = House::new();
    let file = house.write("f", &bytes(8, LARGE));
    house.slow("put_part", 100);
    let child = house.begin(&put(&file, "photos/k"));
    until("some parts are there", || house.asked("put_part") >= 8);
    kill(child);
    let content = bytes(9, LARGE);
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(&file, &content).unwrap();
    let answer = house.json(&put(&file, "photos/k"));
    assert_eq!(answer["sent"], LARGE, "no byte of the old content is used");
    assert_eq!(house.content("photos/k"), content);
    assert_eq!((house.uploads(), house.journals().len()), (0, 0));
}

#[test]
fn an_upload_that_somebody_gave_up_begins_anew() {
    let house = House::new();
    let content = bytes(10, LARGE);
    let file = house.write("f", &content);
    house.slow("put_part", 100);
    let child = house.begin(&put(&file, "photos/k"));
    until("some parts are there", || house.asked("put_part") >= 8);
    kill(child);
    let uploads = house.json(&["bucket", "uploads", "photos"]);
    house.say(&["bucket", "abort", "photos", "k", uploads[0]["id"].as_str().unwrap()]);
    assert_eq!(house.json(&put(&file, "photos/k"))["sent"], LARGE);
    assert_eq!(house.content("photos/k"), content);
    assert_eq!((house.uploads(), house.journals().len()), (0, 0));
}

#[test]
fn bytes_that_turn_on_their_way_are_sent_again() {
    for sum in ["crc32c", "md5"] {
        let house = House::with(&format!("checksum = \"{sum}\""));
        let content = bytes(11, LARGE);
        let file = house.write("f", &content);
        house.road.damage("/parts/7?");
        house.say(&put(&file, "photos/large"));
        assert!(house.road.has_damaged(), "it came to that");
        assert_eq!(house.asked("put_part"), 41, "{sum}");
        assert_eq!(house.content("photos/large"), content, "{sum}");
        let content = bytes(12, 5000);
        let file = house.write("g", &content);
        house.road.damage("PUT ");
        house.say(&put(&file, "photos/small"));
        assert!(house.road.has_damaged(), "it came to that");
        assert_eq!(house.content("photos/small"), content, "{sum}");
    }
}

fn piped(house: &House, content: &[u8], more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&put("-", "photos/k")[..], more].concat();
    let mut child = house.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A command that refuses reads no more.
    let _ = child.stdin.take().unwrap().write_all(content);
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), answer)
}

#[test]
fn standard_input_is_written_whatever_its_length() {
    let house = House::with("checksum = \"crc32c\"");
    for size in [0, 5, 65_535, 65_536, 131_072, LARGE] {
        let content = bytes(size as u64, size);
        let (code, answer) = piped(&house, &content, &[]);
        assert_eq!((code, answer["size"].as_u64()), (Some(0), Some(size as u64)), "{answer}");
        assert_eq!(house.content("photos/k"), content, "{size}");
    }
    assert_eq!(house.uploads(), 0);
}

#[test]
fn standard_input_that_cannot_be_written_leaves_nothing() {
    let house = House::new();
    house.fault(json!({ "call": "put_part", "kind": 7, "times": 100 }));
    let (code, _) = piped(&house, &bytes(1, LARGE), &[]);
    assert_eq!(code, Some(8), "it is refused for what it may not do");
    assert!(!house.exists("photos/k"));
    assert_eq!(house.uploads(), 0);
    let many = House::with("max_parts = 3");
    let (code, _) = piped(&many, &bytes(1, LARGE), &[]);
    assert_eq!(code, Some(2), "more parts than there can be");
    assert_eq!((many.uploads(), many.exists("photos/k")), (0, false));
}

#[test]
fn a_second_key_press_ends_it_at_once() {
    let house = House::new();
    let file = house.write("f", &bytes(13, LARGE));
    house.slow("put_part", 100);
    let child = house.begin(&put(&file, "photos/k"));
    until("some parts are there", || house.asked("put_part") >= 4);
    interrupt(&child);
    interrupt(&child);
    let code = ended(child).0;
    assert!(code == 130 || code == 10, "{code}");
}
