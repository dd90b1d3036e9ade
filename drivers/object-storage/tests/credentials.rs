// SPDX-License-Identifier: Apache-2.0
//! Services that give out credentials, and how they refuse: they are played here, as are the stores. What real servers make of
//! such credentials is in `object_credentials.rs`.

mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use driver_api::{
    Backend, Error, ErrorKind, OpContext,
    ext::{Conditions, ObjectInfo, ObjectName},
};
use object_storage::ObjectBackend;
use serde_json::{Value, json};
use support::{
    open,
    played::{Asked, Played, play, role_keys, role_refusal},
};

async fn head(backend: &ObjectBackend, secs: u64) -> Result<ObjectInfo, Error> {
    let cx = OpContext::new().with_timeout(Duration::from_secs(secs));
    let objects = backend.objects().expect("objects");
    objects.head(&cx, ObjectName::new("bucket", "key"), Conditions::default()).await
}

/// A store that has every object.
fn store() -> Played {
    play(|_| (200, String::new()))
}

fn machine_keys(id: &str) -> String {
    format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"s3cr3t\",\"Token\":\"session\",\
         \"Expiration\":\"2999-01-01T00:00:00Z\"}}"
    )
}

/// The metadata service of a machine of AWS, version 2: without its token it tells nothing.
fn machine(asked: &Asked) -> (u16, String) {
    let role = "/latest/meta-data/iam/security-credentials/";
    if asked.line.starts_with("PUT /latest/api/token") {
        let life = asked.header("x-aws-ec2-metadata-token-ttl-seconds");
        return if life.is_empty() { (400, String::new()) } else { (200, "a-token".into()) };
    }
    if asked.header("x-aws-ec2-metadata-token") != "a-token" {
        return (401, String::new());
    }
    if asked.line.starts_with(&format!("GET {role} ")) {
        (200, "the-role\n".into())
    } else if asked.line.starts_with(&format!("GET {role}the-role ")) {
        (200, machine_keys("FROMHERE"))
    } else {
        (404, String::new())
    }
}

#[tokio::test]
async fn keys_come_from_the_metadata_service_and_not_through_the_proxy() {
    let (service, store) = (play(machine), store());
    let options = json!({
        "kind": "s3", "credentials": "instance", "instance_metadata": service.url,
        "endpoint": "http://store.invalid", "proxy": store.url,
    });
    let backend = open(options, json!({}));
    for _ in 0..2 {
        head(&backend, 10).await.expect("an answer");
    }
    assert_eq!(service.asked("PUT /latest/api/token").len(), 1, "keys are kept until they expire");
    let asked = store.asked("HEAD http://store.invalid/bucket/key");
    assert_eq!(asked.len(), 2);
    assert!(asked[1].header("authorization").contains("Credential=FROMHERE/"), "{asked:?}");
    assert_eq!(asked[1].header("x-amz-security-token"), "session");
}

type Answers = fn(&Asked) -> (u16, String);

#[tokio::test]
async fn a_machine_without_keys_is_told_why() {
    let cases: [(Answers, &str, &str); 5] = [
        (|_| (403, String::new()), "gives no token: 403", "IMDSv2"),
        (
            |asked| if asked.line.starts_with("PUT") { machine(asked) } else { (404, "".into()) },
            "has no role",
            "attach an instance profile",
        ),
        (
            |asked| match machine(asked) {
                (200, text) if text.starts_with('{') => (404, String::new()),
                other => other,
            },
            "gives no keys of its role",
            "trust policy",
        ),
        (
            |asked| match machine(asked) {
                (200, text) if text.starts_with('{') => (200, text.replace("AccessKeyId", "Other")),
                other => other,
            },
            "is not the machine's metadata service",
            "correct `instance_metadata`",
        ),
        (|_| (503, String::new()), "metadata service failed: 503", "asked again"),
    ];
    for (answers, why, remedy) in cases {
        let service = play(answers);
        let options = json!({
            "kind": "s3", "credentials": "instance", "instance_metadata": service.url,
            "endpoint": "http://127.0.0.1:1",
        });
        let error = head(&open(options, json!({})), 1).await.expect_err("no keys");
        let text = format!("{error:#}");
        assert!(text.contains(why) && error.remedy_text().contains(remedy), "{text}");
        assert!(!text.contains("s3cr3t") && !text.contains("a-token"), "{text}");
    }
}

