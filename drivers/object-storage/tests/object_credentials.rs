// SPDX-License-Identifier: Apache-2.0
//! Every way of proving who asks, against real servers. `tests/services/object with` starts them. moto looks at no signatures and
//! stands for the exchange of a web identity only; keys of S3 are checked by Swift's S3. The identity platform of Azure is
//! played, and Azurite looks at the tokens' claims and times.

mod support;

use std::{fs, process::Command};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use driver_api::{
    Backend, Error, ErrorKind,
    ext::{Conditions, SignRequest, SignedMethod, SignedUrl},
};
use object_storage::ObjectBackend;
use serde_json::{Value, json};
use support::{
    Addresses, Stage, body, buf, cx, fresh, open, options,
    played::{Played, play},
    proxy::Proxy,
    refused,
};

/// A fresh bucket and a round trip by these credentials.
async fn works(name: &str, options: Value) -> Stage {
    let backend = open(options, json!({}));
    let objects = backend.objects().expect("objects");
    let bucket = fresh("creds");
    let spec = driver_api::ext::BucketSpec::new(&bucket);
    objects.create_bucket(&cx(), spec).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let stage = Stage { name: name.to_owned(), objects, backend, bucket };
    body::round_trip(&stage).await;
    stage
}

/// The error of a listing by credentials that are not taken.
async fn fails(options: Value, secrets: &[&str]) -> Error {
    fails_at(&open(options, json!({})), secrets).await
}

async fn fails_at(backend: &ObjectBackend, secrets: &[&str]) -> Error {
    let objects = backend.objects().expect("objects");
    let error = refused(objects.buckets(&cx()).await, ErrorKind::UNAUTHENTICATED);
    let text = format!("{error:#} {error:?}");
    assert!(!error.remedy_text().is_empty(), "{text}");
    for secret in secrets {
        assert!(!text.contains(secret), "{text}");
    }
    error
}

