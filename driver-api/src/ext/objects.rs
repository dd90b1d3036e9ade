// SPDX-License-Identifier: Apache-2.0
//! Whole objects in buckets.

mod bucket;
mod features;
mod lifecycle;
mod listing;
mod object;
mod reading;
mod signing;
mod upload;

use abi_stable::std_types::{RString, RVec, Tuple2};
pub use bucket::{BucketInfo, BucketSpec, Versioning};
pub use features::{ObjectAbilities, ObjectFeatures};
pub use lifecycle::LifecycleRule;
pub use listing::{ListPage, ListQuery};
pub use object::{
    Conditions, CopyOptions, DeleteOutcome, ObjectChange, ObjectInfo, ObjectName, ObjectPiece,
    PutOptions,
};
pub use reading::{ObjectReader, ObjectReading, OpenedObject};
pub use signing::{SignRequest, SignedMethod, SignedUrl};
pub use upload::{PartInfo, PartPage, UploadInfo, UploadPage, UploadQuery};

use crate::{IoBuf, Op, OpContext};

/// Buckets, and the objects in them. Since 1.3. Needs [`Abilities::OBJECTS`](crate::Abilities::OBJECTS).
///
/// An object is seen whole or not at all: what a failed or abandoned write leaves behind is no object. What the store
/// cannot do is absent from [`features`](Self::features), and refused with `Unsupported` and the reason; a driver never
/// does something similar instead. Names are checked by the driver before anything is changed: `InvalidArgument`. A bucket,
/// object, version or upload that is not there: `NotFound`.
///
/// A condition that does not hold is refused with `AlreadyExists` (create-only) or `Conflict`, and nothing was changed. A
/// mutation whose answer was lost is repeated within the deadline; where that cannot tell whether it happened, the answer
/// is `TimedOut`: the outcome is unknown. Every method is `[any thread · backend open]`.
pub trait Objects: Send + Sync {
    /// What the store can do, and its limits. Must not block.
    fn features(&self) -> ObjectFeatures;

    /// Creates a bucket. One of that name that belongs to the caller already, with the same properties: success;
    /// any other: `AlreadyExists`.
    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo>;

    /// Deletes an empty bucket. One that has objects, versions of some or unfinished uploads: `InUse`.
    fn delete_bucket(&self, cx: &OpContext, bucket: &str) -> Op<()>;

    /// All buckets that the credentials may see, by name.
    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>>;

    /// One bucket, with what takes more than one question.
    fn bucket(&self, cx: &OpContext, bucket: &str) -> Op<BucketInfo>;

    /// Has the bucket keep the versions of objects that are overwritten and deleted, or no longer.
    fn set_versioning(&self, cx: &OpContext, bucket: &str, on: bool) -> Op<BucketInfo>;

    /// The bucket's access policy, in the store's own JSON; empty if it has none.
    fn policy(&self, cx: &OpContext, bucket: &str) -> Op<RString>;

    /// Sets the bucket's access policy; an empty one removes it.
    fn set_policy(&self, cx: &OpContext, bucket: &str, policy: &str) -> Op<()>;

    /// The bucket's lifecycle rules, in their order.
    fn lifecycle(&self, cx: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>>;

    /// Replaces the bucket's lifecycle rules; none at all removes them. A rule that the store cannot keep is refused, and
    /// none is set.
    fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: &str,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>>;

    /// A page of the bucket's objects, by key in the order of its bytes.
    fn list(&self, cx: &OpContext, bucket: &str, query: ListQuery) -> Op<ListPage>;

    /// What is known of an object.
    fn head(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo>;

    /// `len` bytes of an object from `offset`, fewer at its end; `len` 0: none, `offset` past the end: `InvalidArgument`
    /// unless both are 0. `len` is at most [`ObjectFeatures::max_piece`]. With
    /// [`Conditions::if_match`] the pieces of one object can be told from those of another that replaced it.
    fn get(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece>;

    /// Opens the bytes of an object from `offset` on for reading in order, by one request where [`get`](Self::get) needs
    /// many: at most `len` of them, which is not 0 and may reach beyond all objects; fewer at its end. `offset` past the
    /// end or at it: `InvalidArgument`, unless it is 0: an empty object has no bytes. An object of which the store tells too
    /// little to go on with it after a lost connection: `Unsupported`; it is read in pieces.
    ///
    /// Needs [`ObjectAbilities::STREAM`].
    fn open_read(
        &self,
        _cx: &OpContext,
        _object: ObjectName,
        _offset: u64,
        _len: u64,
        _conditions: Conditions,
    ) -> Op<OpenedObject> {
        Op::err(super::unsupported("open_read"))
    }

    /// Writes an object whole. At most [`ObjectFeatures::max_put`] bytes.
    fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo>;

    /// Copies an object within the store, which moves the bytes itself.
    fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo>;

    /// Deletes an object, or one version of it. One that is not there: success, as most stores cannot tell.
    fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()>;

    /// Deletes many objects of one bucket, at most [`ObjectFeatures::max_bulk_delete`]. The answer has one outcome for each
    /// name, in their order.
    fn delete_many(
        &self,
        cx: &OpContext,
        bucket: &str,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>>;

    /// The tags of an object.
    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>>;

    /// Changes what is said of an object; its content stays.
    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo>;

    /// Begins an object that is written in parts. The metadata and the mark are the upload's. The conditions in `options`
    /// are those that [`complete_upload`](Self::complete_upload) will be given: where the store would ignore them there,
    /// nothing is begun and they are refused with `Unsupported`, before any part is sent. They are not kept with the upload.
    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo>;

    /// Writes a part; one of that number is replaced. `number` is from 1 to [`ObjectFeatures::max_parts`].
    fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo>;

    /// A page of the parts that an upload has, by number, those after `after`.
    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage>;

    /// Makes the object of its parts, in the order of their numbers, which may have gaps. A completion that is repeated
    /// after it succeeded says so again.
    fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo>;

    /// Gives an upload up, with its parts. One that is not there: success.
    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()>;

    /// A page of the uploads that were begun and neither completed nor given up.
    fn uploads(&self, cx: &OpContext, bucket: &str, query: UploadQuery) -> Op<UploadPage>;

    /// Signs a request, which who has the URL may then send without credentials until it expires.
    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl>;
}
