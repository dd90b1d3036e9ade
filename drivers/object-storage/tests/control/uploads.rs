// SPDX-License-Identifier: Apache-2.0
//! Uploads in parts: resumed, completed, under conditions, and left behind.

use driver_api::{
    ErrorKind, RVec,
    ext::{
        BucketSpec, Conditions, ObjectAbilities, ObjectName, PartInfo, PutOptions, UploadInfo,
        UploadQuery,
    },
};

use super::{
    can, content,
    early::completes_under,
    now, put,
    support::{Stage, buf, cx, fresh, noise, pairs, refused},
};

const PART: usize = 5 << 20;

pub async fn begin(stage: &Stage, key: &str, mark: &str) -> UploadInfo {
    let options = PutOptions {
        content_type: "text/x-parts".into(),
        metadata: pairs(&[("colour", "blue")]),
        mark: mark.into(),
        ..PutOptions::default()
    };
    stage.objects.begin_upload(&cx(), stage.object(key), options).await.expect("an upload")
}

async fn part(stage: &Stage, upload: &UploadInfo, number: u32, data: &[u8]) -> PartInfo {
    let put = stage.objects.put_part(&cx(), upload.clone(), number, buf(data)).await;
    put.unwrap_or_else(|error| panic!("part {number}: {error:#}"))
}

pub async fn listed(stage: &Stage, prefix: &str) -> Vec<UploadInfo> {
    let (mut found, mut query) =
        (Vec::new(), UploadQuery { prefix: prefix.into(), limit: 1, ..UploadQuery::default() });
    for _ in 0..1000 {
        let page =
            stage.objects.uploads(&cx(), &stage.bucket, query.clone()).await.expect("uploads");
        found.extend(page.uploads);
        query.page = page.next;
        if query.page.is_empty() {
            return found;
        }
    }
    panic!("no end of uploads");
}

pub async fn uploads(stage: &Stage) {
    let key = "parts/the object";
    let tags = pairs(&[("kind", "a b+c=d")]);
    let options = PutOptions {
        content_type: "text/x-parts".into(),
        metadata: pairs(&[("colour", "blue"), ("content-language", "de")]),
        tags: if can(stage, ObjectAbilities::TAGS) { tags.clone() } else { RVec::new() },
        mark: "0123456789abcdef".into(),
        ..PutOptions::default()
    };
    let both = Conditions { if_match: "00".into(), ..Conditions::create_only() };
    let contradictory = PutOptions { conditions: both, ..options.clone() };
    refused(
        stage.objects.begin_upload(&cx(), stage.object(key), contradictory).await,
        ErrorKind::INVALID_ARGUMENT,
    );
    let upload =
        stage.objects.begin_upload(&cx(), stage.object(key), options).await.expect("an upload");
    assert_eq!((upload.bucket.as_str(), upload.key.as_str()), (stage.bucket.as_str(), key));
    assert!(
        !upload.id.is_empty() && upload.id.bytes().all(|byte| (b'!'..=b'~').contains(&byte)),
        "{}",
        upload.id
    );
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let data = noise(2 * PART + 1000);
    let chunks: Vec<&[u8]> = data.chunks(PART).collect();
    // The numbers have a gap, one part is replaced, and their order is not that of writing.
    let third = part(stage, &upload, 5, chunks[2]).await;
    part(stage, &upload, 1, &noise(PART - 7)).await;
    let first = part(stage, &upload, 1, chunks[0]).await;
    let second = part(stage, &upload, 2, chunks[1]).await;
    for number in [0, stage.objects.features().max_parts + 1] {
        let put = stage.objects.put_part(&cx(), upload.clone(), number, buf(b"x")).await;
        refused(put, ErrorKind::INVALID_ARGUMENT);
    }
    // Who resumes has the id alone, and asks for the parts.
    let page = stage.objects.parts(&cx(), upload.clone(), 0, 2).await.expect("parts");
    assert_eq!(
        page.parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(1, PART as u64), (2, PART as u64)]
    );
    assert!(page.more);
    let rest = stage.objects.parts(&cx(), upload.clone(), 2, 100).await.expect("parts");
    assert_eq!(
        rest.parts.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(5, 1000)]
    );
    assert!(!rest.more);
    for (told, known) in page.parts.iter().chain(&rest.parts).zip([&first, &second, &third]) {
        assert_eq!(told.etag, known.etag);
        let kind = |checksum: &str| checksum.split(':').next().map(str::to_owned);
        let same = kind(&told.checksum) == kind(&known.checksum);
        assert!(!same || told.checksum == known.checksum, "{told:?} {known:?}");
    }
    let found = listed(stage, "parts/").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].key, key);
    assert!(upload.id.starts_with(found[0].id.as_str()), "{} {}", upload.id, found[0].id);
    refused(
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await,
        ErrorKind::NOT_FOUND,
    );

    let parts = RVec::from(vec![first.clone(), second.clone(), third]);
    let disorder = RVec::from(vec![second, first]);
    let complete = |parts: RVec<PartInfo>| {
        stage.objects.complete_upload(&cx(), upload.clone(), parts, Conditions::default())
    };
    refused(complete(disorder).await, ErrorKind::INVALID_ARGUMENT);
    refused(complete(RVec::new()).await, ErrorKind::INVALID_ARGUMENT);
    let made = complete(parts.clone()).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(made.size, data.len() as u64);
    assert!(content(stage, key).await == data, "other bytes");
    let head =
        stage.objects.head(&cx(), stage.object(key), Conditions::default()).await.expect("head");
    assert_eq!(
        (head.etag.as_str(), head.content_type.as_str()),
        (made.etag.as_str(), "text/x-parts")
    );
    assert_eq!(head.metadata, pairs(&[("colour", "blue"), ("content-language", "de")]));
    if can(stage, ObjectAbilities::TAGS) {
        assert_eq!(stage.objects.tags(&cx(), stage.object(key)).await.expect("tags"), tags);
    }
    let again = complete(parts.clone()).await.unwrap_or_else(|error| panic!("again: {error:#}"));
    assert_eq!(again.etag, made.etag);
    assert!(listed(stage, "parts/").await.is_empty());
    // Somebody else's object is not taken for the upload's.
    put(stage, key, b"another").await;
    let error = complete(parts).await.expect_err("another's object");
    assert!([ErrorKind::NOT_FOUND, ErrorKind::TIMED_OUT].contains(&error.kind()), "{error:#}");
    assert_eq!(content(stage, key).await, b"another");
}

