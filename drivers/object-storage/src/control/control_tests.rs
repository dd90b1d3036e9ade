// SPDX-License-Identifier: Apache-2.0
//! Requests and answers as they are on the wire.

use std::{collections::BTreeMap, time::Instant};

use driver_api::{
    ErrorKind, RVec, Tuple2,
    ext::{LifecycleRule, ListPage, ListQuery, ObjectInfo, ObjectName},
};
use object_store::aws::AwsCredential;

use super::{azure, gcs, pages, pages::Place, s3};
use crate::wire::xml::Element;

fn query() -> ListQuery {
    ListQuery { limit: 1000, ..ListQuery::default() }
}

fn listing(inside: &str) -> String {
    format!("<ListBucketResult><Name>b</Name>{inside}</ListBucketResult>")
}

const OBJECT: &str = "<Contents><Key>a%2Bb+c</Key><LastModified>2026-11-23T15:29:37.000Z</LastModified><ETag>&quot;e1&quot;</ETag>\
                      <Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>";

#[test]
fn a_listing_of_s3_is_decoded() {
    let text = listing(&format!(
        "<Prefix/><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>{OBJECT}\
         <CommonPrefixes><Prefix>d%2F</Prefix></CommonPrefixes><NextContinuationToken>T==</NextContinuationToken>"
    ));
    let root = Element::parse(&text).expect("XML");
    let page = s3::listing::decode(&root, "b", &query()).expect("a page");
    let object = &page.objects[0];
    assert_eq!((object.key.as_str(), object.size, object.etag.as_str()), ("a+b c", 7, "e1"));
    assert_eq!(
        (object.storage_class.as_str(), object.modified_ms, object.latest),
        ("", 1_795_447_777_000, true)
    );
    assert_eq!(page.prefixes[0], "d/");
    let place = Place::decode(&page.next).expect("a place").expect("more");
    assert_eq!(place, Place { last: "d/".into(), token: "T==".into() });
}

#[test]
fn a_listing_for_something_else_is_refused() {
    let of = |inside: &str, query: &ListQuery| {
        let text = listing(inside);
        s3::listing::decode(&Element::parse(&text).expect("XML"), "b", query)
    };
    assert!(of("<Prefix>p</Prefix>", &ListQuery { prefix: "p".into(), ..query() }).is_ok());
    for (inside, prefix) in [
        ("<Prefix>q</Prefix>", "p"),
        ("<Prefix/>", "p"),
        ("<Contents><Key>a</Key></Contents>", ""),
        ("<Contents><Size>1</Size></Contents>", ""),
        ("<Contents><Key>a</Key><Size>much</Size></Contents>", ""),
        ("<IsTruncated>true</IsTruncated>", ""),
    ] {
        let error = of(inside, &ListQuery { prefix: prefix.into(), ..query() }).expect_err(inside);
        assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{inside}");
    }
    let other =
        Element::parse("<ListBucketResult><Name>other</Name></ListBucketResult>").expect("XML");
    assert!(s3::listing::decode(&other, "b", &query()).is_err());
}

#[test]
fn a_listing_that_does_not_advance_is_refused() {
    let page = |keys: &[&str], next: &str| ListPage {
        objects: keys
            .iter()
            .map(|key| ObjectInfo { key: (*key).into(), ..ObjectInfo::default() })
            .collect(),
        next: next.into(),
        ..ListPage::default()
    };
    let place = Place { last: "m".into(), token: "t".into() };
    let at = ListQuery { page: place.encode().into(), ..query() };
    let check = |query: &ListQuery, place: Option<&Place>, page: &ListPage| {
        pages::check(query, place, pages::Order::Bytes, page).is_ok()
    };
    assert!(check(&at, Some(&place), &page(&["n", "o"], "1:ou")));
    // The page before once more, a page that begins with its end, one without order, and one that names itself the next.
    assert!(!check(&at, Some(&place), &page(&["a", "m"], "")));
    assert!(!check(&at, Some(&place), &page(&["m", "n"], "")));
    assert!(!check(&at, Some(&place), &page(&["o", "n"], "")));
    assert!(!check(&at, Some(&place), &page(&[], &place.encode())));
    let prefixed = ListQuery { prefix: "x/".into(), ..query() };
    assert!(
        check(&prefixed, None, &page(&["x/1"], "")) && !check(&prefixed, None, &page(&["y"], ""))
    );
    let after = ListQuery { after: "k".into(), ..query() };
    assert!(check(&after, None, &page(&["l"], "")) && !check(&after, None, &page(&["k"], "")));
    for bad in ["x", "5:abc", "1:ü", ":", "-1:a"] {
        assert!(Place::decode(bad).is_err(), "{bad}");
    }
    assert_eq!(Place::decode(&place.encode()).expect("a place"), Some(place));
}

