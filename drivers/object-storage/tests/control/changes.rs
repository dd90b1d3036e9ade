// SPDX-License-Identifier: Apache-2.0
//! What changes objects that are there: deletions in bulk, and what is said of an object.

use driver_api::{
    ErrorKind, RString, RVec,
    ext::{Conditions, ObjectAbilities, ObjectChange, ObjectName, PutOptions},
};

use super::{
    can, content, now, put,
    support::{Stage, buf, cx, pairs, refused},
};

pub async fn bulk(stage: &Stage) {
    let all = ["bulk/1", "bulk/ü <&>", "bulk/+ %41"];
    for key in all {
        put(stage, key, b"x").await;
    }
    put(stage, "kept", b"x").await;
    let mut objects: RVec<_> = all.iter().map(|key| stage.object(key)).collect();
    objects.push(stage.object("bulk/never was"));
    let outcomes =
        stage.objects.delete_many(&cx(), &stage.bucket, objects).await.expect("outcomes");
    assert_eq!(outcomes.len(), 4);
    assert!(outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    for key in all {
        refused(
            stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
            ErrorKind::NOT_FOUND,
        );
    }
    assert_eq!(content(stage, "kept").await, b"x");
    let other = RVec::from(vec![ObjectName::new("another-bucket", "kept")]);
    refused(
        stage.objects.delete_many(&cx(), &stage.bucket, other).await,
        ErrorKind::INVALID_ARGUMENT,
    );
    let many: RVec<_> = (0..1001).map(|number| stage.object(&format!("{number}"))).collect();
    refused(
        stage.objects.delete_many(&cx(), &stage.bucket, many).await,
        ErrorKind::INVALID_ARGUMENT,
    );
}

pub async fn changes(stage: &Stage) {
    let object = stage.object("changed/one two");
    let options = PutOptions {
        content_type: "text/plain".into(),
        metadata: pairs(&[("old", "1"), ("cache-control", "no-store")]),
        mark: "abcd".into(),
        ..PutOptions::default()
    };
    stage.objects.put(&cx(), object.clone(), buf(b"content"), options).await.expect("put");
    let change = ObjectChange {
        content_type: Some(RString::from("text/html")).into(),
        metadata: Some(pairs(&[("content-language", "de"), ("fresh", "2")])).into(),
        ..ObjectChange::default()
    };
    let changed = stage.objects.change(&cx(), object.clone(), change).await.expect("a change");
    let head =
        stage.objects.head(&cx(), object.clone(), Conditions::default()).await.expect("head");
    assert_eq!((&changed.etag, changed.size), (&head.etag, 7));
    assert_eq!(head.content_type, "text/html");
    assert_eq!(head.metadata, pairs(&[("content-language", "de"), ("fresh", "2")]));
    assert_eq!(content(stage, "changed/one two").await, b"content");
    let only = ObjectChange {
        content_type: Some(RString::from("text/css")).into(),
        ..ObjectChange::default()
    };
    let head = stage.objects.change(&cx(), object.clone(), only).await.expect("a change");
    assert_eq!(
        head.metadata,
        pairs(&[("content-language", "de"), ("fresh", "2")]),
        "what is absent stays"
    );

    if can(stage, ObjectAbilities::STORAGE_CLASSES) {
        let class = match stage.name.as_str() {
            "gcs" => "NEARLINE",
            "azurite" => "Cool",
            "radosgw" => "STANDARD",
            _ => "STANDARD_IA",
        };
        let change =
            ObjectChange { storage_class: Some(class.into()).into(), ..ObjectChange::default() };
        let head = stage.objects.change(&cx(), object.clone(), change).await.expect("a class");
        assert_eq!(
            (head.content_type.as_str(), &head.metadata),
            ("text/css", &pairs(&[("content-language", "de"), ("fresh", "2")])),
            "what is said of it stays"
        );
        assert_eq!(content(stage, "changed/one two").await, b"content");
    }

    let tags = pairs(&[("colour", "dark red"), ("size", "1/2")]);
    let change = ObjectChange { tags: Some(tags.clone()).into(), ..ObjectChange::default() };
    if can(stage, ObjectAbilities::TAGS) {
        stage.objects.change(&cx(), object.clone(), change).await.expect("tags");
        let mut told = stage.objects.tags(&cx(), object.clone()).await.expect("tags");
        told.sort();
        assert_eq!(told, tags);
        let change = ObjectChange { metadata: Some(RVec::new()).into(), ..ObjectChange::default() };
        stage.objects.change(&cx(), object.clone(), change).await.expect("a change");
        let mut told = stage.objects.tags(&cx(), object.clone()).await.expect("tags");
        told.sort();
        assert_eq!(told, tags, "tags stay");
        let none = ObjectChange { tags: Some(RVec::new()).into(), ..ObjectChange::default() };
        stage.objects.change(&cx(), object.clone(), none).await.expect("no tags");
        assert_eq!(stage.objects.tags(&cx(), object.clone()).await.expect("no tags"), RVec::new());
        assert_eq!(content(stage, "changed/one two").await, b"content");
    } else {
        refused(stage.objects.change(&cx(), object.clone(), change).await, ErrorKind::UNSUPPORTED);
        refused(stage.objects.tags(&cx(), object.clone()).await, ErrorKind::UNSUPPORTED);
    }
    let expiry = ObjectChange { expire_after_secs: Some(3600).into(), ..ObjectChange::default() };
    let changed = stage.objects.change(&cx(), object.clone(), expiry).await;
    if can(stage, ObjectAbilities::OBJECT_EXPIRY) {
        let left = changed.expect("an expiry").expires_ms / 1000 - now();
        assert!((3500..=3600).contains(&left), "{left}");
        let never = ObjectChange { expire_after_secs: Some(0).into(), ..ObjectChange::default() };
        assert_eq!(
            stage.objects.change(&cx(), object.clone(), never).await.expect("no expiry").expires_ms,
            0
        );
    } else {
        refused(changed, ErrorKind::UNSUPPORTED);
    }
    let nothing =
        ObjectChange { content_type: Some(RString::from("a/b")).into(), ..ObjectChange::default() };
    refused(
        stage.objects.change(&cx(), stage.object("nothing"), nothing).await,
        ErrorKind::NOT_FOUND,
    );
}
