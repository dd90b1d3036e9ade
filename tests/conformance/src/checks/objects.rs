// SPDX-License-Identifier: Apache-2.0
//! Whole objects: buckets, what is written and read, and under which conditions.

use std::sync::Arc;

use driver_api::{
    Error, ErrorKind, IoBuf, ObjectsHandle, RVec, Tuple2,
    ext::{
        Conditions, CopyOptions, ListQuery, ObjectAbilities, ObjectChange, ObjectInfo, ObjectName,
        PutOptions, SignRequest, SignedMethod,
    },
};

use crate::{
    case::Case,
    objects::Bucket,
    volume::{Checked, broken, ensure, not_claimed, refusal, success},
};

/// Keys that stores, URLs and signatures are tempted to change.
const KEYS: &[&str] = &[
    "a", "A", "a b", "a+b", "a%2Fb", "a/b", "a/b/", "a//b", "b?c=d", "b&c", "b#c", "b'c\"d",
    "c=d;e", "ä", "日本", "~x", "z.txt",
];

pub(super) async fn buckets(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let objects = bucket.objects();
    let listed = case.done("buckets", objects.buckets(&case.cx())).await?;
    ensure(listed.iter().any(|one| one.name == *bucket.name()), || {
        format!("{} is not among the buckets", bucket.name())
    })?;
    let shown = case.done("bucket", objects.bucket(&case.cx(), bucket.name())).await?;
    ensure(shown.name == *bucket.name(), || format!("it is shown as {}", shown.name))?;
    bucket.create_again().await?;
    let missing = format!("{}-none", bucket.name());
    let asked = case.answer("bucket", objects.bucket(&case.cx(), &missing)).await?;
    refusal("showing a bucket that is not there", asked, &[ErrorKind::NOT_FOUND])?;
    let asked = case.answer("list", objects.list(&case.cx(), &missing, bucket.page(1))).await?;
    refusal("listing a bucket that is not there", asked, &[ErrorKind::NOT_FOUND])?;
    bucket.put("k", b"x").await?;
    let deleted = case.answer("delete bucket", objects.delete_bucket(&case.cx(), bucket.name()));
    refusal("deleting a bucket with an object", deleted.await?, &[ErrorKind::IN_USE])?;
    bucket.expect("k", b"x", "after its bucket was not deleted").await?;
    bucket.delete("k").await?;
    case.done("delete bucket", objects.delete_bucket(&case.cx(), bucket.name())).await?;
    let asked = case.answer("bucket", objects.bucket(&case.cx(), bucket.name())).await?;
    refusal("showing a deleted bucket", asked, &[ErrorKind::NOT_FOUND]).map(|_| ())
}

pub(super) async fn whole(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let mut random = case.random();
    let mut etags = Vec::new();
    for len in [0, 1, 4095, 65_537, 1 << 20] {
        let len = bucket.features.max_put.min(len);
        let data = random.bytes(len);
        let written = bucket.put("k", &data).await?;
        ensure(written.size == len, || format!("{len} bytes were written as {}", written.size))?;
        bucket.expect("k", &data, "after it was written").await?;
        let head = bucket.head("k").await?;
        ensure(head.etag == written.etag && head.size == len, || {
            format!("the write answered {written:?}, and the head {head:?}")
        })?;
        ensure(head.modified_ms != 0 && head.latest && !head.deleted, || {
            format!("the head of an object is {head:?}")
        })?;
        etags.push(written.etag);
    }
    etags.sort();
    etags.dedup();
    ensure(etags.len() == 5, || format!("5 contents have the ETags {etags:?}"))?;
    let missing = bucket.try_head("none").await?;
    refusal("the head of what is not there", missing, &[ErrorKind::NOT_FOUND])?;
    let missing = bucket.try_get("none", 0, 1, Conditions::default()).await?;
    refusal("reading what is not there", missing, &[ErrorKind::NOT_FOUND]).map(|_| ())
}

fn pairs(pairs: &[(&str, &str)]) -> RVec<Tuple2<driver_api::RString, driver_api::RString>> {
    pairs.iter().map(|(name, value)| Tuple2((*name).into(), (*value).into())).collect()
}

fn has(info: &ObjectInfo, name: &str, value: &str) -> bool {
    info.metadata.iter().any(|pair| pair.0 == name && pair.1 == value)
}

