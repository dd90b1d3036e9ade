// SPDX-License-Identifier: Apache-2.0

//! Objects that delete themselves.

use http::Method;
use http::header::HeaderValue;
use object_store::Result;
use object_store::path::Path;

use crate::attributes::{self, DELETE_AFTER, DELETE_AT};
use crate::client::Call;
use crate::error::{Failure, FailureKind};
use crate::store::Swift;

/// When an object deletes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At this time, in seconds since 1970.
    At(u64),
    /// After this number of seconds from now, by this host's clock.
    After(u64),
    /// Never.
    Never,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default()
}

/// Replaces a relative expiry among `headers` by an absolute one, and returns it: all parts of an object then expire at
/// the same time.
pub(crate) fn absolute(headers: &mut http::HeaderMap) -> Option<u64> {
    let number =
        |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(after) = headers.remove(DELETE_AFTER).as_ref().and_then(number) {
        headers.insert(DELETE_AT, HeaderValue::from(now().saturating_add(after)));
    }
    headers.get(DELETE_AT).and_then(number)
}

impl Swift {
    /// Changes when an object deletes itself; its other metadata stays. The segments of a large object follow it.
    ///
    /// # Errors
    /// No such object; a time that has passed.
    pub async fn set_expiry(&self, key: &Path, expiry: Expiry) -> Result<()> {
        let at = match expiry {
            Expiry::At(at) => Some(at),
            Expiry::After(seconds) => Some(now().saturating_add(seconds)),
            Expiry::Never => None,
        };
        if at.is_some_and(|at| at <= now()) {
            let call = self.call(Method::POST, key);
            return Err(call
                .failure(FailureKind::Rejected, "this time has passed")
                .remedy("delete the object")
                .into());
        }
        let headers = self.newest(key).await?;
        let before: Option<u64> =
            headers.get(DELETE_AT).and_then(|v| v.to_str().ok()).and_then(|text| text.parse().ok());
        let segments = if attributes::is_large(&headers) {
            self.manifest(key, &headers).await?
        } else {
            Vec::new()
        };
        // The manifest must never outlive a segment.
        let shortened = at.is_some_and(|at| before.is_none_or(|before| at < before));
        if shortened {
            self.expire(self.container_name(), key.as_ref(), at).await?;
        }
        for segment in &segments {
            if let Some((container, name)) = segment.place() {
                self.expire(container, name, at).await?;
            }
        }
        if !shortened {
            self.expire(self.container_name(), key.as_ref(), at).await?;
        }
        Ok(())
    }

    async fn expire(
        &self,
        container: &str,
        name: &str,
        at: Option<u64>,
    ) -> std::result::Result<(), Failure> {
        let head = self
            .client()
            .send(&Call::object(Method::HEAD, container, name).header("X-Newest", "true"))
            .await?;
        let mut headers = attributes::kept(&head.headers);
        match at {
            Some(at) => headers.insert(DELETE_AT, HeaderValue::from(at)),
            None => headers.remove(DELETE_AT),
        };
        self.client().send(&Call::object(Method::POST, container, name).headers(headers)).await?;
        Ok(())
    }
}
