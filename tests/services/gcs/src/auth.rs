// SPDX-License-Identifier: Apache-2.0
//! Who asks: bearer tokens, which are JSON web tokens that the account signed itself or what was issued for one.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::clock;
use crate::keys::Account;
use crate::refusal::Refusal;

/// How far clocks may differ, seconds.
pub(crate) const SKEW: i64 = 15 * 60;
/// How long tokens are good for, seconds.
const LIFE: i64 = 3600;
const PREFIX: &str = "ya29.";

/// What somebody may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Read objects and listings.
    Read,
    /// Change objects and buckets.
    Write,
    /// Change who may do what.
    Full,
}

impl Access {
    /// The most that any of some scopes allows.
    fn of_scopes(scopes: &str) -> Option<Self> {
        scopes.split_whitespace().filter_map(Self::of_scope).max()
    }

    fn of_scope(scope: &str) -> Option<Self> {
        match scope.strip_prefix("https://www.googleapis.com/auth/")? {
            "devstorage.read_only" | "cloud-platform.read-only" => Some(Self::Read),
            "devstorage.read_write" => Some(Self::Write),
            "devstorage.full_control" | "cloud-platform" => Some(Self::Full),
            _ => None,
        }
    }

    fn letter(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::Full => "f",
        }
    }

    /// Refuses whoever may not do something.
    pub(crate) fn need(self, wanted: Self) -> Result<(), Refusal> {
        if self >= wanted {
            return Ok(());
        }
        Err(Refusal::forbidden("Request had insufficient authentication scopes."))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: Option<String>,
    #[serde(default)]
    scope: String,
    aud: Option<String>,
    iat: i64,
    exp: i64,
}

/// What the bearer of the token in a request may do.
pub(crate) fn bearer(account: &Account, call: &Call) -> Result<Access, Refusal> {
    let Some(authorization) = call.header("authorization") else {
        return Err(Refusal::unauthorized(
            "Anonymous caller does not have access to the resource.",
        ));
    };
    let Some(token) = authorization.strip_prefix("Bearer ") else {
        return Err(Refusal::unauthorized("The authorization is no bearer token."));
    };
    let now = clock::now() / 1_000_000;
    let access = match token.strip_prefix(PREFIX) {
        Some(issued) => unseal(account, issued, now),
        None => claims(account, token, now).and_then(|claims| {
            let audience = claims
                .aud
                .as_deref()
                .is_some_and(|aud| aud.trim_end_matches('/') == "https://storage.googleapis.com");
            let scope = Access::of_scopes(&claims.scope);
            // One that names the service has all that the account may do.
            if audience && claims.scope.is_empty() {
                Ok(Access::Full)
            } else {
                scope.ok_or_else(|| "no scope of storage".to_owned())
            }
        }),
    };
    access.map_err(|why| Refusal::unauthorized(format!("Invalid Credentials: {why}")))
}

/// Checks a web token of the account, and tells what it claims.
fn claims(account: &Account, token: &str, now: i64) -> Result<Claims, String> {
    let (message, signature) = token.rsplit_once('.').ok_or("the token is no JSON web token")?;
    let (header, body) = message.split_once('.').ok_or("the token is no JSON web token")?;
    let header: Header = part(header)?;
    if header.alg != "RS256" {
        return Err(format!("the token's algorithm is {}, not RS256", header.alg));
    }
    if header.kid.is_some_and(|kid| kid != account.key_id) {
        return Err("the token names an unknown key".to_owned());
    }
    let signature =
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the token's signature is no base64")?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &account.public)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| "the token's signature is wrong")?;
    let claims: Claims = part(body)?;
    if claims.iss != account.email || claims.sub.as_ref().is_some_and(|sub| *sub != account.email) {
        return Err("the token is of another account".to_owned());
    }
    if claims.exp <= now {
        return Err("the token has expired".to_owned());
    }
    if claims.iat > now + SKEW || claims.exp - claims.iat > LIFE {
        return Err("the token is not yet valid, or valid for longer than an hour".to_owned());
    }
    Ok(claims)
}

fn part<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of the token is no base64")?;
    serde_json::from_slice(&bytes).map_err(|error| format!("a part of the token: {error}"))
}

/// A token that says itself until when it is good and for what, so that a server that was started again knows it.
fn seal(account: &Account, access: Access, expires: i64) -> String {
    let text = format!("{}.{expires}", access.letter());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &account.seal), text.as_bytes());
    format!("{PREFIX}{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn unseal(account: &Account, issued: &str, now: i64) -> Result<Access, String> {
    let (text, tag) = issued.rsplit_once('.').ok_or("the token was not issued here")?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| "the token was not issued here")?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &account.seal), text.as_bytes(), &tag)
        .map_err(|_| "the token was not issued here")?;
    let (access, expires) = text.split_once('.').ok_or("the token was not issued here")?;
    if expires.parse::<i64>().unwrap_or(0) <= now {
        return Err("the token has expired".to_owned());
    }
    Ok(match access {
        "r" => Access::Read,
        "w" => Access::Write,
        _ => Access::Full,
    })
}

/// Issues a token for an assertion of the account, as the token endpoint of OAuth does.
pub(crate) async fn token(account: &Account, call: &mut Call) -> Response {
    let (status, text) = match issue(account, call).await {
        Ok(text) => (StatusCode::OK, text),
        Err((error, why)) => {
            (StatusCode::BAD_REQUEST, json!({ "error": error, "error_description": why }))
        }
    };
    let mut response = Response::new(Body::from(text.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

async fn issue(account: &Account, call: &mut Call) -> Result<Value, (&'static str, String)> {
    let form =
        call.text().await.map_err(|_| ("invalid_request", "the body cannot be read".to_owned()))?;
    let field = |name: &str| {
        form_urlencoded::parse(&form)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    if field("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
        return Err(("unsupported_grant_type", "Invalid grant_type".to_owned()));
    }
    let now = clock::now() / 1_000_000;
    let claims = claims(account, &field("assertion"), now).map_err(|why| ("invalid_grant", why))?;
    if !claims.aud.as_ref().is_some_and(|aud| account.audiences.contains(aud)) {
        return Err((
            "invalid_grant",
            "the assertion's audience is not this server's token_uri".to_owned(),
        ));
    }
    let access = Access::of_scopes(&claims.scope)
        .ok_or(("invalid_scope", "no scope of storage".to_owned()))?;
    let token = seal(account, access, now + LIFE);
    Ok(json!({ "access_token": token, "expires_in": LIFE - 1, "token_type": "Bearer" }))
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
