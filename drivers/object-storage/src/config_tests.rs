// SPDX-License-Identifier: Apache-2.0
use driver_api::ErrorKind;
use serde_json::{Value, json};

use super::*;

fn parse(options: Value) -> Config {
    serde_json::from_value(options).expect("options")
}

fn refused(options: Value, word: &str) {
    let error = parse(options.clone()).check().expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
    assert!(error.message().contains(word), "{options}: {error:#}");
}

fn s3(more: Value) -> Value {
    let mut options = json!({"kind": "s3", "access_key": "a", "secret_key": "b"});
    for (key, value) in more.as_object().expect("an object") {
        options[key] = value.clone();
    }
    options
}

#[test]
fn the_least_of_each_kind_is_enough() {
    for options in [
        s3(json!({})),
        json!({"kind": "s3"}),
        json!({"kind": "s3", "credentials": "none"}),
        json!({"kind": "s3", "role_arn": "r", "token_file": "/t"}),
        json!({"kind": "azure", "account": "a", "account_key": "a2V5"}),
        json!({"kind": "azure", "emulator": true}),
        json!({"kind": "gcs"}),
        json!({"kind": "swift", "auth": "v1", "auth_url": "http://h/auth/v1.0", "user": "u", "password": "p"}),
        json!({"kind": "swift", "auth_url": "http://h/v3", "user": "u", "password": "p", "project": "p"}),
        json!({"kind": "swift", "auth_url": "http://h/v3", "application_credential_id": "i", "application_credential_secret": "s"}),
    ] {
        parse(options.clone()).check().unwrap_or_else(|error| panic!("{options}: {error:#}"));
    }
}

#[test]
fn what_is_missing_or_makes_no_sense_is_refused() {
    refused(json!({"kind": "s3", "access_key": "a"}), "`secret_key` is missing");
    refused(s3(json!({"credentials": "instance"})), "credentials = \"keys\"");
    refused(json!({"kind": "s3", "credentials": "web_identity"}), "`role_arn` is missing");
    refused(s3(json!({"endpoint": "s3.example.com"})), "`endpoint` is no URL");
    refused(s3(json!({"endpoint": "ftp://s3.example.com"})), "neither http");
    refused(s3(json!({"endpoint": "http://me:secret@s3.example.com"})), "user or password");
    refused(s3(json!({"endpoint": "http://127.0.0.1:9000", "style": "virtual"})), "style");
    refused(s3(json!({"proxy": "http://me:secret@proxy"})), "user or password");
    refused(s3(json!({"proxy": "http://proxy", "proxy_user": "me"})), "go together");
    refused(s3(json!({"proxy_user": "me", "proxy_password": "p"})), "go together");
    refused(s3(json!({"operation_timeout_secs": 0})), "operation_timeout_secs");
    refused(s3(json!({"kms_key_id": "k"})), "aws:kms");
    refused(s3(json!({"sse_customer_key": "short"})), "32 bytes");
    refused(s3(json!({"account_key": "a"})), "kind = \"azure\"");
    refused(s3(json!({"emulator": true})), "azure");
    refused(s3(json!({"project": "p"})), "gcs");
    refused(json!({"kind": "azure"}), "`account` is missing");
    refused(json!({"kind": "azure", "account": "a"}), "no credentials");
    refused(
        json!({"kind": "azure", "account": "a", "sas": "s", "account_key": "k"}),
        "exclude each other",
    );
    refused(
        json!({"kind": "azure", "account": "a", "client_secret": "s"}),
        "`client_id` is missing",
    );
    for (more, word) in [
        (json!({"token_file": "/t", "client_id": "i"}), "`tenant_id` is missing"),
        (json!({"credentials": "web_identity"}), "`token_file` is missing"),
        (json!({"credentials": "instance", "sas": "s"}), "exclude each other"),
        (json!({"credentials": "profile"}), "instance or web_identity"),
        (json!({"authority_host": "login"}), "`authority_host` is no URL"),
    ] {
        let mut options = json!({"kind": "azure", "account": "a"});
        for (key, value) in more.as_object().expect("an object") {
            options[key] = value.clone();
        }
        refused(options, word);
    }
    refused(json!({"kind": "gcs", "token_file": "/t"}), "`token_file` is for");
    refused(
        json!({"kind": "gcs", "service_account": "/f", "service_account_json": "{}"}),
        "exclude each other",
    );
    refused(json!({"kind": "swift"}), "`auth_url` is missing");
    refused(
        json!({"kind": "swift", "auth_url": "http://h", "user": "u", "password": "p"}),
        "`project` is missing",
    );
}

#[test]
fn unknown_options_and_values_are_refused() {
    for options in [json!({"kind": "s4"}), json!({"kind": "s3", "colour": "blue"}), json!({})] {
        assert!(serde_json::from_value::<Config>(options).is_err());
    }
}

#[test]
fn secrets_are_not_printed() {
    let shown = format!("{:?}", parse(s3(json!({"secret_key": "verysecret"}))));
    assert!(!shown.contains("verysecret"), "{shown}");
}

#[test]
fn every_option_is_declared_and_every_declared_one_parses() {
    let info = crate::options::describe();
    for option in &info.options {
        let name = option.name.as_str();
        let value = match option.kind {
            driver_api::OptionType::INTEGER | driver_api::OptionType::SIZE => json!(1),
            driver_api::OptionType::BOOLEAN => json!(true),
            driver_api::OptionType::CHOICE => json!(option.choices[0].as_str()),
            _ => json!("x"),
        };
        let mut options = json!({"kind": "s3"});
        options[name] = value;
        assert!(serde_json::from_value::<Config>(options).is_ok(), "{name}");
    }
    let declared: Vec<&str> = info.options.iter().map(|option| option.name.as_str()).collect();
    for kind in [Kind::S3, Kind::Azure, Kind::Gcs, Kind::Swift] {
        for key in kind.own_options() {
            assert!(declared.contains(key), "{key}");
        }
    }
    for secret in [
        "secret_key",
        "session_token",
        "account_key",
        "sas",
        "password",
        "temp_url_key",
        "proxy_password",
    ] {
        assert!(
            info.options.iter().any(|option| option.name == secret && option.secret),
            "{secret}"
        );
    }
}
