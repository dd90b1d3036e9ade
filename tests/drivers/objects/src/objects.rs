// SPDX-License-Identifier: Apache-2.0
//! The ability itself.

use std::{ops::Bound, sync::Arc};

use driver_api::{
    ErrorKind, IoBuf, Op, OpContext, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, BucketSpec, Conditions, CopyOptions, DeleteOutcome, LifecycleRule, ListPage,
        ListQuery, ObjectAbilities, ObjectChange, ObjectFeatures, ObjectInfo, ObjectName,
        ObjectPiece, Objects, OpenedObject, PartInfo, PartPage, PutOptions, SignRequest, SignedUrl,
        UploadInfo, UploadPage, UploadQuery, Versioning, unsupported,
    },
};

use super::{
    Room,
    reading::Rest,
    store::{State, apply, refused},
};

impl Room {
    /// Starts what may be asked to fail.
    pub(super) fn start<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let room = self.clone();
        Op::run(async move { room.0.faults.call(name, || work(&mut room.0.store.lock())).await })
    }

    fn now<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Op<T> {
        Op::ready(work(&mut self.0.store.lock()))
    }
}

/// One page of what has names, from after `from`.
fn page<T>(entries: impl Iterator<Item = (String, T)>, limit: u32) -> (Vec<T>, RString) {
    let (mut found, mut last) = (Vec::new(), String::new());
    for (name, entry) in entries {
        if found.len() == limit as usize {
            return (found, last.into());
        }
        last = name;
        found.push(entry);
    }
    (found, RString::new())
}

enum Entry {
    Object(Box<ObjectInfo>),
    Prefix(String),
}

impl Objects for Room {
    fn features(&self) -> ObjectFeatures {
        let options = &self.0.options;
        let all = ObjectAbilities::NAMED.iter().filter(|(_, name)| {
            *name != "versioning" && !options.without.split(',').any(|without| without == *name)
        });
        ObjectFeatures {
            kind: "memory".into(),
            abilities: all.fold(ObjectAbilities::NONE, |set, (one, _)| set | *one),
            max_object: 1 << 30,
            max_put: options.max_put,
            max_piece: options.max_piece,
            min_part: options.min_part,
            max_part: options.max_part,
            max_parts: options.max_parts,
            max_page: options.max_page,
            max_bulk_delete: 10,
            max_sign_secs: 3600,
            reserved: [0; 8],
        }
    }

    fn create_bucket(&self, _cx: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        if spec.name.len() < 3 {
            return Op::err(refused(ErrorKind::INVALID_ARGUMENT, "a name has 3 letters or more"));
        }
        if spec.versioning || !spec.options.is_empty() {
            return Op::err(unsupported("create bucket"));
        }
        self.now(|state| {
            let bucket = state.buckets.entry(spec.name.to_string()).or_default();
            bucket.info = BucketInfo {
                versioning: Versioning::OFF,
                region: spec.region,
                ..BucketInfo::new(&spec.name)
            };
            Ok(bucket.info.clone())
        })
    }

    fn delete_bucket(&self, _cx: &OpContext, bucket: &str) -> Op<()> {
        let full = self.breaks("deletes-full-buckets");
        self.now(|state| {
            let found = state.bucket(bucket)?;
            let open = found.uploads.values().any(|upload| upload.is_open());
            if !full && (!found.objects.is_empty() || open) {
                return Err(refused(ErrorKind::IN_USE, "the bucket is not empty"));
            }
            state.buckets.remove(bucket);
            Ok(())
        })
    }

    fn buckets(&self, _cx: &OpContext) -> Op<RVec<BucketInfo>> {
        self.now(|state| Ok(state.buckets.values().map(|bucket| bucket.info.clone()).collect()))
    }

    fn bucket(&self, _cx: &OpContext, bucket: &str) -> Op<BucketInfo> {
        self.now(|state| {
            let found = state.bucket(bucket)?;
            let bytes = found.objects.values().map(|object| object.data.len() as u64).sum();
            let objects = found.objects.len() as u64;
            Ok(BucketInfo { objects, bytes, ..found.info.clone() })
        })
    }

