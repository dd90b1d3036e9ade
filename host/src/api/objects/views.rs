// SPDX-License-Identifier: Apache-2.0
//! The driver's types as the API shows them, and back.

use std::collections::BTreeMap;

use driver_api::{
    Error, ErrorKind, ROption, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, DeleteOutcome, LifecycleRule, ListPage, ObjectChange, ObjectFeatures,
        ObjectInfo, PartInfo, PartPage, PutOptions, SignedUrl, UploadInfo, UploadPage,
    },
};
use serde::{Deserialize, Deserializer};

use super::types::{
    BeginUpload, BucketView, ChangeObject, DeletedObject, ObjectFeaturesView, ObjectPage,
    ObjectView, PartView, PartsPage, RuleView, SignedView, UploadView, UploadsPage, VersionedKey,
};
use crate::objects::LARGEST_PART;

type Pairs = RVec<Tuple2<RString, RString>>;

fn text(text: RString) -> Option<String> {
    Some(text.into_string()).filter(|text| !text.is_empty())
}

fn number(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

/// How many entries a page is to have: an empty one would be asked for again and again.
pub(super) fn limit(asked: Option<u32>, most: u32) -> Result<u32> {
    match asked {
        Some(0) => Err(Error::new(ErrorKind::INVALID_ARGUMENT, "a limit is 1 or more")),
        asked => Ok(asked.unwrap_or(most).min(most)),
    }
}

fn counted(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn days(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

pub(super) fn map(pairs: Pairs) -> BTreeMap<String, String> {
    pairs.into_iter().map(|Tuple2(name, value)| (name.into(), value.into())).collect()
}

pub(super) fn pairs(map: BTreeMap<String, String>) -> Pairs {
    map.into_iter().map(|(name, value)| Tuple2(name.into(), value.into())).collect()
}

/// Metadata, whose names have lower case.
fn metadata(map: BTreeMap<String, String>) -> Pairs {
    map.into_iter().map(|(name, value)| Tuple2(name.to_lowercase().into(), value.into())).collect()
}

pub(super) fn features(backend: &str, features: &ObjectFeatures) -> ObjectFeaturesView {
    ObjectFeaturesView {
        backend: backend.to_owned(),
        kind: features.kind.to_string(),
        abilities: features.abilities.names().map(str::to_owned).collect(),
        max_object: features.max_object,
        max_put: features.max_put,
        max_piece: features.max_piece,
        min_part: features.min_part,
        max_part: features.max_part.min(LARGEST_PART),
        max_parts: features.max_parts,
        max_page: features.max_page,
        max_bulk_delete: features.max_bulk_delete,
        max_sign_secs: features.max_sign_secs,
    }
}

/// Text that is there is not empty: a variable that nobody set must not name the latest version, nor lift a condition.
pub(super) fn no_empty_text<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match text.is_empty() {
        true => Err(serde::de::Error::custom("a version or an ETag that is named is not empty")),
        false => Ok(text),
    }
}

pub(super) fn maybe_no_empty_text<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(from)? {
        Some(text) => no_empty_text(serde::de::value::StringDeserializer::new(text)).map(Some),
        None => Ok(None),
    }
}

impl RuleView {
    /// A field that is there and says nothing: it would be left out in silence.
    pub(super) fn says_nothing(&self) -> Option<&'static str> {
        let days = [
            ("expire_days", self.expire_days),
            ("expire_noncurrent_days", self.expire_noncurrent_days),
            ("abort_upload_days", self.abort_upload_days),
            ("transition_days", self.transition_days),
        ];
        let class = self.transition_class.as_deref() == Some("");
        let found = days.into_iter().find(|(_, days)| *days == Some(0)).map(|(field, _)| field);
        found.or(class.then_some("transition_class"))
    }
}

impl From<BucketInfo> for BucketView {
    fn from(info: BucketInfo) -> Self {
        Self {
            name: info.name.into(),
            created_ms: number(info.created_ms),
            region: text(info.region),
            versioning: info.versioning.name().to_owned(),
            objects: counted(info.objects),
            bytes: counted(info.bytes),
        }
    }
}

impl From<ObjectInfo> for ObjectView {
    fn from(info: ObjectInfo) -> Self {
        Self {
            key: info.key.into(),
            version: text(info.version),
            size: info.size,
            etag: text(info.etag),
            modified_ms: number(info.modified_ms),
            expires_ms: number(info.expires_ms),
            content_type: text(info.content_type),
            storage_class: text(info.storage_class),
            checksum: text(info.checksum),
            metadata: map(info.metadata),
            latest: info.latest,
            deleted: info.deleted,
        }
    }
}

