// SPDX-License-Identifier: Apache-2.0
//! The client against real servers, which `NOVASTOR_OBJECT=DIR` names: Swift with its own authentication and with
//! Keystone, and the Swift of a Ceph gateway if it is there.

#![allow(missing_docs, clippy::unwrap_used)]

mod real_servers;

use std::process::Command;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, integration,
};
use real_servers::{Faults, Server, put_large, segments, text};
use swift::{
    ContainerUpdate, CreateOnly, Expiry, Failure, FailureKind, Secret, Swift, TempUrlScope,
    Versioning,
};

fn kind(error: &Error) -> FailureKind {
    Failure::of(error).unwrap_or_else(|| panic!("no failure of this client: {error}")).kind()
}

/// The suite of the traits' own crate.
async fn conforms(server: Server) {
    let store = |name: &'static str| server.fresh(name);
    integration::put_get_delete_list(&store("objects").await).await;
    integration::get_opts(&store("conditions").await).await;
    if server == Server::Radosgw {
        creation_is_refused(&store("modes").await).await;
    } else {
        integration::put_opts(&store("modes").await, false).await;
        integration::copy_if_not_exists(&store("creation").await).await;
    }
    integration::list_uses_directories_correctly(&store("directories").await).await;
    integration::list_with_delimiter(&store("delimiter").await).await;
    integration::list_with_offset_exclusivity(&store("offset").await).await;
    integration::rename_and_copy(&store("copies").await).await;
    integration::copy_rename_nonexistent_object(&store("missing").await).await;
    integration::stream_get(&store("streams").await).await;
    integration::put_get_attributes(&store("attributes").await).await;
    integration::multipart_race_condition(&store("race").await, true).await;
    integration::multipart_out_of_order(&store("order").await).await;
    let swift = store("nothing").await;
    let error = integration::get_nonexistent_object(&swift, None).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let swift = store("parts").await;
    integration::multipart(&swift, &swift).await;
    integration::multipart_with_opts(&swift, &swift).await;
    integration::multipart_put_part_out_of_order(&swift, &swift).await;
    let swift = store("pages").await;
    integration::list_paginated(&swift, &swift).await;
    let marked = server.config(store("extensions").await.container_name());
    let swift =
        Swift::with_connector(marked, &integration::MarkerHttpConnector::default()).unwrap();
    integration::response_extensions(&swift, true).await;
}