pub(super) async fn metadata(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let options = PutOptions {
        content_type: "text/x-test".into(),
        metadata: pairs(&[("colour", "blue"), ("cache-control", "max-age=5")]),
        ..PutOptions::default()
    };
    success("put", bucket.try_put("k", b"data", options).await?)?;
    let head = bucket.head("k").await?;
    let kept = head.content_type == "text/x-test"
        && has(&head, "colour", "blue")
        && has(&head, "cache-control", "max-age=5");
    ensure(kept, || format!("what was said of an object came back as {head:?}"))?;
    bucket.put("k", b"data").await?;
    let head = bucket.head("k").await?;
    ensure(!has(&head, "colour", "blue"), || {
        "an object has the metadata of the one that it replaced".to_owned()
    })?;
    if !bucket.has(ObjectAbilities::CHANGE_METADATA) {
        return Ok(());
    }
    let change = ObjectChange {
        metadata: Some(pairs(&[("mood", "good")])).into(),
        ..ObjectChange::default()
    };
    let changing = bucket.objects().change(&case.cx(), bucket.named("k"), change);
    case.done("change", changing).await?;
    let head = bucket.head("k").await?;
    ensure(has(&head, "mood", "good"), || format!("after a change the head is {head:?}"))?;
    bucket.expect("k", b"data", "after its metadata was changed").await
}

pub(super) async fn keys(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    for key in KEYS {
        bucket.put(key, key.as_bytes()).await?;
    }
    let mut expected = KEYS.to_vec();
    expected.sort_unstable();
    let found: Vec<String> = bucket.all("").await?;
    ensure(found == expected, || format!("{expected:?} are listed as {found:?}"))?;
    for key in KEYS {
        bucket.expect(key, key.as_bytes(), "under a strange key").await?;
        bucket.delete(key).await?;
    }
    let left = bucket.all("").await?;
    ensure(left.is_empty(), || format!("{left:?} are listed after they were deleted"))
}

pub(super) async fn ranges(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let size = bucket.features.max_put.min(100_000);
    let data = case.random().bytes(size);
    let written = bucket.put("k", &data).await?;
    let mut random = case.random();
    for _ in 0..case.plan.rounds(20) {
        let offset = random.below(size);
        let len = random.below(20_000) + 1;
        let most = u64::from(bucket.features.max_piece);
        let (end, len) = (size.min(offset + len.min(most)), len.min(most) as u32);
        let matching = Conditions::matching(&written.etag);
        let piece = success("get", bucket.try_get("k", offset, len, matching).await?)?;
        let expected = &data[offset as usize..end as usize];
        ensure(piece.offset == offset && piece.data[..] == *expected, || {
            format!("{len} bytes at {offset} gave others: {} at {}", piece.data.len(), piece.offset)
        })?;
        ensure(piece.object.size == size && piece.object.etag == written.etag, || {
            format!("a piece is of {:?}", piece.object)
        })?;
    }
    let outside = bucket.try_get("k", size + 1, 1, Conditions::default()).await?;
    let kinds = [ErrorKind::INVALID_ARGUMENT, ErrorKind::OUT_OF_RANGE];
    refusal("reading past the end", outside, &kinds)?;
    bucket.put("k", b"another").await?;
    let replaced = bucket.try_get("k", 0, 1, Conditions::matching(&written.etag)).await?;
    refusal("reading under the ETag of a replaced object", replaced, &[ErrorKind::CONFLICT])
        .map(|_| ())
}

fn under(conditions: Conditions) -> PutOptions {
    PutOptions { conditions, ..PutOptions::default() }
}

/// What a write says whose condition does not hold.
const LOST: &[ErrorKind] = &[ErrorKind::ALREADY_EXISTS, ErrorKind::CONFLICT];

pub(super) async fn create_only(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::CREATE_ONLY)?;
    let only = || under(Conditions::create_only());
    success("put", bucket.try_put("k", b"first", only()).await?)?;
    let again = bucket.try_put("k", b"second", only()).await?;
    refusal("a create-only write over an object", again, &[ErrorKind::ALREADY_EXISTS])?;
    bucket.expect("k", b"first", "after a refused write").await?;
    let mine = |mark: &str| PutOptions { mark: mark.into(), ..only() };
    success("put", bucket.try_put("m", b"mine", mine("00c0ffee")).await?)?;
    success("the repeated put", bucket.try_put("m", b"mine", mine("00c0ffee")).await?)?;
    let other = bucket.try_put("m", b"mine", mine("0badcafe")).await?;
    refusal("another writer's equal write", other, &[ErrorKind::ALREADY_EXISTS])?;
    let head = bucket.head("m").await?;
    ensure(!head.metadata.iter().any(|pair| pair.1.contains("00c0ffee")), || {
        "the mark is told".to_owned()
    })
}

