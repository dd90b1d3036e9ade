// SPDX-License-Identifier: Apache-2.0
//! Signed URLs, for a server of either kind.

use std::time::Duration;

use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{Error, ObjectStoreExt};
use swift::{Secret, Swift, TempUrlScope};

use crate::real_servers::Server;
use crate::stranger::{code, curl};

fn refused(code: String) {
    assert!(code == "401" || code == "403", "{code}");
}

/// They do what they say and no more.
pub async fn signs(server: Server, scope: TempUrlScope) {
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
