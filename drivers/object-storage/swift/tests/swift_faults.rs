// SPDX-License-Identifier: Apache-2.0
//! The client against a real Swift and a connection that makes mistakes: right bytes or a clear error, in time.

#![allow(missing_docs, clippy::unwrap_used)]

mod real_servers;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use real_servers::{Fault, Faults, Server, meanwhile, segments, text};
use swift::{Config, Failure, FailureKind, Swift};

const SIZE: usize = 1 << 20;

async fn store(faults: &Faults) -> Swift {
    Server::Swift.fresh_with("faults", |_| {}, faults).await
}

/// Three seconds for an operation, one for an answer.
fn hasty(config: &mut Config) {
    config.retry.retry_timeout = Duration::from_secs(3);
    config.request_timeout = Duration::from_secs(1);
    config.minimum_rate = 1 << 20;
}

fn data() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..SIZE).map(|_| random.u8(..)).collect()
}

fn failure(error: &Error) -> &Failure {
    Failure::of(error).unwrap_or_else(|| panic!("no failure of this client: {error}"))
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_broken_read_goes_on_where_it_broke_off() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    let path = Path::from("a");
    swift.put(&path, data().into()).await.unwrap();
    for fault in [Fault::Cut(1000), Fault::End(SIZE / 2), Fault::Cut(0), Fault::Cut(SIZE - 1)] {
        faults.on("GET", "/a", 1, fault.clone());
        faults.on("GET", "/a", 1, Fault::Status(503, None));
        faults.on("GET", "/a", 1, Fault::Cut(10));
        assert_eq!(swift.get(&path).await.unwrap().bytes().await.unwrap(), data());
        faults.clear();
    }
    let asked = faults.asked("GET", "/faults-");
    assert_eq!(
        asked.len(),
        4 * 4 - 1,
        "the last one had one byte left, so the second cut did not come"
    );
    assert!(asked[1]["range"].to_str().unwrap().starts_with("bytes=1000-"));
    faults.on("GET", "/a", 1, Fault::Cut(5));
    assert_eq!(swift.get_range(&path, 100..200).await.unwrap(), data()[100..200]);
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_broken_read_of_a_replaced_object_is_an_error() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    let path = Path::from("a");
    let other = Swift::new(Server::Swift.config(swift.container_name())).unwrap();
    // The other one is as long, or ends before the break.
    for size in [SIZE, 10] {
        swift.put(&path, data().into()).await.unwrap();
        faults.on("GET", "/a", 1, Fault::Cut(1000));
        let other = other.clone();
        let replace = move || {
            let other = other.clone();
            async move { drop(other.put(&"a".into(), vec![0; size].into()).await.unwrap()) }
        };
        faults.on("GET", "/a", 1, meanwhile(replace));
        let error = swift.get(&path).await.unwrap().bytes().await.unwrap_err();
        let replaced = error.to_string().contains("replaced");
        assert!(matches!(error, Error::Precondition { .. }) && replaced, "{size}: {error}");
        faults.clear();
    }
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn damaged_bytes_are_noticed_at_both_ends() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    let path = Path::from("a");
    swift.put(&path, data().into()).await.unwrap();
    for at in [0, SIZE / 2, SIZE - 1] {
        faults.on("GET", "/a", 1, Fault::Flip(at));
        let error = swift.get(&path).await.unwrap().bytes().await.unwrap_err();
        assert_eq!(failure(&error).kind(), FailureKind::Corrupt, "{error}");
    }
    // A large object has the hashes of its segments.
    let id = swift.create_multipart(&"large".into()).await.unwrap();
    let mut parts = Vec::new();
    for (index, part) in data().chunks(SIZE / 4).enumerate() {
        parts
            .push(swift.put_part(&"large".into(), &id, index, part.to_vec().into()).await.unwrap());
    }
    swift.complete_multipart(&"large".into(), &id, parts).await.unwrap();
    assert_eq!(swift.get(&"large".into()).await.unwrap().bytes().await.unwrap(), data());
    for at in [0, SIZE / 2, SIZE - 1] {
        faults.on("GET", "/large", 1, Fault::Flip(at));
        let error = swift.get(&"large".into()).await.unwrap().bytes().await.unwrap_err();
        assert_eq!(failure(&error).kind(), FailureKind::Corrupt, "{error}");
    }
    faults.on("PUT", "/b", 1, Fault::FlipRequest);
    let error = swift.put(&"b".into(), "hello".into()).await.unwrap_err();
    assert_eq!(
        (failure(&error).kind(), failure(&error).status()),
        (FailureKind::Corrupt, Some(422)),
        "{error}"
    );
    assert!(matches!(swift.head(&"b".into()).await, Err(Error::NotFound { .. })));
    let id = swift.create_multipart(&"c".into()).await.unwrap();
    faults.on("PUT", "/c/", 1, Fault::FlipRequest);
    let error = swift.put_part(&"c".into(), &id, 0, "hello".into()).await.unwrap_err();
    assert_eq!(failure(&error).kind(), FailureKind::Corrupt, "{error}");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_creation_whose_answer_was_lost_is_known_by_its_mark() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    for (key, fault) in
        [("a", Fault::LoseAnswer), ("b", Fault::StatusAfter(503)), ("c", Fault::StatusAfter(500))]
    {
        faults.on("PUT", &format!("/{key}"), 1, fault);
        let put = swift.put_opts(&key.into(), "mine".into(), PutMode::Create.into()).await.unwrap();
        assert_eq!(put.e_tag, swift.head(&key.into()).await.unwrap().e_tag);
        assert_eq!(faults.asked("PUT", &format!("/{key}")).len(), 2);
        assert!(
            swift
                .get(&key.into())
                .await
                .unwrap()
                .attributes
                .iter()
                .all(|(name, _)| format!("{name:?}") == "ContentType")
        );
    }
    // The same bytes of somebody else are not ours.
    let other = Swift::new(Server::Swift.config(swift.container_name())).unwrap();
    let create = move || {
        let other = other.clone();
        async move {
            drop(other.put_opts(&"d".into(), "mine".into(), PutMode::Create.into()).await.unwrap())
        }
    };
    faults.on("PUT", "/d", 1, meanwhile(create));
    let error =
        swift.put_opts(&"d".into(), "mine".into(), PutMode::Create.into()).await.unwrap_err();
    assert!(failure(&error).outcome_unknown(), "{error}");
    assert_eq!(failure(&error).kind(), FailureKind::TimedOut, "{error}");
    assert!(error.to_string().contains("unknown"), "{error}");
    // A refusal of the first attempt is certain.
    let error =
        swift.put_opts(&"a".into(), "mine".into(), PutMode::Create.into()).await.unwrap_err();
    assert!(
        matches!(error, Error::AlreadyExists { .. }) && !failure(&error).outcome_unknown(),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_completion_whose_answer_was_lost_is_completed() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    for (key, fault) in [("a", Fault::LoseAnswer), ("b", Fault::StatusAfter(503))] {
        for mode in [PutMode::Overwrite, PutMode::Create] {
            let path = Path::from(format!("{key}-{mode:?}"));
            let id = swift.create_multipart(&path).await.unwrap();
            let part = swift.put_part(&path, &id, 0, "one".into()).await.unwrap();
            faults.on("PUT", "multipart-manifest=put", 1, fault.clone());
            swift.complete_multipart_mode(&path, &id, vec![part], mode).await.unwrap();
            assert_eq!(text(&swift, path.as_ref()).await, "one");
        }
    }
    assert!(swift.list_uploads("").await.unwrap().is_empty());
    // A body that says what the status does not.
    let path = Path::from("c");
    let id = swift.create_multipart(&path).await.unwrap();
    let part = swift.put_part(&path, &id, 0, "one".into()).await.unwrap();
    let said = r#"{"Response Status": "503 Service Unavailable", "Response Body": "", "Errors": [], "Etag": ""}"#;
    faults.on("PUT", "multipart-manifest=put", 1, Fault::Answer(said.into()));
    swift.complete_multipart(&path, &id, vec![part]).await.unwrap();
    assert_eq!(text(&swift, "c").await, "one");
    let path = Path::from("d");
    let id = swift.create_multipart(&path).await.unwrap();
    let part = swift.put_part(&path, &id, 0, "one".into()).await.unwrap();
    faults.on("PUT", "multipart-manifest=put", 1, Fault::Answer(String::new()));
    let error = swift.complete_multipart(&path, &id, vec![part]).await.unwrap_err();
    assert_eq!(failure(&error).kind(), FailureKind::Corrupt, "{error}");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_storm_slows_and_ends_at_the_deadline() {
    let faults = Faults::default();
    let swift = Server::Swift.fresh_with("storm", hasty, &faults).await;
    let path = Path::from("a");
    for code in [429, 498, 500, 502, 503, 504] {
        faults.on("PUT", "/a", 2, Fault::Status(code, None));
        swift.put(&path, "x".into()).await.unwrap();
    }
    let started = Instant::now();
    faults.on("GET", "/a", 1, Fault::Status(503, Some("1")));
    assert_eq!(text(&swift, "a").await, "x");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());

    faults.on("GET", "/a", usize::MAX, Fault::Status(503, None));
    let started = Instant::now();
    let error = swift.get(&path).await.unwrap_err();
    assert_eq!(failure(&error).kind(), FailureKind::Busy, "{error}");
    for told in ["tx-of-the-test", "attempts", "said the test", "503", "/a"] {
        assert!(error.to_string().contains(told), "{told} is not in: {error}");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(!failure(&error).outcome_unknown());
    // A wait that would end behind the deadline is not waited for.
    faults.clear();
    faults.on("PUT", "/a", 1, Fault::Status(503, Some("60")));
    let started = Instant::now();
    let error = swift.put(&path, "y".into()).await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(1) && failure(&error).outcome_unknown(),
        "{error}"
    );
    assert_eq!(text(&swift, "a").await, "x");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn silence_and_dripping_end_at_the_deadline() {
    let faults = Faults::default();
    let swift = Server::Swift.fresh_with("silence", hasty, &faults).await;
    let path = Path::from("a");
    swift.put(&path, data().into()).await.unwrap();
    faults.on("GET", "/a", 1, Fault::Hang);
    faults.on("GET", "/a", 1, Fault::Stall(1000));
    assert_eq!(swift.get(&path).await.unwrap().bytes().await.unwrap(), data());

    for fault in [Fault::Hang, Fault::Stall(1), Fault::Drip(Duration::from_millis(50))] {
        faults.on("GET", "/a", usize::MAX, fault.clone());
        let started = Instant::now();
        let read = match swift.get(&path).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        let error = read.unwrap_err();
        assert_eq!(failure(&error).kind(), FailureKind::TimedOut, "{error}");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        faults.clear();
        faults.on("GET", "prefix=silent", usize::MAX, fault);
        let started = Instant::now();
        let error = swift.list_with_delimiter(Some(&"silent".into())).await.map(|_| ());
        if let Err(error) = error {
            assert_eq!(failure(&error).kind(), FailureKind::TimedOut, "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        faults.clear();
    }
    faults.on("PUT", "/a", usize::MAX, Fault::Hang);
    let error = swift.put(&path, "x".into()).await.unwrap_err();
    assert_eq!(failure(&error).kind(), FailureKind::TimedOut, "{error}");
    assert!(failure(&error).outcome_unknown(), "{error}");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn an_expired_token_is_renewed_once_for_all() {
    for server in [Server::Swift, Server::Keystone] {
        // Keystone is slow: the server asks it about every token.
        let many = if server == Server::Swift { 20 } else { 5 };
        let faults = Faults::default();
        let swift = server.fresh_with("tokens", |_| {}, &faults).await;
        swift.put(&"object".into(), "x".into()).await.unwrap();
        let (method, place) =
            if server == Server::Swift { ("GET", "/auth/") } else { ("POST", "/auth/tokens") };
        assert_eq!(faults.asked(method, place).len(), 1);
        faults.on("GET", "/object", many, Fault::Status(401, None));
        let texts = join_all((0..many).map(|_| text(&swift, "object"))).await;
        assert!(texts.iter().all(|text| text == "x"));
        assert_eq!(faults.asked(method, place).len(), 2);
        // A token that is refused even when it is new is no token.
        let before = faults.asked("GET", "/object").len();
        faults.on("GET", "/object", 2, Fault::Status(401, None));
        let error = swift.get(&"object".into()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated { .. }), "{error}");
        assert_eq!(faults.asked("GET", "/object").len() - before, 2);
    }
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_refusing_identity_service_is_asked_once_by_all_that_wait() {
    let faults = Faults::default();
    let swift = Swift::with_connector(Server::Swift.config("any"), &faults).unwrap();
    faults.on("GET", "/auth/", usize::MAX, Fault::Status(403, None));
    let path = Path::from("a");
    let heads = join_all((0..20).map(|_| swift.head(&path))).await;
    assert!(heads.iter().all(|head| matches!(head, Err(Error::Unauthenticated { .. }))));
    assert_eq!(faults.asked("GET", "/auth/").len(), 1);
    faults.clear();
    assert!(swift.account().await.is_ok());
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn deletion_survives_lost_answers_and_servers_without_bulk() {
    let faults = Faults::default();
    let swift = store(&faults).await;
    swift.put(&"a".into(), "x".into()).await.unwrap();
    faults.on("DELETE", "/a", 1, Fault::LoseAnswer);
    swift.delete(&"a".into()).await.unwrap();
    assert!(matches!(swift.delete(&"a".into()).await, Err(Error::NotFound { .. })));

    let fill = async |swift: &Swift| {
        for index in 0..6 {
            swift.put(&format!("many/{index}").as_str().into(), "x".into()).await.unwrap();
        }
    };
    let remove = async |swift: &Swift| {
        let paths =
            futures_util::stream::iter((0..6).map(|index| Ok(Path::from(format!("many/{index}")))));
        let outcomes: Vec<_> =
            futures_util::StreamExt::collect(swift.delete_stream(Box::pin(paths))).await;
        outcomes
    };
    fill(&swift).await;
    faults.on("POST", "bulk-delete", 1, Fault::LoseAnswer);
    assert!(remove(&swift).await.iter().all(Result::is_ok));
    fill(&swift).await;
    faults.on("POST", "bulk-delete", 1, Fault::Status(405, None));
    assert!(remove(&swift).await.iter().all(Result::is_ok));
    assert_eq!(faults.asked("DELETE", "/many/").len(), 6);
    assert!(swift.list_with_delimiter(None).await.unwrap().common_prefixes.is_empty());

    // Every line of the answer counts.
    fill(&swift).await;
    let name = swift.container_name();
    let lines = |errors: &str, deleted: usize| {
        let report = format!(
            r#"{{"Response Status": "400 Bad Request", "Response Body": "", "Number Deleted": {deleted},
                 "Number Not Found": 0, "Errors": [{errors}]}}"#
        );
        Fault::Answer(report)
    };
    faults.on(
        "POST",
        "bulk-delete",
        1,
        lines(&format!(r#"["/{name}/many%2F3", "403 Forbidden"]"#), 5),
    );
    let outcomes = remove(&swift).await;
    let failed: Vec<_> = (0..6).filter(|index| outcomes[*index].is_err()).collect();
    assert_eq!(failed, [3]);
    assert!(matches!(outcomes[3], Err(Error::PermissionDenied { .. })), "{:?}", outcomes[3]);
    let short = r#"{"Response Status": "200 OK", "Number Deleted": 4, "Number Not Found": 0, "Errors": []}"#;
    faults.on("POST", "bulk-delete", 1, Fault::Answer(short.into()));
    assert!(remove(&swift).await.iter().all(Result::is_err));
    assert!(remove(&swift).await.iter().all(Result::is_ok));
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn more_segments_than_a_manifest_may_name_are_nested() {
    let faults = Faults::default();
    faults.on("GET", "/info", 1, Fault::Status(503, None));
    let info = r#"{"swift": {"version": "2.30.1"}, "slo": {"max_manifest_segments": 2, "yield_frequency": 10},
                   "bulk_delete": {"max_deletes_per_request": 1000}}"#;
    faults.on("GET", "/info", 1, Fault::Answer(info.into()));
    let swift = store(&faults).await;
    let path = Path::from("a");
    let id = swift.create_multipart(&path).await.unwrap();
    let mut parts = Vec::new();
    for (index, data) in ["one", "two", "three"].into_iter().enumerate() {
        parts.push(swift.put_part(&path, &id, index, data.into()).await.unwrap());
    }
    let first = swift.complete_multipart(&path, &id, parts.clone()).await.unwrap();
    assert_eq!(segments(&swift).await.len(), 5, "three parts and two manifests");
    assert_eq!(text(&swift, "a").await, "onetwothree");
    assert_eq!(swift.complete_multipart(&path, &id, parts).await.unwrap(), first);
    swift.copy(&path, &"b".into()).await.unwrap();
    swift.delete(&path).await.unwrap();
    assert_eq!(text(&swift, "b").await, "onetwothree");
    assert_eq!(segments(&swift).await.len(), 5);
    swift.put(&"b".into(), "x".into()).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_server_nobody_trusts_is_refused_at_once() {
    let addresses = real_servers::addresses();
    let (Some(url), Some(ca)) = (addresses.get("moto_tls"), addresses.get("ca")) else { return };
    let auth =
        swift::Auth::V1 { auth_url: format!("{url}/auth/v1.0"), user: "a".into(), key: "b".into() };
    let mut config = Config::new(auth, "any");
    let started = Instant::now();
    let error = Swift::new(config.clone()).unwrap().head(&"a".into()).await.unwrap_err();
    assert_eq!(failure(&error).kind(), FailureKind::Untrusted, "{error}");
    assert!(
        error.to_string().contains("give the certificate")
            && started.elapsed() < Duration::from_secs(5),
        "{error}"
    );
    config.ca_pem = Some(std::fs::read(ca).unwrap());
    config.retry.retry_timeout = Duration::from_secs(2);
    let error = Swift::new(config).unwrap().head(&"a".into()).await.unwrap_err();
    assert_ne!(failure(&error).kind(), FailureKind::Untrusted, "{error}");
    assert!(StatusCode::from_u16(failure(&error).status().unwrap()).is_ok(), "{error}");
}
