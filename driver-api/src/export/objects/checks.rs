// SPDX-License-Identifier: Apache-2.0
//! What no store of these features can be asked, whichever it is. What one store cannot do is its driver's to refuse.

use crate::{
    Error, ErrorKind, IoBuf, RString, RVec, Result, Tuple2,
    ext::{
        BucketSpec, Conditions, CopyOptions, LifecycleRule, ListQuery, ObjectAbilities,
        ObjectChange, ObjectFeatures, ObjectName, PartInfo, PutOptions, SignRequest, SignedMethod,
        UploadInfo, UploadQuery,
    },
};

/// The longest key, in bytes.
const LONGEST_KEY: usize = 1024;
/// The longest mark, in hexadecimal digits.
const LONGEST_MARK: usize = 32;

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why.into())
}

fn refuse_unless(holds: bool, why: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(invalid(why)) }
}

/// Words that a later version gives a meaning: what sets them wants something that is not known here.
fn reserved(words: &[u64]) -> Result<()> {
    let is_zero = words.iter().all(|word| *word == 0);
    refuse_unless(is_zero, "a reserved word is not zero: the caller is newer than the driver")
}

pub(super) fn bucket(name: &str) -> Result<()> {
    refuse_unless(!name.is_empty(), "a bucket has a name")
}

fn key(key: &str) -> Result<()> {
    if (1..=LONGEST_KEY).contains(&key.len()) {
        return Ok(());
    }
    Err(invalid(format!("a key has 1 to {LONGEST_KEY} bytes")).with("bytes", key.len()))
}

pub(super) fn object(object: &ObjectName) -> Result<()> {
    bucket(&object.bucket)?;
    key(&object.key)
}

/// An object that is to be written: the store chooses its version.
fn target(name: &ObjectName) -> Result<()> {
    object(name)?;
    refuse_unless(name.version.is_empty(), "a version that is there cannot be written")
}

pub(super) fn spec(spec: &BucketSpec) -> Result<()> {
    bucket(&spec.name)?;
    reserved(&spec.reserved)
}

pub(super) fn reading(conditions: &Conditions) -> Result<()> {
    reserved(&conditions.reserved)
}

pub(super) fn writing(conditions: &Conditions) -> Result<()> {
    reserved(&conditions.reserved)?;
    let timed = conditions.if_modified_since != 0 || conditions.if_unmodified_since != 0;
    refuse_unless(!timed, "conditions of time are for reading only")?;
    let both = !conditions.if_match.is_empty() && !conditions.if_none_match.is_empty();
    refuse_unless(!both, "one write has either `if_match` or `if_none_match`")
}

fn mark(mark: &str) -> Result<()> {
    let is_hex = mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && mark.len() <= LONGEST_MARK {
        return Ok(());
    }
    Err(invalid(format!("a mark has at most {LONGEST_MARK} hexadecimal digits")))
}

fn pairs(what: &str, pairs: &RVec<Tuple2<RString, RString>>) -> Result<()> {
    for (place, Tuple2(name, _)) in pairs.iter().enumerate() {
        refuse_unless(!name.is_empty(), "metadata and tags have names")?;
        if pairs.iter().take(place).any(|earlier| earlier.0 == *name) {
            return Err(invalid(format!("`{name}` is there twice in the {what}")));
        }
    }
    Ok(())
}

fn options(options: &PutOptions) -> Result<()> {
    reserved(&options.reserved)?;
    mark(&options.mark)?;
    pairs("metadata", &options.metadata)?;
    pairs("tags", &options.tags)
}

pub(super) fn put(
    features: &ObjectFeatures,
    name: &ObjectName,
    data: &IoBuf,
    put: &PutOptions,
) -> Result<()> {
    target(name)?;
    options(put)?;
    writing(&put.conditions)?;
    if data.len() as u64 <= features.max_put {
        return Ok(());
    }
    let why = format!("one write has at most {} bytes", features.max_put);
    Err(invalid(why).with("length", data.len()).remedy("write it in parts"))
}

