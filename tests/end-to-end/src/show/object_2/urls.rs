// SPDX-License-Identifier: Apache-2.0
//! Signed URLs, used by plain curl: the right one works; one that has expired, was tampered with, or is used with another
//! method or for another object is refused, and nothing changes.

use std::{fs, thread, time::Duration};

use serde_json::json;

use super::{INVALID, Scene};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    objects::{Fetched, Signed, Store},
};

const ONE: &str = "url-one";
const TWO: &str = "url-two";
const CONTENT: &str = "what is behind the URL";

impl Scene<'_> {
    pub(super) fn urls(&self) -> Outcome {
        let file = self.text("url-content", CONTENT)?;
        for key in [ONE, TWO] {
            self.front.put(&file, &self.object(key), &[])?;
        }
        self.right()?;
        let refused = if self.store.checks_signatures() {
            let refused = self.wrong().context("wrong URLs")?;
            format!("{refused} expired, tampered and misused ones refused")
        } else {
            "the server checks none".to_owned()
        };
        self.bounds().context("bounds")?;
        self.tell(format!(
            "signed URLs: curl reads, asks, writes, deletes and writes a part; {refused}"
        ));
        Ok(())
    }

    /// curl with a URL, and the content of a new object where it writes.
    fn send(&self, signed: &Signed, text: &str) -> Outcome<Fetched> {
        let output = self.file("url-answer");
        // Nothing of an answer before.
        fs::write(&output, "").context(output.display())?;
        let input = if signed.method == "PUT" { Some(self.text("url-input", text)?) } else { None };
        signed.send(self.objects, self.store, input.as_deref(), &output)
    }

    fn done(&self, signed: &Signed, text: &str) -> Outcome {
        let fetched = self.send(signed, text)?;
        ensure(fetched.is_done(), || format!("{} {}: {fetched:?}", signed.method, signed.url))
    }

    fn right(&self) -> Outcome {
        let sign = |key: &str, method: &str| self.front.sign(&self.object(key), method, "10m");
        self.done(&sign(ONE, "GET")?, "")?;
        let got = fs::read_to_string(self.file("url-answer")).context("what curl got")?;
        ensure(got == CONTENT, || format!("curl got {got:?}"))?;
        self.done(&sign(ONE, "HEAD")?, "")?;
        self.done(&sign("url-put", "PUT")?, "written by curl")?;
        self.holds(&self.object("url-put"), "written by curl")?;
        self.done(&sign("url-put", "DELETE")?, "")?;
        ensure(!self.front.has(&self.object("url-put"))?, || "it is not deleted".to_owned())?;
        if self.can("sign-parts") { self.part_by_url().context("a part") } else { Ok(()) }
    }

    /// An upload whose only part is written by curl.
    fn part_by_url(&self) -> Outcome {
        let uploads = format!("buckets/{}/uploads", self.bucket);
        let begun = self.front.api("POST", &uploads, Some(&json!({ "key": "url-part" })))?;
        let id = begun["id"].as_str().ok_or_else(|| Failure::new(format!("no id: {begun}")))?;
        let words = ["--method", "PUT-PART", "--upload", id, "--part", "1", "--expires", "10m"];
        let signed = self.front.sign_with(&self.object("url-part"), &words)?;
        self.done(&signed, "a part by curl")?;
        let upload = format!("{uploads}/{}", escaped(id));
        let parts = self.front.api("GET", &format!("{upload}?key=url-part"), None)?;
        let parts = json!({ "parts": parts["parts"] });
        self.front.api("POST", &format!("{upload}/complete?key=url-part"), Some(&parts))?;
        self.holds(&self.object("url-part"), "a part by curl")
    }

    fn wrong(&self) -> Outcome<usize> {
        let object = self.object(ONE);
        let mut refused = 0;
        let mut refuse = |signed: &Signed, why: &str| -> Outcome {
            let fetched = self.send(signed, "from a stranger")?;
            ensure(fetched.is_refused(), || {
                format!("{why}: {} {}: {fetched:?}", signed.method, signed.url)
            })?;
            refused += 1;
            self.holds(&object, CONTENT).context(why)
        };
        let methods = ["GET", "HEAD", "PUT", "DELETE"];
        let expiring: Outcome<Vec<_>> =
            methods.iter().map(|method| self.front.sign(&object, method, "1s")).collect();
        let signed: Outcome<Vec<_>> =
            methods.iter().map(|method| self.front.sign(&object, method, "10m")).collect();
        for signed in signed? {
            refuse(&signed.tampered()?, "tampered")?;
            refuse(
                &self
                    .front
                    .sign(&self.object(TWO), &signed.method, "10m")?
                    .for_another(TWO, ONE)?,
                "of another object",
            )?;
            let others: &[&str] = match signed.method.as_str() {
                "GET" | "HEAD" => &["PUT", "DELETE"],
                "PUT" => &["DELETE"],
                _ => &["PUT"],
            };
            for other in others {
                refuse(&signed.by(other), "by another method")?;
            }
        }
        thread::sleep(Duration::from_millis(2500));
        for signed in expiring? {
            refuse(&signed, "expired")?;
        }
        Ok(refused)
    }

    /// How long a URL may live is checked before anything is signed.
    fn bounds(&self) -> Outcome {
        let object = self.object(ONE);
        let most = self.front.api("GET", "object-features", None)?;
        let most = most["max_sign_secs"].as_u64().unwrap_or_default();
        ensure(most > 0, || "no bound is told".to_owned())?;
        let long = format!("{}s", most.saturating_add(1));
        for expires in ["0s", &long] {
            // A bound beyond what can be typed is one, too.
            let words = ["object", "sign", &object, "--expires", expires];
            self.front.refused(&words, &[INVALID])?;
        }
        if matches!(self.store, Store::Radosgw | Store::Moto | Store::Gcs) {
            ensure(most == 7 * 86_400, || format!("the bound is {most} s, not seven days"))?;
        }
        Ok(())
    }
}

/// Text as a segment of a path.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_ends_a_segment_is_escaped() {
        assert_eq!(escaped("a-1/b+c=?é"), "a-1%2Fb%2Bc%3D%3F%C3%A9");
    }
}