pub async fn upload_conditions(stage: &Stage) {
    let key = "parts/conditional";
    let data = noise(3000);
    put(stage, key, b"in the way").await;
    // What the store heeds is known once it was tried out; until then the usual is told.
    let options = PutOptions { conditions: Conditions::create_only(), ..PutOptions::default() };
    stage.objects.put(&cx(), stage.object("tried"), buf(b"x"), options).await.expect("put");
    let upload = begin(stage, key, "aa01").await;
    let parts = RVec::from(vec![part(stage, &upload, 1, &data).await]);
    let complete = |conditions| {
        stage.objects.complete_upload(&cx(), upload.clone(), parts.clone(), conditions)
    };
    refused(complete(Conditions::create_only()).await, ErrorKind::ALREADY_EXISTS);
    assert_eq!(content(stage, key).await, b"in the way");
    let (creates, updates) = completes_under(&stage.name);
    if updates {
        refused(
            complete(Conditions::matching("0123456789abcdef0123456789abcdef")).await,
            ErrorKind::CONFLICT,
        );
        assert_eq!(content(stage, key).await, b"in the way");
        let etag = stage
            .objects
            .head(&cx(), stage.object(key), Conditions::default())
            .await
            .expect("head")
            .etag;
        complete(Conditions::matching(&etag)).await.expect("the condition holds");
        assert_eq!(content(stage, key).await, data);
        // Its own object does not refuse it: it has happened.
        complete(Conditions::matching(&etag)).await.expect("again");
    } else {
        // A condition that holds now need not hold when the store completes the upload.
        let etag = stage.objects.head(&cx(), stage.object(key), Conditions::default()).await;
        let etag = etag.expect("head").etag;
        refused(complete(Conditions::matching(&etag)).await, ErrorKind::UNSUPPORTED);
        assert_eq!(content(stage, key).await, b"in the way");
        complete(Conditions::default()).await.expect("without a condition");
        assert_eq!(content(stage, key).await, data);
    }
    if !creates {
        return;
    }
    let key = "parts/new";
    let upload = begin(stage, key, "aa02").await;
    let parts = RVec::from(vec![part(stage, &upload, 1, &data).await]);
    for _ in 0..2 {
        let complete = stage.objects.complete_upload(
            &cx(),
            upload.clone(),
            parts.clone(),
            Conditions::create_only(),
        );
        complete.await.expect("nothing was there before");
    }
}

pub async fn abandoned(stage: &Stage) {
    let bucket = fresh("abandoned");
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let object = ObjectName::new(&bucket, "left behind");
    let upload = stage
        .objects
        .begin_upload(&cx(), object.clone(), PutOptions::default())
        .await
        .expect("an upload");
    part(stage, &upload, 1, b"some bytes").await;
    let error = refused(stage.objects.delete_bucket(&cx(), &bucket).await, ErrorKind::IN_USE);
    assert!(format!("{error:#}").contains("left behind"), "{error:#}");
    let page = stage
        .objects
        .uploads(&cx(), &bucket, UploadQuery { limit: 10, ..UploadQuery::default() })
        .await;
    // What a listing tells is enough to give it up, and to know that it is old.
    let found = page.expect("uploads").uploads.into_iter().next().expect("the upload");
    let age = (now() * 1000).abs_diff(found.started_ms);
    // moto says of all uploads that they were begun in 2010.
    assert!(age < 60_000 || stage.name == "moto", "begun at {} of {}", found.started_ms, now());
    stage.objects.abort_upload(&cx(), found).await.expect("abort");
    stage.objects.abort_upload(&cx(), upload.clone()).await.expect("once more");
    refused(stage.objects.head(&cx(), object, Conditions::default()).await, ErrorKind::NOT_FOUND);
    refused(stage.objects.parts(&cx(), upload, 0, 10).await, ErrorKind::NOT_FOUND);
    let page = stage
        .objects
        .uploads(&cx(), &bucket, UploadQuery { limit: 10, ..UploadQuery::default() })
        .await;
    assert!(page.expect("uploads").uploads.is_empty());
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("nothing is left");
}
