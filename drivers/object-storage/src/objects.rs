// SPDX-License-Identifier: Apache-2.0
//! The ability for whole objects: names are checked here, and the work is handed to the modules for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Op, OpContext, RString, RVec, Result, Retry, Tuple2,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectAbilities, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName,
        ObjectPiece, Objects, OpenedObject, PartInfo, PartPage, PutOptions, SignRequest, SignedUrl,
        UploadInfo, UploadPage, UploadQuery,
    },
};

use crate::{
    account::Account,
    config::Kind,
    control, copy, delete,
    error::{invalid, unsupported},
    features, get, mark,
    names::check_object,
    parts, put, reader, swift,
};

/// What an operation may take beyond its deadline, to find out how it ended.
const GRACE: Duration = Duration::from_secs(3);

fn late() -> Error {
    Error::new(ErrorKind::TIMED_OUT, "nothing came of it within the deadline")
        .with_retry(Retry::PERMANENT)
        .remedy("what was to be changed may have been: look at it before doing it again")
}

/// The objects of a backend.
pub(crate) struct ObjectsOf(pub Arc<Account>);

impl ObjectsOf {
    /// Does `work` within the deadline, and counts how it ended.
    pub(crate) fn run<T, F>(
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
            // All that is asked keeps the deadline by itself, and says more when it cannot. This is for what else may be
            // waited for, as what another operation with a later deadline finds out.
            let done = tokio::time::timeout_at((until + GRACE).into(), doing).await;
            done.unwrap_or_else(|_| Err(late())).map_err(|error| {
                account.traffic.failed(&error);
                error.during(operation)
            })
        })
    }
}

/// When the caller wants an answer at the latest; what copies is given more than `operation_timeout_secs`.
fn latest(cx: &OpContext) -> Option<Instant> {
    cx.time_left().map(|left| Instant::now() + left)
}

impl Objects for ObjectsOf {
    fn features(&self) -> ObjectFeatures {
        features::of(&self.0)
    }

    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        self.run("create bucket", cx, move |account, until| async move {
            control::create_bucket(&account, until, &spec).await
        })
    }

    fn delete_bucket(&self, cx: &OpContext, bucket: &str) -> Op<()> {
        let bucket = bucket.to_owned();
        self.run("delete bucket", cx, move |account, until| async move {
            control::delete_bucket(&account, until, &bucket).await
        })
    }

    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>> {
        self.run("list buckets", cx, move |account, until| async move {
            control::buckets(&account, until).await
        })
    }

    fn bucket(&self, cx: &OpContext, bucket: &str) -> Op<BucketInfo> {
        let bucket = bucket.to_owned();
        self.run("show bucket", cx, move |account, until| async move {
            control::bucket(&account, until, &bucket).await
        })
    }

    fn set_versioning(&self, cx: &OpContext, bucket: &str, on: bool) -> Op<BucketInfo> {
        let bucket = bucket.to_owned();
        self.run("set versioning", cx, move |account, until| async move {
            control::set_versioning(&account, until, &bucket, on).await
        })
    }

    fn policy(&self, cx: &OpContext, bucket: &str) -> Op<RString> {
        let bucket = bucket.to_owned();
        self.run("get policy", cx, move |account, until| async move {
            control::policy(&account, until, &bucket).await.map(RString::from)
        })
    }

    fn set_policy(&self, cx: &OpContext, bucket: &str, policy: &str) -> Op<()> {
        let (bucket, policy) = (bucket.to_owned(), policy.to_owned());
        self.run("set policy", cx, move |account, until| async move {
            control::set_policy(&account, until, &bucket, &policy).await
        })
    }

    fn lifecycle(&self, cx: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>> {
        let bucket = bucket.to_owned();
        self.run("get lifecycle", cx, move |account, until| async move {
            control::lifecycle(&account, until, &bucket).await
        })
    }

    fn set_lifecycle(
        &self,
        cx: &OpContext,
        bucket: &str,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        let bucket = bucket.to_owned();
        self.run("set lifecycle", cx, move |account, until| async move {
            control::set_lifecycle(&account, until, &bucket, &rules).await
        })
    }

    fn list(&self, cx: &OpContext, bucket: &str, query: ListQuery) -> Op<ListPage> {
        let bucket = bucket.to_owned();
        self.run("list objects", cx, move |account, until| async move {
            control::list(&account, until, &bucket, &query).await
        })
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

    fn open_read(
        &self,
        cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Op<OpenedObject> {
        self.run("open object", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            if !features::of(&account).abilities.has(ObjectAbilities::STREAM) {
                return Err(unsupported("objects of this kind of store are read in pieces"));
            }
            reader::open(account, object, offset, len, conditions, until).await
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
        let latest = latest(cx);
        self.run("copy object", cx, move |account, until| async move {
            check_object(account.kind, &from)?;
            check_object(account.kind, &to)?;
            match account.kind {
                Kind::Swift => swift::copy(&account, &from, &to, &options, until, latest).await,
                _ => copy::copy(&account, &from, &to, &options, until, latest).await,
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
        cx: &OpContext,
        bucket: &str,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        let bucket = bucket.to_owned();
        self.run("delete objects", cx, move |account, until| async move {
            control::delete_many(&account, until, &bucket, &objects).await
        })
    }

    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        self.run("get tags", cx, move |account, until| async move {
            control::tags(&account, until, &object).await
        })
    }

    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo> {
        let latest = latest(cx);
        self.run("change object", cx, move |account, until| async move {
            control::change(&account, until, latest, &object, &change).await
        })
    }

    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        self.run("begin upload", cx, move |account, until| async move {
            let mut options = options;
            options.mark = mark::of(&options.mark)?.into();
            if options.storage_class.is_empty()
                && let Some(class) = &account.config.storage_class
            {
                options.storage_class = class.as_str().into();
            }
            control::begin_upload(&account, until, &object, &options).await
        })
    }

    fn put_part(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo> {
        self.run("put part", cx, move |account, until| async move {
            let data = Bytes::from(data);
            match account.kind {
                Kind::Swift => control::put_part(&account, until, &upload, number, data).await,
                _ => parts::put_part(&account, &upload, number, data, until).await,
            }
        })
    }

    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage> {
        self.run("list parts", cx, move |account, until| async move {
            control::parts(&account, until, &upload, after, limit).await
        })
    }

    fn complete_upload(
        &self,
        cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        self.run("complete upload", cx, move |account, until| async move {
            put::check_conditions(&conditions)?;
            control::complete_upload(&account, until, &upload, &parts, &conditions).await
        })
    }

    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()> {
        self.run("abort upload", cx, move |account, until| async move {
            control::abort_upload(&account, until, &upload).await
        })
    }

    fn uploads(&self, cx: &OpContext, bucket: &str, query: UploadQuery) -> Op<UploadPage> {
        let bucket = bucket.to_owned();
        self.run("list uploads", cx, move |account, until| async move {
            control::uploads(&account, until, &bucket, &query).await
        })
    }

    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        self.run("sign", cx, move |account, until| async move {
            control::sign(&account, until, &request).await
        })
    }
}
