// SPDX-License-Identifier: Apache-2.0
//! Buckets, what is set on them, listings, uploads, deletions in bulk and signed URLs on each kind of store, by one body of
//! tests.
#![allow(dead_code)]

mod early;
#[path = "../support/mod.rs"]
pub mod support;

use std::{fs, process::Command, time::Duration};

use driver_api::{
    ErrorKind, RString, RVec,
    ext::{
        BucketSpec, Conditions, LifecycleRule, ListPage, ListQuery, ObjectAbilities, ObjectChange,
        ObjectInfo, ObjectName, PartInfo, PutOptions, SignRequest, SignedMethod, SignedUrl,
        UploadInfo, UploadQuery, Versioning,
    },
};
use early::completes_under;
pub use early::early_refusals;
use support::{Addresses, Stage, buf, cx, fresh, noise, pairs, refused};

pub fn can(stage: &Stage, ability: ObjectAbilities) -> bool {
    stage.objects.features().abilities.has(ability)
}

pub async fn put(stage: &Stage, key: &str, data: &[u8]) -> ObjectInfo {
    stage
        .objects
        .put(&cx(), stage.object(key), buf(data), PutOptions::default())
        .await
        .expect("put")
}

pub async fn content(stage: &Stage, key: &str) -> Vec<u8> {
    let get = stage.objects.get(&cx(), stage.object(key), 0, 64 << 20, Conditions::default());
    get.await.unwrap_or_else(|error| panic!("{key}: {error:#}")).data.to_vec()
}

pub async fn buckets(stage: &Stage) {
    let name = fresh("control");
    let spec = BucketSpec::new(&name);
    let made = stage.objects.create_bucket(&cx(), spec.clone()).await.expect("a bucket");
    assert_eq!(made.name, name);
    // Once more is no error: it is there as it is to be.
    stage.objects.create_bucket(&cx(), spec.clone()).await.expect("the same bucket");
    if can(stage, ObjectAbilities::VERSIONING) {
        let other = BucketSpec { versioning: true, ..spec.clone() };
        refused(stage.objects.create_bucket(&cx(), other).await, ErrorKind::ALREADY_EXISTS);
    }
    let odd =
        BucketSpec { options: pairs(&[("no_such_option", "x")]), ..BucketSpec::new(&fresh("odd")) };
    refused(stage.objects.create_bucket(&cx(), odd).await, ErrorKind::INVALID_ARGUMENT);
    let all = stage.objects.buckets(&cx()).await.expect("buckets");
    assert!(all.iter().any(|bucket| bucket.name == name), "{name} is not listed");
    assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "by name");
    let shown = stage.objects.bucket(&cx(), &name).await.expect("the bucket");
    assert_eq!(shown.name, name);

    let object = ObjectName::new(&name, "a/b c+d");
    stage.objects.put(&cx(), object.clone(), buf(b"x"), PutOptions::default()).await.expect("put");
    let error = refused(stage.objects.delete_bucket(&cx(), &name).await, ErrorKind::IN_USE);
    assert!(format!("{error:#}").contains("a/b c+d"), "{error:#}");
    stage.objects.delete(&cx(), object, Conditions::default()).await.expect("delete");
    stage.objects.delete_bucket(&cx(), &name).await.expect("an empty bucket");
    refused(stage.objects.bucket(&cx(), &name).await, ErrorKind::NOT_FOUND);
    refused(stage.objects.delete_bucket(&cx(), &name).await, ErrorKind::NOT_FOUND);
    let all = stage.objects.buckets(&cx()).await.expect("buckets");
    assert!(all.iter().all(|bucket| bucket.name != name));
    if stage.name != "swift" {
        let short = refused(
            stage.objects.create_bucket(&cx(), BucketSpec::new("ab")).await,
            ErrorKind::INVALID_ARGUMENT,
        );
        assert!(format!("{short:#}").contains("3"), "{short:#}");
    }
}

