// SPDX-License-Identifier: Apache-2.0
//! The servers that `tests/services/object` starts: `tests/services/object with cargo test -p novastor-test-gcs --test
//! object_gcs -- --ignored`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod fixture;

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use fixture::Fixture;
use reqwest::{Certificate, Client, ClientBuilder, StatusCode};
use serde_json::json;

/// What the script says of its servers.
struct Services {
    dir: PathBuf,
    addresses: String,
}

impl Services {
    fn new() -> Self {
        let dir = env::var_os("NOVASTOR_OBJECT")
            .unwrap_or_else(|| panic!("start this by tests/services/object with"));
        let dir = PathBuf::from(dir);
        let addresses = fs::read_to_string(dir.join("addresses")).unwrap();
        Self { dir, addresses }
    }

    fn value(&self, key: &str) -> &str {
        let line = self.addresses.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("no {key}: {}", self.addresses))
    }

    fn ask(&self, verb: &str, words: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../object");
        let status = Command::new(script).arg(verb).arg(&self.dir).args(words).status().unwrap();
        assert!(status.success(), "{verb} {words:?}: {status}");
    }

    async fn fixture(&self, name: &str, client: ClientBuilder) -> Fixture {
        let account = fs::read(self.value(&name.replace("gcs", "gcs_service_account"))).unwrap();
        Fixture::of(self.value(name).to_owned(), &account, client.build().unwrap()).await
    }
}

fn client() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/object"]
async fn what_was_answered_outlives_a_killed_server() {
    let services = Services::new();
    let fixture = services.fixture("gcs", client()).await;
    let made = json!({ "name": "outlives" });
    let (status, said) =
        fixture.json("POST", "/storage/v1/b?project=novastor-test", Some(made)).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let big = vec![7; 20 << 20];
    for name in ["a", "b"] {
        let put = fixture
            .request("PUT", &format!("/outlives/{name}"))
            .body(big.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(put.status(), StatusCode::OK);
        services.ask("daemon", &["gcs", "KILL"]);
        assert!(fixture.request("GET", "/outlives/a").send().await.is_err());
        services.ask("again", &["gcs"]);
        let got = fixture.request("GET", &format!("/outlives/{name}")).send().await.unwrap();
        assert_eq!(got.bytes().await.unwrap(), big);
    }
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/object"]
async fn only_who_knows_the_authority_trusts_the_server() {
    let services = Services::new();
    let ca = Certificate::from_pem(&fs::read(services.value("ca")).unwrap()).unwrap();
    let fixture = services.fixture("gcs_tls", client().tls_certs_only([ca])).await;
    let answer = fixture.request("GET", "/nowhere/a").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let stranger = client().build().unwrap();
    for server in ["gcs_tls", "azurite_tls", "moto_tls"] {
        let error = format!("{:?}", stranger.get(services.value(server)).send().await.unwrap_err());
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
}
