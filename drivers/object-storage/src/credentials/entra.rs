// SPDX-License-Identifier: Apache-2.0
//! Tokens for Azure from Microsoft's identity platform: for a secret, for the token in a file, or for the machine.
//! Sources: "OAuth 2.0 client credentials flow", "How to use managed identities to acquire an access token".

use std::{fmt, path::PathBuf};

use driver_api::{Error, Result};
use http::Method;
use object_store::azure::AzureCredential;
use serde_json::Value;

use super::{
    exchange::{Desk, Said, Whom, secs, token_in, told},
    lease::{Lease, Source},
};
use crate::wire::url::escape;

/// Microsoft's public cloud.
pub(super) const AUTHORITY: &str = "https://login.microsoftonline.com";
const SCOPE: &str = "https://storage.azure.com/.default";
const RESOURCE: &str = "https://storage.azure.com/";

pub(super) const WHOM: Whom = Whom { name: "the identity platform", option: "`authority_host`" };

/// How an application proves who it is.
pub(super) enum Proof {
    /// A secret.
    Secret(String),
    /// The token in a file, of an issuer that the application trusts.
    File(PathBuf),
}

/// An application of a tenant.
pub(super) struct Application {
    pub desk: Desk,
    pub authority: String,
    pub tenant_id: String,
    pub client_id: String,
    pub proof: Proof,
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

fn read(desk: &Desk, url: &str, said: &Said) -> Result<Lease<AzureCredential>> {
    let wrong = || desk.nonsense(url, said.status, "and no access_token with expires_in");
    let json: Value = serde_json::from_slice(&said.body).map_err(|_| wrong())?;
    let token = json["access_token"].as_str().ok_or_else(wrong)?;
    let lasts = secs(&json["expires_in"]).ok_or_else(wrong)?;
    Ok(Lease { credential: AzureCredential::BearerToken(token.to_owned()), lasts })
}

impl Source for Application {
    type Credential = AzureCredential;

    async fn fetch(&self) -> Result<Lease<AzureCredential>> {
        let (proof, assertion) = match &self.proof {
            Proof::Secret(secret) => (secret.clone(), false),
            Proof::File(path) => (token_in(path, "`token_file`")?, true),
        };
        let mut form = vec![
            ("client_id", self.client_id.as_str()),
            ("scope", SCOPE),
            ("grant_type", "client_credentials"),
        ];
        if assertion {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            form.extend([("client_assertion_type", kind), ("client_assertion", proof.as_str())]);
        } else {
            form.push(("client_secret", proof.as_str()));
        }
        let authority = self.authority.trim_end_matches('/');
        let url = format!("{authority}/{}/oauth2/v2.0/token", escape(&self.tenant_id, false));
        let said = self.desk.form(&url, &form).await?;
        if said.status.is_success() {
            return read(&self.desk, &url, &said);
        }
        Err(self.refusal(&url, &said, &proof))
    }
}

impl Application {
    fn refusal(&self, url: &str, said: &Said, proof: &str) -> Error {
        let (code, text) = said.oauth();
        if code.is_empty() {
            return self.desk.nonsense(url, said.status, "and no refusal of its kind");
        }
        let text = told(&text, proof);
        let (why, remedy) = match (&self.proof, text.as_str()) {
            (_, text) if text.contains("AADSTS7000222") => (
                "the application's secret has expired",
                "have a new secret made for the application, and set `client_secret`",
            ),
            (_, text) if text.contains("AADSTS90002") || text.contains("AADSTS900023") => (
                "there is no such tenant",
                "correct `tenant_id`, and `authority_host` for a cloud of its own",
            ),
            (_, text) if text.contains("AADSTS700016") => {
                ("the tenant has no such application", "correct `client_id` and `tenant_id`")
            }
            (Proof::Secret(_), _) => (
                "the identity platform refuses the application's secret",
                "correct `client_secret`, `client_id` and `tenant_id`; set the secret's value and not its id",
            ),
            (Proof::File(_), text) if text.contains("AADSTS700024") || text.contains("expired") => {
                (
                    "the token in the file has expired",
                    "look at who renews the file: it is read anew whenever a token is needed",
                )
            }
            (Proof::File(_), _) => (
                "the identity platform refuses the token in the file",
                "give the application a federated credential for the token's issuer, audience and subject",
            ),
        };
        let error = self.desk.refused(url, format!("{why}: {code} {text}"), remedy);
        let error = error.with("client_id", &self.client_id).with("tenant_id", &self.tenant_id);
        match &self.proof {
            Proof::File(path) => error.with("token_file", path.display()),
            Proof::Secret(_) => error,
        }
    }
}

/// The identity that the machine has been given.
#[derive(Debug)]
pub(super) struct Machine {
    pub desk: Desk,
    pub base: String,
    /// Which one, if it has several.
    pub client_id: Option<String>,
}

impl Source for Machine {
    type Credential = AzureCredential;

    async fn fetch(&self) -> Result<Lease<AzureCredential>> {
        let mut url = format!(
            "{}/metadata/identity/oauth2/token?api-version=2019-08-01&resource={}",
            self.base.trim_end_matches('/'),
            escape(RESOURCE, false)
        );
        if let Some(id) = &self.client_id {
            url = format!("{url}&client_id={}", escape(id, false));
        }
        let said = self.desk.ask(Method::GET, &url, &[("metadata", "true")], String::new()).await?;
        if said.status.is_success() {
            return read(&self.desk, &url, &said);
        }
        let (code, text) = said.oauth();
        if code.is_empty() {
            return Err(self.desk.nonsense(&url, said.status, "and no refusal of its kind"));
        }
        let why =
            format!("the machine's metadata service gives no token: {code} {}", told(&text, ""));
        Err(self.desk.refused(
            &url,
            why,
            "give this machine a managed identity, or correct `client_id`",
        ))
    }
}
