// SPDX-License-Identifier: Apache-2.0
//! Buckets, listings, and all that is said of objects.

use serde_json::{Value, json};

use super::house::{House, kill, until};

fn with_objects(count: usize) -> House {
    let house = House::new();
    let file = house.write("f", b"content");
    let keys: Vec<String> = (0..count).map(|at| format!("photos/d{}/{at:03}", at % 3)).collect();
    for some in keys.chunks(8) {
        let writers: Vec<_> =
            some.iter().map(|key| house.begin(&["object", "put", &file, key])).collect();
        for writer in writers {
            assert!(writer.wait_with_output().unwrap().status.success());
        }
    }
    house
}

fn keys(list: &Value) -> Vec<String> {
    let of = |entry: &Value| entry["key"].as_str().or(entry["prefix"].as_str()).unwrap().to_owned();
    list.as_array().unwrap().iter().map(of).collect()
}

/// What commands that were killed left behind is seen, and given up by age; what has another key or is younger stays.
#[test]
fn uploads_are_given_up_by_age() {
    let house = House::new();
    let file = house.write("f", &super::house::bytes(1, 12 * 65_536));
    // Each is under way for six seconds: a busy machine looks late.
    house.slow("put_part", 2000);
    let keys = ["a/1", "a/2", "b/1"];
    for (at, key) in keys.iter().enumerate() {
        let writer = house.begin(&["object", "put", &file, &format!("photos/{key}")]);
        until("it has begun", || house.uploads() == at + 1);
        kill(writer);
    }
    std::thread::sleep(std::time::Duration::from_millis(6100));
    let young = house.begin(&["object", "put", &file, "photos/a/3"]);
    until("it has begun", || house.uploads() == 4);
    let uploads = |more: &[&str]| {
        let list = house.json(&[&["bucket", "uploads", "photos"], more].concat());
        let mut found = self::keys(&list);
        found.sort();
        found
    };
    assert_eq!(uploads(&["--older-than", "1h"]), [""; 0]);
    assert_eq!(uploads(&["--older-than", "6s"]), keys);
    let abort = |more: &[&str]| house.say(&[&["bucket", "abort", "photos"], more].concat());
    assert!(abort(&["--older-than", "1h"]).contains("0 of 4"));
    let gone = house.json(&["bucket", "abort", "photos", "--older-than", "6s", "--prefix", "a/"]);
    assert_eq!(self::keys(&gone), ["a/1", "a/2"]);
    assert_eq!(uploads(&[]), ["a/3", "b/1"]);
    assert!(abort(&["--older-than", "6s"]).contains("1 of 2"));
    assert_eq!(uploads(&[]), ["a/3"]);
    assert!(young.wait_with_output().unwrap().status.success(), "it was left alone");
    assert_eq!(house.uploads(), 0);
    for wrong in [&["--prefix", "a/"][..], &["a/1"], &["a/1", "x", "--older-than", "1s"], &[]] {
        let (code, text) = house.refuse(&[&["bucket", "abort", "photos"], wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    // One that cannot be given up is told, and the others go.
    for key in ["c/1", "c/2"] {
        let writer = house.begin(&["object", "put", &file, &format!("photos/{key}")]);
        until("it has begun", || house.uploads() > usize::from(key == "c/2"));
        kill(writer);
    }
    house.fault(json!({ "call": "abort_upload", "kind": 8, "times": 1 }));
    let (_, text) = house.refuse(&["bucket", "abort", "photos", "--older-than", "0s"]);
    assert!(text.contains("c/1") && text.contains("given up: 1"), "{text}");
    assert_eq!(uploads(&[]), ["c/1"]);
}

#[test]
fn listings_have_every_object_once_whatever_the_pages() {
    let house = House::with("max_page = 7");
    assert_eq!(house.json(&["object", "list", "photos"]), json!([]));
    let file = house.write("f", b"content");
    let mut wanted: Vec<String> = (0..30).map(|at| format!("d{}/{at:03}", at % 3)).collect();
    for key in &wanted {
        house.say(&["object", "put", &file, &format!("photos/{key}")]);
    }
    wanted.sort();
    let list = |more: &[&str]| keys(&house.json(&[&["object", "list", "photos"], more].concat()));
    assert_eq!(list(&[]), wanted);
    assert_eq!(list(&["--prefix", "d1/"]), wanted[10..20]);
    assert_eq!(list(&["--delimiter", "/"]), ["d0/", "d1/", "d2/"]);
    assert_eq!(list(&["--after", &wanted[14]]), wanted[15..]);
    assert_eq!(list(&["--limit", "17"]), wanted[..17]);
    assert_eq!(list(&["--limit", "0"]), [""; 0]);
    let text = house.say(&["object", "list", "photos"]);
    assert_eq!(text.lines().count(), 31, "{text}");
    assert!(text.starts_with("           SIZE  MODIFIED             KEY\n"), "{text}");
    assert!(text.ends_with("  d2/029\n") && text.contains("              7  20"), "{text}");
    let break_off = |times: u32| {
        house.fault(json!({ "call": "list", "wait_ms": 1, "times": 2 }));
        house.fault(json!({ "call": "list", "kind": 7, "times": times }));
    };
    break_off(1);
    assert_eq!(list(&[]), wanted, "it goes on where the answer broke off");
    break_off(2);
    let output = house.run(&["object", "list", "photos", "--output", "json"]);
    assert_eq!(output.status.code(), Some(8));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("\"key\"").count(), 14, "{text}");
    assert!(serde_json::from_str::<Value>(&text).is_err(), "a part is not the whole");
}

#[test]
fn a_listing_ends_when_nobody_reads_it() {
    let house = with_objects(8);
    let shell = "\"$0\" --socket \"$1\" object list photos | head -1";
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_novastor");
    command.args(["-c", shell, program]).arg(house.file("road.sock"));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn objects_are_deleted_one_by_one_many_or_all_below() {
    let house = with_objects(9);
    house.say(&["object", "delete", "photos/d0/000"]);
    house.say(&["object", "delete", "photos/d0/003", "photos/d0/006", "photos/not there"]);
    let (code, text) = house.refuse(&["object", "delete", "photos/d1/", "--recursive"]);
    assert_eq!(code, 2, "{text}");
    house.say(&["object", "delete", "photos/d1/", "--recursive", "--yes"]);
    let left = keys(&house.json(&["object", "list", "photos"]));
    assert_eq!(left, ["d2/002", "d2/005", "d2/008"]);
    let two = ["object", "delete", "photos/a", "photos/b", "--if-match", "e"];
    assert_eq!(house.refuse(&two).0, 2);
    assert_eq!(house.refuse(&["object", "delete", "photos"]).0, 2);
}

#[test]
fn a_bucket_goes_with_its_objects_only_if_that_is_said() {
    let house = with_objects(5);
    let (code, text) = house.refuse(&["bucket", "delete", "photos"]);
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("--with-objects"), "{text}");
    assert_eq!(keys(&house.json(&["object", "list", "photos"])).len(), 5);
    house.say(&["bucket", "delete", "photos", "--with-objects"]);
    assert_eq!(house.json(&["bucket", "list"]), json!([]));
    house.say(&["bucket", "create", "photos"]);
    house.say(&["bucket", "delete", "photos"]);
}

#[test]
fn buckets_are_shown_with_what_is_known() {
    let house = House::new();
    house.say(&["bucket", "create", "films"]);
    let list = house.json(&["bucket", "list"]);
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|bucket| bucket["name"].clone()).collect();
    assert_eq!(names, ["films", "photos"]);
    assert_eq!(house.json(&["bucket", "show", "films"])["name"], "films");
    let (code, text) = house.refuse(&["bucket", "show", "other"]);
    assert_eq!(code, 3, "{text}");
    let (code, text) = house.refuse(&["bucket", "list", "--backend", "none"]);
    assert_eq!(code, 3, "{text}");
}

#[test]
fn rules_with_a_field_that_nobody_knows_are_refused() {
    let house = House::new();
    let good = json!({ "rules": [{ "id": "old", "prefix": "logs/", "expire_days": 30 }] });
    let file = house.write("rules", good.to_string().as_bytes());
    house.say(&["bucket", "lifecycle", "set", "photos", &file]);
    let set = house.json(&["bucket", "lifecycle", "get", "photos"]);
    assert_eq!(set["rules"][0]["expire_days"], 30);
    assert_eq!(set["rules"][0]["enabled"], true);
    let bad = json!({ "rules": [{ "id": "old", "expire_day": 1, "when": 2 }], "version": 1 });
    let file = house.write("rules", bad.to_string().as_bytes());
    let (code, text) = house.refuse(&["bucket", "lifecycle", "set", "photos", &file]);
    assert_eq!(code, 2, "{text}");
    for name in ["rules[0].expire_day", "rules[0].when", "version"] {
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(house.json(&["bucket", "lifecycle", "get", "photos"]), set, "nothing is changed");
    // What was told can be set again.
    let file = house.write("rules", set.to_string().as_bytes());
    house.say(&["bucket", "lifecycle", "set", "photos", &file]);
    house.say(&["bucket", "lifecycle", "remove", "photos"]);
    assert_eq!(house.json(&["bucket", "lifecycle", "get", "photos"]), json!({ "rules": [] }));
}

#[test]
fn a_policy_is_the_stores_own_text() {
    let house = House::new();
    assert_eq!(house.refuse(&["bucket", "policy", "get", "photos"]).0, 3);
    let text = "{\"Version\":\"2012-10-17\"}";
    let file = house.write("policy", text.as_bytes());
    house.say(&["bucket", "policy", "set", "photos", &file]);
    assert_eq!(house.say(&["bucket", "policy", "get", "photos"]).trim(), text);
    house.say(&["bucket", "policy", "remove", "photos"]);
    assert_eq!(house.refuse(&["bucket", "policy", "get", "photos"]).0, 3);
}

#[test]
fn what_is_said_of_an_object_is_changed() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&["object", "put", &file, "photos/k"]);
    assert_eq!(house.refuse(&["object", "change", "photos/k"]).0, 2);
    house.say(&["object", "change", "photos/k", "--content-type", "text/plain", "--meta", "a=b"]);
    let head = house.json(&["object", "head", "photos/k"]);
    assert_eq!(
        (&head["content_type"], &head["metadata"]),
        (&json!("text/plain"), &json!({ "a": "b" }))
    );
    house.say(&["object", "tags", "set", "photos/k", "x=1", "y=2"]);
    let tags = house.json(&["object", "tags", "get", "photos/k"]);
    assert_eq!(tags, json!({ "tags": { "x": "1", "y": "2" } }));
    assert_eq!(house.refuse(&["object", "tags", "set", "photos/k", "x=1", "x=2"]).0, 2);
    house.say(&["object", "tags", "clear", "photos/k"]);
    assert_eq!(house.json(&["object", "tags", "get", "photos/k"]), json!({ "tags": {} }));
    assert_eq!(house.content("photos/k"), b"content");
}

