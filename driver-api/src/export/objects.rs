// SPDX-License-Identifier: Apache-2.0
//! The exported objects ability: refuses what is larger than the store takes, then asks the author's code.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RResult, RStr, RString, RVec, Tuple2},
};

use super::{Contained, ask, start};
use crate::{
    Error, Host, IoBuf, ObjectsHandle, Op, OpContext,
    abi::{RawObjects, RawObjects_TO},
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece, Objects,
        PartInfo, PartPage, PutOptions, SignRequest, SignedUrl, UploadInfo, UploadPage,
        UploadQuery,
    },
};

/// The ability as the other side holds it.
pub(super) fn export_objects(objects: Arc<dyn Objects>, host: Host) -> ObjectsHandle {
    let glue = ObjectsGlue { objects: Contained::new(objects, host) };
    ObjectsHandle { raw: RawObjects_TO::from_ptr(RArc::new(glue), TD_Opaque) }
}

struct ObjectsGlue {
    objects: Contained<Arc<dyn Objects>>,
}

impl RawObjects for ObjectsGlue {
    fn features(&self) -> RResult<ObjectFeatures, Error> {
        ask(|| self.objects.features())
    }

    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        start(|| self.objects.create_bucket(cx, spec))
    }

    fn delete_bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<()> {
        start(|| self.objects.delete_bucket(cx, bucket.as_str()))
    }

    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>> {
        start(|| self.objects.buckets(cx))
    }

    fn bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<BucketInfo> {
        start(|| self.objects.bucket(cx, bucket.as_str()))
    }

    fn set_versioning(&self, cx: &OpContext, bucket: RStr<'_>, on: bool) -> Op<BucketInfo> {
        start(|| self.objects.set_versioning(cx, bucket.as_str(), on))
    }

    fn policy(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RString> {
        start(|| self.objects.policy(cx, bucket.as_str()))
    }

    fn set_policy(&self, cx: &OpContext, bucket: RStr<'_>, policy: RStr<'_>) -> Op<()> {
        start(|| self.objects.set_policy(cx, bucket.as_str(), policy.as_str()))
    }

    fn lifecycle(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RVec<LifecycleRule>> {
        start(|| self.objects.lifecycle(cx, bucket.as_str()))
    }

    fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        start(|| self.objects.set_lifecycle(cx, bucket.as_str(), rules))
    }

    fn list(&self, cx: &OpContext, bucket: RStr<'_>, query: ListQuery) -> Op<ListPage> {
        start(|| self.objects.list(cx, bucket.as_str(), query))
    }

    fn head(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo> {
        start(|| self.objects.head(cx, object, conditions))
    }

    fn get(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece> {
        start(|| self.objects.get(cx, object, offset, len, conditions))
    }

    fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo> {
        start(|| self.objects.put(cx, object, data, options))
    }

    fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo> {
        start(|| self.objects.copy(cx, from, to, options))
    }

    fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()> {
        start(|| self.objects.delete(cx, object, conditions))
    }

    fn delete_many(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        start(|| self.objects.delete_many(cx, bucket.as_str(), objects))
    }

    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        start(|| self.objects.tags(cx, object))
    }

    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo> {
        start(|| self.objects.change(cx, object, change))
    }

    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        start(|| self.objects.begin_upload(cx, object, options))
    }

    fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo> {
        start(|| self.objects.put_part(cx, upload, number, data))
    }

    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage> {
        start(|| self.objects.parts(cx, upload, after, limit))
    }

    fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        start(|| self.objects.complete_upload(cx, upload, parts, conditions))
    }

    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()> {
        start(|| self.objects.abort_upload(cx, upload))
    }

    fn uploads(&self, cx: &OpContext, bucket: RStr<'_>, query: UploadQuery) -> Op<UploadPage> {
        start(|| self.objects.uploads(cx, bucket.as_str(), query))
    }

    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        start(|| self.objects.sign(cx, request))
    }
}
