// SPDX-License-Identifier: Apache-2.0

//! Keystone version 3: a token, and the object store's URL in its catalogue.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::Method;
use object_store::client::{HttpClient, HttpRequestBody};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::{Grant, exchange};
use crate::config::{KeystoneIdentity, Secret};
use crate::error::{Failure, FailureKind};

/// Keystone tells no reason: not even whether the credential is known.
const APPLICATION: &str = "check id and secret of the application credential, whether it was deleted or has expired, and the clock";

#[derive(Deserialize)]
struct Answer {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    catalog: Vec<Service>,
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Service {
    r#type: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    region: Option<String>,
    region_id: Option<String>,
    url: String,
}

/// The request's body for `identity`.
fn request(identity: &KeystoneIdentity) -> Value {
    match identity {
        KeystoneIdentity::Password { user, password, user_domain, project, project_domain } => {
            json!({"auth": {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": user, "domain": {"name": user_domain}, "password": password.reveal(),
                }}},
                "scope": {"project": {"name": project, "domain": {"name": project_domain}}},
            }})
        }
        KeystoneIdentity::Application { id, secret } => json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": id, "secret": secret.reveal()},
        }}}),
    }
}

/// The object store's URL in a catalogue.
fn endpoint(services: &[Service], region: Option<&str>, interface: &str) -> Result<String, String> {
    let endpoints: Vec<&Endpoint> = services
        .iter()
        .filter(|service| service.r#type == "object-store")
        .flat_map(|s| &s.endpoints)
        .collect();
    let here = |endpoint: &&&Endpoint| {
        endpoint.interface == interface
            && region.is_none_or(|region| {
                endpoint.region.as_deref() == Some(region)
                    || endpoint.region_id.as_deref() == Some(region)
            })
    };
    endpoints.iter().find(here).map(|endpoint| endpoint.url.clone()).ok_or_else(|| {
        let known: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                format!(
                    "{} in {}",
                    endpoint.interface,
                    endpoint.region.as_deref().unwrap_or("no region")
                )
            })
            .collect();
        match known.as_slice() {
            [] => "the catalogue has no object store".to_owned(),
            known => format!("the catalogue has an object store only as {}", known.join(", ")),
        }
    })
}

/// Asks Keystone for a token.
///
/// # Errors
/// A refusal, an answer that is none of Keystone's, or a catalogue without the region or interface.
pub(crate) async fn grant(
    http: &HttpClient,
    auth_url: &str,
    identity: &KeystoneIdentity,
    region: Option<&str>,
    interface: &str,
) -> Result<Grant, Failure> {
    let base = auth_url.trim_end_matches('/');
    let base = if base.ends_with("/v3") { base.to_owned() } else { format!("{base}/v3") };
    let url = format!("{base}/auth/tokens");
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(&url)
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .body(HttpRequestBody::from(request(identity).to_string()));
    let (headers, body) =
        exchange(http, request, &url).await.map_err(|failure| match identity {
            KeystoneIdentity::Application { .. }
                if failure.kind() == FailureKind::Unauthenticated =>
            {
                failure.remedy(APPLICATION)
            }
            _ => failure,
        })?;
    let failed = |cause: String, remedy: &str| {
        Failure::new(FailureKind::Rejected, format!("asking {url} for a token"), cause)
            .remedy(remedy)
    };
    let token = headers
        .get("x-subject-token")
        .and_then(|value| value.to_str().ok())
        .map(Secret::new)
        .ok_or_else(|| {
            failed("the answer has no X-Subject-Token".into(), "check that the URL is Keystone's")
        })?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        failed(format!("the answer is not Keystone's: {error}"), "check that the URL is Keystone's")
    })?;
    let storage_url = endpoint(&answer.token.catalog, region, interface)
        .map_err(|cause| failed(cause, "check project, region and interface"))?;
    let valid_for =
        answer.token.expires_at.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::ZERO));
    Ok(Grant { token, storage_url, valid_for })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<Service> {
        serde_json::from_value(json!([
            {"type": "compute", "endpoints": [{"interface": "public", "region": "one", "url": "http://compute"}]},
            {"type": "object-store", "endpoints": [
                {"interface": "internal", "region": "one", "url": "http://inside"},
                {"interface": "public", "region": "one", "url": "http://one"},
                {"interface": "public", "region_id": "two", "url": "http://two"},
            ]},
        ]))
        .unwrap()
    }

    #[test]
    fn the_catalogue_is_searched_by_region_and_interface() {
        let catalogue = catalogue();
        assert_eq!(endpoint(&catalogue, None, "public").unwrap(), "http://one");
        assert_eq!(endpoint(&catalogue, Some("two"), "public").unwrap(), "http://two");
        assert_eq!(endpoint(&catalogue, None, "internal").unwrap(), "http://inside");
        let error = endpoint(&catalogue, Some("three"), "public").unwrap_err();
        assert!(error.contains("public in one"), "{error}");
        assert!(endpoint(&[], None, "public").unwrap_err().contains("no object store"));
    }

    #[test]
    fn an_application_credential_names_no_project() {
        let body = request(&KeystoneIdentity::Application { id: "i".into(), secret: "s".into() });
        assert_eq!(body["auth"]["identity"]["application_credential"]["secret"], "s");
        assert!(body["auth"].get("scope").is_none());
    }
}
