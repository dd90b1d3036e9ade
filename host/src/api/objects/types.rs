// SPDX-License-Identifier: Apache-2.0
//! Bodies of requests and answers about buckets and objects, shared by the server and the command line.
//!
//! What a store does not say is absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::types::JobView;

/// The header with a version of an object.
pub const VERSION: &str = "novastor-version";
/// The header with a sum over an object's whole content, such as `crc32c:` and hexadecimal digits.
pub const CHECKSUM: &str = "novastor-checksum";
/// The header with a writer's mark.
pub const MARK: &str = "novastor-mark";
/// What begins the headers of metadata. What follows is the name, in lower case; values are percent-encoded where they
/// are not printable ASCII, and where they have a percent sign.
pub const META: &str = "novastor-meta-";
/// The header with tags, as in a form: `name=value&name=value`, percent-encoded.
pub const TAGS: &str = "novastor-tags";
/// The header with a storage class.
pub const STORAGE_CLASS: &str = "novastor-storage-class";
/// The header with the seconds after which an object goes.
pub const EXPIRE_AFTER: &str = "novastor-expire-after";
/// The header of an answer with the moment at which an object goes, in milliseconds since 1970.
pub const EXPIRES: &str = "novastor-expires-ms";
/// The headers of HTTP that go with an object as its metadata.
pub const HTTP_METADATA: [&str; 4] =
    ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// What a backend's object store can do, and its limits. Sizes are bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ObjectFeaturesView {
    /// The backend.
    pub backend: String,
    /// The kind of store, such as `s3`.
    pub kind: String,
    /// The names of its abilities, such as `create-only`.
    pub abilities: Vec<String>,
    /// The largest object.
    pub max_object: u64,
    /// The most bytes of one write.
    pub max_put: u64,
    /// The most bytes of one read.
    pub max_piece: u32,
    /// The least bytes of a part that is not an upload's last.
    pub min_part: u64,
    /// The most bytes of a part: the store's limit, or the host's if that is less.
    pub max_part: u64,
    /// The highest number of a part.
    pub max_parts: u32,
    /// The most entries of a page.
    pub max_page: u32,
    /// The most names of a bulk deletion.
    pub max_bulk_delete: u32,
    /// The longest life of a signed URL, in seconds.
    pub max_sign_secs: u64,
}

impl ObjectFeaturesView {
    /// Whether the store has the ability of this name.
    pub fn has(&self, ability: &str) -> bool {
        self.abilities.iter().any(|name| name == ability)
    }
}

/// A bucket.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct BucketView {
    /// Its name.
    pub name: String,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: Option<u64>,
    /// Where it is.
    pub region: Option<String>,
    /// `off`, `on`, `suspended` or `unknown`.
    pub versioning: String,
    /// How many objects it has.
    pub objects: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

/// A bucket to be created.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct CreateBucket {
    /// Its name.
    pub name: String,
    /// Where it is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether it keeps versions from the beginning.
    #[serde(default)]
    pub versioning: bool,
    /// The store's own options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Query of a bucket's deletion: consent to what goes with it. With any, the answer is a job.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DeleteBucket {
    /// Its objects.
    #[serde(default)]
    pub objects: bool,
    /// Their versions, those that are not the latest too.
    #[serde(default)]
    pub versions: bool,
    /// Unfinished uploads.
    #[serde(default)]
    pub uploads: bool,
}

/// What became of a deletion.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct BucketDeleted {
    /// The job that empties the bucket and then deletes it; none: it is gone.
    pub job: Option<JobView>,
}

/// Whether a bucket is to keep versions.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(deny_unknown_fields)]
pub struct SetVersioning {
    /// Whether it is.
    pub on: bool,
}

/// A bucket's lifecycle rules.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// The rules, in their order.
    pub rules: Vec<RuleView>,
}

fn yes() -> bool {
    true
}

/// A lifecycle rule. Absent days are not set.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RuleView {
    /// Its name within the bucket.
    #[serde(default)]
    pub id: String,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The keys that it is for begin with this.
    #[serde(default)]
    pub prefix: String,
    /// Objects go after so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_days: Option<u32>,
    /// Versions that are no longer the latest go after so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_noncurrent_days: Option<u32>,
    /// Unfinished uploads go after so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_upload_days: Option<u32>,
    /// Objects move to `transition_class` after so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition_days: Option<u32>,
    /// The storage class that they move to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition_class: Option<String>,
}

/// An object, a version of it, or the marker that it was deleted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ObjectView {
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: Option<String>,
    /// Its bytes.
    pub size: u64,
    /// What changes whenever its content does, without quotes.
    pub etag: Option<String>,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: Option<u64>,
    /// When it will go, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its storage class, unless it is the usual one.
    pub storage_class: Option<String>,
    /// A sum over its whole content, such as `crc32c:` or `md5:` and hexadecimal digits.
    pub checksum: Option<String>,
    /// What its writer said of it. Listings tell none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Whether it is the latest version.
    pub latest: bool,
    /// Whether it is only the marker of a deletion.
    pub deleted: bool,
}

