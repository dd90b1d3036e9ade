// SPDX-License-Identifier: Apache-2.0
//! The ability for whole objects: names are checked here, and the work is handed to the modules for it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{
    IoBuf, Op, OpContext, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName, ObjectPiece, Objects,
        PartInfo, PartPage, PutOptions, SignRequest, SignedMethod, SignedUrl, UploadInfo,
        UploadPage, UploadQuery,
    },
};

use futures_util::{StreamExt, stream};

use crate::{
    account::Account,
    change,
    config::Kind,
    control::{azure, outcome, s3},
    copy, delete,
    error::{invalid, unsupported},
    features, get, mark,
    names::{check_bucket, check_object},
    parts, put, swift,
};

/// So many deletions are under way at once.
const AT_ONCE: usize = 16;

/// What each kind of store does; the others do not have it.
macro_rules! by_kind {
    ($account:ident, $what:literal, $($($kind:ident)|+ => $does:expr,)*) => {
        match $account.kind {
            $($(Kind::$kind)|+ => $does,)*
            #[allow(unreachable_patterns)]
            _ => Err(unsupported(concat!("this kind of store does not have this: ", $what))),
        }
    };
}

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
}

impl Objects for ObjectsOf {
    fn features(&self) -> ObjectFeatures {
        features::of(&self.0)
    }

    fn create_bucket(&self, cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        self.run("create bucket", cx, move |account, until| async move {
            check_bucket(account.kind, &spec.name)?;
            by_kind!(account, "create bucket",
                S3 => s3::buckets::create(&account, until, &spec).await,
                Azure => azure::containers::create(&account, until, &spec).await,
            )
        })
    }

