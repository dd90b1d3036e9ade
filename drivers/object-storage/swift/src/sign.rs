// SPDX-License-Identifier: Apache-2.0

//! Signed URLs (TempURL): what may be done, until when, on which object.

use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, Mac};
use http::Method;
use object_store::Result;
use object_store::path::Path;
use object_store::signer::Signer;
use sha1::Sha1;
use sha2::Sha256;
use url::Url;

use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::expiry;
use crate::info::Digest;
use crate::store::Swift;

/// The signature of `method` on `path` (not encoded, from `/v1` on) until `expires`.
fn signature(
    digest: Digest,
    key: &str,
    method: &Method,
    path: &str,
    expires: u64,
) -> Option<String> {
    let text = format!("{method}\n{expires}\n{path}");
    let bytes = match digest {
        Digest::Sha1 => {
            let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).ok()?;
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        Digest::Sha256 => {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
    };
    Some(encode::hex(&bytes))
}

impl Swift {
    async fn sign(
        &self,
        method: &Method,
        key: &Path,
        expires_in: Duration,
    ) -> std::result::Result<Url, Failure> {
        let label = format!("signing {method} of {}/{key}", self.container_name());
        let failed = |kind, cause: String, remedy: &str| {
            Failure::new(kind, label.clone(), cause).path(key.as_ref()).remedy(remedy)
        };
        let Some(secret) = self.tempurl_key() else {
            let remedy = "give the TempURL key in the configuration, or load or set that of the account or container";
            return Err(failed(
                FailureKind::Unauthenticated,
                "no TempURL key is known".into(),
                remedy,
            ));
        };
        if expires_in.as_secs() == 0 {
            let remedy = "sign for one second or more";
            return Err(failed(
                FailureKind::Rejected,
                "the URL would be expired already".into(),
                remedy,
            ));
        }
        let info = self.client().capabilities().await?;
        let Some(digest) = info.tempurl else {
            let remedy = "have its tempurl middleware enabled";
            return Err(failed(
                FailureKind::Unsupported,
                "the server knows no signed URLs".into(),
                remedy,
            ));
        };
        if !info.tempurl_methods.iter().any(|known| known == method.as_str()) {
            let cause = format!(
                "the server allows signed URLs for {} only",
                info.tempurl_methods.join(", ")
            );
            return Err(failed(
                FailureKind::Unsupported,
                cause,
                "have its tempurl middleware allow the method",
            ));
        }
        let storage_url = self.client().storage_url().await?;
        let wrong_url =
            |error: String| failed(FailureKind::Rejected, error, "check the storage URL");
        let account = Url::parse(&storage_url).map_err(|error| wrong_url(error.to_string()))?;
        let account_path =
            percent_encoding::percent_decode_str(account.path()).decode_utf8_lossy().into_owned();
        // A gateway which serves Swift below a directory of its own signs from the version on.
        let account_path =
            account_path.find("/v1/").map_or(account_path.as_str(), |at| &account_path[at..]);
        let expires = expiry::now().saturating_add(expires_in.as_secs());
        let path = format!("{account_path}/{}/{key}", self.container_name());
        let signature =
            signature(digest, secret.reveal(), method, &path, expires).ok_or_else(|| {
                failed(FailureKind::Rejected, "no signature can be made with this key".into(), "")
            })?;
        let url = format!(
            "{storage_url}/{}/{}?temp_url_sig={signature}&temp_url_expires={expires}",
            encode::name(self.container_name()),
            encode::key(key.as_ref()),
        );
        Url::parse(&url).map_err(|error| wrong_url(error.to_string()))
    }
}

#[async_trait]
impl Signer for Swift {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        Ok(self.sign(&method, path, expires_in).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in Swift's documentation of TempURL, computed with Python's hmac.
    #[test]
    fn signatures_are_those_of_other_implementations() {
        let path = "/v1/AUTH_account/container/object";
        let sign = |digest| signature(digest, "mykey", &Method::GET, path, 1_323_479_485).unwrap();
        assert_eq!(sign(Digest::Sha1), "d9fc2067e52b06598421664cf6610bfc8fc431f6");
        assert_eq!(
            sign(Digest::Sha256),
            "05cb4ea08a08f2fdaef35d0f344975370077835c23bdc9342099ecbf03bc0378"
        );
    }
}
