// SPDX-License-Identifier: Apache-2.0
//! Large objects, and the segments that they are made of.

use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Attribute, Attributes, Error, ObjectStore, ObjectStoreExt};
use swift::ContainerUpdate;

use crate::real_servers::{Faults, Server, put_large, segments, text};
use crate::stranger::{curl, token};

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn segments_go_with_their_object() {
    let swift = Server::Swift.fresh("segments").await;
    put_large(&swift, "a", &["one", "two"]).await;
    assert_eq!(segments(&swift).await.len(), 2);
    swift.put(&"a".into(), "plain".into()).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());

    put_large(&swift, "a", &["one", "two"]).await;
    put_large(&swift, "a", &["three", "four", "five"]).await;
    assert_eq!(segments(&swift).await.len(), 3);
    assert_eq!(text(&swift, "a").await, "threefourfive");

    swift.copy(&"plain-is-missing".into(), &"a".into()).await.unwrap_err();
    swift.put(&"plain".into(), "plain".into()).await.unwrap();
    swift.copy(&"plain".into(), &"a".into()).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());

    put_large(&swift, "a", &["one", "two"]).await;
    swift.delete(&"a".into()).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());

    // Many at once: by bulk requests, which by themselves would leave all segments.
    let mut paths = Vec::new();
    for index in 0..8 {
        let key = format!("many/{index}");
        if index % 2 == 0 {
            put_large(&swift, &key, &["one", "two"]).await;
        } else {
            swift.put(&key.as_str().into(), "plain".into()).await.unwrap();
        }
        paths.push(Ok(Path::from(key)));
    }
    assert_eq!(segments(&swift).await.len(), 8);
    let deleted: Vec<_> = swift
        .delete_stream(Box::pin(futures_util::stream::iter(paths)))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(deleted.len(), 8);
    assert_eq!(segments(&swift).await, Vec::<String>::new());
    assert_eq!(swift.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_copy_of_a_large_object_has_segments_of_its_own() {
    let swift = Server::Swift.fresh("copies").await;
    let attributes = Attributes::from_iter([(Attribute::Metadata("who".into()), "me")]);
    let mut upload = swift.put_multipart_opts(&"a".into(), attributes.into()).await.unwrap();
    upload.put_part("one".into()).await.unwrap();
    upload.put_part("two".into()).await.unwrap();
    upload.complete().await.unwrap();
    swift.copy(&"a".into(), &"b".into()).await.unwrap();
    assert_eq!(segments(&swift).await.len(), 4);
    let copied = swift.get(&"b".into()).await.unwrap();
    assert_eq!(
        copied.attributes.get(&Attribute::Metadata("who".into())).map(|v| v.as_ref()),
        Some("me")
    );
    assert_eq!(copied.meta.e_tag, swift.head(&"a".into()).await.unwrap().e_tag);

    let error = swift.copy_if_not_exists(&"a".into(), &"b".into()).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(segments(&swift).await.len(), 4);
    swift.copy_if_not_exists(&"a".into(), &"c".into()).await.unwrap();

    swift.delete(&"a".into()).await.unwrap();
    assert_eq!(text(&swift, "b").await, "onetwo");
    swift.rename(&"c".into(), &"d".into()).await.unwrap();
    assert_eq!(text(&swift, "d").await, "onetwo");
    swift.delete(&"b".into()).await.unwrap();
    swift.delete(&"d".into()).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());

    // Too large to go through this host.
    let nine = vec![7; 9 << 20];
    swift.put(&"nine".into(), nine.clone().into()).await.unwrap();
    swift.copy_if_not_exists(&"nine".into(), &"copy".into()).await.unwrap();
    let error = swift.copy_if_not_exists(&"nine".into(), &"copy".into()).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    swift.delete(&"nine".into()).await.unwrap();
    assert_eq!(swift.get(&"copy".into()).await.unwrap().bytes().await.unwrap(), nine);
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_sweep_removes_what_nothing_refers_to() {
    let swift = Server::Swift
        .fresh_with("sweep", |config| config.check_replaced = false, &Faults::default())
        .await;
    put_large(&swift, "kept", &["one", "two"]).await;
    put_large(&swift, "lost", &["three", "four"]).await;
    swift.put(&"lost".into(), "plain".into()).await.unwrap();
    let id = swift.create_multipart(&"begun".into()).await.unwrap();
    swift.put_part(&"begun".into(), &id, 0, "x".into()).await.unwrap();
    assert_eq!(segments(&swift).await.len(), 6);

    assert_eq!(swift.sweep(Duration::from_secs(3600)).await.unwrap(), Default::default());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let swept = swift.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.uploads, swept.segments, swept.bytes), (1, 2, 9));
    assert_eq!(segments(&swift).await.len(), 4);
    assert_eq!(
        (text(&swift, "kept").await.as_str(), text(&swift, "lost").await.as_str()),
        ("onetwo", "plain")
    );
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn dynamic_large_objects_are_read() {
    let swift = Server::Swift.fresh("dynamic").await;
    let other = swift.with_container(&format!("{}-parts", swift.container_name()));
    swift.create_container(other.container_name(), &ContainerUpdate::default()).await.unwrap();
    for (key, data) in [("big/1", "one"), ("big/2", "two"), ("big/3", "three")] {
        other.put(&key.into(), data.into()).await.unwrap();
    }
    let (url, token) = token().await;
    let manifest = format!("X-Object-Manifest: {}/big/", other.container_name());
    curl(&[
        "-f",
        "-X",
        "PUT",
        "-H",
        &token,
        "-H",
        &manifest,
        "-d",
        "",
        &format!("{url}/{}/dlo", swift.container_name()),
    ]);
    assert_eq!(swift.head(&"dlo".into()).await.unwrap().size, 11);
    assert_eq!(text(&swift, "dlo").await, "onetwothree");
    assert_eq!(swift.get_range(&"dlo".into(), 2..7).await.unwrap(), "etwot");
    swift.copy(&"dlo".into(), &"copy".into()).await.unwrap();
    swift.copy_if_not_exists(&"dlo".into(), &"copy2".into()).await.unwrap();
    swift.delete(&"dlo".into()).await.unwrap();
    assert_eq!(text(&other, "big/1").await, "one");
    other.delete(&"big/2".into()).await.unwrap();
    assert_eq!(
        (text(&swift, "copy").await.as_str(), text(&swift, "copy2").await.as_str()),
        ("onetwothree", "onetwothree")
    );
}
