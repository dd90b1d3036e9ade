// SPDX-License-Identifier: Apache-2.0
//! The exported objects ability: refuses what no store of these features can be asked, then asks the author's code.

mod checks;
mod reading;

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RResult, RStr, RString, RVec, Tuple2},
};

use super::{Contained, ask, start};
use crate::{
    Error, Host, IoBuf, ObjectsHandle, Op, OpContext, Result,
    abi::{RawObjects, RawObjects_TO},
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece,
        ObjectReading, Objects, PartInfo, PartPage, PutOptions, SignRequest, SignedUrl, UploadInfo,
        UploadPage, UploadQuery,
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

/// Starts `call`, which refuses by an error of its own what is not to reach the author's code.
fn start_checked<T>(operation: &str, call: impl FnOnce() -> Result<Op<T>>) -> Op<T> {
    start(|| call().unwrap_or_else(|refusal| Op::err(refusal.during(operation))))
}

impl RawObjects for ObjectsGlue {
    fn features(&self) -> RResult<ObjectFeatures, Error> {
        ask(|| self.objects.features())
    }

    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        start_checked("create bucket", || {
            checks::spec(&spec)?;
            Ok(self.objects.create_bucket(cx, spec))
        })
    }

    fn delete_bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<()> {
        start_checked("delete bucket", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.delete_bucket(cx, bucket.as_str()))
        })
    }

    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>> {
        start(|| self.objects.buckets(cx))
    }

    fn bucket(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<BucketInfo> {
        start_checked("show bucket", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.bucket(cx, bucket.as_str()))
        })
    }

    fn set_versioning(&self, cx: &OpContext, bucket: RStr<'_>, on: bool) -> Op<BucketInfo> {
        start_checked("set versioning", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.set_versioning(cx, bucket.as_str(), on))
        })
    }

    fn policy(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RString> {
        start_checked("get policy", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.policy(cx, bucket.as_str()))
        })
    }

    fn set_policy(&self, cx: &OpContext, bucket: RStr<'_>, policy: RStr<'_>) -> Op<()> {
        start_checked("set policy", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.set_policy(cx, bucket.as_str(), policy.as_str()))
        })
    }

    fn lifecycle(&self, cx: &OpContext, bucket: RStr<'_>) -> Op<RVec<LifecycleRule>> {
        start_checked("get lifecycle", || {
            checks::bucket(&bucket)?;
            Ok(self.objects.lifecycle(cx, bucket.as_str()))
        })
    }

    fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        start_checked("set lifecycle", || {
            checks::lifecycle(&bucket, &rules)?;
            Ok(self.objects.set_lifecycle(cx, bucket.as_str(), rules))
        })
    }

    fn list(&self, cx: &OpContext, bucket: RStr<'_>, query: ListQuery) -> Op<ListPage> {
        start_checked("list objects", || {
            checks::list(&self.objects.features(), &bucket, &query)?;
            Ok(self.objects.list(cx, bucket.as_str(), query))
        })
    }

    fn head(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo> {
        start_checked("head object", || {
            checks::object(&object).and_then(|()| checks::reading(&conditions))?;
            Ok(self.objects.head(cx, object, conditions))
        })
    }

    fn get(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece> {
        start_checked("get object", || {
            checks::get(&self.objects.features(), &object, offset, len, &conditions)?;
            Ok(self.objects.get(cx, object, offset, len, conditions))
        })
    }

    fn open_read(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Op<ObjectReading> {
        let host = self.objects.host.clone();
        start_checked("open object", || {
            checks::open_read(&self.objects.features(), &object, len, &conditions)?;
            let opening = self.objects.open_read(cx, object, offset, len, conditions);
            Ok(opening.map(move |opened| opened.map(|opened| reading::export(opened, host))))
        })
    }

    fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo> {
        start_checked("put object", || {
            checks::put(&self.objects.features(), &object, &data, &options)?;
            Ok(self.objects.put(cx, object, data, options))
        })
    }

    fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo> {
        start_checked("copy object", || {
            checks::copy(&from, &to, &options)?;
            Ok(self.objects.copy(cx, from, to, options))
        })
    }

    fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()> {
        start_checked("delete object", || {
            checks::object(&object).and_then(|()| checks::writing(&conditions))?;
            Ok(self.objects.delete(cx, object, conditions))
        })
    }

    fn delete_many(
        &self,
        cx: &OpContext,
        bucket: RStr<'_>,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        start_checked("delete objects", || {
            checks::delete_many(&self.objects.features(), &bucket, &objects)?;
            Ok(self.objects.delete_many(cx, bucket.as_str(), objects))
        })
    }

    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        start_checked("get tags", || {
            checks::object(&object)?;
            Ok(self.objects.tags(cx, object))
        })
    }

    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo> {
        start_checked("change object", || {
            checks::object(&object).and_then(|()| checks::change(&change))?;
            Ok(self.objects.change(cx, object, change))
        })
    }

    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        start_checked("begin upload", || {
            checks::begin(&object, &options)?;
            Ok(self.objects.begin_upload(cx, object, options))
        })
    }

    fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo> {
        start_checked("put part", || {
            checks::part(&self.objects.features(), &upload, number, &data)?;
            Ok(self.objects.put_part(cx, upload, number, data))
        })
    }

    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage> {
        start_checked("list parts", || {
            checks::parts(&upload, limit)?;
            Ok(self.objects.parts(cx, upload, after, limit))
        })
    }

    fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        start_checked("complete upload", || {
            checks::complete(&self.objects.features(), &upload, &parts, &conditions)?;
            Ok(self.objects.complete_upload(cx, upload, parts, conditions))
        })
    }

    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()> {
        start_checked("abort upload", || {
            checks::upload(&upload)?;
            Ok(self.objects.abort_upload(cx, upload))
        })
    }

    fn uploads(&self, cx: &OpContext, bucket: RStr<'_>, query: UploadQuery) -> Op<UploadPage> {
        start_checked("list uploads", || {
            checks::uploads(&self.objects.features(), &bucket, &query)?;
            Ok(self.objects.uploads(cx, bucket.as_str(), query))
        })
    }

    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        start_checked("sign", || {
            checks::sign(&self.objects.features(), &request)?;
            Ok(self.objects.sign(cx, request))
        })
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
