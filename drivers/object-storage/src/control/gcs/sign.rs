// SPDX-License-Identifier: Apache-2.0
use std::{sync::Arc, time::Duration};

use driver_api::{
    Result,
    ext::{SignRequest, SignedMethod, SignedUrl},
};
use http::Method;
use object_store::{
    gcp::GoogleCloudStorageBuilder,
    path::Path,
    signer::{SignedUrlOptions, Signer},
};

use crate::{
    account::{Account, Credential},
    client::Shared,
    error::{invalid, of_store, unsupported},
};

/// Signs a request for who has the URL. Its host is always `storage.googleapis.com`, which the signature covers.
pub(crate) async fn sign(
    account: &Account,
    request: &SignRequest,
    now_secs: u64,
) -> Result<SignedUrl> {
    let Credential::Gcs(credential, signing) = &account.credential else {
        return Err(unsupported("without credentials nothing can be signed"));
    };
    let store = GoogleCloudStorageBuilder::new()
        .with_bucket_name(request.object.bucket.as_str())
        .with_credentials(Arc::clone(credential))
        .with_signing_credentials(Arc::clone(signing))
        .with_http_connector(Shared(account.client.clone()))
        .build()
        .map_err(|error| of_store(&error, "the bucket cannot be opened"))?;
    let key = request.object.key.as_str();
    let path = Path::parse(key).ok().filter(|path| path.as_ref() == key).ok_or_else(|| {
        invalid("a key with empty parts between slashes, or with control characters, cannot be signed for GCS")
            .with("object", key)
    })?;
    let method = match request.method {
        SignedMethod::GET => Method::GET,
        SignedMethod::HEAD => Method::HEAD,
        SignedMethod::DELETE => Method::DELETE,
        _ => Method::PUT,
    };
    let mut query = Vec::new();
    if request.method == SignedMethod::PUT_PART {
        query.push(("partNumber", request.part.to_string()));
        query.push(("uploadId", request.upload.to_string()));
    }
    if !request.object.version.is_empty() {
        query.push(("generation", request.object.version.to_string()));
    }
    let options = SignedUrlOptions::default().with_query(query);
    let url = store
        .signed_url_opts(method, &path, Duration::from_secs(request.expire_secs), &options)
        .await
        .map_err(|error| of_store(&error, "the URL cannot be signed"))?;
    Ok(SignedUrl {
        url: String::from(url).into(),
        method: request.method.http().into(),
        expires: now_secs + request.expire_secs,
        ..SignedUrl::default()
    })
}
