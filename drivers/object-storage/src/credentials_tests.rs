// SPDX-License-Identifier: Apache-2.0
use serde_json::json;

use super::*;

fn config(options: serde_json::Value) -> Config {
    serde_json::from_value(options).expect("options")
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
    let provider = aws(&config(json!({"kind": "s3", "profile_file": path, "profile": "mine"})))
        .expect("credentials")
        .expect("some");
    let credential = provider.get_credential().await.expect("a credential");
    assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("one", "se=cret"));
    assert_eq!(credential.token.as_deref(), Some("t"));
    write("two");
    assert_eq!(provider.get_credential().await.expect("a credential").key_id, "two");
    for (options, word) in [
        (json!({"kind": "s3", "profile_file": path, "profile": "other"}), "no such profile"),
        (json!({"kind": "s3", "profile_file": "/no/such/file"}), "cannot be read"),
    ] {
        let error = aws(&config(options)).expect_err("refused");
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