    fn delete_bucket(&self, cx: &OpContext, bucket: &str) -> Op<()> {
        let bucket = bucket.to_owned();
        self.run("delete bucket", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "delete bucket",
                S3 => s3::buckets::delete(&account, until, &bucket).await,
                Azure => azure::containers::delete(&account, until, &bucket).await,
            )
        })
    }

    fn buckets(&self, cx: &OpContext) -> Op<RVec<BucketInfo>> {
        self.run("list buckets", cx, move |account, until| async move {
            by_kind!(account, "list buckets",
                S3 => s3::buckets::list(&account, until).await,
                Azure => azure::containers::list(&account, until).await,
            )
        })
    }

    fn bucket(&self, cx: &OpContext, bucket: &str) -> Op<BucketInfo> {
        let bucket = bucket.to_owned();
        self.run("show bucket", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "show bucket",
                S3 => s3::buckets::show(&account, until, &bucket).await,
                Azure => azure::containers::show(&account, until, &bucket).await,
            )
        })
    }

    fn set_versioning(&self, cx: &OpContext, bucket: &str, on: bool) -> Op<BucketInfo> {
        let bucket = bucket.to_owned();
        self.run("set versioning", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "set versioning",
                S3 => {
                    s3::versioning::set(&account, until, &bucket, on).await?;
                    s3::buckets::show(&account, until, &bucket).await
                },
                Azure => Err(unsupported(azure::NO_VERSIONING)),
            )
        })
    }

    fn policy(&self, cx: &OpContext, bucket: &str) -> Op<RString> {
        let bucket = bucket.to_owned();
        self.run("get policy", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            let policy = by_kind!(account, "get policy",
                S3 => s3::policy::get(&account, until, &bucket).await,
                Azure => azure::policy::get(&account, until, &bucket).await,
            );
            policy.map(RString::from)
        })
    }

    fn set_policy(&self, cx: &OpContext, bucket: &str, policy: &str) -> Op<()> {
        let (bucket, policy) = (bucket.to_owned(), policy.to_owned());
        self.run("set policy", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "set policy",
                S3 => s3::policy::set(&account, until, &bucket, &policy).await,
                Azure => azure::policy::set(&account, until, &bucket, &policy).await,
            )
        })
    }

    fn lifecycle(&self, cx: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>> {
        let bucket = bucket.to_owned();
        self.run("get lifecycle", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "get lifecycle",
                S3 => s3::lifecycle::get(&account, until, &bucket).await,
                Azure => Err(unsupported(azure::NO_LIFECYCLE)),
            )
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
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "set lifecycle",
                S3 => s3::lifecycle::set(&account, until, &bucket, &rules).await,
                Azure => Err(unsupported(azure::NO_LIFECYCLE)),
            )
        })
    }

    fn list(&self, cx: &OpContext, bucket: &str, query: ListQuery) -> Op<ListPage> {
        let bucket = bucket.to_owned();
        self.run("list objects", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            by_kind!(account, "list objects",
                S3 => s3::listing::list(&account, until, &bucket, &query).await,
                Azure => azure::listing::list(&account, until, &bucket, &query).await,
            )
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
        cx: &OpContext,
        bucket: &str,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        let bucket = bucket.to_owned();
        self.run("delete objects", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            let most = features::of(&account).max_bulk_delete;
            if objects.len() > most as usize {
                return Err(invalid(format!(
                    "{} names are more than go at once: {most}",
                    objects.len()
                )));
            }
            for object in &objects {
                check_object(account.kind, object)?;
                if object.bucket != bucket {
                    return Err(
                        invalid("all objects must be of the bucket").with("object", &object.key)
                    );
                }
            }
            match account.kind {
                Kind::S3 if !objects.is_empty() => {
                    s3::bulk::delete(&account, until, &bucket, &objects).await
                }
                _ => Ok(one_by_one(&account, objects, until).await),
            }
        })
    }

    fn tags(&self, cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        self.run("get tags", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            match account.kind {
                Kind::S3 => s3::tags::get(&account, until, &object).await,
                Kind::Azure => azure::change::tags(&account, until, &object).await,
                _ => Err(unsupported("objects of this kind of store have no tags")
                    .remedy("use metadata")),
            }
        })
    }

    fn change(&self, cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo> {
        self.run("change object", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            by_kind!(account, "change object",
                S3 | Gcs => change::change(&account, &object, &change, until).await,
                Azure => azure::change::change(&account, until, &object, &change).await,
            )
        })
    }

    fn begin_upload(
        &self,
        cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        self.run("begin upload", cx, move |account, until| async move {
            check_object(account.kind, &object)?;
            if !options.conditions.is_empty() {
                return Err(invalid("conditions of an upload belong to its completion"));
            }
            let mut options = options;
            options.mark = mark::of(&options.mark)?.into();
            if options.storage_class.is_empty()
                && let Some(class) = &account.config.storage_class
            {
                options.storage_class = class.as_str().into();
            }
            by_kind!(account, "begin upload",
                S3 => s3::uploads::begin(&account, until, &object, &options).await,
                Azure => azure::uploads::begin(&account, until, &object, &options).await,
            )
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
            check_upload(&account, &upload)?;
            let data = Bytes::from(data);
            by_kind!(account, "put part",
                S3 | Azure | Gcs => parts::put_part(&account, &upload, number, data, until).await,
            )
        })
    }

    fn parts(&self, cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage> {
        self.run("list parts", cx, move |account, until| async move {
            check_upload(&account, &upload)?;
            by_kind!(account, "list parts",
                S3 => s3::uploads::parts(&account, until, &upload, after, limit).await,
                Azure => azure::uploads::parts(&account, until, &upload, after, limit).await,
            )
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
            check_upload(&account, &upload)?;
            put::check_conditions(&conditions)?;
            by_kind!(account, "complete upload",
                S3 => s3::uploads::complete(&account, until, &upload, &parts, &conditions).await,
                Azure => azure::uploads::complete(&account, until, &upload, &parts, &conditions).await,
            )
        })
    }

    fn abort_upload(&self, cx: &OpContext, upload: UploadInfo) -> Op<()> {
        self.run("abort upload", cx, move |account, until| async move {
            check_upload(&account, &upload)?;
            by_kind!(account, "abort upload",
                S3 => s3::uploads::abort(&account, until, &upload).await,
                Azure => azure::uploads::abort(&account, until, &upload).await,
            )
        })
    }

    fn uploads(&self, cx: &OpContext, bucket: &str, query: UploadQuery) -> Op<UploadPage> {
        let bucket = bucket.to_owned();
        self.run("list uploads", cx, move |account, until| async move {
            check_bucket(account.kind, &bucket)?;
            let UploadQuery { prefix, page, limit, .. } = &query;
            by_kind!(account, "list uploads",
                S3 => s3::uploads::list(&account, until, &bucket, prefix, page, *limit).await,
                Azure => azure::uploads::list(&account, until, &bucket, prefix, page, *limit).await,
            )
        })
    }

    fn sign(&self, cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        self.run("sign", cx, move |account, until| async move {
            check_object(account.kind, &request.object)?;
            let most = features::of(&account).max_sign_secs;
            if !(1..=most).contains(&request.expire_secs) {
                return Err(invalid(format!("a URL is signed for 1 to {most} s"))
                    .with("expire_secs", request.expire_secs));
            }
            if request.method == SignedMethod::PUT_PART {
                parts::check(&account, request.part, 1)?;
            }
            let now = get::now_ms() / 1000;
            by_kind!(account, "sign",
                S3 => s3::sign::sign(&account, &request, now).await,
                Azure => azure::sign::sign(&account, until, &request, now).await,
            )
        })
    }
}

/// Refuses an upload that cannot be.
fn check_upload(account: &Account, upload: &UploadInfo) -> Result<()> {
    check_object(account.kind, &ObjectName::new(&upload.bucket, &upload.key))?;
    if upload.id.is_empty() {
        return Err(invalid("the upload has no id").with("object", &upload.key));
    }
    Ok(())
}

/// Deletes objects where no request is for many, several at a time.
async fn one_by_one(
    account: &Arc<Account>,
    objects: RVec<ObjectName>,
    until: Instant,
) -> RVec<DeleteOutcome> {
    let doing = objects.into_iter().map(|object| {
        let account = Arc::clone(account);
        async move {
            let none = Conditions::default();
            outcome::of(match account.kind {
                Kind::Swift => swift::delete(&account, &object, &none, until).await,
                _ => delete::delete(&account, &object, &none, until).await,
            })
        }
    });
    stream::iter(doing).buffered(AT_ONCE).collect::<Vec<_>>().await.into()
}