#[test]
fn a_listing_of_azure_is_decoded() {
    let text = r#"<?xml version="1.0"?><EnumerationResults ServiceEndpoint="http://h/a" ContainerName="b"><Prefix/>
        <Blobs><Blob><Name>one</Name><Properties><Last-Modified>Mon, 23 Nov 2026 15:29:37 GMT</Last-Modified><Etag>0x1</Etag>
        <Content-Length>3</Content-Length><Content-MD5>kAFQmDzST7DWlj99KOF/cg==</Content-MD5><AccessTier>Cool</AccessTier></Properties></Blob>
        <Blob><Name Encoded="true">two%01</Name><Properties><Content-Length>0</Content-Length></Properties></Blob>
        <BlobPrefix><Name>d/</Name></BlobPrefix></Blobs><NextMarker>M</NextMarker></EnumerationResults>"#;
    let root = Element::parse(text).expect("XML");
    let (page, next) = azure::listing::decode(&root, "b", &query()).expect("a page");
    assert_eq!(next, "M");
    let one = &page.objects[0];
    assert_eq!(
        (one.key.as_str(), one.size, one.etag.as_str(), one.storage_class.as_str()),
        ("one", 3, "0x1", "Cool")
    );
    assert_eq!(one.checksum, "md5:900150983cd24fb0d6963f7d28e17f72");
    assert_eq!((page.objects[1].key.as_str(), page.prefixes[0].as_str()), ("two\u{1}", "d/"));
    assert!(azure::listing::decode(&root, "other", &query()).is_err());
    assert!(
        azure::listing::decode(&root, "b", &ListQuery { prefix: "p".into(), ..query() }).is_err()
    );
}

fn rule(id: &str) -> LifecycleRule {
    LifecycleRule { id: id.into(), enabled: true, ..LifecycleRule::default() }
}

#[test]
fn lifecycle_rules_of_s3_are_written_and_read() {
    let rules = [
        LifecycleRule { expire_days: 3, prefix: "a<&".into(), ..rule("one") },
        LifecycleRule {
            enabled: false,
            abort_upload_days: 1,
            expire_noncurrent_days: 2,
            ..rule("two")
        },
        LifecycleRule {
            transition_days: 4,
            transition_class: "GLACIER".into(),
            expire_days: 9,
            ..rule("three")
        },
    ];
    let text = s3::lifecycle::encode(&rules);
    assert!(text.contains("<Rule><ID>one</ID><Filter><Prefix>a&lt;&amp;</Prefix></Filter><Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule>"), "{text}");
    let root = Element::parse_root(&text, "LifecycleConfiguration").expect("XML");
    assert_eq!(s3::lifecycle::decode(&root).expect("rules")[..], rules);
    for foreign in [
        "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
        "<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>",
        "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>",
        "<NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionTransition>",
        "<Transition><Days>1</Days><StorageClass>A</StorageClass></Transition><Transition><Days>2</Days></Transition>",
    ] {
        let text = format!("<L><Rule><ID>x</ID><Status>Enabled</Status>{foreign}</Rule></L>");
        let error = s3::lifecycle::decode(&Element::parse(&text).expect("XML")).expect_err(foreign);
        assert_eq!(error.kind(), ErrorKind::UNSUPPORTED, "{foreign}");
    }
    let old = Element::parse(
        "<L><Rule><Prefix>p</Prefix><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule></L>",
    );
    assert_eq!(s3::lifecycle::decode(&old.expect("XML")).expect("rules")[0].prefix, "p");
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let good = LifecycleRule { expire_days: 3, ..rule("a") };
    assert!(s3::lifecycle::check(&[good.clone(), rule_with("b")]).is_ok());
    for bad in [
        vec![rule("nothing")],
        vec![good.clone(), good.clone()],
        vec![LifecycleRule { transition_days: 1, ..rule("half") }],
        vec![LifecycleRule { transition_class: "X".into(), ..good.clone() }],
        vec![LifecycleRule { transition_days: 3, transition_class: "X".into(), ..good.clone() }],
        vec![LifecycleRule { expire_days: u32::MAX, ..rule("long") }],
        vec![good; 1001],
    ] {
        assert_eq!(
            s3::lifecycle::check(&bad).expect_err("refused").kind(),
            ErrorKind::INVALID_ARGUMENT
        );
    }
}

