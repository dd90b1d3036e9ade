// SPDX-License-Identifier: Apache-2.0
//! Names of objects as they are typed, and where the API has them.

use driver_api::{Error, ErrorKind, Result};

use crate::cli::client::part;

/// The longest key, in bytes.
const LONGEST_KEY: usize = 1024;

/// An object as it is typed: BUCKET/KEY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// The key, which may have more slashes.
    pub key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// Reads BUCKET/KEY.
pub fn place(text: &str) -> std::result::Result<Place, String> {
    match text.split_once('/') {
        Some(("", _)) => Err("it begins with the bucket's name, not with /".to_owned()),
        Some((_, "")) | None => Err("it is not of the form BUCKET/KEY".to_owned()),
        Some((_, key)) if key.len() > LONGEST_KEY => {
            Err(format!("the key has {} bytes, and {LONGEST_KEY} are the most", key.len()))
        }
        Some((bucket, key)) => Ok(Place { bucket: bucket.to_owned(), key: key.to_owned() }),
    }
}

/// Bytes of an object, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last; to the end if none.
    pub last: Option<u64>,
}

impl Span {
    /// Its first byte and its length within an object of `size` bytes.
    pub fn within(self, size: u64) -> Result<(u64, u64)> {
        if self.first >= size {
            let why =
                format!("the object has {size} bytes, and byte {} is none of them", self.first);
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, why));
        }
        let end = self.last.map_or(size, |last| last.saturating_add(1).min(size));
        Ok((self.first, end - self.first))
    }
}

/// Reads FIRST-LAST, or FIRST- for all from there on.
pub fn span(text: &str) -> std::result::Result<Span, String> {
    let wrong = || "it is not of the form FIRST-LAST, such as 0-1023".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let last = if last.is_empty() { None } else { Some(number(last)?) };
    let span = Span { first: number(first)?, last };
    match span.last {
        Some(last) if last < span.first => Err("the last byte is before the first".to_owned()),
        _ => Ok(span),
    }
}

/// Where the API has the objects of a backend.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Paths {
    backend: String,
}

impl Paths {
    pub(in crate::cli) fn new(backend: &str) -> Self {
        Self { backend: format!("/v1/backends/{}", part(backend)) }
    }

    pub(in crate::cli) fn features(&self) -> String {
        format!("{}/object-features", self.backend)
    }

    pub(in crate::cli) fn buckets(&self) -> String {
        format!("{}/buckets", self.backend)
    }

    pub(in crate::cli) fn bucket(&self, bucket: &str) -> String {
        format!("{}/buckets/{}", self.backend, part(bucket))
    }

    pub(in crate::cli) fn objects(&self, bucket: &str) -> String {
        format!("{}/objects", self.bucket(bucket))
    }

    pub(in crate::cli) fn object(&self, place: &Place) -> String {
        format!("{}/objects/{}", self.bucket(&place.bucket), part(&place.key))
    }

    pub(in crate::cli) fn uploads(&self, bucket: &str) -> String {
        format!("{}/uploads", self.bucket(bucket))
    }

    /// An upload, or what is below it.
    pub(in crate::cli) fn upload(&self, place: &Place, id: &str, below: &str) -> Query {
        let path = format!("{}/{}{below}", self.uploads(&place.bucket), part(id));
        Query::new(path).and("key", &place.key)
    }
}

/// A path with questions.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Query(String, char);

impl Query {
    pub(in crate::cli) fn new(path: String) -> Self {
        Self(path, '?')
    }

    pub(in crate::cli) fn and(mut self, name: &str, value: &str) -> Self {
        self.0.push(self.1);
        self.1 = '&';
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&part(value));
        self
    }

    /// The same with a value that may be absent.
    pub(in crate::cli) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.and(name, value),
            None => self,
        }
    }

    pub(in crate::cli) fn text(self) -> String {
        self.0
    }
}

/// Pairs as in a query, with what has a meaning of its own escaped.
pub(in crate::cli) fn encoded(pairs: &[(String, String)]) -> String {
    let texts: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", part(name), part(value))).collect();
    texts.join("&")
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The command that this process was started by, to be typed again.
pub(in crate::cli) fn typed() -> String {
    let words = std::env::args_os().skip(1);
    let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    format!("novastor {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_bucket_and_a_key() {
        let read = |text: &str| place(text).map(|place| (place.bucket, place.key));
        let pair = |bucket: &str, key: &str| Ok((bucket.to_owned(), key.to_owned()));
        assert_eq!(read("b/k"), pair("b", "k"));
        assert_eq!(read("b/a/b//c/"), pair("b", "a/b//c/"));
        assert_eq!(read("b//k"), pair("b", "/k"));
        assert_eq!(read("b/ü 1%"), pair("b", "ü 1%"));
        for bad in ["", "b", "b/", "/k", "/"] {
            assert!(place(bad).is_err(), "{bad}");
        }
        assert!(place(&format!("b/{}", "k".repeat(1025))).is_err());
        assert!(place(&format!("b/{}", "k".repeat(1024))).is_ok());
    }

    #[test]
    fn a_key_is_one_segment_of_a_path() {
        let place = place("b c/x/../ü?#%2F&=").unwrap();
        let path = Paths::new("s3").object(&place);
        assert_eq!(path, "/v1/backends/s3/buckets/b%20c/objects/x%2F..%2F%C3%BC%3F%23%252F%26%3D");
        let part = Paths::new("s3").upload(&place, "id/1", "/parts/2").text();
        let wanted = "/uploads/id%2F1/parts/2?key=x%2F..%2F%C3%BC%3F%23%252F%26%3D";
        assert!(part.ends_with(wanted), "{part}");
    }

    #[test]
    fn a_range_has_two_ends_in_the_object() {
        assert_eq!(span("0-0").unwrap().within(10).unwrap(), (0, 1));
        assert_eq!(span("3-").unwrap().within(10).unwrap(), (3, 7));
        assert_eq!(span("3-99").unwrap().within(10).unwrap(), (3, 7));
        assert_eq!(span("9-18446744073709551615").unwrap().within(10).unwrap(), (9, 1));
        assert_eq!(span("10-").unwrap().within(10).unwrap_err().kind(), ErrorKind::OUT_OF_RANGE);
        assert_eq!(span("0-").unwrap().within(0).unwrap_err().kind(), ErrorKind::OUT_OF_RANGE);
        for bad in ["", "5", "-5", "5-4", "a-b", "1-2-3", "0x1-2"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_is_quoted_for_a_shell() {
        assert_eq!(quoted("b/key.bin"), "b/key.bin");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }
}
