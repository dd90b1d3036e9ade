// SPDX-License-Identifier: Apache-2.0
//! Objects that are read in order.

use driver_api::{
    Error, ErrorKind, ObjectReaderHandle,
    ext::{Conditions, ObjectAbilities, ObjectReading},
};

use crate::{
    case::Case,
    objects::Bucket,
    volume::{Checked, broken, ensure, refusal, success},
};

/// Reads to the end; the error tells how many bytes came before it.
async fn rest(
    case: &Case<'_>,
    reader: &ObjectReaderHandle,
    most: u64,
) -> Checked<(Vec<u8>, Option<Error>)> {
    let mut found = Vec::new();
    loop {
        match case.answer("next", reader.next(&case.cx())).await? {
            Ok(bytes) if bytes.is_empty() => return Ok((found, None)),
            Ok(bytes) if bytes.len() > ObjectReading::MOST => {
                return broken(format!("{} bytes are given at once", bytes.len()));
            }
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(error) => return Ok((found, Some(error))),
        }
        if found.len() as u64 > most {
            return broken(format!("there are other bytes than {most}: {} so far", found.len()));
        }
    }
}

pub(super) async fn streams(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.needs(ObjectAbilities::STREAM)?;
    let size = bucket.features.max_put.min(3 << 20);
    let mut random = case.random();
    let data = random.bytes(size);
    let written = bucket.put("k", &data).await?;
    let places = (0..case.plan.rounds(20)).map(|_| (random.below(size), random.below(size) + 1));
    let ends = [(0, u64::MAX), (0, size), (size - 1, 1), (size - 1, u64::MAX)];
    for (offset, len) in ends.into_iter().chain(places.collect::<Vec<_>>()) {
        let matching = Conditions::matching(&written.etag);
        let opened = success("open", bucket.try_open("k", offset, len, matching).await?)?;
        let end = size.min(offset.saturating_add(len));
        let told = (opened.offset, opened.len) == (offset, end - offset);
        ensure(told && opened.object.size == size && opened.object.etag == written.etag, || {
            format!("{len} bytes at {offset} are told as {opened:?}")
        })?;
        let (found, failed) = rest(case, &opened.reader, end - offset).await?;
        ensure(failed.is_none(), || format!("reading in order failed: {failed:?}"))?;
        ensure(found[..] == data[offset as usize..end as usize], || {
            format!("{len} bytes at {offset} are other bytes: {} of them", found.len())
        })?;
        let (after, _) = rest(case, &opened.reader, 0).await?;
        ensure(after.is_empty(), || "bytes came after the end".to_owned())?;
    }
    let always = Conditions::default;
    let outside = bucket.try_open("k", size, 1, always()).await?;
    let kinds = [ErrorKind::INVALID_ARGUMENT, ErrorKind::OUT_OF_RANGE];
    refusal("opening past the end", outside, &kinds)?;
    bucket.put("empty", b"").await?;
    let empty = success("open", bucket.try_open("empty", 0, u64::MAX, always()).await?)?;
    let (found, failed) = rest(case, &empty.reader, 0).await?;
    ensure(empty.len == 0 && found.is_empty() && failed.is_none(), || {
        format!("an empty object is opened as {empty:?}")
    })?;
    let opened = success("open", bucket.try_open("k", 0, u64::MAX, always()).await?)?;
    let other: Vec<u8> = data.iter().map(|byte| !byte).collect();
    bucket.put("k", &other).await?;
    // What is on its way already may come, all of it even.
    let (found, failed) = rest(case, &opened.reader, size).await?;
    ensure(data.starts_with(&found) && (failed.is_some() || found.len() == data.len()), || {
        format!("of a replaced object {} bytes came, and {failed:?}", found.len())
    })?;
    let replaced = bucket.try_open("k", 0, 1, Conditions::matching(&written.etag)).await?;
    let what = "opening under the ETag of a replaced object";
    refusal(what, replaced, &[ErrorKind::CONFLICT]).map(|_| ())
}