pub(super) fn get(
    features: &ObjectFeatures,
    name: &ObjectName,
    offset: u64,
    len: u32,
    conditions: &Conditions,
) -> Result<()> {
    object(name)?;
    reading(conditions)?;
    let ends = offset.checked_add(len.into()).is_some();
    refuse_unless(ends, "the range ends past all that can be counted")?;
    if len <= features.max_piece {
        return Ok(());
    }
    Err(invalid(format!("one read has at most {} bytes", features.max_piece)).with("length", len))
}

pub(super) fn open_read(
    features: &ObjectFeatures,
    name: &ObjectName,
    len: u64,
    conditions: &Conditions,
) -> Result<()> {
    object(name)?;
    reading(conditions)?;
    refuse_unless(len != 0, "what is opened for reading has at least one byte")?;
    if features.abilities.has(ObjectAbilities::STREAM) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::UNSUPPORTED, "objects of this store are read in pieces"))
}

pub(super) fn change(change: &ObjectChange) -> Result<()> {
    reserved(&change.reserved)?;
    change.metadata.as_ref().map_or(Ok(()), |metadata| pairs("metadata", metadata))?;
    change.tags.as_ref().map_or(Ok(()), |tags| pairs("tags", tags))
}

pub(super) fn copy(from: &ObjectName, to: &ObjectName, options: &CopyOptions) -> Result<()> {
    object(from)?;
    target(to)?;
    reserved(&options.reserved)?;
    reading(&options.source)?;
    writing(&options.target)?;
    change(&options.change)?;
    mark(&options.mark)
}

fn limit(features: &ObjectFeatures, limit: u32) -> Result<()> {
    if (1..=features.max_page).contains(&limit) {
        return Ok(());
    }
    let why = format!("a page has 1 to {} entries", features.max_page);
    Err(invalid(why).with("limit", limit))
}

pub(super) fn list(features: &ObjectFeatures, of: &str, query: &ListQuery) -> Result<()> {
    bucket(of)?;
    reserved(&query.reserved)?;
    limit(features, query.limit)?;
    let both = !query.after.is_empty() && !query.page.is_empty();
    refuse_unless(!both, "a page follows either a key or another page, not both")
}

pub(super) fn uploads(features: &ObjectFeatures, of: &str, query: &UploadQuery) -> Result<()> {
    bucket(of)?;
    reserved(&query.reserved)?;
    limit(features, query.limit)
}

pub(super) fn delete_many(
    features: &ObjectFeatures,
    of: &str,
    objects: &[ObjectName],
) -> Result<()> {
    bucket(of)?;
    for object in objects {
        key(&object.key)?;
        let is_there = object.bucket.is_empty() || object.bucket.as_str() == of;
        refuse_unless(is_there, "all objects of one deletion are in one bucket")?;
    }
    if objects.is_empty() || features.abilities.has(ObjectAbilities::BULK_DELETE) {
        let most = features.max_bulk_delete;
        if objects.len() as u64 <= u64::from(most) {
            return Ok(());
        }
        let why = format!("one deletion has at most {most} objects");
        return Err(invalid(why).with("objects", objects.len()));
    }
    Err(Error::new(ErrorKind::UNSUPPORTED, "this store deletes objects one by one"))
}

pub(super) fn begin(name: &ObjectName, put: &PutOptions) -> Result<()> {
    target(name)?;
    options(put)?;
    writing(&put.conditions)
}

pub(super) fn upload(upload: &UploadInfo) -> Result<()> {
    bucket(&upload.bucket)?;
    key(&upload.key)?;
    reserved(&upload.reserved)?;
    mark(&upload.mark)?;
    refuse_unless(!upload.id.is_empty(), "an upload has an id")
}