/// A backend with a web identity, the file of its token, and whom it asks.
fn web_identity(service: &Played, token: &str) -> (ObjectBackend, tempfile::NamedTempFile, Played) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), token).expect("written");
    let store = store();
    let options = json!({
        "kind": "s3", "endpoint": store.url, "sts_endpoint": service.url,
        "role_arn": "arn:aws:iam::1:role/r", "token_file": file.path(),
    });
    (open(options, json!({})), file, store)
}

#[tokio::test]
async fn a_rotated_token_is_read_anew_and_old_keys_serve_until_they_end() {
    let number = AtomicUsize::new(0);
    let service = play(move |asked| match asked.field("WebIdentityToken").as_str() {
        "refused" => (403, role_refusal("AccessDenied", "Not authorized")),
        _ => (200, role_keys(&format!("KEY{}", number.fetch_add(1, Relaxed)), "s", 2)),
    });
    let (backend, file, store) = web_identity(&service, "first\n");
    head(&backend, 10).await.expect("an answer");
    fs::write(file.path(), "second").expect("written");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    head(&backend, 10).await.expect("an answer");
    fs::write(file.path(), "refused").expect("written");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    head(&backend, 10).await.expect("the old keys still hold");
    let tokens: Vec<String> =
        service.asked("POST").iter().map(|asked| asked.field("WebIdentityToken")).collect();
    assert_eq!(tokens, ["first", "second", "refused"]);
    let keys: Vec<bool> = store
        .asked("HEAD")
        .iter()
        .zip(["KEY0/", "KEY1/", "KEY1/"])
        .map(|(asked, key)| asked.header("authorization").contains(key))
        .collect();
    assert_eq!(keys, [true, true, true]);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let error = head(&backend, 10).await.expect_err("now they have ended");
    assert!(error.message().contains("may not be assumed"), "{error:#}");
}

#[tokio::test]
async fn a_refused_role_is_told_by_cause_and_remedy_and_without_the_token() {
    for (code, why, remedy) in [
        ("ExpiredTokenException", "has expired", "renews the file"),
        ("InvalidIdentityToken", "is not accepted", "issuer and audience"),
        ("AccessDenied", "may not be assumed", "trust policy"),
        ("ValidationError", "refuses the request", "role_arn"),
        ("RegionDisabledException", "RegionDisabledException", "sts_endpoint"),
    ] {
        let message = "Token t0k3n-of-mine: no";
        let service = play(move |_| (400, role_refusal(code, message)));
        let (backend, file, store) = web_identity(&service, "t0k3n-of-mine");
        let since = Instant::now();
        let error = head(&backend, 20).await.expect_err("no keys");
        assert!(since.elapsed() < Duration::from_secs(5), "asking again does not mend it");
        assert_eq!(error.kind(), ErrorKind::UNAUTHENTICATED);
        let text = format!("{error:#}");
        assert!(error.message().contains(why) && error.remedy_text().contains(remedy), "{text}");
        assert!(text.contains(file.path().to_str().expect("a path")), "{text}");
        assert!(!text.contains("t0k3n-of-mine"), "{text}");
        assert!(store.asked("").is_empty() && service.asked("").len() == 1);
        assert!(!service.asked("")[0].line.contains("t0k3n"), "URLs get into logs");
    }
}

#[tokio::test]
async fn a_token_file_that_is_missing_or_empty_is_named() {
    let service = play(|_| (200, role_keys("KEY", "s", 3600)));
    let (backend, file, _store) = web_identity(&service, " \n");
    let error = head(&backend, 10).await.expect_err("no token");
    assert!(error.message().contains("is empty"), "{error:#}");
    let path = file.path().to_owned();
    drop(file);
    let error = head(&backend, 10).await.expect_err("no token");
    let text = format!("{error:#}");
    assert!(
        text.contains("cannot be read: No such file") && text.contains("`token_file`"),
        "{text}"
    );
    assert!(text.contains(path.to_str().expect("a path")), "{text}");
    // Its writer comes late: nothing has to be started anew.
    fs::write(&path, "token").expect("written");
    head(&backend, 10).await.expect("an answer");
    fs::remove_file(&path).expect("removed");
}