pub(super) async fn update(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::UPDATE)?;
    let first = bucket.put("k", b"first").await?;
    let matching = || under(Conditions::matching(&first.etag));
    success("put", bucket.try_put("k", b"second", matching()).await?)?;
    let stale = bucket.try_put("k", b"third", matching()).await?;
    refusal("a write under the ETag of a replaced object", stale, &[ErrorKind::CONFLICT])?;
    let missing = bucket.try_put("none", b"x", matching()).await?;
    let kinds = [ErrorKind::CONFLICT, ErrorKind::NOT_FOUND];
    refusal("a write under the ETag of no object", missing, &kinds)?;
    bucket.expect("k", b"second", "after a refused write").await?;
    if bucket.has(ObjectAbilities::CONDITIONAL_DELETE) {
        let stale = Conditions::matching(&first.etag);
        let deleting = bucket.objects().delete(&case.cx(), bucket.named("k"), stale);
        let deleted = case.answer("delete", deleting).await?;
        refusal("a deletion under a stale ETag", deleted, &[ErrorKind::CONFLICT])?;
        bucket.expect("k", b"second", "after a refused deletion").await?;
    }
    Ok(())
}

pub(super) async fn race(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::CREATE_ONLY)?;
    for round in 0..case.plan.rounds(4) {
        let key = format!("k{round}");
        let writers: Vec<_> = (0..8_u8).map(|writer| vec![writer; 1000]).collect();
        let mut writing = tokio::task::JoinSet::new();
        let (objects, cx) = (Arc::new(bucket.objects()), case.cx());
        for data in writers {
            let (objects, cx, name) = (Arc::clone(&objects), cx, bucket.named(&key));
            let options = under(Conditions::create_only());
            writing.spawn(async move {
                let writer = data[0];
                (writer, objects.put(&cx, name, IoBuf::copy_from(&data), options).await)
            });
        }
        let (mut winners, mut unknown) = (Vec::new(), false);
        while let Some(ended) = writing.join_next().await {
            match ended {
                Ok((writer, Ok(_))) => winners.push(writer),
                // Who cannot tell whether it won says so.
                Ok((_, Err(error))) if error.kind() == ErrorKind::TIMED_OUT => unknown = true,
                Ok((_, answer)) => drop(refusal("a create-only write in a race", answer, LOST)?),
                Err(panic) => return broken(format!("a write ended in a panic: {panic}")),
            }
        }
        ensure(winners.len() == 1 || (winners.is_empty() && unknown), || {
            format!("of 8 create-only writes {} succeeded", winners.len())
        })?;
        if let [winner] = winners[..] {
            bucket.expect(&key, &[winner; 1000], "which the winner wrote").await?;
        }
    }
    Ok(())
}

pub(super) async fn listing(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let mut keys: Vec<String> =
        (0..12).map(|number| format!("d{}/{number:02}", number % 3)).collect();
    keys.extend((0..11).map(|number| format!("k{number:02}")));
    for key in &keys {
        bucket.put(key, b"x").await?;
    }
    keys.sort();
    for limit in [3, 7, 1000] {
        let found = bucket.listed(ListQuery { limit, ..ListQuery::default() }).await?.0;
        ensure(found == keys, || format!("in pages of {limit}, {keys:?} are listed as {found:?}"))?;
    }
    let under = ListQuery { prefix: "d1/".into(), ..bucket.page(2) };
    let found = bucket.listed(under).await?.0;
    ensure(found.len() == 4 && found.iter().all(|key| key.starts_with("d1/")), || {
        format!("under d1/ there are {found:?}")
    })?;
    for limit in [2, 1000] {
        let query = ListQuery { delimiter: "/".into(), ..bucket.page(limit) };
        let (found, prefixes) = bucket.listed(query).await?;
        ensure(prefixes == ["d0/", "d1/", "d2/"] && found.len() == 11, || {
            format!("with a delimiter there are {prefixes:?} and {found:?}")
        })?;
    }
    let found = bucket.listed(ListQuery { after: "k07".into(), ..bucket.page(1000) }).await?.0;
    ensure(found == ["k08", "k09", "k10"], || format!("after k07 come {found:?}"))
}