impl From<ListPage> for ObjectPage {
    fn from(page: ListPage) -> Self {
        Self {
            objects: page.objects.into_iter().map(Into::into).collect(),
            prefixes: page.prefixes.into_iter().map(RString::into_string).collect(),
            next: text(page.next),
        }
    }
}

impl From<LifecycleRule> for RuleView {
    fn from(rule: LifecycleRule) -> Self {
        Self {
            id: rule.id.into(),
            enabled: rule.enabled,
            prefix: rule.prefix.into(),
            expire_days: days(rule.expire_days),
            expire_noncurrent_days: days(rule.expire_noncurrent_days),
            abort_upload_days: days(rule.abort_upload_days),
            transition_days: days(rule.transition_days),
            transition_class: text(rule.transition_class),
        }
    }
}

impl From<RuleView> for LifecycleRule {
    fn from(rule: RuleView) -> Self {
        Self {
            id: rule.id.into(),
            enabled: rule.enabled,
            prefix: rule.prefix.into(),
            expire_days: rule.expire_days.unwrap_or_default(),
            expire_noncurrent_days: rule.expire_noncurrent_days.unwrap_or_default(),
            abort_upload_days: rule.abort_upload_days.unwrap_or_default(),
            transition_days: rule.transition_days.unwrap_or_default(),
            transition_class: rule.transition_class.unwrap_or_default().into(),
            reserved: [0; 4],
        }
    }
}

pub(super) fn deleted(asked: VersionedKey, outcome: DeleteOutcome) -> DeletedObject {
    let kind = (!outcome.gone).then_some(outcome.kind);
    DeletedObject {
        key: asked.key,
        version: asked.version,
        gone: outcome.gone,
        kind: kind.map(|kind| kind.name().to_owned()),
        code: kind.map(ErrorKind::code),
        reason: text(outcome.reason),
    }
}

impl From<ChangeObject> for ObjectChange {
    fn from(change: ChangeObject) -> Self {
        let text = |text: Option<String>| ROption::from(text.map(RString::from));
        Self {
            content_type: text(change.content_type),
            metadata: change.metadata.map(metadata).into(),
            tags: change.tags.map(pairs).into(),
            storage_class: text(change.storage_class),
            expire_after_secs: change.expire_after_secs.into(),
            reserved: [0; 4],
        }
    }
}

impl From<BeginUpload> for PutOptions {
    fn from(begin: BeginUpload) -> Self {
        Self {
            content_type: begin.content_type.unwrap_or_default().into(),
            metadata: metadata(begin.metadata),
            tags: pairs(begin.tags),
            storage_class: begin.storage_class.unwrap_or_default().into(),
            expire_after_secs: begin.expire_after_secs.unwrap_or_default(),
            mark: begin.mark.unwrap_or_default().into(),
            ..Self::default()
        }
    }
}

impl From<SignedUrl> for SignedView {
    fn from(signed: SignedUrl) -> Self {
        Self {
            url: signed.url.into(),
            method: signed.method.into(),
            headers: map(signed.headers),
            expires: signed.expires,
        }
    }
}

impl From<UploadInfo> for UploadView {
    fn from(upload: UploadInfo) -> Self {
        Self {
            bucket: upload.bucket.into(),
            key: upload.key.into(),
            id: upload.id.into(),
            mark: text(upload.mark),
            started_ms: number(upload.started_ms),
        }
    }
}

impl From<UploadPage> for UploadsPage {
    fn from(page: UploadPage) -> Self {
        Self { uploads: page.uploads.into_iter().map(Into::into).collect(), next: text(page.next) }
    }
}

impl From<PartInfo> for PartView {
    fn from(part: PartInfo) -> Self {
        Self {
            number: part.number,
            size: part.size,
            etag: part.etag.into(),
            checksum: text(part.checksum),
        }
    }
}

impl From<PartView> for PartInfo {
    fn from(part: PartView) -> Self {
        Self {
            number: part.number,
            size: part.size,
            etag: part.etag.into(),
            checksum: part.checksum.unwrap_or_default().into(),
            reserved: [0; 2],
        }
    }
}

impl From<PartPage> for PartsPage {
    fn from(page: PartPage) -> Self {
        Self { parts: page.parts.into_iter().map(Into::into).collect(), more: page.more }
    }
}