    fn set_versioning(&self, _cx: &OpContext, _bucket: &str, _on: bool) -> Op<BucketInfo> {
        Op::err(unsupported("set versioning"))
    }

    fn policy(&self, _cx: &OpContext, bucket: &str) -> Op<RString> {
        self.now(|state| Ok(state.bucket(bucket)?.policy.as_str().into()))
    }

    fn set_policy(&self, _cx: &OpContext, bucket: &str, policy: &str) -> Op<()> {
        self.now(|state| {
            state.bucket(bucket)?.policy = policy.to_owned();
            Ok(())
        })
    }

    fn lifecycle(&self, _cx: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>> {
        self.now(|state| Ok(state.bucket(bucket)?.rules.clone()))
    }

    fn set_lifecycle(
        &self,
        _cx: &OpContext,
        bucket: &str,
        rules: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        self.now(|state| {
            state.bucket(bucket)?.rules = rules.clone();
            Ok(rules)
        })
    }

    fn list(&self, _cx: &OpContext, bucket: &str, query: ListQuery) -> Op<ListPage> {
        if query.versions {
            return Op::err(unsupported("list versions"));
        }
        let bucket = bucket.to_owned();
        let skips = self.breaks("page-skips");
        self.start("list", move |state| {
            let found = state.bucket(&bucket)?;
            let after = query.after.as_str().max(query.page.as_str()).to_owned();
            let (prefix, delimiter) = (query.prefix.as_str(), query.delimiter.as_str());
            let mut last = String::new();
            let entries = found
                .objects
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .filter_map(|(key, object)| {
                    let rest = &key[prefix.len()..];
                    let cut = match delimiter {
                        "" => None,
                        delimiter => rest.find(delimiter).map(|at| at + delimiter.len()),
                    };
                    let Some(cut) = cut else {
                        let mut info = object.info.clone();
                        info.metadata = RVec::new();
                        return (*key > after)
                            .then(|| (key.clone(), Entry::Object(Box::new(info))));
                    };
                    let common = key[..prefix.len() + cut].to_owned();
                    if common == last || common <= after || after.starts_with(&common) {
                        return None;
                    }
                    last.clone_from(&common);
                    Some((common.clone(), Entry::Prefix(common)))
                });
            let (entries, next) = page(entries, query.limit);
            let mut listed = ListPage { next, ..ListPage::default() };
            let skipped = usize::from(skips && !query.page.is_empty());
            for entry in entries.into_iter().skip(skipped) {
                match entry {
                    Entry::Object(info) => listed.objects.push(*info),
                    Entry::Prefix(prefix) => listed.prefixes.push(prefix.into()),
                }
            }
            Ok(listed)
        })
    }

    fn head(&self, _cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<ObjectInfo> {
        self.start("head", move |state| Ok(state.read(&object, &conditions)?.info.clone()))
    }

    fn get(
        &self,
        _cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Op<ObjectPiece> {
        let moved = self.breaks("range-off");
        self.start("get", move |state| {
            let found = state.read(&object, &conditions)?;
            let size = found.info.size;
            if offset >= size && offset != 0 {
                return Err(refused(ErrorKind::INVALID_ARGUMENT, "the range is past the end"));
            }
            let end = size.min(offset + u64::from(len)) as usize;
            let from = offset as usize - usize::from(moved && offset > 0);
            Ok(ObjectPiece {
                object: found.info.clone(),
                offset,
                data: IoBuf::copy_from(&found.data[from..end]),
                reserved: [0; 2],
            })
        })
    }

    fn open_read(
        &self,
        _cx: &OpContext,
        object: ObjectName,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Op<OpenedObject> {
        let (moved, room) = (self.breaks("stream-off"), self.clone());
        self.start("open", move |state| {
            let found = state.read(&object, &conditions)?;
            let size = found.info.size;
            if offset >= size && offset != 0 {
                return Err(refused(ErrorKind::INVALID_ARGUMENT, "the range is past the end"));
            }
            let end = size.min(offset.saturating_add(len));
            let from = offset as usize - usize::from(moved && offset > 0);
            let left = IoBuf::copy_from(&found.data[from..end as usize]);
            let info = found.info.clone();
            let reader = Rest::new(room, object, &info, left);
            Ok(OpenedObject { object: info, offset, len: end - offset, reader: Arc::new(reader) })
        })
    }

    fn put(
        &self,
        _cx: &OpContext,
        mut object: ObjectName,
        data: IoBuf,
        mut options: PutOptions,
    ) -> Op<ObjectInfo> {
        if self.breaks("forgets-metadata") {
            options.metadata.clear();
        }
        if self.breaks("keys-lowered") {
            object.key = object.key.to_lowercase().into();
        }
        if self.breaks("create-over") {
            options.conditions.if_none_match.clear();
        }
        if self.breaks("update-over") {
            options.conditions.if_match.clear();
        }
        if self.breaks("forgets-marks") {
            options.mark.clear();
        }
        if self.breaks("forgets-tags") {
            options.tags.clear();
        }
        let constant = self.breaks("one-etag");
        self.start("put", move |state| {
            match state.may_write(&object, &options.conditions, &options.mark)? {
                Some(own) => Ok(own),
                None => {
                    let mut info = state.write(&object, data.to_vec(), &options)?;
                    if constant {
                        info.etag = "e".into();
                        state.object(&object)?.info.etag = "e".into();
                    }
                    Ok(info)
                }
            }
        })
    }

    fn copy(
        &self,
        _cx: &OpContext,
        from: ObjectName,
        to: ObjectName,
        options: CopyOptions,
    ) -> Op<ObjectInfo> {
        let forgets = self.breaks("copy-forgets");
        self.start("copy", move |state| {
            let source = state.read(&from, &options.source)?.clone();
            if let Some(own) = state.may_write(&to, &options.target, &options.mark)? {
                return Ok(own);
            }
            let (mut info, mut tags) = (source.info, source.tags);
            apply(&options.change, &mut info, &mut tags);
            let put = PutOptions {
                content_type: info.content_type,
                metadata: if forgets { RVec::new() } else { info.metadata },
                tags,
                storage_class: info.storage_class,
                mark: options.mark,
                ..PutOptions::default()
            };
            state.write(&to, source.data, &put)
        })
    }

    fn delete(&self, _cx: &OpContext, object: ObjectName, conditions: Conditions) -> Op<()> {
        self.start("delete", move |state| {
            if !conditions.is_empty() {
                state.may_write(&object, &conditions, "")?;
            }
            state.bucket(&object.bucket)?.objects.remove(object.key.as_str());
            Ok(())
        })
    }

    fn delete_many(
        &self,
        _cx: &OpContext,
        bucket: &str,
        objects: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        let bucket = bucket.to_owned();
        let forgets = self.breaks("bulk-forgets");
        self.start("delete_many", move |state| {
            let found = state.bucket(&bucket)?;
            let outcome = |object: ObjectName| {
                let stays = object.key.as_str().starts_with("stays");
                if !(stays || forgets && object.key == "b") {
                    found.objects.remove(object.key.as_str());
                }
                DeleteOutcome {
                    gone: !stays,
                    kind: if stays {
                        ErrorKind::PERMISSION_DENIED
                    } else {
                        ErrorKind::from_code(0)
                    },
                    reason: if stays { "it stays".into() } else { RString::new() },
                    reserved: [0; 2],
                }
            };
            Ok(objects.into_iter().map(outcome).collect())
        })
    }

    fn tags(&self, _cx: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        self.now(|state| Ok(state.object(&object)?.tags.clone()))
    }

    fn change(&self, _cx: &OpContext, object: ObjectName, change: ObjectChange) -> Op<ObjectInfo> {
        self.now(|state| state.change(&object, &change))
    }

    fn begin_upload(
        &self,
        _cx: &OpContext,
        object: ObjectName,
        options: PutOptions,
    ) -> Op<UploadInfo> {
        let conditions = &options.conditions;
        let needed = match conditions.if_match.is_empty() {
            _ if conditions.is_empty() => ObjectAbilities::NONE,
            true => ObjectAbilities::CREATE_ONLY_COMPLETE,
            false => ObjectAbilities::UPDATE_COMPLETE,
        };
        let late = needed.names().any(|name| self.0.options.late.split(',').any(|one| one == name));
        if late || !self.features().abilities.has(needed) {
            return Op::err(refused(ErrorKind::UNSUPPORTED, "completions ignore conditions here"));
        }
        self.start("begin_upload", move |state| state.begin(&object, options))
    }

    fn put_part(
        &self,
        _cx: &OpContext,
        upload: UploadInfo,
        number: u32,
        data: IoBuf,
    ) -> Op<PartInfo> {
        self.start("put_part", move |state| {
            let etag = format!("p{}", state.next());
            let part = PartInfo {
                number,
                size: data.len() as u64,
                etag: etag.into(),
                checksum: state.sum(&data),
                ..PartInfo::default()
            };
            state.upload(&upload)?.parts.insert(number, (part.clone(), data));
            Ok(part)
        })
    }

    fn parts(&self, _cx: &OpContext, upload: UploadInfo, after: u32, limit: u32) -> Op<PartPage> {
        self.now(|state| {
            let parts = &state.upload(&upload)?.parts;
            let later = || parts.range(after.saturating_add(1)..);
            let page = later().take(limit as usize).map(|(_, (part, _))| part.clone());
            let more = later().count() > limit as usize;
            Ok(PartPage { parts: page.collect(), more, reserved: [0; 2] })
        })
    }

    fn complete_upload(
        &self,
        _cx: &OpContext,
        upload: UploadInfo,
        parts: RVec<PartInfo>,
        conditions: Conditions,
    ) -> Op<ObjectInfo> {
        let (mut parts, mut conditions) = (parts, conditions);
        if self.breaks("parts-by-arrival") {
            parts.sort_by(|one, other| one.etag.cmp(&other.etag));
        }
        if self.breaks("complete-over") {
            conditions = Conditions::default();
        }
        self.start("complete_upload", move |state| state.complete(&upload, &parts, &conditions))
    }

    fn abort_upload(&self, _cx: &OpContext, upload: UploadInfo) -> Op<()> {
        let keeps = self.breaks("abort-keeps");
        self.start("abort_upload", move |state| {
            if keeps {
                return Ok(());
            }
            let bucket = state.bucket(&upload.bucket)?;
            if bucket.uploads.get(upload.id.as_str()).is_some_and(|upload| upload.is_open()) {
                bucket.uploads.remove(upload.id.as_str());
            }
            Ok(())
        })
    }

    fn uploads(&self, _cx: &OpContext, bucket: &str, query: UploadQuery) -> Op<UploadPage> {
        self.now(|state| {
            let found = state.bucket(bucket)?;
            let open = found.uploads.iter().filter(|(id, upload)| {
                upload.is_open()
                    && upload.info.key.starts_with(query.prefix.as_str())
                    && id.as_str() > query.page.as_str()
            });
            let told = open.map(|(id, upload)| {
                (id.clone(), UploadInfo { mark: RString::new(), ..upload.info.clone() })
            });
            let (uploads, next) = page(told, query.limit);
            Ok(UploadPage { uploads: uploads.into(), next, reserved: [0; 4] })
        })
    }

    fn sign(&self, _cx: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        let ObjectName { bucket, key, .. } = &request.object;
        Op::ok(SignedUrl {
            url: format!("memory://{bucket}/{key}?part={}", request.part).into(),
            method: request.method.http().into(),
            headers: RVec::from(vec![Tuple2("x-signed".into(), "yes".into())]),
            expires: if self.breaks("signs-for-ever") { 0 } else { request.expire_secs },
            reserved: [0; 4],
        })
    }
}
