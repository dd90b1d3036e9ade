// SPDX-License-Identifier: Apache-2.0
//! Who one is, and what errors tell.

use std::time::Duration;

use object_store::{Error, ObjectStoreExt};
use swift::{Failure, FailureKind, Swift};

use crate::real_servers::{Server, kind, text};

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
