// SPDX-License-Identifier: Apache-2.0
use super::*;

fn account() -> Account {
    Account {
        email: "a@b".to_owned(),
        key_id: "k".to_owned(),
        audiences: Vec::new(),
        public: Vec::new(),
        seal: [7; 32],
    }
}

#[test]
fn the_widest_scope_counts() {
    let of = |names: &str| {
        let scopes: Vec<_> = names
            .split(' ')
            .map(|name| format!("https://www.googleapis.com/auth/{name}"))
            .collect();
        Access::of_scopes(&scopes.join(" "))
    };
    assert_eq!(of("devstorage.read_only"), Some(Access::Read));
    assert_eq!(of("devstorage.read_only devstorage.read_write"), Some(Access::Write));
    assert_eq!(of("cloud-platform pubsub"), Some(Access::Full));
    assert_eq!(of("pubsub"), None);
    assert!(Access::Write.need(Access::Full).is_err());
    assert!(Access::Write.need(Access::Read).is_ok());
}

#[test]
fn issued_tokens_cannot_be_changed_and_end() {
    let token = seal(&account(), Access::Read, 1000);
    let issued = token.strip_prefix(PREFIX).unwrap();
    assert_eq!(unseal(&account(), issued, 999), Ok(Access::Read));
    assert_eq!(unseal(&account(), issued, 1000), Err("the token has expired".to_owned()));
    for changed in
        [issued.replace("r.1000", "f.1000"), issued.replace("r.1000", "r.9999"), "x".to_owned()]
    {
        assert_eq!(
            unseal(&account(), &changed, 1),
            Err("the token was not issued here".to_owned())
        );
    }
    let other = Account { seal: [8; 32], ..account() };
    assert!(unseal(&other, issued, 1).is_err());
}
