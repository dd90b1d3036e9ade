// SPDX-License-Identifier: Apache-2.0

//! What a server can do, as its `/info` tells.

use std::sync::Arc;

use serde_json::Value;

use crate::client::Client;
use crate::error::Failure;
use crate::listing::PAGE;

/// The hash that URLs are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// HMAC-SHA1: all that older servers and radosgw know.
    Sha1,
    /// HMAC-SHA256.
    Sha256,
}

/// What a server can do. A server that hides its `/info` has the defaults of Swift.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Whether the server told; if not, all below is assumed.
    pub told: bool,
    /// The server's version, if it told.
    pub version: Option<String>,
    /// Whether static large objects can be written: without them there is no multi-part upload.
    pub slo: bool,
    /// The most segments one manifest may name.
    pub max_segments: usize,
    /// Whether the server keeps the connection alive while it checks a manifest.
    pub heartbeat: bool,
    /// Whether many objects can be deleted by one request, and how many.
    pub bulk_delete: Option<usize>,
    /// The hash that URLs are signed with; none if the server knows no signed URLs.
    pub tempurl: Option<Digest>,
    /// The methods that signed URLs may be for.
    pub tempurl_methods: Vec<String>,
    /// Whether containers can keep all versions by `X-Versions-Enabled`.
    pub object_versioning: bool,
    /// Whether containers can keep old versions by `X-Versions-Location` and `X-History-Location`.
    pub versioned_writes: bool,
    /// The most bytes of one object that is not large.
    pub max_file_size: u64,
    /// Whether the server is known to refuse `If-None-Match: *` where there is an object. If not, this is tried out
    /// before the first creation.
    pub creates: bool,
    /// The most lines of a listing's page.
    pub page: usize,
    /// Whether listings tell which objects are static large ones.
    pub listing_marks_large: bool,
    /// The whole answer, for what has no field here (limits, storage policies).
    pub raw: Value,
}

impl Capabilities {
    /// Reads the answer of `/info`.
    pub(crate) fn parse(raw: Value) -> Self {
        let told = raw.is_object();
        let has = |name: &str| !told || raw.get(name).is_some();
        let number =
            |path: &str, default: u64| raw.pointer(path).and_then(Value::as_u64).unwrap_or(default);
        let texts = |path: &str| -> Option<Vec<String>> {
            let list = raw.pointer(path)?.as_array()?;
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        let version = raw.pointer("/swift/version").and_then(Value::as_str).map(str::to_owned);
        // Swift numbers its releases 2.x; a gateway that speaks its protocol has numbers of its own.
        let is_swift = version
            .as_deref()
            .and_then(|v| v.strip_prefix("2.")?.split('.').next()?.parse::<u32>().ok());
        let digests = texts("/tempurl/allowed_digests");
        let sha256 = match &digests {
            Some(digests) => digests.iter().any(|digest| digest == "sha256"),
            None => !told,
        };
        Self {
            told,
            slo: has("slo"),
            max_segments: number("/slo/max_manifest_segments", 1000) as usize,
            heartbeat: raw.pointer("/slo/yield_frequency").is_some(),
            bulk_delete: has("bulk_delete")
                .then(|| number("/bulk_delete/max_deletes_per_request", 1000) as usize),
            tempurl: has("tempurl").then_some(if sha256 { Digest::Sha256 } else { Digest::Sha1 }),
            tempurl_methods: texts("/tempurl/methods").unwrap_or_else(|| {
                ["GET", "HEAD", "PUT", "POST", "DELETE"].map(str::to_owned).to_vec()
            }),
            object_versioning: told && has("object_versioning"),
            versioned_writes: told && has("versioned_writes"),
            max_file_size: number("/swift/max_file_size", 5 << 30),
            creates: is_swift.is_some(),
            page: usize::try_from(number("/swift/container_listing_limit", PAGE as u64))
                .map_or(PAGE, |most| most.clamp(1, PAGE)),
            listing_marks_large: is_swift.is_some_and(|minor| minor >= 18),
            version,
            raw,
        }
    }
}

impl Client {
    /// What the server can do, asked once.
    pub(crate) async fn capabilities(&self) -> Result<Arc<Capabilities>, Failure> {
        let asked = self.info.get_or_try_init(|| async {
            let storage_url = self.storage_url().await?;
            // `http://host/v1/AUTH_a` has it at `http://host/info`, `http://host/swift/v1` at `http://host/swift/info`.
            let base = match storage_url.rfind("/v1") {
                Some(at) => &storage_url[..at],
                None => &storage_url,
            };
            let (status, body) = self.plain(&format!("{base}/info")).await?;
            let raw = if status.is_success() { serde_json::from_slice(&body).ok() } else { None };
            Ok(Arc::new(Capabilities::parse(raw.unwrap_or(Value::Null))))
        });
        asked.await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn abilities_are_read_from_info() {
        let swift = Capabilities::parse(json!({
            "swift": {"version": "2.30.1", "max_file_size": 5368709122u64},
            "slo": {"max_manifest_segments": 7, "yield_frequency": 10},
            "bulk_delete": {"max_deletes_per_request": 9},
            "tempurl": {"methods": ["GET"], "allowed_digests": ["sha1", "sha256"]},
            "object_versioning": {},
        }));
        assert_eq!((swift.max_segments, swift.heartbeat, swift.bulk_delete), (7, true, Some(9)));
        assert_eq!((swift.tempurl, swift.listing_marks_large), (Some(Digest::Sha256), true));
        assert!(swift.object_versioning && !swift.versioned_writes);

        let gateway = Capabilities::parse(json!({
            "swift": {"version": "16.2.15"}, "slo": {"max_manifest_segments": 1000}, "tempurl": {"methods": ["GET"]},
        }));
        assert_eq!((gateway.tempurl, gateway.bulk_delete), (Some(Digest::Sha1), None));
        assert!(swift.creates && !gateway.creates);
        assert!(!gateway.listing_marks_large && !gateway.heartbeat);

        let silent = Capabilities::parse(Value::Null);
        assert!(silent.slo && silent.bulk_delete.is_some() && !silent.told);
    }
}
