// SPDX-License-Identifier: Apache-2.0
use std::time::{Duration, Instant};

use driver_api::{
    Error, ErrorKind, Result,
    ext::{SignRequest, SignedMethod, SignedUrl},
};
use http::Method;
use object_store::signer::Signer;
use swift::{Secret, Swift, TempUrlScope};

use crate::{
    account::Account,
    error::{invalid, unsupported},
    swift::{container, path, within},
};

/// Signs a request for who has the URL.
pub(crate) async fn sign(
    account: &Account,
    until: Instant,
    request: &SignRequest,
    now_secs: u64,
) -> Result<SignedUrl> {
    if !request.object.version.is_empty() {
        return Err(unsupported("Swift signs URLs for the latest version only"));
    }
    let (store, key) = (container(account, &request.object.bucket)?, path(&request.object.key)?);
    agree(account, &store, until).await?;
    let time = Duration::from_secs(request.expire_secs);
    let what = "the URL cannot be signed";
    let url = if request.method == SignedMethod::PUT_PART {
        let (id, index) = (request.upload.to_string(), request.part as usize - 1);
        within(until, false, what, store.sign_part(&key, &id, index, time)).await?
    } else {
        let method = Method::from_bytes(request.method.http().as_bytes())
            .map_err(|_| invalid("this method cannot be signed"))?;
        within(until, false, what, store.signed_url(method, &key, time)).await?
    };
    Ok(SignedUrl {
        url: String::from(url).into(),
        method: request.method.http().into(),
        expires: now_secs + request.expire_secs,
        ..SignedUrl::default()
    })
}

/// The key that signs must be one that the account knows. It is set if the account has none; another one is not replaced,
/// as URLs that were signed with it would end.
async fn agree(account: &Account, store: &Swift, until: Instant) -> Result<()> {
    let Some(key) = account.config.temp_url_key.as_deref() else {
        return Err(unsupported("without a key nothing can be signed")
            .remedy("set the backend's `temp_url_key`"));
    };
    let what = "the account's key for signed URLs cannot be asked for";
    match within(until, false, what, store.tempurl_keys(TempUrlScope::Account)).await? {
        keys if keys.iter().any(|known| known.reveal() == key) => Ok(()),
        keys if keys.is_empty() => {
            let doing = store.set_tempurl_key(TempUrlScope::Account, Secret::new(key));
            within(until, true, "the account's key for signed URLs cannot be set", doing).await
        }
        _ => Err(Error::new(
            ErrorKind::UNAUTHENTICATED,
            "the account has another key for signed URLs than the backend",
        )
        .remedy(
            "set `temp_url_key` to the account's X-Account-Meta-Temp-URL-Key, or change that one",
        )),
    }
}
