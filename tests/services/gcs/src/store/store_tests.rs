// SPDX-License-Identifier: Apache-2.0
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::body::Received;
use crate::json::new_bucket;

fn store(dir: &TempDir) -> Store {
    Store::open(dir.path()).unwrap()
}

fn with_bucket(dir: &TempDir) -> Store {
    let store = store(dir);
    store.create_bucket(new_bucket("bucket", "project").unwrap()).unwrap();
    store
}

fn received(store: &Store, size: u64) -> Received {
    let piece = Piece::unowned(store.new_file()).with_size(size);
    fs::write(&piece.path, "x").unwrap();
    Received { piece: Arc::new(piece), crc32c: 0, md5: [1; 16] }
}

fn put(store: &Store, name: &str) -> Arc<Object> {
    let new = NewObject {
        bucket: "bucket".to_owned(),
        name: name.to_owned(),
        pieces: vec![received(store, 1).piece],
        crc32c: 0,
        md5: None,
        attributes: Attributes::default(),
    };
    store.put(new, &Conditions::default()).unwrap()
}

fn files(dir: &TempDir) -> usize {
    fs::read_dir(dir.path().join("files")).unwrap().count()
}

fn names(store: &Store, selection: &Selection) -> Vec<String> {
    // Pages of every size tell the same.
    let whole = pages(store, &Selection { most: 1000, ..selection.clone() });
    for most in 1..=3 {
        assert_eq!(
            pages(store, &Selection { most, ..selection.clone() }),
            whole,
            "pages of {most}"
        );
    }
    whole
}

fn pages(store: &Store, selection: &Selection) -> Vec<String> {
    let (mut told, mut token) = (Vec::new(), None);
    loop {
        let page = store.list("bucket", &Selection { token, ..selection.clone() }).unwrap();
        assert!(page.objects.len() + page.prefixes.len() <= selection.most);
        told.extend(page.objects.iter().map(|object| object.name.clone()));
        told.extend(page.prefixes);
        token = page.token;
        if token.is_none() {
            told.sort();
            return told;
        }
    }
}

#[test]
fn files_go_when_nobody_reads_them() {
    let dir = TempDir::new().unwrap();
    let store = with_bucket(&dir);
    let first = put(&store, "a");
    put(&store, "a");
    assert_eq!(files(&dir), 2);
    drop(first);
    assert_eq!(files(&dir), 1);
    drop(received(&store, 1));
    assert_eq!(files(&dir), 1);
    store.delete("bucket", "a", None, &Conditions::default()).unwrap();
    assert_eq!(files(&dir), 0);
}

#[test]
fn a_store_that_is_opened_again_has_what_it_had() {
    let dir = TempDir::new().unwrap();
    let (object, upload) = {
        let store = with_bucket(&dir);
        put(&store, "a");
        put(&store, "gone");
        store.delete("bucket", "gone", None, &Conditions::default()).unwrap();
        let done = store.begin_upload("bucket", "b", Attributes::default()).unwrap();
        let mut wanted = Vec::new();
        for number in [1, 2] {
            let part = store
                .put_part(("bucket", "b"), &done.id, number, received(&store, 5 << 20))
                .unwrap();
            wanted.push((number, part.etag()));
        }
        store.put_part(("bucket", "b"), &done.id, 3, received(&store, 5 << 20)).unwrap();
        let object = store.complete_upload(("bucket", "b"), &done.id, &wanted).unwrap();
        let upload = store.begin_upload("bucket", "c", Attributes::default()).unwrap();
        store.put_part(("bucket", "c"), &upload.id, 1, received(&store, 1)).unwrap();
        (object.generation, upload.id)
    };
    fs::write(dir.path().join("files/stray"), "of an upload that was killed").unwrap();
    let mut journal = fs::OpenOptions::new().append(true).open(dir.path().join("journal")).unwrap();
    std::io::Write::write_all(&mut journal, b"[{\"BucketGone\":\"bu").unwrap();
    let store = store(&dir);
    assert_eq!(files(&dir), 4, "of a, of both parts of b, of the part of c");
    assert_eq!(names(&store, &Selection::default()), ["a", "b"]);
    let object = store.object("bucket", "b", Some(object)).unwrap();
    assert_eq!(object.size(), 10 << 20);
    assert!(object.pieces.iter().all(|piece| piece.path.exists()));
    assert_eq!(store.upload("bucket", "c", &upload).unwrap().parts.len(), 1);
    put(&store, "d");
    drop(store);
    let store = self::store(&dir);
    assert_eq!(names(&store, &Selection::default()), ["a", "b", "d"]);
}

#[test]
fn listings_tell_common_prefixes_once() {
    let dir = TempDir::new().unwrap();
    let store = with_bucket(&dir);
    for name in ["a", "a/1", "a/2", "a/b/1", "b", "c/1", "c0"] {
        put(&store, name);
    }
    let select = |prefix: &str, delimiter: bool| Selection {
        prefix: prefix.to_owned(),
        delimiter: delimiter.then(|| "/".to_owned()),
        ..Selection::default()
    };
    assert_eq!(names(&store, &select("", false)), ["a", "a/1", "a/2", "a/b/1", "b", "c/1", "c0"]);
    assert_eq!(names(&store, &select("", true)), ["a", "a/", "b", "c/", "c0"]);
    assert_eq!(names(&store, &select("a/", true)), ["a/1", "a/2", "a/b/"]);
    assert_eq!(names(&store, &select("x", true)), Vec::<String>::new());
    let after = |name: &str| Selection { after: Some(name.to_owned()), ..select("", false) };
    assert_eq!(names(&store, &after("a/2")), ["a/b/1", "b", "c/1", "c0"]);
    let between = Selection {
        from: Some("a/2".to_owned()),
        before: Some("c/1".to_owned()),
        ..select("", false)
    };
    assert_eq!(names(&store, &between), ["a/2", "a/b/1", "b"]);
    assert!(store.list("bucket", &Selection::default()).unwrap().objects.is_empty());
}

#[test]
fn old_generations_stay_where_versions_are_kept() {
    let dir = TempDir::new().unwrap();
    let store = with_bucket(&dir);
    let versioned = |bucket: &mut Bucket| {
        bucket.versioning = true;
        Ok(())
    };
    store.change_bucket("bucket", &Conditions::default(), versioned).unwrap();
    let first = put(&store, "a").generation;
    let second = put(&store, "a").generation;
    assert!(second > first);
    store.delete("bucket", "a", None, &Conditions::default()).unwrap();
    assert!(store.object("bucket", "a", None).is_err());
    assert!(!store.object("bucket", "a", Some(first)).unwrap().is_live());
    let all = Selection { versions: true, ..Selection::default() };
    assert_eq!(names(&store, &all), ["a", "a"]);
    assert!(store.delete_bucket("bucket", &Conditions::default()).is_err());
    for generation in [first, second] {
        store.delete("bucket", "a", Some(generation), &Conditions::default()).unwrap();
    }
    assert_eq!(files(&dir), 0);
    store.delete_bucket("bucket", &Conditions::default()).unwrap();
}
