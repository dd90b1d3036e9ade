// SPDX-License-Identifier: Apache-2.0
//! The ability for whole objects: names are checked here, and the work is handed to the modules for it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{
    Error, IoBuf, Op, OpContext, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece, Objects,
        PartInfo, PartPage, PutOptions, SignRequest, SignedUrl, UploadInfo, UploadPage,
        UploadQuery,
    },
};

use crate::{
    account::Account,
    config::Kind,
    copy, delete,
    error::{invalid, unsupported},
    features, get,
    names::{check_bucket, check_object},
    put, swift,
};

/// The objects of a backend.
pub(crate) struct ObjectsOf(pub Arc<Account>);

impl ObjectsOf {
    /// Does `work` within the deadline, and counts how it ended.
    fn run<T, F>(
        &self,
        operation: &'static str,
        cx: &OpContext,
        work: impl FnOnce(Arc<Account>, Instant) -> F,
    ) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let until = self.0.until(cx);
        let doing = work(Arc::clone(&self.0), until);
        let account = Arc::clone(&self.0);
        Op::run(async move {
            doing.await.map_err(|error| {
                account.traffic.failed(&error);
                error.during(operation)
            })
        })
    }

    fn refused<T>(&self, operation: &'static str, error: Error) -> Op<T> {
        self.0.traffic.failed(&error);
        Op::err(error.during(operation))
    }

    fn absent<T>(&self, operation: &'static str) -> Op<T> {
        self.refused(operation, unsupported("this is not built yet for this kind of store"))
    }
}

impl Objects for ObjectsOf {
    fn features(&self) -> ObjectFeatures {
        features::of(&self.0)
    }

    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        self.run("create bucket", cx, move |account, until| async move {
            check_bucket(account.kind, &spec.name)?;
            if account.kind == Kind::Swift {
                let store = swift::container(&account, &spec.name)?;
                let made = store.create_container(&spec.name, &Default::default()).await;
                made.map_err(|error| swift::of_swift(&error, "no container"))?;
                return Ok(BucketInfo::new(&spec.name));
            }
            let mut ask = crate::call::Ask::new("create bucket", http::Method::PUT, &spec.name, "");
            if account.kind == Kind::Azure {
                ask = ask.query("restype", "container");
            }
            account.ask_ok(&ask, until).await?;
            Ok(BucketInfo::new(&spec.name))
        })
    }

    fn delete_bucket(&self, _cx: &OpContext, _bucket: &str) -> Op<()> {
        self.absent("delete bucket")
    }

    fn buckets(&self, _cx: &OpContext) -> Op<RVec<BucketInfo>> {
        self.absent("list buckets")
    }

    fn bucket(&self, _cx: &OpContext, _bucket: &str) -> Op<BucketInfo> {
        self.absent("show bucket")
    }

    fn set_versioning(&self, _cx: &OpContext, _bucket: &str, _on: bool) -> Op<BucketInfo> {
        self.absent("set versioning")
    }

    fn policy(&self, _cx: &OpContext, _bucket: &str) -> Op<RString> {
        self.absent("get policy")
    }

    fn set_policy(&self, _cx: &OpContext, _bucket: &str, _policy: &str) -> Op<()> {
        self.absent("set policy")
    }

    fn lifecycle(&self, _cx: &OpContext, _bucket: &str) -> Op<RVec<LifecycleRule>> {
        self.absent("get lifecycle")
    }

    fn set_lifecycle(
        &self,
        _cx: &OpContext,
        _bucket: &str,
        _rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        self.absent("set lifecycle")
    }

    fn list(&self, _cx: &OpContext, _bucket: &str, _query: ListQuery) -> Op<ListPage> {
        self.absent("list objects")
    }

    fn head(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo> {
        self.run("head object", cx, |account, until| async move {
            check_object(account.kind, &object)?;
            match account.kind {
                Kind::Swift => swift::head(&account, &object, &conditions, until).await,
                _ => get::head(&account, &object, &conditions, until).await,
            }
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
        self.run("get object", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            if len > features::MAX_PIECE {
                return Err(invalid(format!(
                    "{len} bytes are more than one piece has: {}",
                    features::MAX_PIECE
                )));
            }
            match account.kind {
                Kind::Swift => swift::get(&account, &object, offset, len, &conditions, until).await,
                _ => get::get(&account, &object, offset, len, &conditions, until).await,
            }
        })
    }

    fn put(
        &self,
        cx: &OpContext,
        object: ObjectName,
        data: IoBuf,
        options: PutOptions,
    ) -> Op<ObjectInfo> {
        self.run("put object", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            if data.len() as u64 > features::MAX_PUT {
                return Err(invalid(format!(
                    "{} bytes are more than are written at once: {}",
                    data.len(),
                    features::MAX_PUT
                ))
                .remedy("write it in parts"));
            }
            let data = Bytes::from(data);
            match account.kind {
                Kind::Swift => swift::put(&account, &object, data, &options, until).await,
                _ => put::put(&account, &object, data, &options, until).await,
            }
        })
    }

    fn copy(
        &self,
        cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo> {
        self.run("copy object", cx, move |account, until| async move {
            check_object(account.kind, &from)?;
            check_object(account.kind, &to)?;
            match account.kind {
                Kind::Swift => swift::copy(&account, &from, &to, &options, until).await,
                _ => copy::copy(&account, &from, &to, &options, until).await,
            }
        })
    }

    fn delete(&self, cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()> {
        self.run("delete object", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            match account.kind {
                Kind::Swift => swift::delete(&account, &object, &conditions, until).await,
                _ => delete::delete(&account, &object, &conditions, until).await,
            }
        })
    }

    fn delete_many(
        &self,
        _cx: &OpContext,
        bucket: &str,
        _objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        match check_bucket(self.0.kind, bucket) {
            Ok(()) => self.absent("delete objects"),
            Err(error) => self.refused("delete objects", error),
        }
    }

    fn tags(&self, _cx: &OpContext, _object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        self.absent("get tags")
    }

    fn change(
        &self,
        _cx: &OpContext,
        _object: ObjectName,
        _change: ObjectChange,
    ) -> Op<ObjectInfo> {
        self.absent("change object")
    }

    fn begin_upload(
        &self,
        _cx: &OpContext,
        _object: ObjectName,
        _options: PutOptions,
    ) -> Op<UploadInfo> {
        self.absent("begin upload")
    }

    fn put_part(
        &self,
        _cx: &OpContext,
        _upload: UploadInfo,
        _number: u32,
        _data: IoBuf,
    ) -> Op<PartInfo> {
        self.absent("put part")
    }

    fn parts(
        &self,
        _cx: &OpContext,
        _upload: UploadInfo,
        _after: u32,
        _limit: u32,
    ) -> Op<PartPage> {
        self.absent("list parts")
    }

    fn complete_upload(
        &self,
        _cx: &OpContext,
        _upload: UploadInfo,
        _parts: RVec<PartInfo>,
        _conditions: Conditions,
    ) -> Op<ObjectInfo> {
        self.absent("complete upload")
    }

    fn abort_upload(&self, _cx: &OpContext, _upload: UploadInfo) -> Op<()> {
        self.absent("abort upload")
    }

    fn uploads(&self, _cx: &OpContext, _bucket: &str, _query: UploadQuery) -> Op<UploadPage> {
        self.absent("list uploads")
    }

    fn sign(&self, _cx: &OpContext, _request: SignRequest) -> Op<SignedUrl> {
        self.absent("sign")
    }
}
