// SPDX-License-Identifier: Apache-2.0
//! What is done with whole objects on every kind of store.

use driver_api::{
    Backend, ErrorKind, HealthState, ROption,
    ext::{
        Conditions, CopyOptions, ListQuery, ObjectAbilities, ObjectChange, PutOptions, SignRequest,
        SignedMethod, UploadQuery,
    },
};

use super::{Stage, buf, cx, noise, pairs, refused};

/// All that is done with a store.
pub async fn exercise(stage: Stage) {
    health(&stage).await;
    round_trip(&stage).await;
    ranges(&stage).await;
    read_conditions(&stage).await;
    write_conditions(&stage).await;
    copies(&stage).await;
    deletes(&stage).await;
    listings(&stage).await;
    tags(&stage).await;
    uploads(&stage).await;
    many(&stage).await;
    signed(&stage).await;
    names(&stage).await;
    odd_names(&stage).await;
    figures(&stage);
}

fn can(stage: &Stage, ability: ObjectAbilities) -> bool {
    stage.objects.features().abilities.has(ability)
}

/// The store is well.
pub async fn health(stage: &Stage) {
    let health = stage.backend.health(&cx()).await.expect("health");
    assert_eq!(health.state, HealthState::HEALTHY, "{}", health.reason);
}

/// What is written is read, with all that is said of it.
pub async fn round_trip(stage: &Stage) {
    for (key, size) in [("one", 1), ("some", 100_000), ("a/b/c d+e%2Fü", 3), ("empty", 0)] {
        let data = noise(size);
        let options = PutOptions {
            content_type: "text/x-test".into(),
            metadata: pairs(&[("colour", "blue & green"), ("cache-control", "no-store")]),
            mark: "abcdef".into(),
            ..PutOptions::default()
        };
        let put = stage.objects.put(&cx(), stage.object(key), buf(&data), options).await;
        let put = put.unwrap_or_else(|error| panic!("{key}: {error:#}"));
        assert_eq!(put.size, size as u64);
        let head = stage.objects.head(&cx(), stage.object(key), Conditions::default()).await;
        let head = head.expect("head");
        assert_eq!((head.key.as_str(), head.size), (key, size as u64));
        assert_eq!(head.etag, put.etag);
        assert_eq!(head.content_type, "text/x-test");
        assert_eq!(
            head.metadata,
            pairs(&[("cache-control", "no-store"), ("colour", "blue & green")])
        );
        assert!(head.modified_ms > 1_700_000_000_000);
        let get = stage.objects.get(&cx(), stage.object(key), 0, 1 << 20, Conditions::default());
        let get = get.await.unwrap_or_else(|error| panic!("{key}: {error:#}"));
        assert!(get.data[..] == data[..], "{key}");
        assert_eq!((get.object.size, &get.object.etag), (size as u64, &put.etag));
        assert_eq!(get.object.metadata, head.metadata);
    }
    if can(stage, ObjectAbilities::OBJECT_EXPIRY) {
        let options = PutOptions { expire_after_secs: 3600, ..PutOptions::default() };
        stage.objects.put(&cx(), stage.object("expires"), buf(b"x"), options).await.expect("put");
        let head = stage.objects.head(&cx(), stage.object("expires"), Conditions::default());
        let left = head.await.expect("head").expires_ms / 1000 - now();
        assert!((3500..=3600).contains(&left), "{left}");
    } else {
        let options = PutOptions { expire_after_secs: 3600, ..PutOptions::default() };
        let put = stage.objects.put(&cx(), stage.object("expires"), buf(b"x"), options).await;
        refused(put, ErrorKind::UNSUPPORTED);
    }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// Ranges of content.
pub async fn ranges(stage: &Stage) {
    let (object, data) = (stage.object("ranges"), noise(300_000));
    stage.objects.put(&cx(), object.clone(), buf(&data), PutOptions::default()).await.expect("put");
    for (offset, len, expected) in [
        (0, 10, 0..10),
        (5, 1, 5..6),
        (100_000, 200_000, 100_000..300_000),
        (299_999, 4096, 299_999..300_000),
        (0, 300_000, 0..300_000),
        (0, 300_001, 0..300_000),
        (7, 0, 0..0),
    ] {
        let get = stage.objects.get(&cx(), object.clone(), offset, len, Conditions::default());
        let piece = get.await.unwrap_or_else(|error| panic!("{offset}+{len}: {error:#}"));
        assert!(piece.data[..] == data[expected], "{offset}+{len}");
        assert_eq!((piece.offset, piece.object.size), (offset, 300_000));
    }
    for offset in [300_000, 300_001, u64::MAX] {
        let get = stage.objects.get(&cx(), object.clone(), offset, 1, Conditions::default()).await;
        refused(get, ErrorKind::INVALID_ARGUMENT);
    }
    if can(stage, ObjectAbilities::STREAM) {
        in_order(stage, &object, &data).await;
    }
}

/// The same by one request, from any place to its end.
async fn in_order(stage: &Stage, object: &driver_api::ext::ObjectName, data: &[u8]) {
    for (offset, len) in [(0, u64::MAX), (0, 300_000), (0, 1), (70_000, 200_000), (299_999, 9)] {
        let opening =
            stage.objects.open_read(&cx(), object.clone(), offset, len, Conditions::default());
        let opened = opening.await.unwrap_or_else(|error| panic!("{offset}+{len}: {error:#}"));
        let expected = &data[offset as usize..offset.saturating_add(len).min(300_000) as usize];
        assert_eq!((opened.offset, opened.len), (offset, expected.len() as u64));
        let mut found = Vec::new();
        loop {
            match opened.reader.next(&cx()).await.expect("bytes") {
                bytes if bytes.is_empty() => break,
                bytes => found.extend_from_slice(&bytes),
            }
        }
        assert!(found == expected, "{offset}+{len}: {} bytes", found.len());
    }
    for offset in [300_000, u64::MAX] {
        let opening =
            stage.objects.open_read(&cx(), object.clone(), offset, 1, Conditions::default()).await;
        refused(opening, ErrorKind::INVALID_ARGUMENT);
    }
    let empty = stage.object("ranges-none");
    stage.objects.put(&cx(), empty.clone(), buf(b""), PutOptions::default()).await.expect("put");
    let opening = stage.objects.open_read(&cx(), empty, 0, u64::MAX, Conditions::default());
    let opened = opening.await.expect("an empty object");
    assert_eq!(opened.len, 0);
    assert!(opened.reader.next(&cx()).await.expect("the end").is_empty());
}

async fn read_conditions(stage: &Stage) {
    let object = stage.object("conditions");
    let put = stage.objects.put(&cx(), object.clone(), buf(b"content"), PutOptions::default());
    let etag = put.await.expect("put").etag;
    let get = |conditions| stage.objects.get(&cx(), object.clone(), 0, 100, conditions);
    get(Conditions::matching(&etag)).await.expect("the same object");
    refused(
        get(Conditions::matching("0123456789abcdef0123456789abcdef")).await,
        ErrorKind::CONFLICT,
    );
    let unless = Conditions { if_none_match: etag.clone(), ..Conditions::default() };
    refused(get(unless.clone()).await, ErrorKind::CONFLICT);
    refused(stage.objects.head(&cx(), object.clone(), unless).await, ErrorKind::CONFLICT);
    let later = Conditions { if_modified_since: now() + 86_400, ..Conditions::default() };
    // A time to come is no condition, by HTTP's own rules; both answers are right.
    if let Err(error) = get(later).await {
        assert_eq!(error.kind(), ErrorKind::CONFLICT, "{error:#}");
    }
    let before = Conditions { if_unmodified_since: 1_000_000_000, ..Conditions::default() };
    refused(get(before).await, ErrorKind::CONFLICT);
    let missing = stage.objects.get(&cx(), stage.object("nothing"), 0, 1, Conditions::default());
    refused(missing.await, ErrorKind::NOT_FOUND);
    let elsewhere = driver_api::ext::ObjectName::new("no-such-bucket-here", "x");
    let error = refused(
        stage.objects.head(&cx(), elsewhere, Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );
    assert!(
        format!("{error:#}").contains("no-such-bucket-here")
            || stage.objects.features().kind == "swift",
        "{error:#}"
    );
}

pub async fn write_conditions(stage: &Stage) {
    let object = stage.object("written");
    let put = |data: &[u8], conditions: Conditions| {
        let options = PutOptions { conditions, ..PutOptions::default() };
        stage.objects.put(&cx(), object.clone(), buf(data), options)
    };
    let first = put(b"first", Conditions::create_only()).await.expect("created");
    let again = put(b"second", Conditions::create_only()).await;
    refused(again, ErrorKind::ALREADY_EXISTS);
    if can(stage, ObjectAbilities::UPDATE) {
        let second = put(b"second", Conditions::matching(&first.etag)).await.expect("updated");
        assert_ne!(first.etag, second.etag);
        refused(put(b"third", Conditions::matching(&first.etag)).await, ErrorKind::CONFLICT);
        let options =
            PutOptions { conditions: Conditions::matching(&first.etag), ..PutOptions::default() };
        let missing = stage.objects.put(&cx(), stage.object("not-there"), buf(b"x"), options).await;
        refused(missing, ErrorKind::CONFLICT);
    } else {
        refused(put(b"third", Conditions::matching(&first.etag)).await, ErrorKind::UNSUPPORTED);
    }
    let expected = if can(stage, ObjectAbilities::UPDATE) { &b"second"[..] } else { b"first" };
    let get = stage.objects.get(&cx(), object, 0, 100, Conditions::default()).await.expect("get");
    assert_eq!(&get.data[..], expected);
    // A writer that comes again with its mark hears that it was its own.
    let options = PutOptions {
        conditions: Conditions::create_only(),
        mark: "77".into(),
        ..PutOptions::default()
    };
    let mine = stage.object("mine");
    stage.objects.put(&cx(), mine.clone(), buf(b"x"), options).await.expect("created");
    let other = PutOptions {
        conditions: Conditions::create_only(),
        mark: "78".into(),
        ..PutOptions::default()
    };
    refused(stage.objects.put(&cx(), mine, buf(b"x"), other).await, ErrorKind::ALREADY_EXISTS);
}

pub async fn copies(stage: &Stage) {
    let (from, to) = (stage.object("copy/source ü"), stage.object("copy/target"));
    let data = noise(70_000);
    let options = PutOptions {
        metadata: pairs(&[("kept", "yes")]),
        content_type: "text/x".into(),
        ..PutOptions::default()
    };
    let put = stage.objects.put(&cx(), from.clone(), buf(&data), options).await.expect("put");
    let copied = stage.objects.copy(&cx(), from.clone(), to.clone(), CopyOptions::default()).await;
    let copied = copied.unwrap_or_else(|error| panic!("copy: {error:#}"));
    assert_eq!(copied.metadata, pairs(&[("kept", "yes")]));
    assert_eq!((copied.size, copied.content_type.as_str()), (70_000, "text/x"));
    let get =
        stage.objects.get(&cx(), to.clone(), 0, 70_000, Conditions::default()).await.expect("get");
    assert!(get.data[..] == data[..]);
    let wrong = CopyOptions {
        source: Conditions::matching("00000000000000000000000000000000"),
        ..CopyOptions::default()
    };
    refused(stage.objects.copy(&cx(), from.clone(), to.clone(), wrong).await, ErrorKind::CONFLICT);
    let right = CopyOptions { source: Conditions::matching(&put.etag), ..CopyOptions::default() };
    stage.objects.copy(&cx(), from.clone(), to.clone(), right).await.expect("copied");
    let create = CopyOptions { target: Conditions::create_only(), ..CopyOptions::default() };
    let again = stage.objects.copy(&cx(), from.clone(), to.clone(), create).await;
    let error = again.expect_err("a target that is there");
    assert!(
        [ErrorKind::ALREADY_EXISTS, ErrorKind::UNSUPPORTED].contains(&error.kind()),
        "{error:#}"
    );
    let said = pairs(&[("cache-control", "no-store"), ("new", "1")]);
    let change = ObjectChange {
        metadata: ROption::RSome(said.clone()),
        content_type: ROption::RSome("text/new".into()),
        ..ObjectChange::default()
    };
    let changed =
        stage.objects.copy(&cx(), from, to, CopyOptions { change, ..CopyOptions::default() }).await;
    match changed {
        Ok(info) => assert_eq!((info.metadata, info.content_type.as_str()), (said, "text/new")),
        Err(error) => assert_eq!(
            (error.kind(), stage.objects.features().kind.as_str()),
            (ErrorKind::UNSUPPORTED, "swift"),
            "{error:#}"
        ),
    }
}

pub async fn deletes(stage: &Stage) {
    let object = stage.object("deleted");
    let put = || stage.objects.put(&cx(), object.clone(), buf(b"x"), PutOptions::default());
    let delete = |conditions| stage.objects.delete(&cx(), object.clone(), conditions);
    let etag = put().await.expect("put").etag;
    let conditional = delete(Conditions::matching("00000000000000000000000000000000")).await;
    let error = conditional.expect_err("another ETag");
    if can(stage, ObjectAbilities::CONDITIONAL_DELETE) {
        assert_eq!(error.kind(), ErrorKind::CONFLICT, "{error:#}");
        delete(Conditions::matching(&etag)).await.expect("deleted");
        refused(delete(Conditions::matching(&etag)).await, ErrorKind::CONFLICT);
    } else {
        assert_eq!(error.kind(), ErrorKind::UNSUPPORTED, "{error:#}");
        stage
            .objects
            .head(&cx(), object.clone(), Conditions::default())
            .await
            .expect("still there");
        delete(Conditions::default()).await.expect("deleted");
    }
    delete(Conditions::default()).await.expect("deleted already");
    refused(
        stage.objects.head(&cx(), object.clone(), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );
    let elsewhere = driver_api::ext::ObjectName::new("no-such-bucket-here", "x");
    refused(
        stage.objects.delete(&cx(), elsewhere, Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );
}

pub async fn listings(stage: &Stage) {
    for key in ["list/a", "list/b", "list/d/1", "list/d/2", "list/e"] {
        let put = stage.objects.put(&cx(), stage.object(key), buf(b"xy"), PutOptions::default());
        put.await.expect("put");
    }
    let (mut found, mut prefixes, mut page) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..10 {
        let query = ListQuery {
            prefix: "list/".into(),
            delimiter: "/".into(),
            limit: 2,
            page: page.as_str().into(),
            ..ListQuery::default()
        };
        let told = stage.objects.list(&cx(), &stage.bucket, query).await.expect("a page");
        assert!(told.objects.len() + told.prefixes.len() <= 2);
        found.extend(told.objects.iter().map(|object| (object.key.to_string(), object.size)));
        prefixes.extend(told.prefixes.iter().map(ToString::to_string));
        page = told.next.to_string();
        if page.is_empty() {
            break;
        }
    }
    let expected = ["list/a", "list/b", "list/e"].map(|key| (key.to_owned(), 2));
    assert_eq!(
        (found.as_slice(), prefixes.as_slice()),
        (&expected[..], &["list/d/".to_owned()][..])
    );
    let query = ListQuery {
        prefix: "list/".into(),
        after: "list/b".into(),
        limit: 100,
        ..ListQuery::default()
    };
    let told = stage.objects.list(&cx(), &stage.bucket, query).await.expect("a page");
    let keys: Vec<&str> = told.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["list/d/1", "list/d/2", "list/e"]);
}

async fn tags(stage: &Stage) {
    let object = stage.object("tagged");
    let wanted = pairs(&[("a b", "1+2"), ("c", "")]);
    let options = PutOptions { tags: wanted.clone(), ..PutOptions::default() };
    let put = stage.objects.put(&cx(), object.clone(), buf(b"x"), options).await;
    if !can(stage, ObjectAbilities::TAGS) {
        refused(put, ErrorKind::UNSUPPORTED);
        return;
    }
    put.expect("put");
    let told = stage.objects.tags(&cx(), object.clone()).await.expect("tags");
    assert_eq!(sorted(told), wanted);
    let copy = stage.object("tagged too");
    stage
        .objects
        .copy(&cx(), object.clone(), copy.clone(), CopyOptions::default())
        .await
        .expect("copied");
    {
        assert_eq!(sorted(stage.objects.tags(&cx(), copy).await.expect("tags")), wanted);
    }
    let other = pairs(&[("new", "1")]);
    let change = ObjectChange {
        tags: ROption::RSome(other.clone()),
        metadata: ROption::RSome(pairs(&[("said", "anew")])),
        ..ObjectChange::default()
    };
    let info = stage.objects.change(&cx(), object.clone(), change).await.expect("changed");
    assert_eq!(info.metadata, pairs(&[("said", "anew")]));
    assert_eq!(stage.objects.tags(&cx(), object.clone()).await.expect("tags"), other);
    let get = stage.objects.get(&cx(), object, 0, 10, Conditions::default()).await.expect("get");
    assert_eq!(&get.data[..], b"x");
}

type Tags = driver_api::RVec<driver_api::Tuple2<driver_api::RString, driver_api::RString>>;

fn sorted(mut tags: Tags) -> Tags {
    tags.sort();
    tags
}

pub async fn uploads(stage: &Stage) {
    let least = stage.objects.features().min_part as usize;
    let (object, parts) =
        (stage.object("in parts"), [noise(least + 1000), noise(least), noise(77)]);
    let options = PutOptions {
        metadata: pairs(&[("in", "parts")]),
        content_type: "text/p".into(),
        ..PutOptions::default()
    };
    let upload = stage.objects.begin_upload(&cx(), object.clone(), options).await.expect("begun");
    refused(
        stage.objects.head(&cx(), object.clone(), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );
    let mut told = Vec::new();
    // Out of order, one twice, and with a gap in the numbers.
    for (number, data) in [(5, &parts[2]), (1, &parts[1]), (1, &parts[0]), (2, &parts[1])] {
        let part = stage.objects.put_part(&cx(), upload.clone(), number, buf(data)).await;
        let part = part.unwrap_or_else(|error| panic!("part {number}: {error:#}"));
        assert_eq!((part.number, part.size), (number, data.len() as u64));
        told.retain(|other: &driver_api::ext::PartInfo| other.number != number);
        told.push(part);
    }
    told.sort_by_key(|part| part.number);
    let page = stage.objects.parts(&cx(), upload.clone(), 0, 100).await.expect("parts");
    let listed: Vec<(u32, u64)> = page.parts.iter().map(|part| (part.number, part.size)).collect();
    let expected: Vec<(u32, u64)> = told.iter().map(|part| (part.number, part.size)).collect();
    assert_eq!(listed, expected);
    let query = UploadQuery { limit: 100, ..UploadQuery::default() };
    let found = stage.objects.uploads(&cx(), &stage.bucket, query.clone()).await.expect("uploads");
    assert!(
        found
            .uploads
            .iter()
            .any(|found| found.key == "in parts" && upload.id.starts_with(found.id.as_str())),
        "{found:?}"
    );
    let conditional = stage.objects.features().abilities.has(ObjectAbilities::CREATE_ONLY_COMPLETE);
    let conditions = if conditional { Conditions::create_only() } else { Conditions::default() };
    let complete = stage.objects.complete_upload(&cx(), upload.clone(), told.into(), conditions);
    let info = complete.await.unwrap_or_else(|error| panic!("complete: {error:#}"));
    let whole = parts.concat();
    assert_eq!(info.size, whole.len() as u64);
    let get = stage
        .objects
        .get(&cx(), object.clone(), 0, 64 << 20, Conditions::default())
        .await
        .expect("get");
    assert!(get.data[..] == whole[..]);
    assert_eq!(get.object.metadata, pairs(&[("in", "parts")]));
    assert_eq!(get.object.content_type, "text/p");
    let upload = stage
        .objects
        .begin_upload(&cx(), stage.object("given up"), PutOptions::default())
        .await
        .expect("begun");
    stage.objects.put_part(&cx(), upload.clone(), 1, buf(b"x")).await.expect("a part");
    stage.objects.abort_upload(&cx(), upload.clone()).await.expect("given up");
    stage.objects.abort_upload(&cx(), upload).await.expect("given up already");
    let found = stage.objects.uploads(&cx(), &stage.bucket, query).await.expect("uploads");
    assert!(found.uploads.is_empty(), "{found:?}");
}

async fn many(stage: &Stage) {
    let keys = ["many/1", "many/2 ü", "many/3&<>"];
    for key in keys {
        let put = stage.objects.put(&cx(), stage.object(key), buf(b"x"), PutOptions::default());
        put.await.expect("put");
    }
    let mut names: Vec<_> = keys.iter().map(|key| stage.object(key)).collect();
    names.push(stage.object("many/none"));
    let outcomes =
        stage.objects.delete_many(&cx(), &stage.bucket, names.into()).await.expect("outcomes");
    assert!(outcomes.len() == 4 && outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    let query = ListQuery { prefix: "many/".into(), limit: 10, ..ListQuery::default() };
    assert!(
        stage.objects.list(&cx(), &stage.bucket, query).await.expect("a page").objects.is_empty()
    );
}

async fn signed(stage: &Stage) {
    let request = |method, secs| SignRequest {
        method,
        object: stage.object("signed"),
        expire_secs: secs,
        ..SignRequest::default()
    };
    for secs in [0, stage.objects.features().max_sign_secs + 1] {
        refused(
            stage.objects.sign(&cx(), request(SignedMethod::GET, secs)).await,
            ErrorKind::INVALID_ARGUMENT,
        );
    }
    let url = stage.objects.sign(&cx(), request(SignedMethod::GET, 60)).await.expect("signed");
    assert!(url.url.contains("signed") && url.expires >= now() + 50, "{url:?}");
}

async fn names(stage: &Stage) {
    for key in ["", "a/../b", "..", "./x", "a\nb", &"k".repeat(1025)] {
        let put =
            stage.objects.put(&cx(), stage.object(key), buf(b"x"), PutOptions::default()).await;
        let error = refused(put, ErrorKind::INVALID_ARGUMENT);
        assert!(!error.remedy_text().is_empty(), "{error:#}");
    }
    for (name, value) in
        [("novastor-mark", "1"), ("Upper", "1"), ("", "1"), ("x", "a\nb"), ("x", " a")]
    {
        let options = PutOptions { metadata: pairs(&[(name, value)]), ..PutOptions::default() };
        let put = stage.objects.put(&cx(), stage.object("named"), buf(b"x"), options).await;
        refused(put, ErrorKind::INVALID_ARGUMENT);
    }
}

/// A name that comes back is the one that went; one that the store would take for another is refused.
async fn odd_names(stage: &Stage) {
    let neighbours = ["odd/a", "odd/a/b", "odd/a b", "odd/A"];
    for key in neighbours {
        let put =
            stage.objects.put(&cx(), stage.object(key), buf(b"neighbour"), PutOptions::default());
        put.await.expect("a neighbour");
    }
    let all = async || {
        let query = ListQuery { prefix: "odd/".into(), limit: 1000, ..ListQuery::default() };
        let page = stage.objects.list(&cx(), &stage.bucket, query).await.expect("a listing");
        let mut keys: Vec<String> = page.objects.iter().map(|one| one.key.to_string()).collect();
        keys.sort_unstable();
        keys
    };
    let before = all().await;
    let long = "odd/".to_owned() + &"k/ü%".repeat(200);
    for key in [
        "odd/",
        "odd/a/",
        "odd//a",
        "odd/a//b",
        "odd//",
        "odd/a+b",
        "odd/a%20b",
        "odd/a%2Fb",
        "odd/%61",
        "odd/a%",
        "odd/a?b",
        "odd/a#b",
        "odd/a&b=c;d",
        "odd/a\\b",
        "odd/\"'<>`{|}^[]",
        "odd/ a",
        "odd/a ",
        "odd/...",
        "odd/.a",
        "odd/a.",
        "odd/~*!$(),:@",
        "odd/ü/\u{1F600}/\u{fffd}",
        "odd/u\u{308}",
        "odd/\u{feff}\u{202e}",
        "odd/%00",
        "odd/&amp;",
        "odd/]]>",
        &long,
    ] {
        let object = stage.object(key);
        let put =
            stage.objects.put(&cx(), object.clone(), buf(key.as_bytes()), PutOptions::default());
        if let Err(error) = put.await {
            assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT, "{key:?}: {error:#}");
            assert_eq!(all().await, before, "{key:?} was refused");
            continue;
        }
        let got = stage.objects.get(&cx(), object.clone(), 0, 2000, Conditions::default()).await;
        let got = got.unwrap_or_else(|error| panic!("{key:?}: {error:#}"));
        assert_eq!(&got.data[..], key.as_bytes(), "{key:?}");
        let mut expected = before.clone();
        expected.push(key.to_owned());
        expected.sort_unstable();
        assert_eq!(all().await, expected, "{key:?}");
        let bulk = stage.objects.delete_many(&cx(), &stage.bucket, vec![object].into()).await;
        assert!(bulk.expect("deleted").iter().all(|one| one.gone), "{key:?}");
        assert_eq!(all().await, before, "{key:?}");
    }
    for key in neighbours {
        let got = stage.objects.get(&cx(), stage.object(key), 0, 2000, Conditions::default()).await;
        assert_eq!(&got.expect("a neighbour").data[..], b"neighbour", "{key:?}");
    }
}

fn figures(stage: &Stage) {
    let stats = stage.backend.stats();
    let value = |name: &str| {
        let found = stats.metrics.iter().filter(|metric| metric.name == name);
        found.map(|metric| metric.value).sum::<f64>()
    };
    assert!(value("requests_total") > 20.0);
    assert!(value("sent_bytes_total") > 400_000.0);
    assert!(value("received_bytes_total") > 400_000.0);
    assert!(value("errors_total") > 5.0);
}
