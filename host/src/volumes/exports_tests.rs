// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::access::Address;

fn stored(body: &str) -> Stored<ExportRecord> {
    let record = serde_json::from_str(body).unwrap();
    Stored { name: "disk".into(), revision: 1, record }
}

fn user(uid: u32) -> Peer {
    Peer { address: Address::Unix { uid: Some(uid) }, certificate: None }
}

#[test]
fn an_export_of_before_there_were_rules_admits_everybody() {
    let old = stored(r#"{"volume": "disk", "read_only": true, "created_unix_secs": 7}"#);
    assert!(old.admits(&user(1)));
    assert!(!old.record.default);
    let written = serde_json::to_value(&old.record).unwrap();
    assert_eq!(written.get("allow"), None, "as it was");
}

#[test]
fn one_rule_is_enough_and_an_unknown_one_admits_nobody() {
    let body = |rules: &str| {
        format!(
            r#"{{"volume": "v", "read_only": false, "created_unix_secs": 7, "allow": {rules}}}"#
        )
    };
    let two = stored(&body(r#"["uid:1", "uid:2"]"#));
    assert!(two.admits(&user(1)) && two.admits(&user(2)) && !two.admits(&user(3)));
    let newer = stored(&body(r#"["moon:full"]"#));
    assert!(!newer.admits(&user(1)), "it must not be taken for no rule");
    let mixed = stored(&body(r#"["moon:full", "uid:1"]"#));
    assert!(mixed.admits(&user(1)) && !mixed.admits(&user(2)));
}
