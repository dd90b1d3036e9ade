// SPDX-License-Identifier: Apache-2.0
use abi_stable::std_types::{RString, RVec, Tuple2};

use super::{ObjectReaderHandle, ObjectsHandle};
use crate::{
    IoBuf, Op, OpContext, Result,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece,
        ObjectReading, PartInfo, PartPage, PutOptions, SignRequest, SignedUrl, UploadInfo,
        UploadPage, UploadQuery,
    },
};

impl ObjectsHandle {
    /// See [`Objects::features`](crate::ext::Objects::features).
    pub fn features(&self) -> Result<ObjectFeatures> {
        self.raw.features().into()
    }

    /// See [`Objects::create_bucket`](crate::ext::Objects::create_bucket).
    pub fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        self.raw.create_bucket(cx, spec)
    }

    /// See [`Objects::delete_bucket`](crate::ext::Objects::delete_bucket).
    pub fn delete_bucket(&self, cx: &OpContext, bucket: &str) -> Op<()> {
        self.raw.delete_bucket(cx, bucket.into())
    }

    /// See [`Objects::buckets`](crate::ext::Objects::buckets).
    pub fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>> {
        self.raw.buckets(cx)
    }

    /// See [`Objects::bucket`](crate::ext::Objects::bucket).
    pub fn bucket(&self, cx: &OpContext, bucket: &str) -> Op<BucketInfo> {
        self.raw.bucket(cx, bucket.into())
    }

    /// See [`Objects::set_versioning`](crate::ext::Objects::set_versioning).
    pub fn set_versioning(&self, cx: &OpContext, bucket: &str, on: bool) -> Op<BucketInfo> {
        self.raw.set_versioning(cx, bucket.into(), on)
    }

    /// See [`Objects::policy`](crate::ext::Objects::policy).
    pub fn policy(&self, cx: &OpContext, bucket: &str) -> Op<RString> {
        self.raw.policy(cx, bucket.into())
    }

    /// See [`Objects::set_policy`](crate::ext::Objects::set_policy).
    pub fn set_policy(&self, cx: &OpContext, bucket: &str, policy: &str) -> Op<()> {
        self.raw.set_policy(cx, bucket.into(), policy.into())
    }

    /// See [`Objects::lifecycle`](crate::ext::Objects::lifecycle).
    pub fn lifecycle(&self, cx: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>> {
        self.raw.lifecycle(cx, bucket.into())
    }

    /// See [`Objects::set_lifecycle`](crate::ext::Objects::set_lifecycle).
    pub fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: &str,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        self.raw.set_lifecycle(cx, bucket.into(), rules)
    }

    /// See [`Objects::list`](crate::ext::Objects::list).
    pub fn list(&self, cx: &OpContext, bucket: &str, query: ListQuery) -> Op<ListPage> {
        self.raw.list(cx, bucket.into(), query)
    }

    /// See [`Objects::head`](crate::ext::Objects::head).
    pub fn head(
        &self,
        cx: &OpContext,
        object: ObjectName,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        self.raw.head(cx, object, conditions)
    }

    /// See [`Objects::get`](crate::ext::Objects::get).
    pub fn get(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece> {
        self.raw.get(cx, object, offset, len, conditions)
    }

    /// See [`Objects::open_read`](crate::ext::Objects::open_read).
    pub fn open_read(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Op<ObjectReading> {
        self.raw.open_read(cx, object, offset, len, conditions)
    }

    /// See [`Objects::put`](crate::ext::Objects::put).
    pub fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo> {
        self.raw.put(cx, object, data, options)
    }

    /// See [`Objects::copy`](crate::ext::Objects::copy).
    pub fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo> {
        self.raw.copy(cx, from, to, options)
    }

    /// See [`Objects::delete`](crate::ext::Objects::delete).
    pub fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()> {
        self.raw.delete(cx, object, conditions)
    }

    /// See [`Objects::delete_many`](crate::ext::Objects::delete_many).
    pub fn delete_many(
        &self,
        cx: &OpContext,
        bucket: &str,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        self.raw.delete_many(cx, bucket.into(), objects)
    }

    /// See [`Objects::tags`](crate::ext::Objects::tags).
    pub fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        self.raw.tags(cx, object)
    }

    /// See [`Objects::change`](crate::ext::Objects::change).
    pub fn change(
        &self,
        cx: &OpContext,
        object: ObjectName,
        change: ObjectChange,
    ) -> Op<ObjectInfo> {
        self.raw.change(cx, object, change)
    }

    /// See [`Objects::begin_upload`](crate::ext::Objects::begin_upload).
    pub fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        self.raw.begin_upload(cx, object, options)
    }

    /// See [`Objects::put_part`](crate::ext::Objects::put_part).
    pub fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo> {
        self.raw.put_part(cx, upload, number, data)
    }

    /// See [`Objects::parts`](crate::ext::Objects::parts).
    pub fn parts(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        after: u32,
        limit: u32,
    ) -> Op<PartPage> {
        self.raw.parts(cx, upload, after, limit)
    }

    /// See [`Objects::complete_upload`](crate::ext::Objects::complete_upload).
    pub fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        self.raw.complete_upload(cx, upload, parts, conditions)
    }

    /// See [`Objects::abort_upload`](crate::ext::Objects::abort_upload).
    pub fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()> {
        self.raw.abort_upload(cx, upload)
    }

    /// See [`Objects::uploads`](crate::ext::Objects::uploads).
    pub fn uploads(&self, cx: &OpContext, bucket: &str, query: UploadQuery) -> Op<UploadPage> {
        self.raw.uploads(cx, bucket.into(), query)
    }

    /// See [`Objects::sign`](crate::ext::Objects::sign).
    pub fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        self.raw.sign(cx, request)
    }
}

impl ObjectReaderHandle {
    /// See [`ObjectReader::next`](crate::ext::ObjectReader::next).
    pub fn next(&self, cx: &OpContext) -> Op<IoBuf> {
        self.raw.next(cx)
    }
}