fn rule_with(id: &str) -> LifecycleRule {
    LifecycleRule { abort_upload_days: 1, ..rule(id) }
}

#[test]
fn lifecycle_rules_of_gcs_are_written_and_read() {
    let rules = [
        LifecycleRule { expire_days: 3, prefix: "p".into(), ..rule("rule-1") },
        LifecycleRule { expire_noncurrent_days: 2, ..rule("rule-2") },
        LifecycleRule { abort_upload_days: 1, ..rule("rule-3") },
        LifecycleRule { transition_days: 4, transition_class: "NEARLINE".into(), ..rule("rule-4") },
    ];
    let written = gcs::lifecycle::encode(&rules).expect("rules");
    let json = serde_json::to_value(&written).expect("JSON");
    assert_eq!(
        json["rule"][0],
        serde_json::json!({"action": {"type": "Delete"}, "condition": {"age": 3, "isLive": true, "matchesPrefix": ["p"]}})
    );
    assert_eq!(
        json["rule"][3],
        serde_json::json!({"action": {"type": "SetStorageClass", "storageClass": "NEARLINE"}, "condition": {"age": 4}})
    );
    assert_eq!(gcs::lifecycle::decode(&written).expect("rules")[..], rules);
    let foreign = serde_json::json!({"rule": [{"action": {"type": "Delete"}, "condition": {"age": 1, "numNewerVersions": 3}}]});
    let foreign = serde_json::from_value(foreign).expect("JSON");
    assert_eq!(
        gcs::lifecycle::decode(&foreign).expect_err("foreign").kind(),
        ErrorKind::UNSUPPORTED
    );
    let off = LifecycleRule { enabled: false, ..rules[0].clone() };
    assert_eq!(gcs::lifecycle::encode(&[off]).expect_err("off").kind(), ErrorKind::UNSUPPORTED);
}

#[test]
fn every_line_of_a_bulk_deletion_counts() {
    let version = |key: &str, version: &str| ObjectName {
        version: version.into(),
        ..ObjectName::new("b", key)
    };
    let objects = [
        ObjectName::new("b", "a&b"),
        ObjectName::new("b", "kept"),
        version("v", "1"),
        version("v", "2"),
        ObjectName::new("b", "lost"),
    ];
    let text = s3::bulk::encode(&objects).expect("a request");
    assert!(
        text.contains("<Object><Key>a&amp;b</Key></Object>")
            && text.contains("<Key>v</Key><VersionId>2</VersionId>"),
        "{text}"
    );
    assert!(s3::bulk::encode(&[ObjectName::new("b", "\u{1}")]).is_err());
    let answer = "<DeleteResult><Deleted><Key>a&amp;b</Key><VersionId>null</VersionId></Deleted>\
         <Error><Key>kept</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
         <Deleted><Key>v</Key><VersionId>1</VersionId></Deleted>\
         <Error><Key>v</Key><VersionId>2</VersionId><Code>InternalError</Code><Message>x</Message></Error></DeleteResult>";
    let told = s3::bulk::decode(&Element::parse(answer).expect("XML"), &objects);
    let kinds: Vec<_> =
        told.iter().map(|told| if told.gone { None } else { Some(told.kind) }).collect();
    let denied = Some(ErrorKind::PERMISSION_DENIED);
    assert_eq!(kinds, [None, denied, None, Some(ErrorKind::TIMED_OUT), Some(ErrorKind::TIMED_OUT)]);
}

