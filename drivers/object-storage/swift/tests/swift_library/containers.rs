// SPDX-License-Identifier: Apache-2.0
//! Containers, and what is set on them.

use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt};
use swift::{ContainerUpdate, FailureKind, TempUrlScope, Versioning};

use crate::real_servers::{Server, kind, put_large, segments, text};
use crate::stranger::{code, curl, token};

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn containers_are_made_shown_changed_and_deleted() {
    let swift = Server::Swift.fresh("room").await;
    let name = swift.container_name();
    let error = swift.create_container(name, &ContainerUpdate::default()).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    for wrong in ["", "a/b", &"x".repeat(257)] {
        assert_eq!(
            kind(&swift.create_container(wrong, &ContainerUpdate::default()).await.unwrap_err()),
            FailureKind::Rejected
        );
    }
    let update = ContainerUpdate {
        read_acl: Some(".r:*,.rlistings".into()),
        quota_bytes: Some(1000),
        metadata: [("color".to_owned(), "blue".to_owned())].into(),
        ..ContainerUpdate::default()
    };
    swift.update_container(name, &update).await.unwrap();
    swift.set_tempurl_key(TempUrlScope::Container, "hidden".into()).await.unwrap();
    swift.put(&"a".into(), "hello".into()).await.unwrap();
    let shown = swift.container(name).await.unwrap();
    assert_eq!(
        (shown.read_acl.as_str(), shown.quota.0, shown.metadata.len()),
        (".r:*,.rlistings", Some(1000), 1)
    );
    assert_eq!(shown.metadata["color"], "blue");
    assert_eq!((shown.objects, shown.bytes, shown.versioning), (1, 5, Versioning::Off));
    let (url, _) = token().await;
    assert_eq!(curl(&["-f", &format!("{url}/{name}/a")]), "hello");
    swift
        .update_container(
            name,
            &ContainerUpdate { read_acl: Some(String::new()), ..Default::default() },
        )
        .await
        .unwrap();
    assert_eq!(code(&[&format!("{url}/{name}/a")]), "401");

    assert!(swift.list_containers("room-").await.unwrap().iter().any(|entry| entry.name == name));
    let error = swift.delete_container(name).await.unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    swift.delete(&"a".into()).await.unwrap();
    swift.delete_container(name).await.unwrap();
    assert!(matches!(swift.container(name).await, Err(Error::NotFound { .. })));
    assert!(matches!(swift.delete_container(name).await, Err(Error::NotFound { .. })));
    assert!(swift.account().await.unwrap().containers > 0);
    let able = swift.capabilities().await.unwrap();
    assert!(
        able.told
            && able.slo
            && able.heartbeat
            && able.object_versioning
            && able.listing_marks_large
    );
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn versions_are_kept_with_their_segments() {
    let swift = Server::Swift.fresh("versions").await;
    let name = swift.container_name();
    let enabled =
        ContainerUpdate { versioning: Some(Versioning::Enabled), ..ContainerUpdate::default() };
    swift.update_container(name, &enabled).await.unwrap();
    let path = Path::from("a");
    put_large(&swift, "a", &["one", "two"]).await;
    let large = swift.head(&path).await.unwrap().version;
    assert!(large.is_some());
    let put = swift.put(&path, "plain".into()).await.unwrap();
    assert_eq!(put.version, swift.head(&path).await.unwrap().version);
    put_large(&swift, "a", &["three"]).await;
    swift.delete(&path).await.unwrap();
    assert!(matches!(swift.head(&path).await, Err(Error::NotFound { .. })));
    assert_eq!(segments(&swift).await.len(), 3);
    assert_eq!(kind(&swift.sweep(Duration::ZERO).await.unwrap_err()), FailureKind::Unsupported);

    let versions = swift.list_versions("").await.unwrap();
    let told: Vec<_> =
        versions.iter().map(|version| (version.deleted, version.latest, version.size)).collect();
    assert_eq!(told, [(true, true, 0), (false, false, 5), (false, false, 5), (false, false, 6)]);
    let old = swift.get_opts(&path, GetOptions::new().with_version(large.clone())).await.unwrap();
    assert_eq!(old.bytes().await.unwrap(), "onetwo");
    swift.delete_version(&path, large.as_deref().unwrap()).await.unwrap();
    assert_eq!(segments(&swift).await.len(), 1);
    for version in versions.iter().filter(|version| Some(&version.id) != large.as_ref()) {
        swift.delete_version(&path, &version.id).await.unwrap();
    }
    assert!(swift.list_versions("").await.unwrap().is_empty());
    assert_eq!(segments(&swift).await, Vec::<String>::new());
    let suspended =
        ContainerUpdate { versioning: Some(Versioning::Suspended), ..ContainerUpdate::default() };
    swift.update_container(name, &suspended).await.unwrap();
    swift.delete_container(name).await.unwrap();

    // The older way: what is overwritten moves to another container, manifests included.
    let swift = Server::Swift.fresh("history").await;
    let past = format!("{}-past", swift.container_name());
    swift.create_container(&past, &ContainerUpdate::default()).await.unwrap();
    let location = ContainerUpdate {
        versioning: Some(Versioning::Location(past.clone())),
        ..Default::default()
    };
    swift.update_container(swift.container_name(), &location).await.unwrap();
    put_large(&swift, "a", &["one", "two"]).await;
    swift.put(&path, "plain".into()).await.unwrap();
    swift.delete(&path).await.unwrap();
    assert_eq!(text(&swift, "a").await, "onetwo");
}
