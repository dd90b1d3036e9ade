// SPDX-License-Identifier: Apache-2.0
//! Answers that are damaged anywhere are refused or read, and never more than that: no panic, and no end of memory.

use driver_api::ext::{ListQuery, ObjectName};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{
    config::Kind,
    control::{azure, pages::Place, s3},
    error::Refusal,
    get, info,
    retry::{is_error, retry_after},
    sums::Sum,
    wire::{time, url::unescape, xml::Element},
};

const DOCUMENTS: [&str; 6] = [
    "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://x\"><Name>b</Name><Prefix/><EncodingType>url</EncodingType>\
     <IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>a%2Bb+c</Key><Size>5</Size>\
     <ETag>&quot;x&quot;</ETag><LastModified>2026-11-23T15:29:37.000Z</LastModified></Contents><CommonPrefixes><Prefix>p/</Prefix>\
     </CommonPrefixes></ListBucketResult>",
    "<ListVersionsResult><Name>b</Name><Prefix></Prefix><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
     <Version><Key>k</Key><VersionId>v</VersionId><Size>1</Size><IsLatest>true</IsLatest></Version><DeleteMarker><Key>d</Key>\
     <VersionId>null</VersionId></DeleteMarker></ListVersionsResult>",
    "<EnumerationResults ContainerName=\"b\"><Prefix/><Blobs><Blob><Name Encoded=\"true\">a%20</Name><Properties>\
     <Content-Length>5</Content-Length><Etag>0x1</Etag><Last-Modified>Mon, 23 Nov 2026 15:29:37 GMT</Last-Modified>\
     <Content-MD5>JfnnlDI7RThF9R8fG2JNCw==</Content-MD5></Properties></Blob><BlobPrefix><Name>p/</Name></BlobPrefix></Blobs>\
     <NextMarker>m</NextMarker></EnumerationResults>",
    "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code><Message>&amp;no</Message></Error>\
     </DeleteResult>",
    "\u{feff}<Error><Code>NoSuchKey</Code><Message>It&#39;s gone</Message><Region>eu-1</Region></Error>",
    "{\"error\": {\"code\": 404, \"message\": \"No such object\", \"errors\": [{\"reason\": \"notFound\"}]}}",
];

const HEADERS: [(&str, &str); 12] = [
    ("content-range", "bytes 0-4/5"),
    ("content-length", "5"),
    ("retry-after", "Mon, 23 Nov 2026 15:29:37 GMT"),
    ("date", "Mon, 23 Nov 2026 15:29:30 GMT"),
    ("last-modified", "Mon, 23 Nov 2026 15:29:37 GMT"),
    ("etag", "W/\"0123456789abcdef0123456789abcdef\""),
    ("x-goog-hash", "crc32c=4waSgw==,md5=AA=="),
    ("x-goog-stored-content-length", "5"),
    ("x-amz-checksum-crc32c", "4waSgw=="),
    ("x-amz-meta-novastor-mark", "ab12"),
    ("content-md5", "JfnnlDI7RThF9R8fG2JNCw=="),
    ("x-ms-meta-grün", "0"),
];

/// Damages a text somewhere: letters that mean something, numbers beyond their kind, pieces that are missing or come twice.
fn damage(random: &mut fastrand::Rng, text: &str) -> String {
    const BITS: [&str; 16] = [
        "<",
        ">",
        "&",
        ";",
        "%",
        "\"",
        "/",
        "-",
        ":",
        "\0",
        "ü",
        "\u{fffd}",
        "18446744073709551615",
        "-9223372036854775808",
        "99999999999999999999",
        "]]>",
    ];
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=letters.len());
        let end = (at + random.usize(..12)).min(letters.len());
        match random.u8(..4) {
            0 => drop(letters.drain(at..end)),
            1 => drop(letters.splice(at..at, BITS[random.usize(..BITS.len())].chars())),
            2 => drop(letters.splice(at..end, BITS[random.usize(..BITS.len())].chars())),
            _ => {
                let again = letters[at..end].to_vec();
                drop(letters.splice(at..at, again));
            }
        }
    }
    letters.into_iter().collect()
}

#[test]
fn damaged_documents_are_refused_or_read() {
    let mut random = fastrand::Rng::with_seed(17);
    let objects = ["a", "b"].map(|key| ObjectName::new("b", key));
    let (mut read, mut refused) = (0, 0);
    for round in 0..30_000 {
        let text = damage(&mut random, DOCUMENTS[round % DOCUMENTS.len()]);
        let _ = (Refusal::read(&HeaderMap::new(), text.as_bytes()), is_error(text.as_bytes()));
        let _ = (unescape(&text, true), Place::decode(&text), Sum::parse(&text));
        let _ = (time::iso_ms(&text), time::http_ms(&text));
        let Ok(root) = Element::parse(&text) else {
            refused += 1;
            continue;
        };
        read += 1;
        for versions in [false, true] {
            let query = ListQuery { versions, ..ListQuery::default() };
            let _ = s3::listing::decode(&root, "b", &query);
            let _ = azure::listing::decode(&root, "b", &query);
        }
        assert_eq!(s3::bulk::decode(&root, &objects).len(), 2);
    }
    assert!(read > 1000 && refused > 1000, "{read} were read, {refused} refused");
}

#[test]
fn damaged_headers_are_refused_or_read() {
    let mut random = fastrand::Rng::with_seed(18);
    for _ in 0..20_000 {
        let mut headers = HeaderMap::new();
        for (name, value) in HEADERS {
            let value = if random.bool() { value.to_owned() } else { damage(&mut random, value) };
            let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
            else {
                continue;
            };
            headers.insert(name, value);
        }
        for kind in [Kind::S3, Kind::Azure, Kind::Gcs, Kind::Swift] {
            let found = info::read(kind, "k", &headers);
            assert_eq!(found.info.key, "k");
        }
        if let Some((first, len)) = get::extent(&headers, StatusCode::PARTIAL_CONTENT) {
            let size = info::size(&headers).expect("a size");
            assert!(len > 0 && first.checked_add(len).is_some_and(|end| end <= size));
        }
        let _ = get::extent(&headers, StatusCode::OK);
        assert!(retry_after(&headers).is_none_or(|wait| wait.as_secs() <= 24 * 3600));
    }
}
