// SPDX-License-Identifier: Apache-2.0
//! The suite of the traits' own crate, for a server of either kind.

use futures_util::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, integration};
use swift::{FailureKind, Swift, Wanted};

use crate::real_servers::{Server, kind, text};

/// All of the suite.
pub async fn conforms(server: Server) {
    let store = |name: &'static str| server.fresh(name);
    integration::put_get_delete_list(&store("objects").await).await;
    integration::get_opts(&store("conditions").await).await;
    if server == Server::Radosgw {
        creation_is_refused(&store("modes").await).await;
    } else {
        integration::put_opts(&store("modes").await, false).await;
        integration::copy_if_not_exists(&store("creation").await).await;
    }
    integration::list_uses_directories_correctly(&store("directories").await).await;
    integration::list_with_delimiter(&store("delimiter").await).await;
    integration::list_with_offset_exclusivity(&store("offset").await).await;
    integration::rename_and_copy(&store("copies").await).await;
    integration::copy_rename_nonexistent_object(&store("missing").await).await;
    integration::stream_get(&store("streams").await).await;
    integration::put_get_attributes(&store("attributes").await).await;
    integration::multipart_race_condition(&store("race").await, true).await;
    integration::multipart_out_of_order(&store("order").await).await;
    let swift = store("nothing").await;
    let error = integration::get_nonexistent_object(&swift, None).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let swift = store("parts").await;
    integration::multipart(&swift, &swift).await;
    integration::multipart_with_opts(&swift, &swift).await;
    integration::multipart_put_part_out_of_order(&swift, &swift).await;
    large_objects_have_conditions(&store("large").await).await;
    whoever_asks_for_versions_is_told_of_all_objects(&store("versions").await).await;
    let swift = store("pages").await;
    if server == Server::Radosgw {
        an_empty_page_is_the_last(&swift).await;
    } else {
        integration::list_paginated(&swift, &swift).await;
    }
    let marked = server.config(store("extensions").await.container_name());
    let swift =
        Swift::with_connector(marked, &integration::MarkerHttpConnector::default()).unwrap();
    integration::response_extensions(&swift, true).await;
}

/// The gateway compares the ETags of large objects with others.
async fn large_objects_have_conditions(swift: &Swift) {
    let key = "large".into();
    let id = swift.create_multipart(&key).await.unwrap();
    let part = swift.put_part(&key, &id, 0, "content".into()).await.unwrap();
    let made = swift.complete_multipart(&key, &id, vec![part]).await.unwrap();
    let etag = swift.head(&key).await.unwrap().e_tag.unwrap();
    assert_eq!(made.e_tag.as_ref(), Some(&etag));
    let other = "00000000000000000000000000000000";
    for head in [false, true] {
        let options = GetOptions { head, ..GetOptions::default() };
        for held in [etag.clone(), format!("\"{etag}\""), "*".to_owned()] {
            let options = options.clone().with_if_match(Some(held));
            assert_eq!(swift.get_opts(&key, options).await.unwrap().meta.size, 7);
        }
        let wanted = options.clone().with_if_match(Some(other));
        let error = swift.get_opts(&key, wanted).await.unwrap_err();
        assert!(matches!(error, Error::Precondition { .. }), "{error}");
        let known = options.clone().with_if_none_match(Some(&etag));
        let error = swift.get_opts(&key, known).await.unwrap_err();
        assert!(matches!(error, Error::NotModified { .. }), "{error}");
        let changed = options.with_if_none_match(Some(other));
        assert_eq!(swift.get_opts(&key, changed).await.unwrap().meta.size, 7);
    }
    let range = GetOptions::new().with_if_match(Some(etag)).with_range(Some(3..7));
    let read = swift.get_opts(&key, range).await.unwrap().bytes().await.unwrap();
    assert_eq!(read, "tent");
}

/// Whether the container keeps versions, or the server could.
async fn whoever_asks_for_versions_is_told_of_all_objects(swift: &Swift) {
    for key in ["a", "b"] {
        swift.put(&key.into(), "x".into()).await.unwrap();
    }
    let wanted = Wanted { prefix: "", delimiter: "", marker: "", versions: Some(""), limit: 10 };
    let lines = swift.list_page(&wanted).await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.latest)).collect();
    assert_eq!(told, [("a", true), ("b", true)]);
}

/// The gateway takes `If-None-Match` and overwrites all the same: that must never pass for a creation.
async fn creation_is_refused(swift: &Swift) {
    swift.put(&"source".into(), "x".into()).await.unwrap();
    swift.put(&"a".into(), "first".into()).await.unwrap();
    for key in ["a", "b"] {
        let error =
            swift.put_opts(&key.into(), "second".into(), PutMode::Create.into()).await.unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        let error = swift.copy_if_not_exists(&"source".into(), &key.into()).await.unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        let id = swift.create_multipart(&key.into()).await.unwrap();
        let error = swift
            .complete_multipart_mode(&key.into(), &id, vec![], PutMode::Create)
            .await
            .unwrap_err();
        assert_eq!(kind(&error), FailureKind::Unsupported, "{error}");
        swift.abort_multipart(&key.into(), &id).await.unwrap();
    }
    assert_eq!(text(swift, "a").await, "first");
    assert_eq!(swift.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

/// A short page of the gateway need not be the last one, so that another is asked for; the suite knows no such servers.
async fn an_empty_page_is_the_last(swift: &Swift) {
    for key in ["a", "b/1", "b/2", "c"] {
        swift.put(&key.into(), "x".into()).await.unwrap();
    }
    let pages = async |options: PaginatedListOptions| {
        let (mut pages, mut options) = (Vec::new(), options);
        loop {
            let page = swift.list_paginated(None, options.clone()).await.unwrap();
            let objects = page.result.objects.into_iter().map(|object| object.location);
            let names = objects.chain(page.result.common_prefixes);
            pages.push(names.map(|name| name.to_string()).collect::<Vec<_>>());
            assert!(pages.len() < 10, "no end of {pages:?}");
            let Some(token) = page.page_token else { return pages };
            options.page_token = Some(token);
        }
    };
    let three = PaginatedListOptions { max_keys: Some(3), ..Default::default() };
    assert_eq!(pages(three.clone()).await, [vec!["a", "b/1", "b/2"], vec!["c"], vec![]]);
    let parted = PaginatedListOptions { delimiter: Some("/".into()), ..three };
    assert_eq!(pages(parted).await, [vec!["a", "c", "b"], vec![]]);
}