#[test]
fn versions_that_are_told_of_by_their_key_alone_are_gone_when_all_of_them_are() {
    let version = |key: &str, version: &str| ObjectName {
        version: version.into(),
        ..ObjectName::new("b", key)
    };
    let objects =
        [version("a", "1"), version("a", "2"), version("b", "1"), ObjectName::new("b", "c")];
    let gone = |key: &str| format!("<Deleted><Key>{key}</Key></Deleted>");
    let kept = "<Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error>";
    let told = |lines: &[&str]| {
        let answer = format!("<DeleteResult>{}</DeleteResult>", lines.concat());
        let told = s3::bulk::decode(&Element::parse(&answer).expect("XML"), &objects);
        told.iter().map(|told| told.gone).collect::<Vec<_>>()
    };
    let (a, b, c) = (gone("a"), gone("b"), gone("c"));
    assert_eq!(told(&[&a, &b, &c, &a]), [true; 4]);
    assert_eq!(told(&[&a, &b, &c]), [false, false, true, true], "one of two");
    assert_eq!(told(&[&a, &b, &c, kept]), [false, false, true, true], "nobody knows which");
    assert_eq!(told(&[kept, &b, kept]), [false, false, true, false]);
}

/// The example of Amazon's documentation of signatures in queries.
#[test]
fn a_query_is_signed_as_in_the_documentation() {
    let credential = AwsCredential {
        key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        token: None,
    };
    let url = url::Url::parse("https://examplebucket.s3.amazonaws.com/test.txt").expect("a URL");
    let signed = s3::sign::query_signature(&s3::sign::Signing {
        credential: &credential,
        region: "us-east-1",
        method: "GET",
        url: &url,
        query: &[],
        headers: &BTreeMap::new(),
        now_secs: 1_369_353_600,
        expire_secs: 86_400,
    });
    assert_eq!(
        signed,
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE\
         %2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn blocks_of_azure_have_names_of_one_length() {
    let id = format!("{}.e30", "0a".repeat(16));
    let (first, last) = (
        azure::uploads::block_id(&id, 1).expect("an id"),
        azure::uploads::block_id(&id, 50_000).expect("an id"),
    );
    assert_eq!(first.len(), last.len());
    assert_ne!(first, last);
    // What is said of the object is no part of a block's name.
    assert_eq!(azure::uploads::block_id(&"0a".repeat(16), 1).expect("an id"), first);
    for bad in ["", "0a", "x", &"0g".repeat(16), &format!("{}.!", "0a".repeat(16))] {
        assert_eq!(
            azure::uploads::block_id(bad, 1).expect_err(bad).kind(),
            ErrorKind::INVALID_ARGUMENT
        );
    }
}

#[test]
fn tags_that_no_store_keeps_are_refused() {
    let tags = |pairs: &[(&str, &str)]| -> RVec<_> {
        pairs.iter().map(|(k, v)| Tuple2((*k).into(), (*v).into())).collect()
    };
    assert!(s3::tags::check(&tags(&[("a", ""), ("ü", "x y")])).is_ok());
    let many: Vec<_> =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].iter().map(|k| (*k, "")).collect();
    for bad in [
        &[("", "x")][..],
        &[("a", "1"), ("a", "2")],
        &[("a", "\u{1}")],
        &many,
        &[(&"x".repeat(129), "")],
    ] {
        assert!(s3::tags::check(&tags(bad)).is_err(), "{bad:?}");
    }
    assert!(azure::change::check_tags(&tags(&[("a", "b+c=d e")])).is_ok());
    assert!(azure::change::check_tags(&tags(&[("a", "b&c")])).is_err());
}

/// A page of a thousand must cost less than a server takes to make it; this is unoptimised, on a busy machine.
#[test]
fn a_full_page_is_decoded_quickly() {
    let mut inside = String::from("<Prefix/><IsTruncated>false</IsTruncated>");
    for number in 0..1000 {
        inside.push_str(&OBJECT.replace("a%2Bb+c", &format!("directory/{number:07}")));
    }
    let text = listing(&inside);
    let decode = || {
        let started = Instant::now();
        let root = Element::parse(&text).expect("XML");
        assert_eq!(s3::listing::decode(&root, "b", &query()).expect("a page").objects.len(), 1000);
        started.elapsed()
    };
    let best = (0..5).map(|_| decode()).min().expect("five times");
    println!("a page of 1000: {best:?}");
    assert!(best.as_millis() < 200, "{best:?}");
}
