// SPDX-License-Identifier: Apache-2.0
//! Writes under conditions: whose object it is, when answers are lost and others write the same.

use serde_json::json;

use super::house::{House, bytes, ended, kill, until};

const LARGE: usize = 12 * 65_536;
const TIMED_OUT: u32 = 10;
const UNAVAILABLE: u32 = 9;
/// The exit code of what a store cannot do.
const UNSUPPORTED: i32 = 14;

fn create<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["object", "put", file, "photos/k", "--create-only"], more].concat()
}

#[test]
fn of_many_that_create_one_wins() {
    for size in [1000, LARGE] {
        let house = House::new();
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let content = bytes(writer, size);
                let file = house.write(&format!("f{writer}"), &content);
                (content, house.begin(&create(&file, &[])))
            })
            .collect();
        let mut winners = Vec::new();
        for (content, child) in writers {
            let output = child.wait_with_output().unwrap();
            match output.status.code() {
                Some(0) => winners.push(content),
                code => assert_eq!(code, Some(4), "{}", String::from_utf8_lossy(&output.stderr)),
            }
        }
        assert_eq!(winners.len(), 1, "of {size} bytes");
        assert_eq!(house.content("photos/k"), winners[0]);
        assert_eq!((house.uploads(), house.journals().len()), (0, 0), "losers leave nothing");
    }
}

#[test]
fn an_update_is_of_the_object_that_was_seen() {
    let house = House::new();
    for size in [1000, LARGE] {
        let file = house.write("f", &bytes(1, size));
        let etag = house.json(&["object", "put", &file, "photos/k"])["etag"].clone();
        let etag = etag.as_str().unwrap();
        let update = ["object", "put", &file, "photos/k", "--if-match", etag];
        house.say(&update);
        let (code, text) = house.refuse(&update);
        assert_eq!(code, 16, "{text}");
        assert_eq!((house.uploads(), house.journals().len()), (0, 0));
    }
}

#[test]
fn an_answer_that_was_lost_is_proven_by_the_mark() {
    for (size, request) in [(1000, "PUT /v1"), (LARGE, "/complete?")] {
        let house = House::new();
        let content = bytes(2, size);
        let file = house.write("f", &content);
        house.road.lose(request, 2);
        house.say(&create(&file, &[]));
        assert!(house.road.has_lost(), "it came to that");
        assert_eq!(house.content("photos/k"), content);
        assert_eq!((house.uploads(), house.journals().len()), (0, 0));
    }
}

#[test]
fn an_outcome_that_the_store_does_not_know_is_proven_by_the_mark() {
    for (size, call) in [(1000, "put"), (LARGE, "complete_upload")] {
        let house = House::new();
        let content = bytes(3, size);
        let file = house.write("f", &content);
        house.fault(json!({ "call": call, "kind": TIMED_OUT, "times": 2, "after": true }));
        house.say(&create(&file, &[]));
        assert_eq!(house.asked(call), 3, "it was asked again");
        assert_eq!(house.content("photos/k"), content);
    }
}

#[test]
fn equal_content_of_another_is_not_taken_for_ones_own() {
    for (size, call) in [(1000, "put"), (LARGE, "complete_upload")] {
        let house = House::new();
        let file = house.write("f", &bytes(4, size));
        house.say(&["object", "put", &file, "photos/k"]);
        // The first attempt fails with an unknown outcome before it does anything.
        house.fault(json!({ "call": call, "kind": TIMED_OUT }));
        let (code, text) = house.refuse(&create(&file, &[]));
        assert_eq!(code, 4, "{text}");
        assert_eq!((house.uploads(), house.journals().len()), (0, 0));
    }
}

#[test]
fn what_cannot_be_proven_is_told_as_unknown_and_can_be_repeated() {
    for (size, call) in [(1000, "put"), (LARGE, "complete_upload")] {
        let house = House::new();
        let content = bytes(5, size);
        let file = house.write("f", &content);
        house.fault(json!({ "call": call, "kind": TIMED_OUT, "times": 20, "after": true }));
        let (code, text) = house.refuse(&create(&file, &["--patience", "1s"]));
        assert_eq!(code, 11, "{text}");
        assert!(text.contains("unknown") && text.contains("object put"), "{text}");
        assert_eq!(house.journals().len(), 1, "the mark is kept for who repeats it");
        house.say(&create(&file, &["--patience", "60s"]));
        assert_eq!(house.content("photos/k"), content);
        assert_eq!(house.journals().len(), 0);
    }
}

