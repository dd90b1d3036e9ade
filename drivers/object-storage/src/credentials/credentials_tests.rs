// SPDX-License-Identifier: Apache-2.0
use serde_json::json;

use super::*;

fn config(options: serde_json::Value) -> Config {
    serde_json::from_value(options).expect("options")
}

/// Who asks S3 by these options and this environment.
fn aws(
    options: serde_json::Value,
    environment: &[(&str, &str)],
) -> Result<Option<object_store::aws::AwsCredentialProvider>> {
    let config = config(options);
    config.check()?;
    let client = crate::client::client(&config, &Arc::default())?;
    super::aws::find(&config, &client, &|name| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[tokio::test]
async fn a_profile_is_read_whenever_it_is_needed() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |key: &str| {
        let text = format!(
            "# comment\n[default]\naws_access_key_id = d\naws_secret_access_key = e\n\n[profile mine]\n\
             AWS_ACCESS_KEY_ID={key}\naws_secret_access_key = se=cret\naws_session_token = t\n"
        );
        fs::write(file.path(), text).expect("written");
    };
    write("one");
    let path = file.path().to_str().expect("a path");
    let provider = aws(json!({"kind": "s3", "profile_file": path, "profile": "mine"}), &[])
        .expect("credentials")
        .expect("some");
    let credential = provider.get_credential().await.expect("a credential");
    assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("one", "se=cret"));
    assert_eq!(credential.token.as_deref(), Some("t"));
    write("two");
    assert_eq!(provider.get_credential().await.expect("a credential").key_id, "two");
    for (options, word) in [
        (json!({"kind": "s3", "profile_file": path, "profile": "other"}), "has no profile other"),
        (json!({"kind": "s3", "profile_file": "/no/such/file"}), "cannot be read"),
    ] {
        let error = aws(options, &[]).map(drop).expect_err("refused");
        assert!(error.message().contains(word), "{error:#}");
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    for (options, word) in [
        (json!({"kind": "azure", "account": "a", "account_key": "not base64!"}), "base64"),
        (json!({"kind": "gcs", "service_account": "/no/such/file"}), "service_account"),
        (json!({"kind": "gcs", "service_account_json": "{}"}), "service account"),
        (
            json!({"kind": "gcs", "service_account_json": "{\"client_email\":\"e\",\"private_key\":\"none\"}"}),
            "private_key",
        ),
    ] {
        let config = config(options);
        let client = crate::client::client(&config, &Arc::default()).expect("a client");
        let error = find(&config, &client).map(drop).expect_err("refused");
        assert!(error.message().contains(word), "{error:#}");
    }
}

#[tokio::test]
async fn the_environment_is_read_as_aws_own_programs_do() {
    let s3 = || json!({"kind": "s3"});
    let keys = [
        ("AWS_ACCESS_KEY_ID", "id "),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/none"),
        ("AWS_ROLE_ARN", "arn"),
    ];
    let provider = aws(s3(), &keys).expect("credentials").expect("some");
    let found = provider.get_credential().await.expect("a credential");
    assert_eq!((found.key_id.as_str(), found.token.as_deref()), ("id", None));
    // Whoever is chosen asks when it is needed, and tells by its name who it is.
    for (environment, shown) in [
        (&keys[3..], "WebIdentity"),
        (
            &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")],
            "Container { url: \"http://169.254.170.2/v2/x\"",
        ),
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x")], "Container"),
    ] {
        let provider = aws(s3(), environment).expect("credentials").expect("some");
        let told = format!("{provider:?}");
        assert!(told.contains(shown), "{told}");
    }
    for (environment, word) in [
        (&[][..], "there are no credentials"),
        (&keys[..1], "but no AWS_SECRET_ACCESS_KEY"),
        (&keys[1..2], "but no AWS_ACCESS_KEY_ID"),
        (&keys[3..4], "but no AWS_ROLE_ARN"),
        (&[("AWS_PROFILE", "p"), ("AWS_SHARED_CREDENTIALS_FILE", "/none")], "credentials file"),
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/x")], "unencrypted"),
    ] {
        let error = aws(s3(), environment).map(drop).expect_err("refused");
        assert!(error.message().contains(word) && !error.remedy_text().is_empty(), "{error:#}");
    }
}

#[test]
fn a_profile_without_keys_is_told_what_it_lacks() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text =
        "[one]\nrole_arn = r\n[two]\ncredential_process = p\n[three]\naws_access_key_id = i\n";
    fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("a path");
    for (profile, words) in [
        ("one", ["aws_access_key_id", "`role_arn` and `token_file`"]),
        ("two", ["aws_access_key_id", "`credential_process` is not understood"]),
        ("three", ["aws_secret_access_key", "give the profile"]),
        ("four", ["no profile four", "one, two, three"]),
    ] {
        let options = json!({"kind": "s3", "profile_file": path, "profile": profile});
        let error = aws(options, &[]).map(drop).expect_err("refused");
        let text = format!("{error:#}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn secrets_do_not_get_into_errors_and_debug_texts() {
    let hidden = "s3cr3t";
    for options in [
        json!({"kind": "s3", "proxy": "ftp://me:s3cr3t@proxy"}),
        json!({"kind": "s3", "proxy": "http://me:s3cr3t@pr oxy"}),
        json!({"kind": "s3", "proxy": "http://me:s3cr3t@proxy"}),
        json!({"kind": "s3", "endpoint": "http://me:s3cr3t@host", "credentials": "none"}),
        json!({"kind": "azure", "account": "a", "sas": "s3cr3t"}),
        json!({"kind": "azure", "account": "a", "account_key": "s3cr3t!"}),
        json!({"kind": "gcs", "service_account_json": "{\"private_key\": \"s3cr3t\", \"x\""}),
        json!({"kind": "gcs", "service_account_json": "{\"client_email\": 1, \"private_key\": \"s3cr3t\"}"}),
        json!({"kind": "gcs", "service_account_json": "\"s3cr3t\""}),
    ] {
        let error = crate::account::Account::new(config(options)).map(drop).expect_err("refused");
        assert!(!format!("{error:#}").contains(hidden), "{error:#}");
    }
    for options in [
        json!({"kind": "s3", "access_key": "a", "secret_key": hidden, "session_token": hidden}),
        json!({"kind": "azure", "account": "a", "client_id": "i", "tenant_id": "t", "client_secret": hidden}),
    ] {
        let account = crate::account::Account::new(config(options)).expect("an account");
        let shown = match &account.credential {
            Credential::Aws(provider) => format!("{provider:?}"),
            Credential::Azure(provider) => format!("{provider:?}"),
            _ => unreachable!(),
        };
        assert!(!shown.contains(hidden) && !format!("{account:?}").contains(hidden), "{shown}");
    }
}
