// SPDX-License-Identifier: Apache-2.0
use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|&(name, value)| {
            (http::HeaderName::from_static(name), value.parse().expect("a value"))
        })
        .collect()
}

#[test]
fn marks_are_read_and_hidden() {
    for (kind, prefix, mark) in [
        (Kind::S3, "x-amz-meta-", "x-amz-meta-novastor-mark"),
        (Kind::Gcs, "x-goog-meta-", "x-goog-meta-novastor-mark"),
        (Kind::Azure, "x-ms-meta-", "x-ms-meta-novastor_mark"),
    ] {
        let mut told = headers(&[("etag", "\"ab\""), ("content-length", "7"), (mark, "f00d")]);
        let name = http::HeaderName::try_from(format!("{prefix}colour")).expect("a name");
        told.insert(name, "blue".parse().expect("a value"));
        let found = read(kind, "key", &told);
        assert_eq!(
            (found.mark.as_str(), found.info.size, found.info.etag.as_str()),
            ("f00d", 7, "ab")
        );
        assert_eq!(found.info.metadata.as_slice(), [Tuple2("colour".into(), "blue".into())]);
    }
}

#[test]
fn the_size_is_that_of_the_whole_object() {
    let told = headers(&[("content-length", "3"), ("content-range", "bytes 5-7/100")]);
    assert_eq!(read(Kind::S3, "key", &told).info.size, 100);
    let told = headers(&[("content-length", "3"), ("x-goog-stored-content-length", "9")]);
    assert_eq!(read(Kind::Gcs, "key", &told).info.size, 9);
}

#[test]
fn an_etag_is_a_sum_only_where_it_can_be() {
    let md5 = "0123456789abcdef0123456789abcdef";
    let plain = headers(&[("etag", md5)]);
    assert_eq!(read(Kind::S3, "key", &plain).info.checksum, format!("md5:{md5}"));
    for other in [
        headers(&[("etag", "0123456789abcdef0123456789abcdef-2")]),
        headers(&[("etag", md5), ("x-amz-server-side-encryption", "aws:kms")]),
        headers(&[("etag", md5), ("x-amz-server-side-encryption-customer-algorithm", "AES256")]),
    ] {
        assert_eq!(read(Kind::S3, "key", &other).info.checksum, "");
    }
    assert_eq!(read(Kind::Azure, "key", &plain).info.checksum, "");
}

#[test]
fn metadata_that_a_store_would_change_is_refused() {
    for (kind, name, value) in [
        (Kind::S3, "Upper", "x"),
        (Kind::S3, "", "x"),
        (Kind::S3, "novastor-mark", "x"),
        (Kind::S3, "name", "ü"),
        (Kind::S3, "name", "end "),
        (Kind::Azure, "with-dash", "x"),
        (Kind::Azure, "1st", "x"),
    ] {
        assert!(check_metadata(kind, name, value).is_err(), "{name} {value}");
    }
    check_metadata(Kind::S3, "with-dash", "a b").expect("taken");
    check_metadata(Kind::Azure, "cache-control", "no-store").expect("taken");
}
