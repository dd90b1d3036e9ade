// SPDX-License-Identifier: Apache-2.0
//! What the driver holds: buckets, their objects, and uploads.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use driver_api::{
    Error, ErrorKind, IoBuf, RString, RVec, Result, Tuple2,
    ext::{
        BucketInfo, Conditions, LifecycleRule, ObjectChange, ObjectInfo, ObjectName, PartInfo,
        PutOptions, UploadInfo,
    },
};

type Pairs = RVec<Tuple2<RString, RString>>;

#[derive(Clone)]
pub struct Object {
    pub info: ObjectInfo,
    pub tags: Pairs,
    pub data: Vec<u8>,
    mark: String,
}

pub struct Upload {
    pub info: UploadInfo,
    options: PutOptions,
    pub parts: BTreeMap<u32, (PartInfo, IoBuf)>,
    /// The object that it became.
    done: Option<ObjectInfo>,
}

#[derive(Default)]
pub struct Bucket {
    pub info: BucketInfo,
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Upload>,
    pub policy: String,
    pub rules: RVec<LifecycleRule>,
}

#[derive(Default)]
pub struct Store(Mutex<State>);

#[derive(Default)]
pub struct State {
    pub buckets: BTreeMap<String, Bucket>,
    number: u64,
    /// The sum that is told.
    checksum: String,
}