/// Query of a listing.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListObjects {
    /// Only keys that begin with this.
    #[serde(default)]
    pub prefix: String,
    /// Keys that have this after the prefix are told once, as a common prefix.
    #[serde(default)]
    pub delimiter: String,
    /// Only keys after this one; not together with `page`.
    #[serde(default)]
    pub after: String,
    /// [`ObjectPage::next`] of the page before.
    #[serde(default)]
    pub page: String,
    /// At most so many entries; absent: as many as the store gives at once, or all of them in an answer of many pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Versions too.
    #[serde(default)]
    pub versions: bool,
}

/// A page of a listing.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// Objects, by key.
    pub objects: Vec<ObjectView>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// What the next page is asked for with; none: this was the last one.
    pub next: Option<String>,
}

/// Objects of a bucket that are to be deleted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DeleteObjects {
    /// Which.
    pub delete: Vec<VersionedKey>,
}

/// An object or a version of it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct VersionedKey {
    /// Its key.
    pub key: String,
    /// Its version; none: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "super::views::maybe_no_empty_text")]
    pub version: Option<String>,
}

/// What became of objects that were to be deleted, in their order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeletedObjects {
    /// One for each.
    pub outcomes: Vec<DeletedObject>,
}

/// What became of one of them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeletedObject {
    /// Its key.
    pub key: String,
    /// Its version, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it is gone.
    pub gone: bool,
    /// The name of the error's kind, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The number of that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Query of `DELETE …/objects`: all objects under a prefix go, by a job.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DeletePrefix {
    /// Their keys begin with this; empty: all keys do.
    pub prefix: String,
    /// All their versions too.
    #[serde(default)]
    pub versions: bool,
    /// Unfinished uploads of such keys too.
    #[serde(default)]
    pub uploads: bool,
}

/// The tags of an object.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ObjectTags {
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

/// What is to be said of an object; what is absent stays.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ChangeObject {
    /// Its content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// All of its metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// All of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Its storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// It goes after so many seconds from now; 0: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after_secs: Option<u64>,
}

/// A copy of an object within the backend. The version of the source is in the query.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CopyObject {
    /// The bucket of the target.
    pub to_bucket: String,
    /// The key of the target.
    pub to_key: String,
    /// Only if the source has this ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_if_match: Option<String>,
    /// Only if the target has this ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// Only if there is no target.
    #[serde(default)]
    pub create_only: bool,
    /// What is to be said of the target instead of what is said of the source.
    #[serde(default)]
    pub change: ChangeObject,
    /// The writer's mark: 1 to 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// A request that is to be signed. The object's version is in the query.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SignObject {
    /// `GET`, `HEAD`, `PUT`, `DELETE` or `PUT-PART`.
    pub method: String,
    /// For how long, in seconds.
    pub expire_secs: u64,
    /// The upload, for a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// The part's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
}

/// A signed request.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SignedView {
    /// Its URL.
    pub url: String,
    /// The method of HTTP to be used.
    pub method: String,
    /// Headers that must be sent with it.
    pub headers: BTreeMap<String, String>,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

/// An upload to be begun. `If-Match` and `If-None-Match` of the request are those that its completion will have: what the
/// store would ignore there is refused before anything is sent. The completion has to name them again.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BeginUpload {
    /// The key of the object.
    pub key: String,
    /// Its content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What is to be said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Its storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// It goes after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after_secs: Option<u64>,
    /// The writer's mark: 1 to 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// An upload that is not finished.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct UploadView {
    /// The bucket.
    pub bucket: String,
    /// The key of the object.
    pub key: String,
    /// The store's name for the upload.
    pub id: String,
    /// The writer's mark, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// When it was begun, in milliseconds since 1970.
    pub started_ms: Option<u64>,
}

/// Query of a listing of uploads.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ListUploads {
    /// Only those of keys that begin with this.
    #[serde(default)]
    pub prefix: String,
    /// [`UploadsPage::next`] of the page before.
    #[serde(default)]
    pub page: String,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A page of uploads.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct UploadsPage {
    /// The uploads, by key.
    pub uploads: Vec<UploadView>,
    /// What the next page is asked for with; none: this was the last one.
    pub next: Option<String>,
}

/// Query of all that is about one upload.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct OfUpload {
    /// The key of the object.
    pub key: String,
    /// The mark that it was begun with.
    #[serde(default)]
    pub mark: String,
    /// Of a listing of parts: those after this number.
    #[serde(default)]
    pub after: u32,
    /// Of a listing of parts: at most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A part of an upload.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PartView {
    /// Its number, from 1.
    pub number: u32,
    /// Its bytes.
    pub size: u64,
    /// The store's name for its content.
    pub etag: String,
    /// A sum over its content, such as `crc32c:` or `md5:` and hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// A page of an upload's parts.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PartsPage {
    /// The parts, by number.
    pub parts: Vec<PartView>,
    /// Whether there are more after the last one of these.
    pub more: bool,
}

/// An upload that is to become an object. The headers `If-Match` and `If-None-Match` say when.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CompleteUpload {
    /// The parts that it is made of, by number.
    pub parts: Vec<PartView>,
}