fn number(features: &ObjectFeatures, number: u32) -> Result<()> {
    if (1..=features.max_parts).contains(&number) {
        return Ok(());
    }
    let why = format!("parts have numbers from 1 to {}", features.max_parts);
    Err(invalid(why).with("number", number))
}

pub(super) fn part(
    features: &ObjectFeatures,
    of: &UploadInfo,
    place: u32,
    data: &IoBuf,
) -> Result<()> {
    upload(of)?;
    number(features, place)?;
    if data.len() as u64 <= features.max_part {
        return Ok(());
    }
    let why = format!("a part has at most {} bytes", features.max_part);
    Err(invalid(why).with("length", data.len()))
}

pub(super) fn parts(of: &UploadInfo, limit: u32) -> Result<()> {
    upload(of)?;
    refuse_unless(limit != 0, "a page of parts has at least one")
}

pub(super) fn complete(
    features: &ObjectFeatures,
    of: &UploadInfo,
    parts: &[PartInfo],
    conditions: &Conditions,
) -> Result<()> {
    upload(of)?;
    writing(conditions)?;
    refuse_unless(!parts.is_empty(), "an object is made of at least one part")?;
    let mut before = 0;
    for part in parts {
        number(features, part.number)?;
        reserved(&part.reserved)?;
        refuse_unless(part.number > before, "parts are told by number, each once")?;
        before = part.number;
    }
    let is_small = |part: &&PartInfo| part.size < features.min_part && part.number != before;
    if let Some(small) = parts.iter().find(is_small) {
        let why = format!("a part that is not the last has at least {} bytes", features.min_part);
        return Err(invalid(why).with("part", small.number).with("length", small.size));
    }
    let total = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.size));
    if total.is_some_and(|total| total <= features.max_object) {
        return Ok(());
    }
    Err(invalid(format!("an object has at most {} bytes", features.max_object)))
}

pub(super) fn lifecycle(of: &str, rules: &[LifecycleRule]) -> Result<()> {
    bucket(of)?;
    for (place, rule) in rules.iter().enumerate() {
        let in_rule = |error: Error| error.with("rule", place + 1).with("id", &rule.id);
        reserved(&rule.reserved).map_err(in_rule)?;
        let moves = rule.transition_days != 0;
        let acts = moves
            || rule.expire_days != 0
            || rule.expire_noncurrent_days != 0
            || rule.abort_upload_days != 0;
        refuse_unless(acts, "a rule that does nothing").map_err(in_rule)?;
        let whole = moves != rule.transition_class.is_empty();
        let why = "a transition has both a number of days and a storage class";
        refuse_unless(whole, why).map_err(in_rule)?;
        let twice = rules.iter().take(place).any(|earlier| earlier.id == rule.id);
        refuse_unless(rule.id.is_empty() || !twice, "two rules of one name").map_err(in_rule)?;
    }
    Ok(())
}

pub(super) fn sign(features: &ObjectFeatures, request: &SignRequest) -> Result<()> {
    object(&request.object)?;
    reserved(&request.reserved)?;
    let known = [
        SignedMethod::GET,
        SignedMethod::HEAD,
        SignedMethod::PUT,
        SignedMethod::DELETE,
        SignedMethod::PUT_PART,
    ];
    if !known.contains(&request.method) {
        return Err(Error::new(ErrorKind::UNSUPPORTED, "a use of a signed URL is not known"));
    }
    if request.method == SignedMethod::PUT_PART {
        refuse_unless(!request.upload.is_empty(), "a part belongs to an upload")?;
        number(features, request.part)?;
    } else {
        let whole = request.upload.is_empty() && request.part == 0;
        refuse_unless(whole, "only the URL of a part names an upload")?;
    }
    if request.method.http() == "PUT" {
        target(&request.object)?;
    }
    if (1..=features.max_sign_secs).contains(&request.expire_secs) {
        return Ok(());
    }
    let why = format!("a URL is signed for 1 to {} seconds", features.max_sign_secs);
    Err(invalid(why).with("seconds", request.expire_secs))
}