pub fn refused(kind: ErrorKind, why: &str) -> Error {
    Error::new(kind, why)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Store {
    /// A store that tells this sum of what it holds.
    pub fn telling(checksum: &str) -> Self {
        Self(Mutex::new(State { checksum: checksum.to_owned(), ..State::default() }))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bytes(&self) -> u64 {
        let state = self.lock();
        let objects = state.buckets.values().flat_map(|bucket| bucket.objects.values());
        objects.map(|object| object.data.len() as u64).sum()
    }
}

impl State {
    pub fn bucket(&mut self, name: &str) -> Result<&mut Bucket> {
        let found = self.buckets.get_mut(name);
        found.ok_or_else(|| {
            refused(ErrorKind::NOT_FOUND, "there is no such bucket").with("bucket", name)
        })
    }

    pub fn object(&mut self, name: &ObjectName) -> Result<&mut Object> {
        if !name.version.is_empty() {
            return Err(refused(ErrorKind::NOT_FOUND, "there are no versions"));
        }
        let found = self.bucket(&name.bucket)?.objects.get_mut(name.key.as_str());
        found.ok_or_else(|| {
            refused(ErrorKind::NOT_FOUND, "there is no such object").with("key", &name.key)
        })
    }

    pub fn read(&mut self, name: &ObjectName, conditions: &Conditions) -> Result<&mut Object> {
        let object = self.object(name)?;
        let (etag, modified) = (&object.info.etag, object.info.modified_ms / 1000);
        let since = conditions.if_modified_since;
        let until = conditions.if_unmodified_since;
        let holds = (conditions.if_match.is_empty() || conditions.if_match == *etag)
            && (conditions.if_none_match.is_empty() || conditions.if_none_match != *etag)
            && (since == 0 || modified > since)
            && (until == 0 || modified <= until);
        match holds {
            true => Ok(object),
            false => Err(refused(ErrorKind::CONFLICT, "the condition does not hold")
                .with("etag", object.info.etag.clone())),
        }
    }

    /// Whether the object may be written. The writer's own object, by its mark, is the answer to a repeated write.
    pub fn may_write(
        &mut self,
        name: &ObjectName,
        conditions: &Conditions,
        mark: &str,
    ) -> Result<Option<ObjectInfo>> {
        let present = self.bucket(&name.bucket)?.objects.get(name.key.as_str());
        let refusal = match present {
            Some(_) if conditions.if_none_match == "*" => ErrorKind::ALREADY_EXISTS,
            Some(object) if conditions.if_none_match == object.info.etag => ErrorKind::CONFLICT,
            Some(object)
                if !conditions.if_match.is_empty() && conditions.if_match != object.info.etag =>
            {
                ErrorKind::CONFLICT
            }
            None if !conditions.if_match.is_empty() => ErrorKind::CONFLICT,
            _ => return Ok(None),
        };
        match present {
            Some(object) if !mark.is_empty() && object.mark == mark => {
                Ok(Some(object.info.clone()))
            }
            _ => Err(refused(refusal, "the condition does not hold").with("key", &name.key)),
        }
    }

    /// The sum that is told of these bytes.
    pub fn sum(&self, bytes: &[u8]) -> RString {
        match self.checksum.as_str() {
            "crc32c" | "wrong-whole" => format!("crc32c:{:08x}", crc32c::crc32c(bytes)).into(),
            "wrong" => format!("crc32c:{:08x}", !crc32c::crc32c(bytes)).into(),
            "md5" => {
                use md5::Digest;
                let sum = md5::Md5::digest(bytes);
                let digits: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("md5:{digits}").into()
            }
            _ => RString::new(),
        }
    }

    fn sum_of_whole(&self, bytes: &[u8]) -> RString {
        match self.checksum.as_str() {
            "wrong-whole" => format!("crc32c:{:08x}", !crc32c::crc32c(bytes)).into(),
            _ => self.sum(bytes),
        }
    }

    pub fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub fn write(
        &mut self,
        name: &ObjectName,
        data: Vec<u8>,
        options: &PutOptions,
    ) -> Result<ObjectInfo> {
        let number = self.next();
        let info = ObjectInfo {
            key: name.key.clone(),
            size: data.len() as u64,
            etag: format!("e{number}").into(),
            modified_ms: now_ms(),
            expires_ms: match options.expire_after_secs {
                0 => 0,
                secs => now_ms() + secs * 1000,
            },
            content_type: options.content_type.clone(),
            storage_class: options.storage_class.clone(),
            checksum: self.sum_of_whole(&data),
            metadata: options.metadata.clone(),
            latest: true,
            ..ObjectInfo::default()
        };
        let object = Object {
            info: info.clone(),
            tags: options.tags.clone(),
            data,
            mark: options.mark.to_string(),
        };
        self.bucket(&name.bucket)?.objects.insert(name.key.to_string(), object);
        Ok(info)
    }

    pub fn begin(&mut self, name: &ObjectName, options: PutOptions) -> Result<UploadInfo> {
        let id = format!("upload/{}", self.next());
        let bucket = self.bucket(&name.bucket)?;
        let info = UploadInfo {
            bucket: name.bucket.clone(),
            key: name.key.clone(),
            id: id.as_str().into(),
            mark: options.mark.clone(),
            started_ms: now_ms(),
            ..UploadInfo::default()
        };
        let upload = Upload { info: info.clone(), options, parts: BTreeMap::new(), done: None };
        bucket.uploads.insert(id, upload);
        Ok(info)
    }

    /// An upload that is not finished.
    pub fn upload(&mut self, of: &UploadInfo) -> Result<&mut Upload> {
        self.any_upload(of)?
            .filter(|upload| upload.done.is_none())
            .ok_or_else(|| refused(ErrorKind::NOT_FOUND, "there is no such upload"))
    }

    fn any_upload(&mut self, of: &UploadInfo) -> Result<Option<&mut Upload>> {
        let found = self.bucket(&of.bucket)?.uploads.get_mut(of.id.as_str());
        Ok(found.filter(|upload| upload.info.key == of.key))
    }

    pub fn complete(
        &mut self,
        of: &UploadInfo,
        parts: &[PartInfo],
        conditions: &Conditions,
    ) -> Result<ObjectInfo> {
        if let Some(done) = self.any_upload(of)?.and_then(|upload| upload.done.clone()) {
            return Ok(done);
        }
        let upload = self.upload(of)?;
        let mut data = Vec::new();
        for part in parts {
            match upload.parts.get(&part.number) {
                Some((there, bytes)) if there.etag == part.etag => data.extend_from_slice(bytes),
                _ => return Err(refused(ErrorKind::INVALID_ARGUMENT, "a part is not there")),
            }
        }
        let options = upload.options.clone();
        let name = ObjectName::new(&of.bucket, &of.key);
        let written = match self.may_write(&name, conditions, &options.mark)? {
            Some(own) => own,
            None => self.write(&name, data, &options)?,
        };
        let upload = self.upload(of)?;
        upload.done = Some(written.clone());
        upload.parts.clear();
        Ok(written)
    }

    pub fn change(&mut self, name: &ObjectName, change: &ObjectChange) -> Result<ObjectInfo> {
        let object = self.object(name)?;
        apply(change, &mut object.info, &mut object.tags);
        Ok(object.info.clone())
    }
}

/// Says of an object what is to be said.
pub fn apply(change: &ObjectChange, info: &mut ObjectInfo, tags: &mut Pairs) {
    let change = change.clone();
    if let Some(text) = change.content_type.into_option() {
        info.content_type = text;
    }
    if let Some(pairs) = change.metadata.into_option() {
        info.metadata = pairs;
    }
    if let Some(pairs) = change.tags.into_option() {
        *tags = pairs;
    }
    if let Some(class) = change.storage_class.into_option() {
        info.storage_class = class;
    }
    if let Some(secs) = change.expire_after_secs.into_option() {
        info.expires_ms = if secs == 0 { 0 } else { now_ms() + secs * 1000 };
    }
}

impl Upload {
    pub fn is_open(&self) -> bool {
        self.done.is_none()
    }
}
