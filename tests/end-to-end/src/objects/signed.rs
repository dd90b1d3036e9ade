// SPDX-License-Identifier: Apache-2.0
//! Who has nothing but a signed URL: plain curl.

use std::path::Path;

use serde_json::Value;

use super::{Objects, Store};
use crate::{
    failure::{Context, Failure, Outcome},
    program::Program,
};

/// Where URLs of Google Cloud Storage lead, whoever signed them for whatever server.
const GOOGLE: &str = "storage.googleapis.com";

/// A signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its URL.
    pub url: String,
    /// The method that it is for.
    pub method: String,
    /// Headers that go with it.
    pub headers: Vec<(String, String)>,
}

/// What curl was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// What was said in an answer that is an error.
    pub text: String,
}

impl Fetched {
    /// Whether the request was done.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the request was refused for what it was: not for an accident.
    pub fn is_refused(&self) -> bool {
        (400..500).contains(&self.status)
    }
}

impl Signed {
    /// Reads what `object sign --output json` says.
    ///
    /// # Errors
    /// When there is no URL in it.
    pub(super) fn read(answer: &Value) -> Outcome<Self> {
        let text = |key: &str| answer[key].as_str().map(ToOwned::to_owned);
        let url = text("url").ok_or_else(|| Failure::new(format!("no URL: {answer}")))?;
        let headers = answer["headers"].as_object().into_iter().flatten();
        let header = |(name, value): (&String, &Value)| {
            (name.clone(), value.as_str().unwrap_or_default().to_owned())
        };
        let headers = headers.map(header).collect();
        Ok(Self { url, method: text("method").unwrap_or_else(|| "GET".to_owned()), headers })
    }

    /// The same request by another method.
    pub fn by(&self, method: &str) -> Self {
        Self { method: method.to_owned(), ..self.clone() }
    }

    /// The same for another object, whose key is as long.
    ///
    /// # Errors
    /// When the URL does not name the object.
    pub fn for_another(&self, key: &str, other: &str) -> Outcome<Self> {
        let (path, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        if !path.ends_with(key) {
            return Err(Failure::new(format!("{path} does not end with {key}")));
        }
        let path = &path[..path.len() - key.len()];
        Ok(Self { url: format!("{path}{other}?{query}"), ..self.clone() })
    }

    /// The same with one digit of its signature changed.
    ///
    /// # Errors
    /// When no signature is found.
    pub fn tampered(&self) -> Outcome<Self> {
        const NAMES: [&str; 4] = ["X-Amz-Signature=", "X-Goog-Signature=", "temp_url_sig=", "sig="];
        let found = NAMES.iter().find_map(|name| Some(self.url.find(name)? + name.len()));
        let at = found.ok_or_else(|| Failure::new(format!("no signature in {}", self.url)))?;
        // The tenth: what is before it may say how the rest is written, as in `sha256:`.
        let at = at + 10;
        let old = self.url.as_bytes().get(at).copied().unwrap_or_default();
        let new = if old == b'0' { "1" } else { "0" };
        let mut url = self.url.clone();
        url.replace_range(at..=at, new);
        Ok(Self { url, ..self.clone() })
    }

    /// Sends it by curl, with the content of a file where it has one, and keeps what is answered in `output`.
    ///
    /// # Errors
    /// When curl fails, which an answer that is an error is not.
    pub fn send(
        &self,
        objects: &Objects,
        store: Store,
        input: Option<&Path>,
        output: &Path,
    ) -> Outcome<Fetched> {
        let mut curl = Program::new("curl").args(["-sS", "-m", "600", "-w", "%{http_code}"]);
        curl = if self.method == "HEAD" { curl.arg("-I") } else { curl.args(["-X", &self.method]) };
        for (name, value) in &self.headers {
            curl = curl.arg("-H").arg(format!("{name}: {value}"));
        }
        if let Some(input) = input {
            curl = curl.arg("--data-binary").arg(format!("@{}", input.display()));
            // Otherwise curl says that it is a form.
            if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                curl = curl.args(["-H", "Content-Type:"]);
            }
        }
        let mut url = self.url.clone();
        if store == Store::Gcs {
            // The signature holds for this host and any scheme; the fake does not know that it is not Google.
            let place = objects.place(store)?;
            curl = curl.arg("--connect-to").arg(format!("{GOOGLE}:80:{place}"));
            url = url.replace(&format!("https://{GOOGLE}"), &format!("http://{GOOGLE}"));
        }
        let said = curl.arg("-o").arg(output).arg(&url).limit_secs(660).run()?;
        let status = said.stdout.trim().parse().context(format!("curl's answer for {url}"))?;
        let text = if status < 400 {
            String::new()
        } else {
            let text = std::fs::read(output).unwrap_or_default();
            String::from_utf8_lossy(&text).chars().take(400).collect()
        };
        Ok(Fetched { status, text })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Signed;

    fn signed(url: &str) -> Signed {
        Signed::read(&json!({ "url": url, "method": "PUT", "headers": { "a": "b" } })).unwrap()
    }

    #[test]
    fn a_signature_is_found_and_changed() {
        for name in ["X-Amz-Signature", "X-Goog-Signature", "temp_url_sig", "sig"] {
            let url = format!("http://h/b/k?x=1&{name}=0123456789abcdef&y=2");
            let tampered = signed(&url).tampered().unwrap();
            assert_eq!(tampered.url, url.replace("89abc", "890bc"));
            assert_eq!(tampered.headers, [("a".to_owned(), "b".to_owned())]);
        }
        assert!(signed("http://h/b/k").tampered().is_err());
        assert!(Signed::read(&json!({})).is_err());
    }

    #[test]
    fn a_url_is_led_to_another_object() {
        let one = signed("http://h/b/key1?s=1");
        assert_eq!(one.for_another("key1", "key2").unwrap().url, "http://h/b/key2?s=1");
        assert!(one.for_another("key3", "key2").is_err());
        assert_eq!(one.by("DELETE").method, "DELETE");
    }
}
