// SPDX-License-Identifier: Apache-2.0
//! Source: "Create a service SAS" and "Create a user delegation SAS", versions 2020-12-06 and later.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use driver_api::{
    Result, Tuple2,
    ext::{SignRequest, SignedMethod, SignedUrl},
};
use http::Method;
use object_store::azure::AzureCredential;

use super::uploads::block_id;
use crate::{
    account::{Account, Credential},
    error::{invalid, no_credentials, unsupported},
    wire::{AnswerExt, AskExt, ask, at_service, digest::hmac_sha256, time, url::escape, xml},
};

/// The version of the service that the signature is for.
const VERSION: &str = "2023-11-03";

/// The key that Azure lends to who has logged in with a token.
#[derive(Debug, Default)]
struct Delegation {
    fields: Vec<(&'static str, String)>,
    key: Vec<u8>,
}

/// Signs a request for who has the URL.
pub(crate) async fn sign(
    account: &Account,
    until: Instant,
    request: &SignRequest,
    now_secs: u64,
) -> Result<SignedUrl> {
    let expires = now_secs + request.expire_secs;
    let permission = match request.method {
        SignedMethod::GET | SignedMethod::HEAD => "r",
        SignedMethod::DELETE => "d",
        // Creating and overwriting. Azure has no permission for blocks alone.
        _ => "w",
    };
    let key = account.config.azure_key();
    let (secret, delegation) = match key {
        Some(key) => (
            BASE64.decode(key.trim()).map_err(|_| invalid("`account_key` is not base64"))?,
            Delegation::default(),
        ),
        None => {
            let delegation = delegation(account, until, now_secs, expires).await?;
            (delegation.key.clone(), delegation)
        }
    };
    let expiry = time::iso(expires.saturating_mul(1000));
    let resource = format!(
        "/blob/{}/{}/{}",
        account.azure_account(),
        request.object.bucket,
        request.object.key
    );
    let text = to_sign(permission, &expiry, &resource, &delegation, &request.object.version);
    let signature = BASE64.encode(hmac_sha256(&secret, text.as_bytes()));

    let kind = if request.object.version.is_empty() { "b" } else { "bv" };
    let mut pairs = vec![
        ("sv", VERSION.to_owned()),
        ("sp", permission.to_owned()),
        ("se", expiry),
        ("sr", kind.to_owned()),
    ];
    pairs.extend(delegation.fields);
    pairs.push(("sig", signature));
    if !request.object.version.is_empty() {
        pairs.push(("versionid", request.object.version.to_string()));
    }
    let mut headers = Vec::new();
    match request.method {
        SignedMethod::PUT_PART => {
            pairs.push(("comp", "block".to_owned()));
            pairs.push(("blockid", block_id(&request.upload, request.part)?));
        }
        SignedMethod::PUT => headers.push(("x-ms-blob-type", "BlockBlob")),
        _ => {}
    }
    let base = account.url(&request.object.bucket, &request.object.key, &[])?;
    let query: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", escape(value, false))).collect();
    Ok(SignedUrl {
        url: format!("{base}?{}", query.join("&")).into(),
        method: request.method.http().into(),
        headers: headers
            .into_iter()
            .map(|(name, value): (&str, &str)| Tuple2(name.into(), value.into()))
            .collect(),
        expires,
        ..SignedUrl::default()
    })
}

fn to_sign(
    permission: &str,
    expiry: &str,
    resource: &str,
    delegation: &Delegation,
    version: &str,
) -> String {
    let kind = if version.is_empty() { "b" } else { "bv" };
    let mut lines = vec![permission, "", expiry, resource];
    if delegation.fields.is_empty() {
        // Identifier.
        lines.push("");
    } else {
        lines.extend(delegation.fields.iter().map(|(_, value)| value.as_str()));
        // Authorised and unauthorised object ids, and correlation id.
        lines.extend(["", "", ""]);
    }
    // Address and protocol; snapshot or version, encryption scope, and five headers of the answer.
    lines.extend(["", "", VERSION, kind, version, "", "", "", "", "", ""]);
    lines.join("\n")
}

async fn delegation(
    account: &Account,
    until: Instant,
    now_secs: u64,
    expires: u64,
) -> Result<Delegation> {
    let Credential::Azure(provider) = &account.credential else {
        return Err(unsupported("without credentials nothing can be signed"));
    };
    let credential = provider.get_credential().await.map_err(|error| no_credentials(&error))?;
    if !matches!(*credential, AzureCredential::BearerToken(_)) {
        return Err(unsupported("who has a shared access signature only cannot sign others")
            .remedy(
                "set the backend's `account_key`, or `client_id`, `client_secret` and `tenant_id`",
            ));
    }
    let mut document = xml::Writer::new();
    document.element("KeyInfo", |info| {
        // Clocks differ.
        info.text("Start", &time::iso(now_secs.saturating_sub(300).saturating_mul(1000)));
        info.text("Expiry", &time::iso(expires.saturating_mul(1000)));
    });
    let query = [("restype", Some("service")), ("comp", Some("userdelegationkey"))];
    let request = ask("sign URL", Method::POST, at_service(&query))
        .typed("application/xml", document.finish());
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("UserDelegationKey", &request)?;
    let mut fields = Vec::new();
    for (name, element) in [
        ("skoid", "SignedOid"),
        ("sktid", "SignedTid"),
        ("skt", "SignedStart"),
        ("ske", "SignedExpiry"),
        ("sks", "SignedService"),
        ("skv", "SignedVersion"),
    ] {
        fields.push((name, root.need(element)?.to_owned()));
    }
    let key = BASE64
        .decode(root.need("Value")?)
        .map_err(|_| crate::wire::nonsense("the key is not base64"))?;
    Ok(Delegation { fields, key })
}
