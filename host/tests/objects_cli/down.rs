// SPDX-License-Identifier: Apache-2.0
//! `novastor object get`.

use std::{os::unix::fs::FileExt, time::Duration};

use serde_json::json;

use super::house::{House, answered, bytes, ended, interrupt, kill, read, until};

/// Pieces are 1 MiB: this has 6 of them, the last one smaller.
const LARGE: usize = (6 << 20) - 1000;
const PIECE: &[&str] = &["--part-size", "1MiB", "--output", "json"];

/// A host whose store has an object of this content, `photos/k`.
fn stored(content: &[u8]) -> House {
    let house = House::with("checksum = \"crc32c\"\nmax_piece = 1048576");
    let file = house.write("f", content);
    house.say(&["object", "put", &file, "photos/k"]);
    house
}

fn get<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["object", "get", "photos/k", "out"], PIECE, more].concat()
}

fn files(house: &House) -> Vec<String> {
    let entries = std::fs::read_dir(house.room.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("out")).collect();
    names.sort();
    names
}

#[test]
fn objects_of_all_sizes_are_read_as_they_are() {
    for size in [0, 1, 65_536, 1 << 20, LARGE] {
        let content = bytes(size as u64, size);
        let house = stored(&content);
        let answer = house.json(&get(&[]));
        assert_eq!(
            (answer["file_size"].as_u64(), answer["read"].as_u64()),
            (Some(size as u64), Some(size as u64))
        );
        assert!(
            answer["compared"].as_str().is_some_and(|sum| sum.starts_with("crc32c:")),
            "{answer}"
        );
        assert_eq!(read(&house.file("out")), content);
        assert_eq!(files(&house), ["out"]);
        assert_eq!(house.content("photos/k"), content, "and to standard output");
    }
}

#[test]
fn a_range_is_read_alone() {
    let content = bytes(1, LARGE);
    let house = stored(&content);
    house.say(&get(&["--range", "1000-3000000"]));
    assert_eq!(read(&house.file("out")), &content[1000..=3_000_000]);
    house.say(&get(&["--range", "6290000-", "--force"]));
    assert_eq!(read(&house.file("out")), &content[6_290_000..]);
    let (code, text) = house.refuse(&get(&["--range", "99000000-", "--force"]));
    assert_eq!(code, 6, "{text}");
    assert_eq!(read(&house.file("out")), &content[6_290_000..]);
    let output = house.run(&["object", "get", "photos/k", "-", "--range", "5-8"]);
    assert_eq!(output.stdout, &content[5..=8]);
}

#[test]
fn a_killed_command_goes_on_where_it_was() {
    let content = bytes(2, LARGE);
    let house = stored(&content);
    house.slow("open", 150);
    let child = house.begin(&get(&["--parallel", "1"]));
    until("some pieces are there", || {
        std::fs::read_to_string(house.file("out.partial.journal"))
            .is_ok_and(|text| text.lines().count() >= 4)
    });
    kill(child);
    assert_eq!(files(&house), ["out.partial", "out.partial.journal"]);
    // One of the pieces was not brought to the disk when the machine died.
    let partial = std::fs::OpenOptions::new().write(true).open(house.file("out.partial")).unwrap();
    partial.write_all_at(&[0; 4096], 5000).unwrap();
    let answer = house.json(&get(&[]));
    let again = answer["read"].as_u64().unwrap();
    assert!(again >= 1 << 20 && again <= (LARGE - (2 << 20)) as u64, "{answer}");
    assert_eq!(read(&house.file("out")), content);
    assert_eq!(files(&house), ["out"]);
}

#[test]
fn a_key_press_leaves_what_can_go_on() {
    let content = bytes(3, LARGE);
    let house = stored(&content);
    house.slow("open", 150);
    let child = house.begin(&get(&["--parallel", "1"]));
    until("some pieces are there", || house.asked("open") >= 3);
    interrupt(&child);
    let (code, text) = ended(child);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("interrupted") && text.contains("object get photos/k out"), "{text}");
    house.say(&get(&[]));
    assert_eq!(read(&house.file("out")), content);
}

#[test]
fn a_host_that_goes_away_is_waited_for() {
    let content = bytes(4, LARGE);
    let house = stored(&content);
    house.slow("open", 150);
    let child = house.begin(&get(&["--parallel", "2"]));
    until("some pieces are there", || house.asked("open") >= 2);
    house.road.close();
    std::thread::sleep(Duration::from_millis(1500));
    house.road.open();
    assert_eq!(answered(child)["size"], LARGE);
    assert_eq!(read(&house.file("out")), content);
}

