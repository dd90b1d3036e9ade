// SPDX-License-Identifier: Apache-2.0

//! Manifests of static large objects, and the answers to writing and deleting by lists.

use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use crate::encode;

/// One line of a manifest as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// `/CONTAINER/NAME`.
    pub(crate) path: String,
    pub(crate) etag: String,
    pub(crate) size_bytes: u64,
    /// A part of the segment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<String>,
}

impl Segment {
    pub(crate) fn new(container: &str, name: &str, etag: &str, size: u64) -> Self {
        Self {
            path: format!("/{container}/{name}"),
            etag: etag.to_owned(),
            size_bytes: size,
            range: None,
        }
    }

    /// Container and name.
    pub(crate) fn place(&self) -> Option<(&str, &str)> {
        self.path.trim_start_matches('/').split_once('/')
    }
}

/// One line of a manifest as some servers tell it.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(alias = "path")]
    name: String,
    #[serde(alias = "etag")]
    hash: String,
    #[serde(alias = "size_bytes")]
    bytes: u64,
    range: Option<String>,
    #[serde(default)]
    sub_slo: bool,
}

/// Reads a manifest in either form.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<Segment>, String> {
    let lines: Vec<Told> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut segments = Vec::with_capacity(lines.len());
    for line in lines {
        if line.sub_slo && line.range.is_some() {
            return Err(format!("{} is a range of another large object", line.name));
        }
        segments.push(Segment {
            path: line.name,
            etag: line.hash,
            size_bytes: line.bytes,
            range: line.range,
        });
    }
    Ok(segments)
}

/// The ETag of a large object: the MD5 of its segments' ETags.
pub(crate) fn etag<'a>(etags: impl Iterator<Item = &'a str>) -> String {
    let mut md5 = Md5::new();
    etags.for_each(|etag| md5.update(etag));
    encode::hex(&md5.finalize())
}

/// The ETag of the object that `segments` make, nested or not.
pub(crate) fn nested_etag(segments: &[Segment], most: usize) -> String {
    let of = |segments: &[Segment]| etag(segments.iter().map(|segment| segment.etag.as_str()));
    if segments.len() <= most {
        return of(segments);
    }
    let nested: Vec<String> = segments.chunks(most.max(1)).map(of).collect();
    etag(nested.iter().map(String::as_str))
}

/// The answer to a bulk request, or to a manifest that was checked while the connection was kept alive. The status of
/// the HTTP answer says nothing: it was sent before the work was done.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Report {
    #[serde(rename = "Response Status", default)]
    pub(crate) status: String,
    #[serde(rename = "Response Body", default)]
    pub(crate) body: String,
    #[serde(rename = "Etag", default)]
    pub(crate) etag: String,
    #[serde(rename = "Number Deleted")]
    pub(crate) deleted: Option<usize>,
    #[serde(rename = "Number Not Found", default)]
    pub(crate) not_found: usize,
    #[serde(rename = "Errors", default)]
    pub(crate) errors: Vec<(String, String)>,
}

impl Report {
    /// Reads a report; nothing if `body` is none, as a server without the ability answers with something else.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let report: Self = serde_json::from_slice(body).ok()?;
        (!report.status.is_empty()).then_some(report)
    }

    /// The number in its status.
    pub(crate) fn code(&self) -> u16 {
        self.status.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500)
    }

    /// What is wrong, by name, in one line.
    pub(crate) fn cause(&self) -> String {
        let mut text = self.status.clone();
        for (name, error) in self.errors.iter().take(5) {
            text.push_str(&format!("; {name}: {error}"));
        }
        if self.errors.len() > 5 {
            text.push_str(&format!("; and {} more", self.errors.len() - 5));
        }
        if self.errors.is_empty() && !self.body.is_empty() {
            text.push_str(": ");
            text.extend(self.body.chars().take(200));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_written_as_swift_wants_them() {
        let segment = Segment::new("p_segments", "k/u/00000", "4f6d", 6);
        let json = serde_json::to_string(std::slice::from_ref(&segment)).unwrap();
        assert_eq!(json, r#"[{"path":"/p_segments/k/u/00000","etag":"4f6d","size_bytes":6}]"#);
        assert_eq!(segment.place(), Some(("p_segments", "k/u/00000")));
        assert_eq!(parse(json.as_bytes()).unwrap(), std::slice::from_ref(&segment));
        let told = r#"[{"name": "/p_segments/k/u/00000", "bytes": 6, "hash": "4f6d", "content_type": "x"}]"#;
        assert_eq!(parse(told.as_bytes()).unwrap(), [segment]);
    }

    #[test]
    fn the_etag_is_that_of_swift() {
        // What Swift 2.30 answered for segments of "hello0" and "hello1".
        let etags = ["4f6d054536d6613a91472139cc60f072", "203ad5ffa1d7c650ad681fdff3965cd2"];
        assert_eq!(etag(etags.into_iter()), "d802197b063d4f21a300882ddd7b1b55");
    }

    #[test]
    fn damaged_answers_are_refused_or_read() {
        let mut random = fastrand::Rng::with_seed(19);
        let texts = [
            r#"[{"name": "/p/k/00000", "bytes": 6, "hash": "4f6d", "range": "0-5", "sub_slo": false}]"#,
            r#"{"Response Status": "400 Bad Request", "Errors": [["/p/a", "Size Mismatch"]], "Etag": ""}"#,
        ];
        for round in 0..20_000 {
            let mut bytes = texts[round % 2].as_bytes().to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes[at] = random.u8(..),
                    _ => bytes.insert(at, b"0:,\"[]{}\xff"[random.usize(..9)]),
                }
            }
            if let Ok(segments) = parse(&bytes) {
                let _ = segments.iter().map(Segment::place).count();
                drop(nested_etag(&segments, 1));
            }
            if let Some(report) = Report::parse(&bytes) {
                drop((report.code(), report.cause()));
            }
        }
    }

    #[test]
    fn reports_are_told_from_other_answers() {
        let report = Report::parse(
            br#"  {"Response Status": "400 Bad Request", "Errors": [["/p/a", "Size Mismatch"]], "Etag": ""}"#,
        )
        .unwrap();
        assert_eq!(report.code(), 400);
        assert_eq!(report.cause(), "400 Bad Request; /p/a: Size Mismatch");
        assert!(Report::parse(b"").is_none());
        assert!(Report::parse(b"<html>").is_none());
        assert!(Report::parse(b"{}").is_none());
    }
}