#[test]
fn a_url_is_written_alone() {
    let house = House::new();
    let file = house.write("f", b"content");
    house.say(&["object", "put", &file, "photos/k"]);
    for method in ["GET", "put", "HEAD", "DELETE"] {
        let text =
            house.say(&["object", "sign", "photos/k", "--method", method, "--expires", "5m"]);
        assert!(text.trim().contains("://") && text.lines().count() == 1, "{text}");
    }
    let part = ["object", "sign", "photos/k", "--method", "PUT-PART"];
    assert_eq!(house.refuse(&part).0, 2, "a part has an upload and a number");
    house.say(&[&part[..], &["--upload", "u", "--part", "1"]].concat());
    assert_eq!(house.refuse(&["object", "sign", "photos/k", "--expires", "5"]).0, 2);
}

#[test]
fn bad_names_are_refused_before_anything_is_asked() {
    let house = House::new();
    let file = house.write("f", b"content");
    for name in ["photos", "photos/", "/k", ""] {
        assert_eq!(house.refuse(&["object", "put", &file, name]).0, 2, "{name}");
    }
    let missing = house.text("not there");
    assert_eq!(house.refuse(&["object", "put", &missing, "photos/k"]).0, 3);
    assert_eq!(house.refuse(&["object", "put", "/", "photos/k"]).0, 2);
    assert_eq!(house.refuse(&["object", "put", &file, "photos/k", "--meta", "a b=c"]).0, 2);
    assert_eq!(house.refuse(&["object", "get", "photos/k", "out"]).0, 3);
    assert!(!house.file("out.partial").exists());
    assert_eq!(house.asked("put"), 0);
}
