// SPDX-License-Identifier: Apache-2.0
//! Source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".

use std::collections::BTreeMap;

use driver_api::{
    Result, Tuple2,
    ext::{SignRequest, SignedMethod, SignedUrl},
};
use object_store::aws::AwsCredential;
use url::Url;

use super::uploads::split_id;
use crate::{
    account::{Account, Credential},
    error::{invalid, no_credentials, unsupported},
    wire::{
        digest::{hex, hmac_sha256, sha256_hex},
        time,
        url::escape,
    },
};

/// Signs a request for who has the URL.
pub(crate) async fn sign(
    account: &Account,
    request: &SignRequest,
    now_secs: u64,
) -> Result<SignedUrl> {
    let Credential::Aws(Some(provider)) = &account.credential else {
        return Err(unsupported("without credentials nothing can be signed")
            .remedy("set the backend's `credentials`"));
    };
    let credential = provider.get_credential().await.map_err(|error| no_credentials(&error))?;
    let number = request.part.to_string();
    let (upload, _) = split_id(&request.upload);
    let mut query = Vec::new();
    if request.method == SignedMethod::PUT_PART {
        query.push(("partNumber", number.as_str()));
        query.push(("uploadId", upload));
    }
    if !request.object.version.is_empty() {
        query.push(("versionId", request.object.version.as_str()));
    }
    let mut headers = BTreeMap::new();
    let reads =
        matches!(request.method, SignedMethod::GET | SignedMethod::HEAD | SignedMethod::PUT_PART);
    let encrypt =
        if request.method == SignedMethod::PUT { account.encrypt.as_slice() } else { &[] };
    let customer = if reads || request.method == SignedMethod::PUT {
        account.customer.as_slice()
    } else {
        &[]
    };
    for (name, value) in encrypt.iter().chain(customer) {
        headers.insert(name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned());
    }
    let url = account.url(&request.object.bucket, &request.object.key, &[])?;
    let url = Url::parse(&url.to_string())
        .map_err(|error| invalid(format!("no URL can be made of the name: {error}")))?;
    let signed = query_signature(&Signing {
        credential: &credential,
        region: account.region(),
        method: request.method.http(),
        url: &url,
        query: &query,
        headers: &headers,
        now_secs,
        expire_secs: request.expire_secs,
    });
    Ok(SignedUrl {
        url: signed.into(),
        method: request.method.http().into(),
        headers: headers
            .into_iter()
            .map(|(name, value)| Tuple2(name.into(), value.into()))
            .collect(),
        expires: now_secs + request.expire_secs,
        ..SignedUrl::default()
    })
}

/// What goes into a signature.
pub(crate) struct Signing<'a> {
    /// Who signs.
    pub credential: &'a AwsCredential,
    /// Where.
    pub region: &'a str,
    /// The method of HTTP.
    pub method: &'a str,
    /// The URL without its query.
    pub url: &'a Url,
    /// The request's own query.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers that must be sent, beside `host`, by name.
    pub headers: &'a BTreeMap<String, String>,
    /// When, in seconds since 1970.
    pub now_secs: u64,
    /// For how long.
    pub expire_secs: u64,
}

/// The URL with its signature.
pub(crate) fn query_signature(signing: &Signing<'_>) -> String {
    let date = time::compact(signing.now_secs);
    let day = &date[..8];
    let scope = format!("{day}/{}/s3/aws4_request", signing.region);
    let host = &signing.url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut headers = signing.headers.clone();
    headers.insert("host".to_owned(), host.to_owned());
    let names: Vec<&str> = headers.keys().map(String::as_str).collect();
    let names = names.join(";");

    let mut pairs: Vec<(String, String)> = signing
        .query
        .iter()
        .map(|(name, value)| (escape(name, false), escape(value, false)))
        .collect();
    let mut add = |name: &str, value: &str| pairs.push((name.to_owned(), escape(value, false)));
    add("X-Amz-Algorithm", "AWS4-HMAC-SHA256");
    add("X-Amz-Credential", &format!("{}/{scope}", signing.credential.key_id));
    add("X-Amz-Date", &date);
    add("X-Amz-Expires", &signing.expire_secs.to_string());
    add("X-Amz-SignedHeaders", &names);
    if let Some(token) = &signing.credential.token {
        add("X-Amz-Security-Token", token);
    }
    pairs.sort();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");

    let mut canonical = format!("{}\n{}\n{query}\n", signing.method, signing.url.path());
    for (name, value) in &headers {
        canonical.push_str(&format!("{name}:{}\n", value.trim()));
    }
    canonical.push_str(&format!("\n{names}\nUNSIGNED-PAYLOAD"));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));

    let key = format!("AWS4{}", signing.credential.secret_key);
    let key = hmac_sha256(key.as_bytes(), day.as_bytes());
    let key = hmac_sha256(&key, signing.region.as_bytes());
    let key = hmac_sha256(&key, b"s3");
    let key = hmac_sha256(&key, b"aws4_request");
    let signature = hex(&hmac_sha256(&key, text.as_bytes()));
    format!("{}?{query}&X-Amz-Signature={signature}", &signing.url[..url::Position::AfterPath])
}