/// The gateway takes `If-None-Match` and overwrites all the same: that must never pass for a creation.
async fn creation_is_refused(swift: &Swift) {
    swift.put(&"source".into(), "x".into()).await.unwrap();
    swift.put(&"a".into(), "first".into()).await.unwrap();
    for key in ["a", "b"] {
        let error =
            swift.put_opts(&key.into(), "second".into(), PutMode::Create.into()).await.unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        let error = swift.copy_if_not_exists(&"source".into(), &key.into()).await.unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        let id = swift.create_multipart(&key.into()).await.unwrap();
        let error = swift
            .complete_multipart_mode(&key.into(), &id, vec![], PutMode::Create)
            .await
            .unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        swift.abort_multipart(&key.into(), &id).await.unwrap();
    }
    assert_eq!(text(swift, "a").await, "first");
    assert_eq!(swift.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn swift_conforms() {
    conforms(Server::Swift).await;
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn swift_with_keystone_conforms() {
    // Only how tokens are got differs, and this server asks Keystone about each of them.
    let store = |name: &'static str| Server::Keystone.fresh(name);
    integration::put_opts(&store("modes").await, false).await;
    integration::put_get_attributes(&store("attributes").await).await;
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_ceph_gateway_conforms() {
    if Server::Radosgw.is_there() {
        conforms(Server::Radosgw).await;
    }
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn keystone_takes_application_credentials_and_knows_its_region() {
    let swift = Server::KeystoneApplication.fresh("application").await;
    swift.put(&"a".into(), "b".into()).await.unwrap();
    assert_eq!(text(&swift, "a").await, "b");

    let mut config = Server::Keystone.config("any");
    let swift::Auth::Keystone { region, .. } = &mut config.auth else { panic!() };
    *region = Some("nowhere".into());
    let error = Swift::new(config).unwrap().account().await.unwrap_err();
    assert!(error.to_string().contains("only as"), "{error}");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn errors_tell_cause_and_remedy() {
    let swift = Server::Swift.fresh("errors").await;
    let error = swift.get(&"none".into()).await.unwrap_err();
    let failure = Failure::of(&error).unwrap();
    assert_eq!((failure.kind(), failure.status()), (FailureKind::NotFound, Some(404)));
    assert!(
        failure.transaction().is_some_and(|id| id.starts_with("tx"))
            && !failure.advice().is_empty(),
        "{error}"
    );

    let error =
        swift.with_container("no-such-container").put(&"a".into(), "b".into()).await.unwrap_err();
    assert!(
        matches!(error, Error::NotFound { .. }) && error.to_string().contains("has to be created"),
        "{error}"
    );

    let mut config = Server::Swift.config("any");
    let swift::Auth::V1 { key, .. } = &mut config.auth else { panic!() };
    *key = "wrong".into();
    let error = Swift::new(config).unwrap().head(&"a".into()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unauthenticated { .. }) && error.to_string().contains("check user"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("testing"), "{error:?}");

    let mut config = Server::Keystone.config("any");
    let swift::Auth::Keystone {
        identity: swift::KeystoneIdentity::Password { password, .. }, ..
    } = &mut config.auth
    else {
        panic!()
    };
    *password = "wrong".into();
    let error = Swift::new(config).unwrap().head(&"a".into()).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error}");

    let mut config = Server::Swift.config("any");
    let swift::Auth::V1 { auth_url, .. } = &mut config.auth else { panic!() };
    *auth_url = "http://127.0.0.1:1/auth/v1.0".into();
    config.retry.retry_timeout = Duration::from_millis(500);
    let started = std::time::Instant::now();
    let error = Swift::new(config).unwrap().head(&"a".into()).await.unwrap_err();
    assert_eq!(kind(&error), FailureKind::Connection, "{error}");
    assert!(
        error.to_string().contains("check host and port")
            && started.elapsed() < Duration::from_secs(2),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn bytes_of_every_range_are_right() {
    let swift = Server::Swift.fresh("ranges").await;
    put_large(&swift, "large", &["0123", "4567", "89"]).await;
    swift.put(&"plain".into(), "0123456789".into()).await.unwrap();
    swift.put(&"empty".into(), "".into()).await.unwrap();
    for key in ["plain", "large"] {
        for (range, bytes) in
            [(0..10, "0123456789"), (3..5, "34"), (9..10, "9"), (2..99, "23456789")]
        {
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
            let result = swift.get_opts(&key.into(), options).await.unwrap();
            assert_eq!(result.meta.size, 10);
            assert_eq!(result.bytes().await.unwrap(), bytes);
        }
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(3)));
        assert_eq!(
            swift.get_opts(&key.into(), options).await.unwrap().bytes().await.unwrap(),
            "789"
        );
        let error = swift.get_range(&key.into(), 10..11).await.unwrap_err();
        assert!(error.to_string().contains("behind the end"), "{error}");
        let etag = swift.head(&key.into()).await.unwrap().e_tag;
        let listed: Vec<_> = swift.list(None).try_collect().await.unwrap();
        assert_eq!(
            listed.iter().find(|meta| meta.location == Path::from(key)).unwrap().e_tag,
            etag
        );
        let held = GetOptions::new().with_if_match(etag);
        assert_eq!(
            swift.get_opts(&key.into(), held).await.unwrap().bytes().await.unwrap(),
            "0123456789"
        );
    }
    assert_eq!(text(&swift, "empty").await, "");
}

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
async fn uploads_are_listed_resumed_completed_twice_and_aborted() {
    let swift = Server::Swift.fresh("uploads").await;
    let path = Path::from("dir/a");
    let id = swift.create_multipart(&path).await.unwrap();
    let other = swift.create_multipart(&"other".into()).await.unwrap();
    swift.put_part(&path, &id, 1, "two".into()).await.unwrap();
    swift.put_part(&path, &id, 0, "one".into()).await.unwrap();
    swift.put_part(&path, &id, 2, "".into()).await.unwrap();
    swift.put_part(&path, &id, 3, "never used".into()).await.unwrap();

    // As after a crash: nothing is known but the name.
    let swift = Swift::new(Server::Swift.config(swift.container_name())).unwrap();
    let uploads = swift.list_uploads("").await.unwrap();
    assert_eq!(uploads.iter().map(|upload| &upload.id).collect::<Vec<_>>(), [&id, &other]);
    let uploads = swift.list_uploads("dir/").await.unwrap();
    assert_eq!((uploads.len(), &uploads[0].path, &uploads[0].id), (1, &path, &id));
    assert!((chrono_now() - uploads[0].started.timestamp()).abs() < 60);
    let parts = swift.list_parts(&path, &id).await.unwrap();
    let told: Vec<_> = parts.iter().map(|part| (part.index, part.size)).collect();
    assert_eq!(told, [(0, 3), (1, 3), (2, 0), (3, 10)]);
    let parts: Vec<_> = parts.into_iter().take(3).map(|part| part.id).collect();

    let mut wrong = parts.clone();
    wrong.swap(0, 1);
    let error = swift.complete_multipart(&path, &id, wrong).await.unwrap_err();
    assert!(error.to_string().contains("dir/a") && error.to_string().contains("again"), "{error}");
    assert!(matches!(swift.head(&path).await, Err(Error::NotFound { .. })));

    let first = swift.complete_multipart(&path, &id, parts.clone()).await.unwrap();
    assert_eq!(text(&swift, "dir/a").await, "onetwo");
    assert_eq!(segments(&swift).await.iter().filter(|name| name.starts_with("dir/a/")).count(), 2);
    let again = swift.complete_multipart(&path, &id, parts.clone()).await.unwrap();
    assert_eq!(first, again);
    let error = swift.complete_multipart(&path, &id, parts[..1].to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("with other parts"), "{error}");
    let error = swift.abort_multipart(&path, &id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(text(&swift, "dir/a").await, "onetwo");
    swift.put(&path, "new".into()).await.unwrap();
    let error = swift.complete_multipart(&path, &id, parts).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(text(&swift, "dir/a").await, "new");

    swift.put_part(&"other".into(), &other, 0, "x".into()).await.unwrap();
    swift.abort_multipart(&"other".into(), &other).await.unwrap();
    swift.abort_multipart(&"other".into(), &other).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());
    assert!(swift.list_uploads("").await.unwrap().is_empty());
}

fn chrono_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_completion_may_be_create_only() {
    let swift = Server::Swift.fresh("only").await;
    let path = Path::from("a");
    let mut options = PutMultipartOptions::default();
    options.extensions.insert(CreateOnly);
    let mut first = swift.put_multipart_opts(&path, options.clone()).await.unwrap();
    let mut second = swift.put_multipart_opts(&path, options).await.unwrap();
    first.put_part("first".into()).await.unwrap();
    second.put_part("second".into()).await.unwrap();
    first.complete().await.unwrap();
    let error = second.complete().await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    second.abort().await.unwrap();
    assert_eq!(text(&swift, "a").await, "first");

    let id = swift.create_multipart(&path).await.unwrap();
    let part = swift.put_part(&path, &id, 0, "third".into()).await.unwrap();
    let created =
        swift.complete_multipart_mode(&path, &id, vec![part.clone()], PutMode::Create).await;
    assert!(matches!(created, Err(Error::AlreadyExists { .. })), "{created:?}");
    swift.complete_multipart_mode(&path, &id, vec![part], PutMode::Overwrite).await.unwrap();
    assert_eq!(text(&swift, "a").await, "third");
    assert_eq!(segments(&swift).await.len(), 1);
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

fn curl(arguments: &[&str]) -> String {
    let run =
        Command::new("curl").args(["-s", "-S", "--noproxy", "*"]).args(arguments).output().unwrap();
    assert!(run.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// Storage URL and header of a token, as a stranger gets them.
async fn token() -> (String, String) {
    let swift::Auth::V1 { auth_url, user, key } = Server::Swift.auth() else { panic!() };
    let user = format!("X-Auth-User: {user}");
    let head =
        curl(&["-i", "-H", &user, "-H", &format!("X-Auth-Key: {}", key.reveal()), &auth_url]);
    let of = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.trim().to_owned()
    };
    (of("x-storage-url"), format!("X-Auth-Token: {}", of("x-auth-token")))
}

fn code(arguments: &[&str]) -> String {
    let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}"];
    all.extend(arguments);
    curl(&all)
}

fn refused(code: String) {
    assert!(code == "401" || code == "403", "{code}");
}

async fn signs(server: Server, scope: TempUrlScope) {
    let swift = server.fresh("signed").await;
    let minute = Duration::from_secs(60);
    let path = Path::from("dir/a b?ü%41.txt");
    let error = swift.signed_url(Method::GET, &path, minute).await.unwrap_err();
    assert!(error.to_string().contains("no TempURL key"), "{error}");
    swift.set_tempurl_key(scope, Secret::new(format!("key-{}", fastrand::u64(..)))).await.unwrap();
    // Another client, that has to ask for the key.
    let swift = Swift::new(server.config(swift.container_name())).unwrap();
    swift.load_tempurl_key(scope).await.unwrap();
    assert!(swift.signed_url(Method::GET, &path, Duration::ZERO).await.is_err());

    let url = async |method, time| swift.signed_url(method, &path, time).await.unwrap().to_string();
    assert_eq!(code(&["-X", "PUT", "-d", "hello", &url(Method::PUT, minute).await]), "201");
    assert_eq!(swift.get(&path).await.unwrap().bytes().await.unwrap(), "hello");
    let get = url(Method::GET, minute).await;
    assert_eq!(curl(&["-f", &get]), "hello");
    assert_eq!(code(&["-I", &url(Method::HEAD, minute).await]), "200");
    // Another method, another object, another signature, another time, a time that has passed.
    refused(code(&["-X", "DELETE", &get]));
    refused(code(&[&get.replace("dir/", "dxr/")]));
    let tampered = |at: usize| {
        let old = &get[at..=at];
        format!("{}{}{}", &get[..at], if old == "0" { "1" } else { "0" }, &get[at + 1..])
    };
    refused(code(&[&tampered(get.find("sig=").unwrap() + 6)]));
    refused(code(&[&tampered(get.len() - 1)]));
    let short = url(Method::GET, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    refused(code(&[&short]));
    assert_eq!(swift.get(&path).await.unwrap().bytes().await.unwrap(), "hello");
    let post = swift.signed_url(Method::POST, &path, minute).await.map(|url| url.to_string());
    match post {
        Ok(post) => {
            assert_eq!(code(&["-X", "POST", "-H", "X-Object-Meta-A: b", "-d", "", &post]), "202")
        }
        Err(error) => assert!(error.to_string().contains("only"), "{error}"),
    }
    let delete = url(Method::DELETE, minute).await;
    assert_eq!(code(&["-X", "DELETE", &delete]), "204");
    assert!(matches!(swift.head(&path).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn signed_urls_do_what_they_say_and_no_more() {
    signs(Server::Swift, TempUrlScope::Container).await;
    signs(Server::Keystone, TempUrlScope::Account).await;
    if Server::Radosgw.is_there() {
        signs(Server::Radosgw, TempUrlScope::Account).await;
    }
}

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

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn objects_expire_with_all_their_parts() {
    let swift = Server::Swift.fresh("expiry").await;
    let expiring = |seconds: &'static str| {
        Attributes::from_iter([
            (Attribute::Metadata("x-delete-after".into()), seconds),
            (Attribute::Metadata("Who".into()), "me"),
            (Attribute::ContentEncoding, "gzip"),
        ])
    };
    let options = PutOptions { attributes: expiring("1000"), ..PutOptions::default() };
    swift.put_opts(&"a".into(), "plain".into(), options).await.unwrap();
    let mut upload =
        swift.put_multipart_opts(&"large".into(), expiring("1000").into()).await.unwrap();
    upload.put_part("one".into()).await.unwrap();
    upload.complete().await.unwrap();
    let parts = swift.with_container(swift.segments_name());
    let part = Path::from(segments(&swift).await.remove(0));
    let at = async |swift: &Swift, path: &Path| -> Option<i64> {
        let result = swift.get(path).await.unwrap();
        Some(result.attributes.get(&Attribute::Metadata("x-delete-at".into()))?.parse().unwrap())
    };
    for (swift, path) in
        [(&swift, &Path::from("a")), (&swift, &Path::from("large")), (&parts, &part)]
    {
        assert!((at(swift, path).await.unwrap() - chrono_now() - 1000).abs() < 30, "{path}");
    }
    for expiry in [Expiry::Never, Expiry::After(500), Expiry::At(4_000_000_000)] {
        swift.set_expiry(&"a".into(), expiry).await.unwrap();
        swift.set_expiry(&"large".into(), expiry).await.unwrap();
        let plain = at(&swift, &"a".into()).await;
        assert_eq!(plain.is_none(), expiry == Expiry::Never);
        assert_eq!(at(&parts, &part).await, at(&swift, &"large".into()).await);
        for key in ["a", "large"] {
            let attributes = swift.get(&key.into()).await.unwrap().attributes;
            assert_eq!(
                attributes.get(&Attribute::Metadata("Who".into())).map(|v| v.as_ref()),
                Some("me")
            );
            assert_eq!(
                attributes.get(&Attribute::ContentEncoding).map(|v| v.as_ref()),
                Some("gzip")
            );
        }
    }
    assert_eq!(
        kind(&swift.set_expiry(&"a".into(), Expiry::At(1000)).await.unwrap_err()),
        FailureKind::Rejected
    );
    assert_eq!(text(&swift, "large").await, "one");
    swift.set_expiry(&"a".into(), Expiry::After(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(matches!(swift.head(&"a".into()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn what_swift_cannot_do_is_refused() {
    let swift = Server::Swift.fresh("refused").await;
    let path = Path::from("a");
    let put = swift.put(&path, "first".into()).await.unwrap();
    let update = swift.put_opts(&path, "second".into(), PutMode::Update(put.into()).into()).await;
    assert!(matches!(update, Err(Error::NotImplemented { .. })), "{update:?}");
    let mut tags = object_store::TagSet::default();
    tags.push("a", "b");
    let tagged = swift.put_opts(&path, "second".into(), tags.into()).await;
    assert!(matches!(tagged, Err(Error::NotSupported { .. })), "{tagged:?}");
    assert_eq!(text(&swift, "a").await, "first");
}
