// SPDX-License-Identifier: Apache-2.0
//! A profile in a credentials file of AWS.
//! Source: "Configuration and credential file settings", AWS CLI User Guide.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use driver_api::{Error, ErrorKind, Result};
use object_store::{CredentialProvider, aws::AwsCredential};

/// A profile in a file, read whenever it is needed: who changes the keys there need not restart anything.
#[derive(Debug)]
pub(super) struct Profile {
    pub path: PathBuf,
    pub name: String,
}

impl Profile {
    /// The keys that are there now.
    pub fn read(&self) -> Result<AwsCredential> {
        let text = fs::read_to_string(&self.path).map_err(|error| {
            Error::from_io(format!("the credentials file cannot be read: {error}"), &error)
                .with("profile_file", self.path.display())
                .remedy("correct `profile_file`, or make the file readable for the host")
        })?;
        let wrong = |message: String, remedy: String| {
            Error::new(ErrorKind::UNAUTHENTICATED, message)
                .with("profile_file", self.path.display())
                .with("profile", &self.name)
                .remedy(remedy)
        };
        let values = section(&text, &self.name).ok_or_else(|| {
            let known = names(&text).join(", ");
            let known = if known.is_empty() { "none" } else { &known };
            wrong(
                format!("the credentials file has no profile {}", self.name),
                format!("correct `profile`; the file has: {known}"),
            )
        })?;
        let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
        let need = |key: &str| {
            value(key).ok_or_else(|| {
                let other = ["role_arn", "credential_process", "sso_session", "sso_start_url"]
                    .into_iter()
                    .find(|other| values.contains_key(*other));
                let remedy = match other {
                    Some("role_arn") => "roles of profiles are not assumed: set `role_arn` and `token_file`, or give the profile keys".to_owned(),
                    Some(other) => format!("`{other}` is not understood: have keys written into the profile by what it names"),
                    None => format!("give the profile its {key}"),
                };
                wrong(format!("the profile has no {key}"), remedy)
            })
        };
        Ok(AwsCredential {
            key_id: need("aws_access_key_id")?,
            secret_key: need("aws_secret_access_key")?,
            token: value("aws_session_token"),
        })
    }
}

/// The name in a line `[name]` or `[profile name]`.
fn heading(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.split(']').next()?.trim();
    Some(name.strip_prefix("profile ").map_or(name, str::trim))
}

fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| heading(line.trim())).collect()
}

/// The keys and values of a section.
fn section(text: &str, name: &str) -> Option<HashMap<String, String>> {
    let mut found: Option<HashMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(heading) = heading(line) {
            inside = heading == name;
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && let (Some((key, value)), Some(values)) = (line.split_once('='), found.as_mut())
        {
            values.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.read().map(Arc::new).map_err(super::as_theirs)
    }
}