fn says(error: &Error, words: &[&str]) {
    let text = format!("{error:#}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_web_identity_is_exchanged_for_keys() {
    let at = Addresses::read();
    let proxy = Proxy::before(at.get("moto"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "eyJ.a+token/of=mine\n").expect("written");
    let url = proxy.url(at.get("moto"));
    let role = "arn:aws:iam::123456789012:role/novastor";
    works(
        "moto",
        json!({
            "kind": "s3", "endpoint": url, "sts_endpoint": url, "role_arn": role,
            "token_file": file.path(),
        }),
    )
    .await;
    let exchanges = proxy.asked("POST / ");
    assert_eq!(exchanges.len(), 1, "keys are kept: {exchanges:?}");
    let token = "WebIdentityToken=eyJ%2Ea%2Btoken%2Fof%3Dmine";
    assert!(exchanges[0].ends_with(token), "{exchanges:?}");
    for asked in proxy.asked("creds-") {
        let lower = asked.to_lowercase();
        assert!(
            lower.contains("credential=asia") && lower.contains("x-amz-security-token:"),
            "{asked}"
        );
        assert!(!asked.contains("eyJ"), "the token is for nobody else: {asked}");
    }
}

/// Starts this test again as a process of its own with this environment and no more of AWS; `true` in that process.
fn with_environment(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os("NOVASTOR_TEST_ENVIRONMENT").is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored"]).env("NOVASTOR_TEST_ENVIRONMENT", "yes");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().expect("started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn keys_come_from_the_environment() {
    let at = Addresses::read();
    let test = "keys_come_from_the_environment";
    let s3 = || json!({"kind": "s3", "endpoint": at.get("swift_s3")});
    let (user, key) = (at.get("swift_user"), at.get("swift_key"));
    let role = "arn:aws:iam::123456789012:role/novastor";
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "a-token").expect("written");
    let path = file.path().to_str().expect("a path");
    for environment in [
        &[("AWS_ACCESS_KEY_ID", user), ("AWS_SECRET_ACCESS_KEY", key)][..],
        &[("AWS_ACCESS_KEY_ID", user), ("AWS_SECRET_ACCESS_KEY", "s3cr3t")],
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", path),
            ("AWS_ROLE_ARN", role),
            ("AWS_ENDPOINT_URL_STS", at.get("moto")),
        ],
    ] {
        if !with_environment(test, environment) {
            continue;
        }
        if std::env::var_os("AWS_ROLE_ARN").is_some() {
            works("moto", json!({"kind": "s3", "endpoint": at.get("moto")})).await;
        } else if std::env::var("AWS_SECRET_ACCESS_KEY").is_ok_and(|secret| secret == key) {
            works("swift", s3()).await;
        } else {
            let error = fails(s3(), &["s3cr3t"]).await;
            says(&error, &["AWS_SECRET_ACCESS_KEY", "start the host anew"]);
        }
        return;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_profile_with_new_keys_serves_at_once() {
    let at = Addresses::read();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |secret: &str| {
        let user = at.get("swift_user");
        let text = format!(
            "[default]\naws_access_key_id=nobody\naws_secret_access_key=x\n\n[storage] ; ours\n\
             aws_access_key_id = {user}\naws_secret_access_key = {secret}\n"
        );
        fs::write(file.path(), text).expect("written");
    };
    write("s3cr3t");
    let options = json!({
        "kind": "s3", "endpoint": at.get("swift_s3"), "profile": "storage",
        "profile_file": file.path(),
    });
    let backend = open(options, json!({}));
    let error = fails_at(&backend, &["s3cr3t"]).await;
    says(&error, &["profile storage", file.path().to_str().expect("a path")]);
    write(at.get("swift_key"));
    backend.objects().expect("objects").buckets(&cx()).await.expect("the new keys");
}

/// A token as Azurite wants it, of an issuer and for an audience that it knows.
fn bearer(secs: i64) -> String {
    let now = chrono::Utc::now().timestamp();
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({
        "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/tenant/",
        "iat": now - 60, "nbf": now - 60, "exp": now + secs, "ver": "1.0",
        "oid": "11111111-2222-3333-4444-555555555555",
        "tid": "66666666-7777-8888-9999-000000000000",
    });
    let head = part(json!({"alg": "RS256", "typ": "JWT"}));
    format!("{head}.{}.{}", part(claims), URL_SAFE_NO_PAD.encode("signature"))
}

/// An identity platform that knows one secret and one token, and whose own tokens expire after so many seconds.
fn platform(expire_secs: i64) -> Played {
    play(move |asked| {
        let known = asked.field("client_secret") == "r1ght-s3cret"
            || asked.field("client_assertion") == "federated";
        let scope = asked.field("scope") == "https://storage.azure.com/.default";
        match known && scope && asked.field("client_id") == "app" {
            true => {
                (200, json!({"access_token": bearer(expire_secs), "expires_in": 3600}).to_string())
            }
            false => {
                let why = "AADSTS7000215: Invalid client secret provided.";
                (401, json!({"error": "invalid_client", "error_description": why}).to_string())
            }
        }
    })
}

fn azurite(more: Value) -> Value {
    let at = Addresses::read();
    let mut options = json!({
        "kind": "azure", "emulator": true, "endpoint": at.get("azurite_tls"),
        "account": at.get("azurite_account"), "ca_file": at.get("ca"),
    });
    for (key, value) in more.as_object().expect("an object") {
        options[key] = value.clone();
    }
    options
}

/// What plain curl makes of a signed URL.
fn curl(method: &str, url: &str, signed: &SignedUrl, body: Option<&str>) -> (u16, String) {
    let ca = Addresses::read().get("ca").to_owned();
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "30", "--noproxy", "*", "-w", "\n%{http_code}"]);
    command.args(["--cacert", &ca, "-X", method]);
    for header in &signed.headers {
        command.arg("-H").arg(format!("{}: {}", header.0, header.1));
    }
    if let Some(body) = body {
        command.args(["--data-binary", body]);
    }
    let output = command.arg(url).output().expect("curl");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = told.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

async fn sign(stage: &Stage, method: SignedMethod, secs: u64) -> SignedUrl {
    let request = SignRequest {
        method,
        object: stage.object("signed"),
        expire_secs: secs,
        ..SignRequest::default()
    };
    stage.objects.sign(&cx(), request).await.unwrap_or_else(|error| panic!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn an_application_s_secret_opens_azure_and_lends_a_key_that_signs() {
    let service = platform(3600);
    let app = |secret: &str| {
        azurite(json!({
            "client_id": "app", "tenant_id": "tenant", "client_secret": secret,
            "authority_host": service.url,
        }))
    };
    let stage = works("azurite_tls", app("r1ght-s3cret")).await;
    assert_eq!(service.asked("POST /tenant/oauth2/v2.0/token").len(), 1, "the token is kept");

    let put = sign(&stage, SignedMethod::PUT, 600).await;
    assert!(put.url.contains("skoid=11111111-"), "a user delegation: {}", put.url);
    let (status, told) = curl("PUT", &put.url, &put, Some("by curl"));
    assert_eq!(status, 201, "{told}");
    let get = sign(&stage, SignedMethod::GET, 600).await;
    assert_eq!(curl("GET", &get.url, &get, None), (200, "by curl".to_owned()));
    assert_eq!(curl("DELETE", &get.url, &get, None).0, 403, "for reading only");
    let tampered = get.url.replace("sp=r", "sp=d");
    assert_ne!(tampered, get.url.as_str());
    assert_eq!(curl("DELETE", &tampered, &get, None).0, 403, "tampered");
    let brief = sign(&stage, SignedMethod::GET, 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(curl("GET", &brief.url, &brief, None).0, 403, "expired");

    let error = fails(app("wr0ng-s3cret"), &["wr0ng-s3cret"]).await;
    says(&error, &["AADSTS7000215", "`client_secret`", "client_id: app"]);
    // A token that has expired although it was said to hold: Azure's word for it, not a riddle.
    let stale = platform(-10);
    let mut options = app("r1ght-s3cret");
    options["authority_host"] = stale.url.as_str().into();
    let error = fails(options, &["r1ght-s3cret"]).await;
    says(&error, &["token is expired"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_federated_token_opens_azure() {
    let service = platform(3600);
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "federated\n").expect("written");
    let identity = || {
        azurite(json!({
            "client_id": "app", "tenant_id": "tenant", "token_file": file.path(),
            "authority_host": service.url,
        }))
    };
    works("azurite_tls", identity()).await;
    fs::write(file.path(), "an0ther").expect("written");
    let error = fails(identity(), &["an0ther"]).await;
    says(&error, &["refuses the token in the file", "federated credential", "token_file: "]);
}

/// A shared access signature of the account.
fn account_sas(permissions: &str, secs: i64) -> String {
    let at = Addresses::read();
    let ends = chrono::Utc::now() + chrono::Duration::seconds(secs);
    let ends = ends.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let account = at.get("azurite_account");
    let text = format!("{account}\n{permissions}\nb\nsco\n\n{ends}\n\nhttps,http\n2023-11-03\n\n");
    let key = STANDARD.decode(at.get("azurite_key")).expect("base64");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let signature = STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("sv", "2023-11-03"),
            ("ss", "b"),
            ("srt", "sco"),
            ("sp", permissions),
            ("se", ends.as_str()),
            ("spr", "https,http"),
            ("sig", signature.as_str()),
        ])
        .finish();
    format!("?{query}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_shared_access_signature_opens_azure_as_far_as_it_goes() {
    let sas = |permissions, secs| azurite(json!({"sas": account_sas(permissions, secs)}));
    let stage = works("azurite_tls", sas("rwdlactf", 600)).await;
    let request =
        SignRequest { object: stage.object("one"), expire_secs: 60, ..SignRequest::default() };
    refused(stage.objects.sign(&cx(), request).await, ErrorKind::UNSUPPORTED);

    let reader = open(sas("rl", 600), json!({})).objects().expect("objects");
    reader.head(&cx(), stage.object("one"), Conditions::default()).await.expect("head");
    let put = reader.put(&cx(), stage.object("one"), buf(b"x"), Default::default()).await;
    let error = refused(put, ErrorKind::PERMISSION_DENIED);
    assert!(!error.remedy_text().is_empty() && !format!("{error:#}").contains("sig="), "{error:#}");

    let error = fails(sas("rwdlactf", -60), &["sig="]).await;
    says(&error, &["has expired, on 20", "`sas`"]);
    let mut tampered = sas("rl", 600);
    tampered["sas"] = tampered["sas"].as_str().expect("text").replace("sp=rl", "sp=rwl").into();
    says(&fails(tampered, &["sig="]).await, &["`sas`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_shared_key_opens_azure_and_another_does_not() {
    works("azurite_tls", azurite(json!({"account_key": Addresses::read().get("azurite_key")})))
        .await;
    let other = STANDARD.encode([7; 64]);
    let error = fails(azurite(json!({"account_key": other})), &[&other]).await;
    says(&error, &["`account_key`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn a_service_account_opens_gcs_and_another_s_key_does_not() {
    let at = Addresses::read();
    let text = fs::read_to_string(at.get("gcs_service_account")).expect("the account");
    let by_json = |json: String| {
        let mut options = options("gcs");
        options.as_object_mut().expect("an object").remove("service_account");
        options["service_account_json"] = json.into();
        options
    };
    works("gcs", by_json(text.clone())).await;

    let key = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl");
    let pem = String::from_utf8(key.stdout).expect("PEM");
    let mut account: Value = serde_json::from_str(&text).expect("JSON");
    account["private_key"] = pem.as_str().into();
    let secret = pem.lines().nth(5).expect("a line of the key");
    let error = fails(by_json(account.to_string()), &[secret]).await;
    let email = account["client_email"].as_str().expect("a name").to_owned();
    says(&error, &["the service account is refused: invalid_grant", "`service_account`", &email]);

    let mut account: Value = serde_json::from_str(&text).expect("JSON");
    account["token_uri"] = at.get("moto").into();
    let error = fails(by_json(account.to_string()), &[]).await;
    says(&error, &["is not the token service", "`token_uri`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn an_application_credential_opens_swift() {
    let at = Addresses::read();
    let application = |secret: &str| {
        json!({
            "kind": "swift", "auth": "v3", "auth_url": at.get("keystone_url"),
            "application_credential_id": at.get("keystone_app_id"),
            "application_credential_secret": secret, "temp_url_key": "signs",
        })
    };
    // Keystone takes its time for each request of this kind: what is done is little.
    let objects = open(application(at.get("keystone_app_secret")), json!({})).objects();
    let (objects, bucket) = (objects.expect("objects"), fresh("creds"));
    let spec = driver_api::ext::BucketSpec::new(&bucket);
    objects.create_bucket(&cx(), spec).await.expect("a bucket");
    let name = || driver_api::ext::ObjectName::new(&bucket, "one");
    objects.put(&cx(), name(), buf(b"kept"), Default::default()).await.expect("put");
    let got = objects.get(&cx(), name(), 0, 10, Conditions::default()).await.expect("get");
    assert_eq!(got.data[..], *b"kept");
    let error = fails(application("wr0ng-s3cret"), &["wr0ng-s3cret"]).await;
    says(&error, &["401", "application credential"]);
}
