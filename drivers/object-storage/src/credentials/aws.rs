// SPDX-License-Identifier: Apache-2.0
//! Who asks S3.

use std::{path::PathBuf, sync::Arc};

use driver_api::Result;
use object_store::{
    StaticCredentialProvider,
    aws::{AwsCredential, AwsCredentialProvider},
    client::HttpClient,
};

use super::{
    exchange::Desk,
    lease::Leased,
    machine::{self, Container, Machine, Pass},
    profile::Profile,
    sts::{self, WebIdentity},
};
use crate::{
    config::{Config, Credentials, check_url},
    error::invalid,
};

/// The variables of the host's environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Who asks, by the options and the environment. `None`: nobody in particular.
pub(super) fn find(
    config: &Config,
    client: &HttpClient,
    environment: Environment<'_>,
) -> Result<Option<AwsCredentialProvider>> {
    let text = |option: &Option<String>| option.as_deref().unwrap_or_default().trim().to_owned();
    match config.credentials() {
        Credentials::None => Ok(None),
        Credentials::Keys => {
            let token = config.session_token.as_ref().map(|token| token.trim().to_owned());
            Ok(Some(fixed(text(&config.access_key), text(&config.secret_key), token)))
        }
        Credentials::Environment => from_environment(config, client, environment).map(Some),
        Credentials::Profile => profile(config, environment).map(Some),
        Credentials::Instance => {
            let base = config.instance_metadata.as_deref().unwrap_or(machine::METADATA).to_owned();
            let desk = Desk::near(config, machine::MACHINE)?;
            Ok(Some(Arc::new(Leased::new(Machine { desk, base }))))
        }
        Credentials::WebIdentity => Ok(Some(Arc::new(Leased::new(WebIdentity {
            desk: Desk::new(client, config, sts::WHOM),
            endpoint: match &config.sts_endpoint {
                Some(url) => url.clone(),
                None => default_sts(region(config)),
            },
            role_arn: text(&config.role_arn),
            token_file: PathBuf::from(text(&config.token_file)),
            session_name: "novastor".to_owned(),
            option: "`token_file`",
        })))),
    }
}

/// What the operator is to do when the store does not take the keys.
pub(super) fn remedy(config: &Config) -> String {
    let (file, name) = (config.profile_file.as_deref(), config.profile.as_deref());
    match config.credentials() {
        Credentials::Keys if config.session_token.is_some() => {
            "have new temporary keys given out, and set `access_key`, `secret_key` and `session_token`".to_owned()
        }
        Credentials::Keys | Credentials::None => {
            "correct `access_key` and `secret_key`, which must belong together".to_owned()
        }
        Credentials::Environment => {
            "correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or what else of the environment the keys come from, and start the host anew".to_owned()
        }
        Credentials::Profile => format!(
            "have new keys written into the profile {} of {}: it is read anew for each request",
            name.unwrap_or("default"),
            file.unwrap_or("~/.aws/credentials"),
        ),
        Credentials::Instance | Credentials::WebIdentity => {
            "the keys are renewed by themselves: look whether `endpoint` belongs to the service that gave them out, and at this machine's clock".to_owned()
        }
    }
}

fn region(config: &Config) -> &str {
    config.region.as_deref().unwrap_or("us-east-1")
}

fn default_sts(region: &str) -> String {
    format!("https://sts.{region}.amazonaws.com")
}

fn fixed(key_id: String, secret_key: String, token: Option<String>) -> AwsCredentialProvider {
    Arc::new(StaticCredentialProvider::new(AwsCredential { key_id, secret_key, token }))
}

/// The profile that the options name. Read now, so that a mistake is told when the backend is opened.
fn profile(config: &Config, environment: Environment<'_>) -> Result<AwsCredentialProvider> {
    let path = match &config.profile_file {
        Some(path) => PathBuf::from(path),
        None => match environment("AWS_SHARED_CREDENTIALS_FILE").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => match environment("HOME").filter(|home| !home.is_empty()) {
                Some(home) => PathBuf::from(home).join(".aws/credentials"),
                None => {
                    let what = "the host has no home directory to look for .aws/credentials in";
                    return Err(invalid(what).remedy("set `profile_file`"));
                }
            },
        },
    };
    let name = config.profile.clone().or_else(|| environment("AWS_PROFILE"));
    let profile = Profile { path, name: name.unwrap_or_else(|| "default".to_owned()) };
    profile.read()?;
    Ok(Arc::new(profile))
}

/// What AWS's own programs would take of the environment, in their order. A metadata service that nobody named is not asked.
fn from_environment(
    config: &Config,
    client: &HttpClient,
    environment: Environment<'_>,
) -> Result<AwsCredentialProvider> {
    let get = |name: &str| {
        environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => return Ok(fixed(id, secret, get("AWS_SESSION_TOKEN"))),
        (Some(_), None) => return Err(half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => return Err(half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
        (None, None) => {}
    }
    match (get("AWS_WEB_IDENTITY_TOKEN_FILE"), get("AWS_ROLE_ARN")) {
        (Some(file), Some(role_arn)) => {
            let region = config.region.clone().or_else(|| get("AWS_REGION"));
            let endpoint = config.sts_endpoint.clone().or_else(|| get("AWS_ENDPOINT_URL_STS"));
            let endpoint =
                endpoint.unwrap_or_else(|| default_sts(region.as_deref().unwrap_or("us-east-1")));
            check_url("AWS_ENDPOINT_URL_STS", &endpoint)?;
            return Ok(Arc::new(Leased::new(WebIdentity {
                desk: Desk::new(client, config, sts::WHOM),
                endpoint,
                role_arn,
                token_file: PathBuf::from(file),
                session_name: get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "novastor".to_owned()),
                option: "AWS_WEB_IDENTITY_TOKEN_FILE",
            })));
        }
        (Some(_), None) => return Err(half("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")),
        _ => {}
    }
    if get("AWS_PROFILE").is_some() || get("AWS_SHARED_CREDENTIALS_FILE").is_some() {
        return profile(config, environment);
    }
    let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if relative.is_some() || full.is_some() {
        let pass = match get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Pass::File(PathBuf::from(path)),
            None => get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_or(Pass::None, Pass::Token),
        };
        let desk = Desk::near(config, machine::CONTAINER)?;
        return Ok(Arc::new(Leased::new(Container::new(desk, relative, full, pass)?)));
    }
    Err(invalid(
        "there are no credentials: no option gives any, and the host's environment has neither AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_PROFILE nor AWS_CONTAINER_CREDENTIALS_...",
    )
    .remedy("set `access_key` and `secret_key`, or `credentials` to profile, instance, web_identity, or none for public buckets"))
}

fn half(set: &str, missing: &str) -> driver_api::Error {
    invalid(format!("the host's environment has {set}, but no {missing}")).remedy(format!(
        "set {missing} and start the host anew, or give credentials by the backend's options"
    ))
}
