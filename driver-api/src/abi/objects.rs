// SPDX-License-Identifier: Apache-2.0
//! Whole objects, as they cross the boundary.

use abi_stable::{
    sabi_trait,
    std_types::{RResult, RStr, RString, RVec, Tuple2},
};

use crate::{
    Error, IoBuf, Op, OpContext,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece,
        ObjectReading, PartInfo, PartPage, PutOptions, SignRequest, SignedUrl, UploadInfo,
        UploadPage, UploadQuery,
    },
};

/// Since 1.3.
#[sabi_trait]
#[allow(missing_docs)]
pub trait RawObjects: Send + Sync {
    fn features(&self) -> RResult<ObjectFeatures, Error>;
    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo>;
    fn delete_bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<()>;
    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>>;
    fn bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<BucketInfo>;
    fn set_versioning(&self, cx: &OpContext, bucket: RStr<'_>, on: bool) -> Op<BucketInfo>;
    fn policy(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RString>;
    fn set_policy(&self, cx: &OpContext, bucket: RStr<'_>, policy: RStr<'_>) -> Op<()>;
    fn lifecycle(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RVec<LifecycleRule>>;
    fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>>;
    fn list(&self, cx: &OpContext, bucket: RStr<'_>, query: ListQuery) -> Op<ListPage>;
    fn head(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo>;
    fn get(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece>;
    fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo>;
    fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo>;
    fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()>;
    fn delete_many(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>>;
    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>>;
    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo>;
    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo>;
    fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo>;
    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage>;
    fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo>;
    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()>;
    fn uploads(&self, cx: &OpContext, bucket: RStr<'_>, query: UploadQuery) -> Op<UploadPage>;
    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl>;
    #[sabi(last_prefix_field)]
    fn open_read(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Op<ObjectReading>;
}

/// Since 1.3.
#[sabi_trait]
#[allow(missing_docs)]
pub trait RawObjectReader: Send + Sync {
    #[sabi(last_prefix_field)]
    fn next(&self, cx: &OpContext) -> Op<IoBuf>;
}