pub(super) async fn deletion(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.delete("never was").await?;
    for key in ["a", "b", "c", "d"] {
        bucket.put(key, b"x").await?;
    }
    bucket.delete("d").await?;
    let gone = bucket.try_head("d").await?;
    refusal("the head of a deleted object", gone, &[ErrorKind::NOT_FOUND])?;
    if !bucket.has(ObjectAbilities::BULK_DELETE) {
        return Ok(());
    }
    let names: RVec<ObjectName> =
        ["a", "never was", "b"].map(|key| bucket.named(key)).to_vec().into();
    let deleting = bucket.objects().delete_many(&case.cx(), bucket.name(), names);
    let outcomes = case.done("delete many", deleting).await?;
    ensure(outcomes.len() == 3 && outcomes.iter().all(|outcome| outcome.gone), || {
        format!("three deletions answered {outcomes:?}")
    })?;
    let left = bucket.all("").await?;
    ensure(left == ["c"], || format!("of a, b and c without a and b there are {left:?}"))
}

pub(super) async fn copies(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let data = case.random().bytes(10_000);
    let options = PutOptions {
        content_type: "text/x-test".into(),
        metadata: pairs(&[("colour", "blue")]),
        ..PutOptions::default()
    };
    success("put", bucket.try_put("from", &data, options).await?)?;
    let copy = |to: &str, options: CopyOptions| {
        let (from, to) = (bucket.named("from"), bucket.named(to));
        bucket.objects().copy(&case.cx(), from, to, options)
    };
    case.done("copy", copy("to/b c", CopyOptions::default())).await?;
    bucket.expect("to/b c", &data, "after a copy").await?;
    let head = bucket.head("to/b c").await?;
    ensure(head.content_type == "text/x-test" && has(&head, "colour", "blue"), || {
        format!("the copy's head is {head:?}")
    })?;
    let stale = CopyOptions { source: Conditions::matching("no"), ..CopyOptions::default() };
    let refused = case.answer("copy", copy("no", stale)).await?;
    refusal("a copy under another ETag", refused, &[ErrorKind::CONFLICT])?;
    let absent = bucket.try_head("no").await?;
    refusal("the head of what was not copied", absent, &[ErrorKind::NOT_FOUND]).map(|_| ())
}

pub(super) async fn tags(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::TAGS)?;
    let options = PutOptions { tags: pairs(&[("team", "a b")]), ..PutOptions::default() };
    success("put", bucket.try_put("k", b"data", options).await?)?;
    let told = async |bucket: &Bucket<'_>| {
        let asking = bucket.objects().tags(&case.cx(), bucket.named("k"));
        case.done("tags", asking).await
    };
    let found = told(&bucket).await?;
    ensure(found == pairs(&[("team", "a b")]), || format!("an object's tags are {found:?}"))?;
    let change =
        ObjectChange { tags: Some(pairs(&[("x", "1")])).into(), ..ObjectChange::default() };
    case.done("change", bucket.objects().change(&case.cx(), bucket.named("k"), change)).await?;
    let found = told(&bucket).await?;
    ensure(found == pairs(&[("x", "1")]), || format!("after a change the tags are {found:?}"))?;
    bucket.expect("k", b"data", "after its tags were changed").await
}

pub(super) async fn signed(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::SIGN)?;
    bucket.put("k", b"data").await?;
    for method in [SignedMethod::GET, SignedMethod::HEAD, SignedMethod::PUT, SignedMethod::DELETE] {
        let request = SignRequest {
            method,
            object: bucket.named("k"),
            expire_secs: 60,
            ..SignRequest::default()
        };
        let signed = case.done("sign", bucket.objects().sign(&case.cx(), request)).await?;
        ensure(signed.url.contains("://") && signed.method == method.http(), || {
            format!("a URL for {} is {signed:?}", method.http())
        })?;
        ensure(signed.expires != 0, || "a signed URL has no end".to_owned())?;
    }
    Ok(())
}

impl Bucket<'_> {
    pub(super) fn needs(&self, ability: ObjectAbilities) -> Checked {
        match self.has(ability) {
            true => Ok(()),
            false => not_claimed(ability.names().collect::<Vec<_>>().join(", ")),
        }
    }

    async fn try_head(&self, key: &str) -> Checked<Result<ObjectInfo, Error>> {
        let heading = self.objects().head(&self.case.cx(), self.named(key), Conditions::default());
        self.case.answer("head", heading).await
    }

    async fn head(&self, key: &str) -> Checked<ObjectInfo> {
        success("head", self.try_head(key).await?)
    }

    async fn delete(&self, key: &str) -> Checked {
        let deleting =
            self.objects().delete(&self.case.cx(), self.named(key), Conditions::default());
        self.case.done("delete", deleting).await
    }
}

/// The ability of the backend.
pub(crate) fn ability(case: &Case<'_>) -> Checked<ObjectsHandle> {
    match success("objects", case.backend().objects())? {
        Some(objects) => Ok(objects),
        None => broken("objects are claimed, but there is no accessor"),
    }
}
