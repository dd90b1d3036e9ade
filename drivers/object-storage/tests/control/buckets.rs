// SPDX-License-Identifier: Apache-2.0
//! Buckets, and what is set on them.

use driver_api::{
    ErrorKind, RVec,
    ext::{BucketSpec, Conditions, LifecycleRule, ObjectAbilities, ObjectName, PutOptions},
};

use super::{
    can,
    support::{Stage, buf, cx, fresh, pairs, refused},
};

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

fn rule(id: &str, prefix: &str) -> LifecycleRule {
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
