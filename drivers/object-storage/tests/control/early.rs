// SPDX-License-Identifier: Apache-2.0
//! Uploads in parts under conditions that their store would ignore.

use driver_api::{
    ErrorKind,
    ext::{Conditions, ListQuery, ObjectAbilities, PutOptions},
};

use super::{
    can,
    support::{Stage, cx, refused},
    uploads::listed,
};

/// Whether a store heeds the conditions of an upload's completion: create-only, and for a certain ETag.
pub fn completes_under(store: &str) -> (bool, bool) {
    match store {
        "moto" | "swift" => (true, false),
        "azurite" => (true, true),
        "gcs" | "radosgw" => (false, false),
        other => panic!("nothing is known of {other}"),
    }
}

/// An upload whose completion would be refused is refused before anything is sent, by a backend that was asked for no
/// condition before, too; and from then on its abilities say so.
pub async fn early_refusals(stage: &Stage) {
    let (creates, updates) = completes_under(&stage.name);
    let fresh = Stage::new(&stage.name).await;
    let object = fresh.object("early");
    for (conditions, heeded, ability) in [
        (Conditions::create_only(), creates, ObjectAbilities::CREATE_ONLY_COMPLETE),
        (Conditions::matching("00ff"), updates, ObjectAbilities::UPDATE_COMPLETE),
    ] {
        let options = PutOptions { conditions: conditions.clone(), ..PutOptions::default() };
        let begun = fresh.objects.begin_upload(&cx(), object.clone(), options).await;
        assert_eq!(can(&fresh, ability), heeded, "{conditions:?}");
        if heeded {
            let upload = begun.unwrap_or_else(|error| panic!("{conditions:?}: {error:#}"));
            fresh.objects.abort_upload(&cx(), upload).await.expect("abort");
        } else {
            let error = refused(begun, ErrorKind::UNSUPPORTED);
            assert!(!error.remedy_text().is_empty(), "{error:#}");
        }
        // Neither a refusal nor finding out leaves anything.
        assert!(listed(&fresh, "").await.is_empty(), "{conditions:?}");
        let page = fresh.objects.list(
            &cx(),
            &fresh.bucket,
            ListQuery { limit: 10, ..ListQuery::default() },
        );
        assert!(page.await.expect("a page").objects.is_empty(), "{conditions:?}");
    }
}