#[test]
fn the_host_writes_into_the_file_if_it_gets_it() {
    for is_robbed in [false, true] {
        let content = bytes(12, LARGE);
        let house = stored(&content);
        if is_robbed {
            house.road.rob();
        }
        assert_eq!(house.json(&get(&[]))["size"], LARGE);
        assert_eq!(house.road.files() > 0, !is_robbed);
        assert_eq!(read(&house.file("out")), content);
    }
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_refused() {
    let house = stored(&bytes(5, LARGE));
    house.slow("open", 500);
    let child = house.begin(&get(&["--parallel", "1"]));
    until("some pieces are there", || house.asked("open") >= 2);
    let file = house.write("g", &bytes(6, 1000));
    house.say(&["object", "put", &file, "photos/k"]);
    let (code, text) = ended(child);
    assert_eq!(code, 16, "{text}");
    assert!(text.contains("replaced"), "{text}");
    assert!(files(&house).is_empty(), "nothing half is left: {:?}", files(&house));
}

#[test]
fn an_object_that_was_replaced_since_the_crash_is_read_anew() {
    let house = stored(&bytes(7, LARGE));
    house.slow("open", 150);
    let child = house.begin(&get(&["--parallel", "1"]));
    until("some pieces are there", || house.asked("open") >= 3);
    kill(child);
    let content = bytes(8, LARGE);
    let file = house.write("g", &content);
    house.say(&["object", "put", &file, "photos/k"]);
    assert_eq!(house.json(&get(&[]))["read"], LARGE);
    assert_eq!(read(&house.file("out")), content);
}

#[test]
fn a_file_is_not_replaced_unless_that_is_asked_for() {
    let content = bytes(9, 1000);
    let house = stored(&content);
    house.write("out", b"precious");
    let (code, text) = house.refuse(&get(&[]));
    assert_eq!(code, 4, "{text}");
    assert_eq!(read(&house.file("out")), b"precious");
    house.say(&get(&["--force"]));
    assert_eq!(read(&house.file("out")), content);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_replaced_either() {
    let content = bytes(10, LARGE);
    let house = stored(&content);
    house.slow("open", 200);
    let child = house.begin(&get(&["--parallel", "1"]));
    until("some pieces are there", || house.asked("open") >= 2);
    house.write("out", b"precious");
    let (code, text) = ended(child);
    assert_eq!(code, 4, "{text}");
    assert_eq!(read(&house.file("out")), b"precious");
    assert_eq!(house.json(&get(&["--force"]))["read"], 0, "nothing has to be read again");
    assert_eq!(read(&house.file("out")), content);
}

#[test]
fn what_is_known_already_is_not_read() {
    let house = stored(b"content");
    let etag = house.json(&["object", "head", "photos/k"])["etag"].clone();
    let etag = etag.as_str().unwrap();
    house.say(&get(&["--if-none-match", etag]));
    assert!(files(&house).is_empty());
    let (code, text) = house.refuse(&get(&["--if-match", "other"]));
    assert_eq!(code, 16, "{text}");
    house.say(&get(&["--if-match", etag]));
    assert_eq!(read(&house.file("out")), b"content");
}

#[test]
fn a_sum_that_is_another_is_told() {
    let house = House::with("checksum = \"wrong\"");
    let file = house.write("f", &bytes(11, 5000));
    let (code, text) = house.refuse(&["object", "put", &file, "photos/k"]);
    assert_eq!(code, 12, "{text}");
    assert!(text.contains("other bytes"), "{text}");
    let (code, text) = house.refuse(&get(&[]));
    assert_eq!(code, 12, "{text}");
    assert!(files(&house).is_empty(), "what is wrong is not left");
}

#[test]
fn a_store_that_fails_now_and_then_does_not_fail_the_reading() {
    let content = bytes(12, LARGE);
    let house = stored(&content);
    house.fault(json!({ "call": "open", "kind": 9, "times": 5 }));
    house.fault(json!({ "call": "next", "kind": 11, "times": 2 }));
    house.say(&get(&[]));
    assert_eq!(read(&house.file("out")), content);
    house.fault(json!({ "call": "open", "kind": 9, "times": 3 }));
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn devices_are_written_to_and_not_replaced() {
    let house = stored(&bytes(13, 1000));
    house.say(&["object", "get", "photos/k", "/dev/null"]);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    let (code, text) = house.refuse(&["object", "get", "photos/k", "/dev"]);
    assert_eq!(code, 2, "{text}");
}
