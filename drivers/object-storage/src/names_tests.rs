// SPDX-License-Identifier: Apache-2.0
use super::*;

const ALL: [Kind; 4] = [Kind::S3, Kind::Azure, Kind::Gcs, Kind::Swift];

#[test]
fn usual_names_are_taken_everywhere() {
    for kind in ALL {
        for name in ["abc", "my-bucket-1", &"b".repeat(63)] {
            check_bucket(kind, name).unwrap_or_else(|error| panic!("{kind:?}: {error:#}"));
        }
        for name in ["", ".", "..", "a/b", "a\nb", &"b".repeat(300)] {
            assert!(check_bucket(kind, name).is_err(), "{kind:?} {name:?}");
        }
    }
}

#[test]
fn each_kind_has_rules_of_its_own() {
    for (name, taken) in [
        ("ab", [false, false, false, true]),
        ("Upper", [false, false, false, true]),
        ("a.b.c", [true, false, true, true]),
        ("a_b_c", [false, false, true, true]),
        ("-abc", [false, false, false, true]),
        ("a--b", [true, false, true, true]),
        ("a..b", [false, false, false, true]),
        ("$root", [false, true, false, true]),
        ("bücket", [false, false, false, true]),
    ] {
        for (kind, taken) in ALL.into_iter().zip(taken) {
            assert_eq!(check_bucket(kind, name).is_ok(), taken, "{kind:?} {name}");
        }
    }
}

#[test]
fn keys_lead_nowhere_else() {
    for key in ["a", "a/b", "a//b", "/a", "a/", "...", "a..b", "ü ?#%", &"k".repeat(1024)] {
        for kind in ALL {
            check_key(kind, key).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
    assert!(check_key(Kind::S3, "a\\b").is_ok() && check_key(Kind::Azure, "a\\b").is_err());
    for key in [
        "",
        ".",
        "..",
        "a/..",
        "../a",
        "a/./b",
        "a\0b",
        "a\nb",
        &"k".repeat(1025),
        &"ü".repeat(513),
    ] {
        assert!(check_key(Kind::S3, key).is_err(), "{key:?}");
    }
}