#[test]
fn a_mark_is_the_request_s_where_nothing_is_kept() {
    let house = House::new();
    let file = house.write("f", &bytes(6, 1000));
    let arguments = create(&file, &["--no-resume", "--patience", "0s"]);
    house.fault(json!({ "call": "put", "kind": TIMED_OUT, "after": true }));
    let (code, text) = house.refuse(&arguments);
    assert_eq!((code, house.journals().len()), (11, 0), "{text}");
    let key = text.split("--request-id ").nth(1).unwrap().trim();
    house.say(&[&arguments[..], &["--request-id", key]].concat());
    let (code, text) = house.refuse(&arguments);
    assert_eq!(code, 4, "another request is another write: {text}");
}

#[test]
fn a_command_killed_at_its_end_does_not_write_twice() {
    let house = House::new();
    let content = bytes(7, LARGE);
    let file = house.write("f", &content);
    // The object is made, and the command dies before it hears of it.
    house.fault(
        json!({ "call": "complete_upload", "kind": UNAVAILABLE, "times": 1000, "after": true }),
    );
    let child = house.begin(&create(&file, &[]));
    until("the object is there", || house.asked("complete_upload") >= 1);
    kill(child);
    let before = house.asked("put_part");
    let (_, text) = house.refuse(&create(&file, &["--patience", "1s"]));
    assert!(text.contains("asked to fail"), "{text}");
    assert_eq!(house.asked("put_part"), before, "no part is sent again");
    assert_eq!(house.content("photos/k"), content);
}

#[test]
fn two_commands_never_work_on_one_transfer() {
    let house = House::new();
    let file = house.write("f", &bytes(8, LARGE));
    house.slow("put_part", 300);
    let first = house.begin(&["object", "put", &file, "photos/k"]);
    until("the first is at it", || house.asked("put_part") >= 1);
    let (code, text) = house.refuse(&["object", "put", &file, "photos/k"]);
    assert_eq!(code, 5, "{text}");
    assert!(first.wait_with_output().unwrap().status.success());
}

#[test]
fn a_copy_can_be_of_what_was_seen_and_to_where_nothing_is() {
    let house = House::new();
    let file = house.write("f", b"content");
    let etag = house.json(&["object", "put", &file, "photos/a"])["etag"].clone();
    let etag = etag.as_str().unwrap();
    house.say(&["object", "copy", "photos/a", "photos/b", "--create-only"]);
    assert_eq!(house.content("photos/b"), b"content");
    assert_eq!(house.refuse(&["object", "copy", "photos/a", "photos/b", "--create-only"]).0, 4);
    let seen = ["object", "copy", "photos/a", "photos/c", "--source-if-match"];
    assert_eq!(house.refuse(&[&seen[..], &["other"]].concat()).0, 16);
    house.say(&[&seen[..], &[etag]].concat());
}

#[test]
fn a_deletion_can_be_of_what_was_seen() {
    let house = House::new();
    let file = house.write("f", b"content");
    let etag = house.json(&["object", "put", &file, "photos/a"])["etag"].clone();
    let delete = ["object", "delete", "photos/a", "--if-match"];
    let (code, text) = ended(house.begin(&[&delete[..], &["other"]].concat()));
    assert_eq!(code, 16, "{text}");
    house.say(&[&delete[..], &[etag.as_str().unwrap()]].concat());
    assert!(!house.exists("photos/a"));
}

/// What the store would ignore at the end is refused before anything is sent: where that is known, where the store finds it out
/// when it is asked, and of an input whose length nobody knows.
#[test]
fn a_condition_that_would_be_ignored_is_refused_before_anything_is_sent() {
    for option in ["without", "late"] {
        let house = House::with(&format!("{option} = \"create-only-complete\""));
        let content = bytes(9, LARGE);
        let file = house.write("f", &content);
        let (code, text) = house.refuse(&create(&file, &[]));
        assert_eq!(code, UNSUPPORTED, "{option}: {text}");
        let mut piped = house.command(&create("-", &[]));
        let mut child = piped.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &content));
        assert_eq!(ended(child).0, UNSUPPORTED, "{option}");
        let _broken_pipe = writer.join().unwrap();
        assert_eq!(house.asked("put_part"), 0, "{option}: nothing was sent");
        assert_eq!((house.uploads(), house.journals().len()), (0, 0), "{option}");
        // The other condition is none of its business.
        let etag = house.json(&["object", "put", &file, "photos/k"])["etag"].clone();
        house.say(&["object", "put", &file, "photos/k", "--if-match", etag.as_str().unwrap()]);
    }
}