#[tokio::test]
async fn a_token_service_that_fails_for_a_while_delays_only() {
    let left = Arc::new(AtomicUsize::new(2));
    let service =
        play(move |_| match left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => (503, String::new()),
            Err(_) => (200, role_keys("KEY", "s", 3600)),
        });
    let (backend, _file, store) = web_identity(&service, "token");
    head(&backend, 10).await.expect("an answer");
    assert_eq!((service.asked("").len(), store.asked("").len()), (3, 1));
}

#[tokio::test]
async fn a_token_service_that_is_silent_or_none_ends_with_the_deadline() {
    let silent = play(|_| (0, String::new()));
    let page = play(|_| (200, "<html>Welcome</html>".into()));
    for (service, kind, word) in [
        (&silent, ErrorKind::UNAVAILABLE, "does not answer"),
        (&page, ErrorKind::UNAUTHENTICATED, "is not the security token service"),
    ] {
        let (backend, _file, _store) = web_identity(service, "token");
        let since = Instant::now();
        let error = head(&backend, 1).await.expect_err("no keys");
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(word), "{error:#}");
    }
    let (mut gone, store) = (silent, store());
    gone.url = "http://127.0.0.1:1".into();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "token").expect("written");
    let options = json!({
        "kind": "s3", "endpoint": store.url, "sts_endpoint": gone.url, "role_arn": "a",
        "token_file": file.path(),
    });
    let error = head(&open(options, json!({})), 1).await.expect_err("no keys");
    let text = format!("{error:#}");
    assert!(text.contains("security token service cannot be asked"), "{text}");
    assert!(text.contains("refused") && text.contains("`sts_endpoint`"), "{text}");
}

/// Starts this test again as a process of its own with this environment and no more of AWS; `true` in that process.
fn with_environment(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os("NOVASTOR_TEST_ENVIRONMENT").is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test]).env("NOVASTOR_TEST_ENVIRONMENT", "yes");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().expect("started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[tokio::test]
async fn a_container_gets_keys_for_the_token_in_its_file() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    fs::write(token.path(), "pass\n").expect("written");
    let service = play(|asked| match asked.header("authorization") {
        "pass" => (200, machine_keys("CONTAINER")),
        _ => (401, "who?".into()),
    });
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path().to_str().expect("a path")),
    ];
    if !with_environment("a_container_gets_keys_for_the_token_in_its_file", &environment) {
        assert_eq!(service.asked("GET").len(), 2);
        return;
    }
    let store = store();
    let options = || json!({"kind": "s3", "endpoint": store.url});
    head(&open(options(), json!({})), 10).await.expect("an answer");
    assert!(store.asked("HEAD")[0].header("authorization").contains("Credential=CONTAINER/"));
    let path = std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").expect("a path");
    fs::write(path, "other").expect("written");
    let error = head(&open(options(), json!({})), 10).await.expect_err("no keys");
    assert!(error.message().contains("gives no keys: 401"), "{error:#}");
}

#[tokio::test]
async fn an_environment_without_keys_is_told() {
    if !with_environment("an_environment_without_keys_is_told", &[]) {
        return;
    }
    let config = serde_json::from_value(json!({"kind": "s3"})).expect("options");
    let error = ObjectBackend::open("archive", config).map(drop).expect_err("no keys");
    let text = format!("{error:#}");
    assert!(
        text.contains("there are no credentials") && text.contains("AWS_ACCESS_KEY_ID"),
        "{text}"
    );
    assert!(text.contains("`access_key` and `secret_key`") && text.contains("archive"), "{text}");
}

