// SPDX-License-Identifier: Apache-2.0
//! Uploads in parts, from their beginning to their completion.

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions};
use swift::{CreateOnly, Swift};

use crate::now;
use crate::real_servers::{Server, segments, text};

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn uploads_are_listed_resumed_completed_twice_and_aborted() {
    let swift = Server::Swift.fresh("uploads").await;
    let path = Path::from("dir/a");
    let id = swift.create_multipart(&path).await.unwrap();
    let other = swift.create_multipart(&"other".into()).await.unwrap();
    swift.put_part(&path, &id, 1, "two".into()).await.unwrap();
    swift.put_part(&path, &id, 0, "one".into()).await.unwrap();
    swift.put_part(&path, &id, 2, "".into()).await.unwrap();
    swift.put_part(&path, &id, 3, "never used".into()).await.unwrap();

    // As after a crash: nothing is known but the name.
    let swift = Swift::new(Server::Swift.config(swift.container_name())).unwrap();
    let uploads = swift.list_uploads("").await.unwrap();
    assert_eq!(uploads.iter().map(|upload| &upload.id).collect::<Vec<_>>(), [&id, &other]);
    let uploads = swift.list_uploads("dir/").await.unwrap();
    assert_eq!((uploads.len(), &uploads[0].path, &uploads[0].id), (1, &path, &id));
    assert!((now() - uploads[0].started.timestamp()).abs() < 60);
    let parts = swift.list_parts(&path, &id).await.unwrap();
    let told: Vec<_> = parts.iter().map(|part| (part.index, part.size)).collect();
    assert_eq!(told, [(0, 3), (1, 3), (2, 0), (3, 10)]);
    let parts: Vec<_> = parts.into_iter().take(3).map(|part| part.id).collect();

    let mut wrong = parts.clone();
    wrong.swap(0, 1);
    let error = swift.complete_multipart(&path, &id, wrong).await.unwrap_err();
    assert!(error.to_string().contains("dir/a") && error.to_string().contains("again"), "{error}");
    assert!(matches!(swift.head(&path).await, Err(Error::NotFound { .. })));

    let first = swift.complete_multipart(&path, &id, parts.clone()).await.unwrap();
    assert_eq!(text(&swift, "dir/a").await, "onetwo");
    assert_eq!(segments(&swift).await.iter().filter(|name| name.starts_with("dir/a/")).count(), 2);
    let again = swift.complete_multipart(&path, &id, parts.clone()).await.unwrap();
    assert_eq!(first, again);
    let error = swift.complete_multipart(&path, &id, parts[..1].to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("with other parts"), "{error}");
    let error = swift.abort_multipart(&path, &id).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(text(&swift, "dir/a").await, "onetwo");
    swift.put(&path, "new".into()).await.unwrap();
    let error = swift.complete_multipart(&path, &id, parts).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(text(&swift, "dir/a").await, "new");

    swift.put_part(&"other".into(), &other, 0, "x".into()).await.unwrap();
    swift.abort_multipart(&"other".into(), &other).await.unwrap();
    swift.abort_multipart(&"other".into(), &other).await.unwrap();
    assert_eq!(segments(&swift).await, Vec::<String>::new());
    assert!(swift.list_uploads("").await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn a_completion_may_be_create_only() {
    let swift = Server::Swift.fresh("only").await;
    let path = Path::from("a");
    let mut options = PutMultipartOptions::default();
    options.extensions.insert(CreateOnly);
    let mut first = swift.put_multipart_opts(&path, options.clone()).await.unwrap();
    let mut second = swift.put_multipart_opts(&path, options).await.unwrap();
    first.put_part("first".into()).await.unwrap();
    second.put_part("second".into()).await.unwrap();
    first.complete().await.unwrap();
    let error = second.complete().await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    second.abort().await.unwrap();
    assert_eq!(text(&swift, "a").await, "first");

    let id = swift.create_multipart(&path).await.unwrap();
    let part = swift.put_part(&path, &id, 0, "third".into()).await.unwrap();
    let created =
        swift.complete_multipart_mode(&path, &id, vec![part.clone()], PutMode::Create).await;
    assert!(matches!(created, Err(Error::AlreadyExists { .. })), "{created:?}");
    swift.complete_multipart_mode(&path, &id, vec![part], PutMode::Overwrite).await.unwrap();
    assert_eq!(text(&swift, "a").await, "third");
    assert_eq!(segments(&swift).await.len(), 1);
}
