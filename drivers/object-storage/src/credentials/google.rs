// SPDX-License-Identifier: Apache-2.0
//! A service account of Google, which exchanges its signature for tokens.
//! Source: "Using OAuth 2.0 for Server to Server Applications".

use std::{fmt, time::SystemTime};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use driver_api::{Error, ErrorKind, Result};
use object_store::{client::Signer as _, gcp::GcpCredential};
use ring::{rand::SystemRandom, signature};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    exchange::{Desk, Said, Whom, secs, told},
    lease::{Lease, Source},
};
use crate::{config::check_url, error::invalid};

pub(super) const WHOM: Whom =
    Whom { name: "the token service", option: "`token_uri` in the service account's JSON" };
/// Google's own.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const MAKE_ANEW: &str = "have its JSON made anew: `gcloud iam service-accounts keys create`";

/// What is needed of a service account's file.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub client_email: String,
    pub private_key: String,
    #[serde(default)]
    pub private_key_id: String,
    pub token_uri: Option<String>,
}

impl ServiceAccount {
    /// Reads the JSON, of which nothing gets into the error.
    pub fn read(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text).map_err(|error| {
            invalid(format!("the service account is no JSON: line {}", error.line()))
                .remedy(MAKE_ANEW)
        })?;
        let kind = json["type"].as_str().unwrap_or("service_account");
        if kind != "service_account" {
            return Err(invalid(format!(
                "the JSON is of the type {kind:?} and no service account"
            ))
            .remedy(MAKE_ANEW));
        }
        for key in ["client_email", "private_key"] {
            if !json[key].is_string() {
                return Err(
                    invalid(format!("the service account has no `{key}`")).remedy(MAKE_ANEW)
                );
            }
        }
        let account: Self = serde_json::from_value(json)
            .map_err(|_| invalid("the service account is not as it should be").remedy(MAKE_ANEW))?;
        if let Some(uri) = &account.token_uri {
            check_url("token_uri", uri)?;
        }
        Ok(account)
    }
}

/// A private key that signs with RSA and SHA-256.
pub(super) struct RsaKey(signature::RsaKeyPair);

impl RsaKey {
    /// Reads PKCS#8 or PKCS#1.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let wrong = || {
            invalid("the service account's `private_key` is no RSA key in PKCS#8").remedy(MAKE_ANEW)
        };
        let text: String =
            pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(text).map_err(|_| wrong())?;
        let pair = match pem.contains("BEGIN RSA PRIVATE KEY") {
            true => signature::RsaKeyPair::from_der(&der),
            false => signature::RsaKeyPair::from_pkcs8(&der),
        };
        pair.map(Self).map_err(|_| wrong())
    }
}

impl object_store::client::Signer for RsaKey {
    fn sign(&self, text: &[u8]) -> object_store::Result<Vec<u8>> {
        let mut signed = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signed)
            .map_err(|_| object_store::Error::Generic {
                store: "GCS",
                source: "the key does not sign".into(),
            })?;
        Ok(signed)
    }
}

/// A service account that exchanges its signature for tokens.
pub(super) struct Bearer {
    pub desk: Desk,
    pub account: ServiceAccount,
    pub key: RsaKey,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("email", &self.account.client_email).finish_non_exhaustive()
    }
}

impl Bearer {
    fn assertion(&self, uri: &str) -> Result<String> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.account.private_key_id});
        let claims = json!({
            "iss": self.account.client_email, "sub": self.account.client_email, "aud": uri,
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "iat": now, "exp": now + 3600,
        });
        let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signed = self.key.sign(message.as_bytes()).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "the service account's key does not sign")
                .caused_by(&error)
        })?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    fn refusal(&self, uri: &str, said: &Said, assertion: &str) -> Error {
        let (code, text) = said.oauth();
        if code.is_empty() {
            return self.desk.nonsense(uri, said.status, "and no refusal of its kind");
        }
        let message = format!("the service account is refused: {code} {}", told(&text, assertion));
        let remedy = "the key may have been deleted or the account disabled: have another made and set `service_account`; a clock that is wrong is told so, too";
        self.desk.refused(uri, message, remedy).with("account", &self.account.client_email)
    }
}

impl Source for Bearer {
    type Credential = GcpCredential;

    async fn fetch(&self) -> Result<Lease<GcpCredential>> {
        let uri = self.account.token_uri.as_deref().unwrap_or(TOKEN_URI);
        let assertion = self.assertion(uri)?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion.as_str()),
        ];
        let said = self.desk.form(uri, &form).await?;
        if !said.status.is_success() {
            return Err(self.refusal(uri, &said, &assertion));
        }
        let wrong = || self.desk.nonsense(uri, said.status, "and no access_token with expires_in");
        let json: Value = serde_json::from_slice(&said.body).map_err(|_| wrong())?;
        let bearer = json["access_token"].as_str().ok_or_else(wrong)?.to_owned();
        let lasts = secs(&json["expires_in"]).ok_or_else(wrong)?;
        Ok(Lease { credential: GcpCredential { bearer }, lasts })
    }
}