/// A backend of Azure whose identity platform is played.
fn azure(service: &Played, store: &Played, more: Value) -> ObjectBackend {
    let options = json!({
        "kind": "azure", "account": "acc", "endpoint": store.url, "client_id": "app",
        "tenant_id": "ten", "authority_host": service.url,
    });
    open(options, more)
}

#[tokio::test]
async fn azure_s_identity_platform_refuses_by_cause_and_remedy() {
    for (more, description, why, remedy) in [
        (
            json!({"client_secret": "s3cr3t"}),
            "AADSTS7000215: Invalid client secret s3cr3t provided.",
            "refuses the application's secret",
            "not its id",
        ),
        (
            json!({"client_secret": "s3cr3t"}),
            "AADSTS7000222: The provided client secret keys are expired.",
            "secret has expired",
            "new secret",
        ),
        (
            json!({"client_secret": "s3cr3t"}),
            "AADSTS90002: Tenant 'ten' not found.",
            "no such tenant",
            "`tenant_id`",
        ),
        (
            json!({"client_secret": "s3cr3t"}),
            "AADSTS700016: Application not found",
            "no such application",
            "`client_id`",
        ),
        (
            json!({"token_file": "T"}),
            "AADSTS700024: Client assertion is not within its valid time range.",
            "token in the file has expired",
            "renews the file",
        ),
        (
            json!({"token_file": "T"}),
            "AADSTS70021: No matching federated identity record found for s3cr3t",
            "refuses the token in the file",
            "federated credential",
        ),
    ] {
        let service = play(move |_| {
            (401, json!({"error": "invalid_client", "error_description": description}).to_string())
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "s3cr3t").expect("written");
        let mut more = more;
        if more["token_file"].is_string() {
            more["token_file"] = json!(file.path());
        }
        let store = store();
        let error = head(&azure(&service, &store, more), 10).await.expect_err("no token");
        let text = format!("{error:#}");
        assert!(error.message().contains(why) && error.remedy_text().contains(remedy), "{text}");
        assert!(!text.contains("s3cr3t") && store.asked("").is_empty(), "{text}");
        assert_eq!(service.asked("POST /ten/oauth2/v2.0/token").len(), 1);
    }
}

#[tokio::test]
async fn azure_takes_a_machine_s_identity() {
    let service = play(|asked| {
        let known = asked.header("metadata") == "true" && asked.line.contains("resource=https%3A");
        match known && asked.line.contains("client_id=app") {
            // This service writes numbers as text.
            true => (200, json!({"access_token": "t0k3n", "expires_in": "3600"}).to_string()),
            false => (
                400,
                json!({"error": "invalid_request", "error_description": "Identity not found"})
                    .to_string(),
            ),
        }
    });
    let store = store();
    let options = |id: &str| {
        json!({
            "kind": "azure", "account": "acc", "endpoint": store.url, "client_id": id,
            "credentials": "instance", "instance_metadata": service.url,
        })
    };
    let _ = head(&open(options("app"), json!({})), 10).await;
    assert_eq!(store.asked("HEAD")[0].header("authorization"), "Bearer t0k3n");
    let error = head(&open(options("other"), json!({})), 10).await.expect_err("no token");
    assert!(error.message().contains("Identity not found"), "{error:#}");
    assert!(error.remedy_text().contains("managed identity"), "{error:#}");
}

/// Azure's signature is in the query of every URL.
#[tokio::test]
async fn a_signature_in_urls_does_not_get_into_errors() {
    let refusing = play(|_| (500, String::new()));
    for endpoint in ["http://127.0.0.1:1", refusing.url.as_str()] {
        let options = json!({
            "kind": "azure", "account": "acc", "endpoint": endpoint,
            "sas": "?sv=2023-11-03&ss=b&srt=sco&sp=rwdl&se=2030-01-01&sig=s3cr3t%3D",
        });
        let error = head(&open(options, json!({})), 1).await.expect_err("no answer");
        assert!(!format!("{error:#}").contains("s3cr3t"), "{error:#}");
    }
    assert!(refusing.asked("HEAD")[0].line.contains("sig=s3cr3t"), "it is in the URL");
}