pub async fn policies(stage: &Stage) {
    let bucket = &stage.bucket;
    let before = stage.objects.policy(&cx(), bucket).await.expect("the policy");
    let (policy, bad) = match stage.objects.features().kind.as_str() {
        "s3" => {
            let policy = format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Sid":"Readers","Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{bucket}/*"}}]}}"#
            );
            (policy, None)
        }
        "azure" => {
            let policy = r#"{"public_access":"blob","policies":[{"id":"readers","start":"2026-01-01T00:00:00Z","expiry":"2036-01-01T00:00:00Z","permission":"r"}]}"#;
            (policy.to_owned(), Some(r#"{"public_access":"everybody"}"#))
        }
        "gcs" => {
            let mut policy: serde_json::Value = serde_json::from_str(&before).expect("JSON");
            let reader =
                serde_json::json!({"role": "roles/storage.objectViewer", "members": ["allUsers"]});
            policy["bindings"].as_array_mut().expect("bindings").push(reader);
            (policy.to_string(), Some(r#"{"no": "bindings"}"#))
        }
        _ => (r#"{"read":".r:*,.rlistings","write":""}"#.to_owned(), Some(r#"{"execute":"me"}"#)),
    };
    stage.objects.set_policy(&cx(), bucket, &policy).await.expect("a policy");
    let told = stage.objects.policy(&cx(), bucket).await.expect("the policy");
    for word in ["Readers", "readers", "objectViewer", ".rlistings"] {
        assert_eq!(policy.contains(word), told.contains(word), "{told}");
    }
    if let Some(bad) = bad {
        refused(stage.objects.set_policy(&cx(), bucket, bad).await, ErrorKind::INVALID_ARGUMENT);
        assert_eq!(stage.objects.policy(&cx(), bucket).await.expect("the policy"), told);
    }
    if stage.objects.features().kind == "gcs" {
        refused(stage.objects.set_policy(&cx(), bucket, "").await, ErrorKind::UNSUPPORTED);
        return;
    }
    stage.objects.set_policy(&cx(), bucket, "").await.expect("no policy");
    assert_eq!(stage.objects.policy(&cx(), bucket).await.expect("no policy"), "");
    stage.objects.set_policy(&cx(), bucket, "").await.expect("still no policy");
    stage.objects.bucket(&cx(), bucket).await.expect("the bucket is still there");
    refused(stage.objects.policy(&cx(), "no-such-bucket-here").await, ErrorKind::NOT_FOUND);
}

pub fn rule(id: &str, prefix: &str) -> LifecycleRule {
    LifecycleRule {
        id: id.into(),
        enabled: true,
        prefix: prefix.into(),
        ..LifecycleRule::default()
    }
}

pub async fn lifecycle(stage: &Stage) {
    let bucket = &stage.bucket;
    if !can(stage, ObjectAbilities::EXPIRE_RULES) {
        let error = refused(stage.objects.lifecycle(&cx(), bucket).await, ErrorKind::UNSUPPORTED);
        let reason = if stage.name == "azurite" { "management plane" } else { "expire" };
        assert!(format!("{error:#}").contains(reason), "{error:#}");
        let rules = RVec::from(vec![LifecycleRule { expire_days: 1, ..rule("a", "") }]);
        refused(stage.objects.set_lifecycle(&cx(), bucket, rules).await, ErrorKind::UNSUPPORTED);
        return;
    }
    assert_eq!(stage.objects.lifecycle(&cx(), bucket).await.expect("no rules"), RVec::new());
    let mut rules = vec![
        LifecycleRule { expire_days: 30, ..rule("rule-1", "logs/<&>") },
        LifecycleRule { abort_upload_days: 7, ..rule("rule-2", "") },
    ];
    if stage.name != "radosgw" {
        rules.push(LifecycleRule {
            transition_days: 10,
            transition_class: "ARCHIVE".into(),
            ..rule("rule-3", "old/")
        });
        if stage.objects.features().kind == "s3" {
            rules[2].transition_class = "GLACIER".into();
        }
    }
    rules.push(LifecycleRule {
        expire_noncurrent_days: 3,
        ..rule(&format!("rule-{}", rules.len() + 1), "x")
    });
    let set =
        stage.objects.set_lifecycle(&cx(), bucket, rules.clone().into()).await.expect("rules");
    let mut told = set.to_vec();
    told.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(told, rules);
    assert_eq!(stage.objects.lifecycle(&cx(), bucket).await.expect("rules"), set);
    for bad in [
        rule("nothing", ""),
        LifecycleRule { transition_days: 3, ..rule("half", "") },
        LifecycleRule { expire_days: 1, ..rule("control\u{1}", "") },
    ] {
        refused(
            stage.objects.set_lifecycle(&cx(), bucket, vec![bad].into()).await,
            ErrorKind::INVALID_ARGUMENT,
        );
    }
    assert_eq!(
        stage.objects.lifecycle(&cx(), bucket).await.expect("rules"),
        set,
        "bad rules changed nothing"
    );
    let none = stage.objects.set_lifecycle(&cx(), bucket, RVec::new()).await.expect("no rules");
    assert_eq!(none, RVec::new());
    stage.objects.set_lifecycle(&cx(), bucket, RVec::new()).await.expect("still no rules");
    stage.objects.bucket(&cx(), bucket).await.expect("the bucket is still there");
}

pub async fn pages(stage: &Stage, bucket: &str, query: ListQuery) -> (ListPage, usize) {
    let (mut whole, mut query, mut count) = (ListPage::default(), query, 0);
    loop {
        let page = stage
            .objects
            .list(&cx(), bucket, query.clone())
            .await
            .unwrap_or_else(|error| panic!("{query:?}: {error:#}"));
        assert!(
            page.objects.len() + page.prefixes.len() <= query.limit as usize,
            "more than {}",
            query.limit
        );
        count += 1;
        assert!(count < 1000, "no end of {query:?}");
        whole.objects.extend(page.objects);
        whole.prefixes.extend(page.prefixes);
        if page.next.is_empty() {
            return (whole, count);
        }
        (query.page, query.after) = (page.next, RString::new());
    }
}

pub fn keys(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}

pub async fn listings(stage: &Stage) {
    let bucket = fresh("listed");
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let mut all: Vec<String> = (0..23).map(|number| format!("many/{number:02}")).collect();
    all.extend(["a", "a b+c%d", "b/1", "b/2", "c/x/y", "ü", "z"].map(str::to_owned));
    all.sort();
    for key in &all {
        let object = ObjectName::new(&bucket, key);
        stage
            .objects
            .put(&cx(), object, buf(key.as_bytes()), PutOptions::default())
            .await
            .expect("put");
    }
    let query = |limit| ListQuery { limit, ..ListQuery::default() };
    let (whole, count) = pages(stage, &bucket, query(1000)).await;
    assert_eq!((keys(&whole), count), (all.iter().map(String::as_str).collect(), 1));
    let one = whole.objects.iter().find(|object| object.key == "a b+c%d").expect("listed");
    let head = stage
        .objects
        .head(&cx(), ObjectName::new(&bucket, "a b+c%d"), Conditions::default())
        .await
        .expect("head");
    assert_eq!((one.size, &one.etag, one.latest), (7, &head.etag, true));
    assert!(
        one.modified_ms / 1000 == head.modified_ms / 1000,
        "{} {}",
        one.modified_ms,
        head.modified_ms
    );

    let (paged, count) = pages(stage, &bucket, query(7)).await;
    assert_eq!(keys(&paged), keys(&whole));
    assert!((5..=6).contains(&count), "{count} pages");
    let (some, _) = pages(stage, &bucket, ListQuery { prefix: "many/".into(), ..query(5) }).await;
    assert_eq!(some.objects.len(), 23);
    let (after, _) = pages(stage, &bucket, ListQuery { after: "many/20".into(), ..query(3) }).await;
    assert_eq!(keys(&after), ["many/21", "many/22", "z", "ü"]);
    let (late, _) = pages(
        stage,
        &bucket,
        ListQuery { after: "many/2".into(), prefix: "many/".into(), ..query(2) },
    )
    .await;
    assert_eq!(keys(&late), ["many/20", "many/21", "many/22"]);
    for limit in [1, 2, 100] {
        let (parted, _) =
            pages(stage, &bucket, ListQuery { delimiter: "/".into(), ..query(limit) }).await;
        assert_eq!(keys(&parted), ["a", "a b+c%d", "z", "ü"]);
        assert_eq!(
            parted.prefixes.iter().map(|prefix| prefix.as_str()).collect::<Vec<_>>(),
            ["b/", "c/", "many/"]
        );
    }
    let nested = ListQuery { prefix: "c/".into(), delimiter: "/".into(), ..query(10) };
    let (nested, _) = pages(stage, &bucket, nested).await;
    assert_eq!(
        (keys(&nested), nested.prefixes.len(), nested.prefixes[0].as_str()),
        (vec![], 1, "c/x/")
    );
    let (none, _) =
        pages(stage, &bucket, ListQuery { prefix: "nothing".into(), ..query(10) }).await;
    assert_eq!(none, ListPage::default());

    refused(stage.objects.list(&cx(), &bucket, query(0)).await, ErrorKind::INVALID_ARGUMENT);
    let both = ListQuery { page: "3:abcx".into(), after: "b".into(), ..query(1) };
    refused(stage.objects.list(&cx(), &bucket, both).await, ErrorKind::INVALID_ARGUMENT);
    let odd = ListQuery { page: "what is this".into(), ..query(1) };
    refused(stage.objects.list(&cx(), &bucket, odd).await, ErrorKind::INVALID_ARGUMENT);
    refused(stage.objects.list(&cx(), "no-such-bucket-here", query(1)).await, ErrorKind::NOT_FOUND);
    let objects: RVec<_> = all.iter().map(|key| ObjectName::new(&bucket, key)).collect();
    let outcomes = stage.objects.delete_many(&cx(), &bucket, objects).await.expect("outcomes");
    assert!(outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("an empty bucket");
}

pub async fn versions(stage: &Stage) {
    let bucket = fresh("versions");
    if !can(stage, ObjectAbilities::VERSIONING) {
        let error = refused(
            stage.objects.set_versioning(&cx(), &stage.bucket, true).await,
            ErrorKind::UNSUPPORTED,
        );
        assert!(format!("{error:#}").contains("account"), "{error:#}");
        return;
    }
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let on = stage.objects.set_versioning(&cx(), &bucket, true).await.expect("versioning");
    assert_eq!(on.versioning, Versioning::ON);
    assert_eq!(
        stage.objects.bucket(&cx(), &bucket).await.expect("show").versioning,
        Versioning::ON
    );
    let object = ObjectName::new(&bucket, "k/1");
    for data in [&b"first"[..], b"second!", b"third"] {
        stage
            .objects
            .put(&cx(), object.clone(), buf(data), PutOptions::default())
            .await
            .expect("put");
        // Swift tells versions apart by their time.
        sleep(20);
    }
    stage.objects.delete(&cx(), object.clone(), Conditions::default()).await.expect("delete");
    for limit in [1000, 1] {
        let query = ListQuery { limit, versions: true, ..ListQuery::default() };
        let (listed, _) = pages(stage, &bucket, query).await;
        let sizes: Vec<_> = listed
            .objects
            .iter()
            .filter(|object| !object.deleted)
            .map(|object| object.size)
            .collect();
        let mut sorted = sizes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [5, 5, 7], "limit {limit}: {listed:?}");
        if stage.objects.features().kind != "gcs" {
            assert_eq!(
                listed.objects.iter().filter(|object| object.deleted && object.latest).count(),
                1,
                "{listed:?}"
            );
        }
        let second =
            listed.objects.iter().find(|object| object.size == 7).expect("the second version");
        let old = ObjectName { version: second.version.clone(), ..object.clone() };
        let get = stage
            .objects
            .get(&cx(), old, 0, 100, Conditions::default())
            .await
            .expect("an old version");
        assert_eq!(&get.data[..], b"second!");
    }
    let plain = ListQuery { limit: 10, ..ListQuery::default() };
    assert!(stage.objects.list(&cx(), &bucket, plain).await.expect("a page").objects.is_empty());
    let error = refused(stage.objects.delete_bucket(&cx(), &bucket).await, ErrorKind::IN_USE);
    assert!(format!("{error:#}").contains("k/1"), "{error:#}");
    let query = ListQuery { limit: 1000, versions: true, ..ListQuery::default() };
    let (listed, _) = pages(stage, &bucket, query).await;
    let named = |info: &ObjectInfo| ObjectName {
        version: info.version.clone(),
        ..ObjectName::new(&bucket, &info.key)
    };
    let objects: RVec<_> = listed.objects.iter().map(named).collect();
    let outcomes = stage.objects.delete_many(&cx(), &bucket, objects).await.expect("outcomes");
    assert!(outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    let off = stage.objects.set_versioning(&cx(), &bucket, false).await.expect("no versioning");
    assert!(matches!(off.versioning, Versioning::SUSPENDED | Versioning::OFF), "{off:?}");
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("nothing is left");
}

pub fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

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

pub fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

const PART: usize = 5 << 20;

pub async fn begin(stage: &Stage, key: &str, mark: &str) -> UploadInfo {
    let options = PutOptions {
        content_type: "text/x-parts".into(),
        metadata: pairs(&[("colour", "blue")]),
        mark: mark.into(),
        ..PutOptions::default()
    };
    stage.objects.begin_upload(&cx(), stage.object(key), options).await.expect("an upload")
}

pub async fn part(stage: &Stage, upload: &UploadInfo, number: u32, data: &[u8]) -> PartInfo {
    let put = stage.objects.put_part(&cx(), upload.clone(), number, buf(data)).await;
    put.unwrap_or_else(|error| panic!("part {number}: {error:#}"))
}

pub async fn listed(stage: &Stage, prefix: &str) -> Vec<UploadInfo> {
    let (mut found, mut query) =
        (Vec::new(), UploadQuery { prefix: prefix.into(), limit: 1, ..UploadQuery::default() });
    for _ in 0..1000 {
        let page =
            stage.objects.uploads(&cx(), &stage.bucket, query.clone()).await.expect("uploads");
        found.extend(page.uploads);
        query.page = page.next;
        if query.page.is_empty() {
            return found;
        }
    }
    panic!("no end of uploads");
}

pub async fn uploads(stage: &Stage) {
    let key = "parts/the object";
    let tags = pairs(&[("kind", "a b+c=d")]);
    let options = PutOptions {
        content_type: "text/x-parts".into(),
        metadata: pairs(&[("colour", "blue"), ("content-language", "de")]),
        tags: if can(stage, ObjectAbilities::TAGS) { tags.clone() } else { RVec::new() },
        mark: "0123456789abcdef".into(),
        ..PutOptions::default()
    };
    let both = Conditions { if_match: "00".into(), ..Conditions::create_only() };
    let contradictory = PutOptions { conditions: both, ..options.clone() };
    refused(
        stage.objects.begin_upload(&cx(), stage.object(key), contradictory).await,
        ErrorKind::INVALID_ARGUMENT,
    );
    let upload =
        stage.objects.begin_upload(&cx(), stage.object(key), options).await.expect("an upload");
    assert_eq!((upload.bucket.as_str(), upload.key.as_str()), (stage.bucket.as_str(), key));
    assert!(
        !upload.id.is_empty() && upload.id.bytes().all(|byte| (b'!'..=b'~').contains(&byte)),
        "{}",
        upload.id
    );
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let data = noise(2 * PART + 1000);
    let chunks: Vec<&[u8]> = data.chunks(PART).collect();
    // The numbers have a gap, one part is replaced, and their order is not that of writing.
    let third = part(stage, &upload, 5, chunks[2]).await;
    part(stage, &upload, 1, &noise(PART - 7)).await;
    let first = part(stage, &upload, 1, chunks[0]).await;
    let second = part(stage, &upload, 2, chunks[1]).await;
    for number in [0, stage.objects.features().max_parts + 1] {
        let put = stage.objects.put_part(&cx(), upload.clone(), number, buf(b"x")).await;
        refused(put, ErrorKind::INVALID_ARGUMENT);
    }
    // Who resumes has the id alone, and asks for the parts.
    let page = stage.objects.parts(&cx(), upload.clone(), 0, 2).await.expect("parts");
    assert_eq!(
        page.parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(1, PART as u64), (2, PART as u64)]
    );
    assert!(page.more);
    let rest = stage.objects.parts(&cx(), upload.clone(), 2, 100).await.expect("parts");
    assert_eq!(
        rest.parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(5, 1000)]
    );
    assert!(!rest.more);
    for (told, known) in page.parts.iter().chain(&rest.parts).zip([&first, &second, &third]) {
        assert_eq!(told.etag, known.etag);
        let kind = |checksum: &str| checksum.split(':').next().map(str::to_owned);
        let same = kind(&told.checksum) == kind(&known.checksum);
        assert!(!same || told.checksum == known.checksum, "{told:?} {known:?}");
    }
    let found = listed(stage, "parts/").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].key, key);
    assert!(upload.id.starts_with(found[0].id.as_str()), "{} {}", upload.id, found[0].id);
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let parts = RVec::from(vec![first.clone(), second.clone(), third]);
    let disorder = RVec::from(vec![second, first]);
    let complete = |parts: RVec<PartInfo>| {
        stage.objects.complete_upload(&cx(), upload.clone(), parts, Conditions::default())
    };
    refused(complete(disorder).await, ErrorKind::INVALID_ARGUMENT);
    refused(complete(RVec::new()).await, ErrorKind::INVALID_ARGUMENT);
    let made = complete(parts.clone()).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(made.size, data.len() as u64);
    assert!(content(stage, key).await == data, "other bytes");
    let head =
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await.expect("head");
    assert_eq!(
        (head.etag.as_str(), head.content_type.as_str()),
        (made.etag.as_str(), "text/x-parts")
    );
    assert_eq!(head.metadata, pairs(&[("colour", "blue"), ("content-language", "de")]));
    if can(stage, ObjectAbilities::TAGS) {
        assert_eq!(stage.objects.tags(&cx(), stage.object(key)).await.expect("tags"), tags);
    }
    let again = complete(parts.clone()).await.unwrap_or_else(|error| panic!("again: {error:#}"));
    assert_eq!(again.etag, made.etag);
    assert!(listed(stage, "parts/").await.is_empty());
    // Somebody else's object is not taken for the upload's.
    put(stage, key, b"another").await;
    let error = complete(parts).await.expect_err("another's object");
    assert!([ErrorKind::NOT_FOUND, ErrorKind::TIMED_OUT].contains(&error.kind()), "{error:#}");
    assert_eq!(content(stage, key).await, b"another");
}

pub async fn upload_conditions(stage: &Stage) {
    let key = "parts/conditional";
    let data = noise(3000);
    put(stage, key, b"in the way").await;
    // What the store heeds is known once it was tried out; until then the usual is told.
    let options = PutOptions { conditions: Conditions::create_only(), ..PutOptions::default() };
    stage.objects.put(&cx(), stage.object("tried"), buf(b"x"), options).await.expect("put");
    let upload = begin(stage, key, "aa01").await;
    let parts = RVec::from(vec![part(stage, &upload, 1, &data).await]);
    let complete = |conditions| {
        stage.objects.complete_upload(&cx(), upload.clone(), parts.clone(), conditions)
    };
    refused(complete(Conditions::create_only()).await, ErrorKind::ALREADY_EXISTS);
    assert_eq!(content(stage, key).await, b"in the way");
    let (creates, updates) = completes_under(&stage.name);
    if updates {
        refused(
            complete(Conditions::matching("0123456789abcdef0123456789abcdef")).await,
            ErrorKind::CONFLICT,
        );
        assert_eq!(content(stage, key).await, b"in the way");
        let etag = stage
            .objects
            .head(&cx(), stage.object(key), Conditions::default())
            .await
            .expect("head")
            .etag;
        complete(Conditions::matching(&etag)).await.expect("the condition holds");
        assert_eq!(content(stage, key).await, data);
        // Its own object does not refuse it: it has happened.
        complete(Conditions::matching(&etag)).await.expect("again");
    } else {
        // A condition that holds now need not hold when the store completes the upload.
        let etag = stage.objects.head(&cx(), stage.object(key), Conditions::default()).await;
        let etag = etag.expect("head").etag;
        refused(complete(Conditions::matching(&etag)).await, ErrorKind::UNSUPPORTED);
        assert_eq!(content(stage, key).await, b"in the way");
        complete(Conditions::default()).await.expect("without a condition");
        assert_eq!(content(stage, key).await, data);
    }
    if !creates {
        return;
    }
    let key = "parts/new";
    let upload = begin(stage, key, "aa02").await;
    let parts = RVec::from(vec![part(stage, &upload, 1, &data).await]);
    for _ in 0..2 {
        let complete = stage.objects.complete_upload(
            &cx(),
            upload.clone(),
            parts.clone(),
            Conditions::create_only(),
        );
        complete.await.expect("nothing was there before");
    }
}

pub async fn abandoned(stage: &Stage) {
    let bucket = fresh("abandoned");
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let object = ObjectName::new(&bucket, "left behind");
    let upload = stage
        .objects
        .begin_upload(&cx(), object.clone(), PutOptions::default())
        .await
        .expect("an upload");
    part(stage, &upload, 1, b"some bytes").await;
    let error = refused(stage.objects.delete_bucket(&cx(), &bucket).await, ErrorKind::IN_USE);
    assert!(format!("{error:#}").contains("left behind"), "{error:#}");
    let page = stage
        .objects
        .uploads(&cx(), &bucket, UploadQuery { limit: 10, ..UploadQuery::default() })
        .await;
    // What a listing tells is enough to give it up, and to know that it is old.
    let found = page.expect("uploads").uploads.into_iter().next().expect("the upload");
    let age = (now() * 1000).abs_diff(found.started_ms);
    // moto says of all uploads that they were begun in 2010.
    assert!(age < 60_000 || stage.name == "moto", "begun at {} of {}", found.started_ms, now());
    stage.objects.abort_upload(&cx(), found).await.expect("abort");
    stage.objects.abort_upload(&cx(), upload.clone()).await.expect("once more");
    refused(stage.objects.head(&cx(), object, Conditions::default()).await, ErrorKind::NOT_FOUND);
    refused(stage.objects.parts(&cx(), upload, 0, 10).await, ErrorKind::NOT_FOUND);
    let page = stage
        .objects
        .uploads(&cx(), &bucket, UploadQuery { limit: 10, ..UploadQuery::default() })
        .await;
    assert!(page.expect("uploads").uploads.is_empty());
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("nothing is left");
}

/// What plain curl makes of a signed URL: the status and the body.
pub fn curl(
    stage: &Stage,
    url: &str,
    method: &str,
    headers: &SignedUrl,
    body: Option<&[u8]>,
) -> (u16, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (answer, data) = (dir.path().join("answer"), dir.path().join("data"));
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--noproxy",
        "*",
        "--write-out",
        "%{http_code}",
    ]);
    command.arg("--output").arg(&answer);
    match method {
        "HEAD" => command.arg("--head"),
        _ => command.args(["--request", method]),
    };
    if let Some(body) = body {
        fs::write(&data, body).expect("a file");
        command.arg("--data-binary").arg(format!("@{}", data.display()));
        command.args(["--header", "Content-Type:"]);
    }
    for header in &headers.headers {
        command.arg("--header").arg(format!("{}: {}", header.0, header.1));
    }
    if stage.objects.features().kind == "gcs" {
        // The signature is for Google's host.
        let at = Addresses::read();
        let server = at.get("gcs_tls").trim_start_matches("https://").to_owned();
        command
            .arg("--connect-to")
            .arg(format!("storage.googleapis.com:443:{server}"))
            .arg("--insecure");
    }
    let output = command.arg(url).output().expect("curl");
    let status = String::from_utf8_lossy(&output.stdout)
        .parse()
        .unwrap_or_else(|_| panic!("curl: {output:?}"));
    (status, fs::read(&answer).unwrap_or_default())
}

pub async fn signed(stage: &Stage, method: SignedMethod, key: &str, secs: u64) -> SignedUrl {
    let request = SignRequest {
        method,
        object: stage.object(key),
        expire_secs: secs,
        ..SignRequest::default()
    };
    stage.objects.sign(&cx(), request).await.unwrap_or_else(|error| panic!("{key}: {error:#}"))
}

pub async fn signatures(stage: &Stage) {
    if stage.name == "gcs" {
        // The URL is for HTTPS, behind which the fake keeps other buckets.
        let ca = Addresses::read().get("ca").to_owned();
        return signed_urls(&Stage::with("gcs_tls", serde_json::json!({"ca_file": ca})).await)
            .await;
    }
    signed_urls(stage).await;
}

pub async fn signed_urls(stage: &Stage) {
    let key = "signed/a b+c ü";
    let data = noise(5000);
    let put = signed(stage, SignedMethod::PUT, key, 600).await;
    assert!(put.expires >= now() + 590 && put.expires <= now() + 600);
    let (status, body) = curl(stage, &put.url, "PUT", &put, Some(&data));
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    assert_eq!(content(stage, key).await, data);
    let get = signed(stage, SignedMethod::GET, key, 600).await;
    let (status, body) = curl(stage, &get.url, "GET", &get, None);
    assert!(status == 200 && body == data, "{status} {}", String::from_utf8_lossy(&body));
    let head = signed(stage, SignedMethod::HEAD, key, 600).await;
    assert_eq!(curl(stage, &head.url, "HEAD", &head, None).0, 200);

    // moto checks no signatures.
    let checks = !stage.name.starts_with("moto");
    let refuses = |url: &str, method: &str, headers: &SignedUrl, body: Option<&[u8]>, why: &str| {
        let (status, _) = curl(stage, url, method, headers, body);
        assert!(!checks || matches!(status, 400 | 401 | 403), "{why}: {status}");
    };
    if checks {
        refuses(&get.url, "DELETE", &get, None, "wrong method");
        refuses(&get.url, "PUT", &put, Some(b"forged"), "wrong method");
        let other = get.url.replacen("signed/", "singed/", 1);
        assert_ne!(other, get.url.as_str());
        refuses(&other, "GET", &get, None, "another object");
        let longer = tampered(&get.url);
        refuses(&longer, "GET", &get, None, "tampered");
        assert_eq!(content(stage, key).await, data);
        let short = signed(stage, SignedMethod::GET, key, 1).await;
        sleep(2500);
        refuses(&short.url, "GET", &short, None, "expired");
    }
    let delete = signed(stage, SignedMethod::DELETE, key, 60).await;
    let (status, body) = curl(stage, &delete.url, "DELETE", &delete, None);
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let most = stage.objects.features().max_sign_secs;
    for expire_secs in [0, most + 1, u64::MAX] {
        let request =
            SignRequest { object: stage.object(key), expire_secs, ..SignRequest::default() };
        refused(stage.objects.sign(&cx(), request).await, ErrorKind::INVALID_ARGUMENT);
    }
    signed(stage, SignedMethod::GET, key, most).await;
    if can(stage, ObjectAbilities::SIGN_PARTS) {
        signed_parts(stage, &data).await;
    }
}

/// The URL with a later expiry, or else with another last digit of its signature.
pub fn tampered(url: &str) -> String {
    for name in ["X-Amz-Expires=600", "X-Goog-Expires=600"] {
        if url.contains(name) {
            return url.replacen(name, &name.replace("600", "6000"), 1);
        }
    }
    for name in ["se=", "temp_url_expires="] {
        if let Some(at) = url.find(name).map(|at| at + name.len()) {
            // The first digit of a year, or of the seconds since 1970.
            let digit = if name == "se=" { "3" } else { "9" };
            return format!("{}{digit}{}", &url[..at], &url[at + 1..]);
        }
    }
    panic!("nothing to tamper with in {url}");
}

pub async fn signed_parts(stage: &Stage, data: &[u8]) {
    let upload = begin(stage, "signed/parts", "bb01").await;
    let request = SignRequest {
        method: SignedMethod::PUT_PART,
        object: stage.object("signed/parts"),
        expire_secs: 600,
        upload: upload.id.clone(),
        part: 1,
        ..SignRequest::default()
    };
    for bad in [
        SignRequest { part: 0, ..request.clone() },
        SignRequest { upload: "".into(), ..request.clone() },
    ] {
        refused(stage.objects.sign(&cx(), bad).await, ErrorKind::INVALID_ARGUMENT);
    }
    let url = stage.objects.sign(&cx(), request).await.expect("a URL");
    let (status, body) = curl(stage, &url.url, "PUT", &url, Some(data));
    assert!((200..300).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    let parts = stage.objects.parts(&cx(), upload.clone(), 0, 10).await.expect("parts").parts;
    assert_eq!(parts.len(), 1);
    stage
        .objects
        .complete_upload(&cx(), upload, parts, Conditions::default())
        .await
        .expect("complete");
    assert_eq!(content(stage, "signed/parts").await, data);
}

/// A test of each kind for each store.
macro_rules! on {
    ($($store:ident)*) => {$(
        mod $store {
            on! { $store: buckets policies lifecycle listings versions bulk changes uploads upload_conditions early_refusals abandoned signatures }
        }
    )*};
    ($store:ident: $($test:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs the servers of `tests/services/object`"]
        async fn $test() {
            let stage = crate::control::support::Stage::new(stringify!($store)).await;
            crate::control::$test(&stage).await;
        }
    )*};
}
