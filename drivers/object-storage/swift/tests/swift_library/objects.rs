// SPDX-License-Identifier: Apache-2.0
//! Objects: their bytes, their expiry, and what Swift does not do with them.

use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions,
};
use swift::{Expiry, FailureKind, Swift};

use crate::now;
use crate::real_servers::{Server, kind, put_large, segments, text};

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn bytes_of_every_range_are_right() {
    let swift = Server::Swift.fresh("ranges").await;
    put_large(&swift, "large", &["0123", "4567", "89"]).await;
    swift.put(&"plain".into(), "0123456789".into()).await.unwrap();
    swift.put(&"empty".into(), "".into()).await.unwrap();
    for key in ["plain", "large"] {
        for (range, bytes) in
            [(0..10, "0123456789"), (3..5, "34"), (9..10, "9"), (2..99, "23456789")]
        {
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
            let result = swift.get_opts(&key.into(), options).await.unwrap();
            assert_eq!(result.meta.size, 10);
            assert_eq!(result.bytes().await.unwrap(), bytes);
        }
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(3)));
        assert_eq!(
            swift.get_opts(&key.into(), options).await.unwrap().bytes().await.unwrap(),
            "789"
        );
        let error = swift.get_range(&key.into(), 10..11).await.unwrap_err();
        assert!(error.to_string().contains("behind the end"), "{error}");
        let etag = swift.head(&key.into()).await.unwrap().e_tag;
        let listed: Vec<_> = swift.list(None).try_collect().await.unwrap();
        assert_eq!(
            listed.iter().find(|meta| meta.location == Path::from(key)).unwrap().e_tag,
            etag
        );
        let held = GetOptions::new().with_if_match(etag);
        assert_eq!(
            swift.get_opts(&key.into(), held).await.unwrap().bytes().await.unwrap(),
            "0123456789"
        );
    }
    assert_eq!(text(&swift, "empty").await, "");
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn objects_expire_with_all_their_parts() {
    let swift = Server::Swift.fresh("expiry").await;
    let expiring = |seconds: &'static str| {
        Attributes::from_iter([
            (Attribute::Metadata("x-delete-after".into()), seconds),
            (Attribute::Metadata("Who".into()), "me"),
            (Attribute::ContentEncoding, "gzip"),
        ])
    };
    let options = PutOptions { attributes: expiring("1000"), ..PutOptions::default() };
    swift.put_opts(&"a".into(), "plain".into(), options).await.unwrap();
    let mut upload =
        swift.put_multipart_opts(&"large".into(), expiring("1000").into()).await.unwrap();
    upload.put_part("one".into()).await.unwrap();
    upload.complete().await.unwrap();
    let parts = swift.with_container(swift.segments_name());
    let part = Path::from(segments(&swift).await.remove(0));
    let at = async |swift: &Swift, path: &Path| -> Option<i64> {
        let result = swift.get(path).await.unwrap();
        Some(result.attributes.get(&Attribute::Metadata("x-delete-at".into()))?.parse().unwrap())
    };
    for (swift, path) in
        [(&swift, &Path::from("a")), (&swift, &Path::from("large")), (&parts, &part)]
    {
        assert!((at(swift, path).await.unwrap() - now() - 1000).abs() < 30, "{path}");
    }
    for expiry in [Expiry::Never, Expiry::After(500), Expiry::At(4_000_000_000)] {
        swift.set_expiry(&"a".into(), expiry).await.unwrap();
        swift.set_expiry(&"large".into(), expiry).await.unwrap();
        let plain = at(&swift, &"a".into()).await;
        assert_eq!(plain.is_none(), expiry == Expiry::Never);
        assert_eq!(at(&parts, &part).await, at(&swift, &"large".into()).await);
        for key in ["a", "large"] {
            let attributes = swift.get(&key.into()).await.unwrap().attributes;
            assert_eq!(
                attributes.get(&Attribute::Metadata("Who".into())).map(|v| v.as_ref()),
                Some("me")
            );
            assert_eq!(
                attributes.get(&Attribute::ContentEncoding).map(|v| v.as_ref()),
                Some("gzip")
            );
        }
    }
    assert_eq!(
        kind(&swift.set_expiry(&"a".into(), Expiry::At(1000)).await.unwrap_err()),
        FailureKind::Rejected
    );
    assert_eq!(text(&swift, "large").await, "one");
    swift.set_expiry(&"a".into(), Expiry::After(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(matches!(swift.head(&"a".into()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn what_swift_cannot_do_is_refused() {
    let swift = Server::Swift.fresh("refused").await;
    let path = Path::from("a");
    let put = swift.put(&path, "first".into()).await.unwrap();
    let update = swift.put_opts(&path, "second".into(), PutMode::Update(put.into()).into()).await;
    assert!(matches!(update, Err(Error::NotImplemented { .. })), "{update:?}");
    let mut tags = object_store::TagSet::default();
    tags.push("a", "b");
    let tagged = swift.put_opts(&path, "second".into(), tags.into()).await;
    assert!(matches!(tagged, Err(Error::NotSupported { .. })), "{tagged:?}");
    assert_eq!(text(&swift, "a").await, "first");
}
