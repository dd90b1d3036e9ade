// SPDX-License-Identifier: Apache-2.0
//! Sums over content: made here, told by stores, and compared.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http::HeaderMap;
use md5::{Digest as _, Md5};

use crate::{call::text_of, config::Kind};

/// Above so many bytes a sum is made on a thread of its own, not to hold other requests up.
const MUCH: usize = 256 << 10;

/// A sum over some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// MD5.
    Md5([u8; 16]),
    /// CRC-32C.
    Crc32c(u32),
}

/// Which sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// MD5.
    Md5,
    /// CRC-32C.
    Crc32c,
}

impl Sum {
    /// The sum in base64, as headers have it.
    pub fn base64(self) -> String {
        match self {
            Self::Md5(sum) => BASE64.encode(sum),
            Self::Crc32c(sum) => BASE64.encode(sum.to_be_bytes()),
        }
    }

    /// The sum in lower-case hexadecimal digits.
    pub fn hex(self) -> String {
        match self {
            Self::Md5(sum) => format!("{:032x}", u128::from_be_bytes(sum)),
            Self::Crc32c(sum) => format!("{sum:08x}"),
        }
    }

    /// The sum as [`driver_api::ext::ObjectInfo::checksum`] has it.
    pub fn told(self) -> String {
        match self {
            Self::Md5(_) => format!("md5:{}", self.hex()),
            Self::Crc32c(_) => format!("crc32c:{}", self.hex()),
        }
    }

    /// Which sum it is.
    pub fn way(self) -> Way {
        match self {
            Self::Md5(_) => Way::Md5,
            Self::Crc32c(_) => Way::Crc32c,
        }
    }

    /// Reads what [`told`](Self::told) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (way, hex) = text.split_once(':')?;
        match way {
            "md5" if hex.len() == 32 => {
                u128::from_str_radix(hex, 16).ok().map(|sum| Self::Md5(sum.to_be_bytes()))
            }
            "crc32c" if hex.len() == 8 => u32::from_str_radix(hex, 16).ok().map(Self::Crc32c),
            _ => None,
        }
    }
}

/// A sum that is made while the content comes.
#[derive(Clone, Debug)]
pub(crate) enum Running {
    /// MD5.
    Md5(Md5),
    /// CRC-32C.
    Crc32c(u32),
}

impl Running {
    /// The sum over nothing so far.
    pub fn new(way: Way) -> Self {
        match way {
            Way::Md5 => Self::Md5(Md5::new()),
            Way::Crc32c => Self::Crc32c(0),
        }
    }

    /// Goes on with `data`.
    pub fn add(&mut self, data: &[u8]) {
        match self {
            Self::Md5(sum) => sum.update(data),
            Self::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, data),
        }
    }

    /// The sum over all that was added.
    pub fn sum(&self) -> Sum {
        match self {
            Self::Md5(sum) => Sum::Md5(sum.clone().finalize().into()),
            Self::Crc32c(sum) => Sum::Crc32c(*sum),
        }
    }
}

fn make_now(way: Way, data: &[u8]) -> Sum {
    match way {
        Way::Md5 => Sum::Md5(Md5::digest(data).into()),
        Way::Crc32c => Sum::Crc32c(crc32c::crc32c(data)),
    }
}

/// The sum over `data`.
pub(crate) async fn make(way: Way, data: &Bytes) -> Result<Sum> {
    if data.len() < MUCH || way == Way::Crc32c {
        return Ok(make_now(way, data));
    }
    let data = data.clone();
    tokio::task::spawn_blocking(move || make_now(way, &data))
        .await
        .map_err(|error| Error::new(ErrorKind::INTERNAL, format!("no sum was made: {error}")))
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim()).ok()
}

/// MD5 in base64, as headers have it.
pub(crate) fn md5_of_header(text: &str) -> Option<Sum> {
    let sum: [u8; 16] = from_base64(text)?.try_into().ok()?;
    Some(Sum::Md5(sum))
}

fn crc_of_header(text: &str) -> Option<Sum> {
    let sum: [u8; 4] = from_base64(text)?.try_into().ok()?;
    Some(Sum::Crc32c(u32::from_be_bytes(sum)))
}

/// The sum over the whole object that an answer tells in headers of its own.
pub(crate) fn told(kind: Kind, headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| text_of(headers, name);
    let sum = match kind {
        Kind::S3 => {
            // Of an object made of parts, this may be a sum of the parts' sums.
            if text("x-amz-checksum-type").eq_ignore_ascii_case("composite") {
                return None;
            }
            crc_of_header(text("x-amz-checksum-crc32c"))
        }
        Kind::Gcs => {
            let mut crc = None;
            for value in headers.get_all("x-goog-hash") {
                let Ok(value) = value.to_str() else { continue };
                for pair in value.split(',') {
                    if let Some(("crc32c", sum)) = pair.trim().split_once('=') {
                        crc = crc_of_header(sum);
                    }
                }
            }
            crc
        }
        Kind::Azure => {
            let whole = text("x-ms-blob-content-md5");
            let plain = text("content-md5");
            let partial = !text("content-range").is_empty();
            if !whole.is_empty() {
                md5_of_header(whole)
            } else if !plain.is_empty() && !partial {
                md5_of_header(plain)
            } else {
                None
            }
        }
        Kind::Swift => None,
    };
    sum.map(Sum::told)
}

/// The error when content is not what its sum says.
pub(crate) fn damaged(what: &str, expected: &str, got: &str) -> Error {
    Error::new(
        ErrorKind::CORRUPTED,
        format!("{what}: its sum is {got}, and it should be {expected}"),
    )
    .remedy(
        "try again; if it happens again, look at the network on the way and at the store's disks",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sums_are_told_and_read_again() {
        let data = Bytes::from_static(b"123456789");
        let md5 = make(Way::Md5, &data).await.expect("a sum");
        assert_eq!(md5.told(), "md5:25f9e794323b453885f5181f1b624d0b");
        assert_eq!(md5_of_header(&md5.base64()), Some(md5));
        let crc = make(Way::Crc32c, &data).await.expect("a sum");
        assert_eq!(crc.told(), "crc32c:e3069283");
        for sum in [md5, crc] {
            assert_eq!(Sum::parse(&sum.told()), Some(sum));
        }
        for whole in [md5, crc] {
            let mut running = Running::new(whole.way());
            data.chunks(2).for_each(|some| running.add(some));
            assert_eq!(running.sum(), whole);
        }
        let much = Bytes::from(vec![7; MUCH + 1]);
        assert_eq!(make(Way::Md5, &much).await.expect("a sum"), make_now(Way::Md5, &much));
    }

    #[test]
    fn sums_of_parts_are_not_taken_for_those_of_content() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-checksum-crc32c", "4waSgw==".parse().expect("a header"));
        assert_eq!(told(Kind::S3, &headers).as_deref(), Some("crc32c:e3069283"));
        headers.insert("x-amz-checksum-type", "COMPOSITE".parse().expect("a header"));
        assert_eq!(told(Kind::S3, &headers), None);
        headers.insert("x-goog-hash", "crc32c=4waSgw==,md5=AA==".parse().expect("a header"));
        assert_eq!(told(Kind::Gcs, &headers).as_deref(), Some("crc32c:e3069283"));
    }
}
