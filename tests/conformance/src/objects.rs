// SPDX-License-Identifier: Apache-2.0
//! A bucket of one check, and the removal of all that checks made.

use std::time::{SystemTime, UNIX_EPOCH};

use driver_api::{
    Error, ErrorKind, IoBuf, ObjectsHandle, RVec,
    ext::{
        BucketSpec, Conditions, ListQuery, ObjectAbilities, ObjectFeatures, ObjectInfo, ObjectName,
        ObjectPiece, ObjectReading, PutOptions, UploadQuery,
    },
};

use crate::{
    case::Case,
    checks::ability,
    volume::{Checked, broken, ensure, not_claimed, success},
};

/// A bucket under the plan's prefix.
pub(crate) struct Bucket<'a> {
    pub case: &'a Case<'a>,
    objects: ObjectsHandle,
    pub features: ObjectFeatures,
    name: String,
}

impl<'a> Bucket<'a> {
    /// A new one. Its name is one that nobody else in the world should have: some stores share one namespace.
    pub(crate) async fn new(case: &'a Case<'a>) -> Checked<Self> {
        let objects = ability(case)?;
        let features = success("features", objects.features())?;
        if !features.abilities.has(ObjectAbilities::BUCKETS) {
            return not_claimed("buckets");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}{:x}-{:x}", case.plan.prefix, now.as_micros(), std::process::id());
        let bucket = Self { case, objects, features, name };
        bucket.create_again().await?;
        Ok(bucket)
    }

    pub(crate) async fn create_again(&self) -> Checked {
        let creating = self.objects.create_bucket(&self.case.cx(), BucketSpec::new(&self.name));
        let made = self.case.done("create bucket", creating).await?;
        ensure(made.name == *self.name, || format!("{} was created as {}", self.name, made.name))
    }

    pub(crate) fn objects(&self) -> ObjectsHandle {
        self.objects.clone()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn has(&self, ability: ObjectAbilities) -> bool {
        self.features.abilities.has(ability)
    }

    pub(crate) fn named(&self, key: &str) -> ObjectName {
        ObjectName::new(&self.name, key)
    }

    pub(crate) async fn try_put(
        &self,
        key: &str,
        data: &[u8],
        options: PutOptions,
    ) -> Checked<Result<ObjectInfo, Error>> {
        let data = IoBuf::copy_from(data);
        let putting = self.objects.put(&self.case.cx(), self.named(key), data, options);
        self.case.answer("put", putting).await
    }

    pub(crate) async fn put(&self, key: &str, data: &[u8]) -> Checked<ObjectInfo> {
        success("put", self.try_put(key, data, PutOptions::default()).await?)
    }

    pub(crate) async fn try_get(
        &self,
        key: &str,
        offset: u64,
        len: u32,
        conditions: Conditions,
    ) -> Checked<Result<ObjectPiece, Error>> {
        let getting = self.objects.get(&self.case.cx(), self.named(key), offset, len, conditions);
        self.case.answer("get", getting).await
    }

    pub(crate) async fn try_open(
        &self,
        key: &str,
        offset: u64,
        len: u64,
        conditions: Conditions,
    ) -> Checked<Result<ObjectReading, Error>> {
        let (cx, name) = (self.case.cx(), self.named(key));
        let opening = self.objects.open_read(&cx, name, offset, len, conditions);
        self.case.answer("open", opening).await
    }

    /// Reads an object piece by piece, and compares it.
    pub(crate) async fn expect(&self, key: &str, data: &[u8], when: &str) -> Checked {
        let mut found = Vec::new();
        loop {
            let left = data.len().saturating_sub(found.len()).max(1) as u64;
            let len = left.min(u64::from(self.features.max_piece)) as u32;
            let offset = found.len() as u64;
            let got = self.try_get(key, offset, len, Conditions::default()).await?;
            let piece = success("get", got)?;
            found.extend_from_slice(&piece.data);
            if piece.data.is_empty() || found.len() as u64 >= piece.object.size {
                break;
            }
        }
        ensure(found == data, || {
            let (len, found) = (data.len(), found.len());
            format!("`{key}` has other bytes {when}: {found} instead of {len}, or others of them")
        })
    }

    /// A query for pages of so many entries.
    pub(crate) fn page(&self, limit: u32) -> ListQuery {
        ListQuery { limit: limit.min(self.features.max_page), ..ListQuery::default() }
    }

    /// Keys and common prefixes on all pages of a listing.
    pub(crate) async fn listed(&self, query: ListQuery) -> Checked<(Vec<String>, Vec<String>)> {
        let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
        let mut query = ListQuery { limit: query.limit.min(self.features.max_page), ..query };
        for _ in 0..1000 {
            let listing = self.objects.list(&self.case.cx(), &self.name, query.clone());
            let page = self.case.done("list", listing).await?;
            let entries = page.objects.len() + page.prefixes.len();
            ensure(entries <= query.limit as usize, || {
                format!("a page of at most {} has {entries} entries", query.limit)
            })?;
            keys.extend(page.objects.into_iter().map(|object| object.key.into_string()));
            prefixes.extend(page.prefixes.into_iter().map(|prefix| prefix.into_string()));
            if page.next.is_empty() {
                return Ok((keys, prefixes));
            }
            query = ListQuery { page: page.next, after: Default::default(), ..query };
        }
        broken("a listing has no end")
    }

    /// All keys that begin with this.
    pub(crate) async fn all(&self, prefix: &str) -> Checked<Vec<String>> {
        let query = ListQuery { prefix: prefix.into(), ..self.page(1000) };
        Ok(self.listed(query).await?.0)
    }
}

/// The buckets that the plan's prefix has.
pub(crate) async fn left_over(case: &Case<'_>) -> Checked<Vec<String>> {
    let buckets = case.done("buckets", ability(case)?.buckets(&case.cx())).await?;
    let names = buckets.into_iter().map(|bucket| bucket.name.into_string());
    Ok(names.filter(|name| name.starts_with(&case.plan.prefix)).collect())
}

/// Removes all buckets of the plan, with what is in them.
pub(crate) async fn remove_buckets(case: &Case<'_>) -> Checked {
    let objects = ability(case)?;
    for name in left_over(case).await? {
        empty(case, &objects, &name).await?;
        match case.answer("delete bucket", objects.delete_bucket(&case.cx(), &name)).await? {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
            Err(error) => return broken(format!("bucket {name} cannot be deleted: {error:?}")),
        }
    }
    Ok(())
}

async fn empty(case: &Case<'_>, objects: &ObjectsHandle, bucket: &str) -> Checked {
    let features = success("features", objects.features())?;
    if features.abilities.has(ObjectAbilities::LIST_UPLOADS) {
        let query = UploadQuery { limit: features.max_page, ..UploadQuery::default() };
        let listing = objects.uploads(&case.cx(), bucket, query);
        for upload in case.done("uploads", listing).await?.uploads {
            case.done("abort upload", objects.abort_upload(&case.cx(), upload)).await?;
        }
    }
    let limit = features.max_page;
    for _ in 0..1000 {
        let query = ListQuery { limit, ..ListQuery::default() };
        let page = case.done("list", objects.list(&case.cx(), bucket, query)).await?;
        if page.objects.is_empty() {
            return Ok(());
        }
        for object in RVec::into_iter(page.objects) {
            let name = ObjectName::new(bucket, &object.key);
            let deleting = objects.delete(&case.cx(), name, Conditions::default());
            case.done("delete", deleting).await?;
        }
    }
    broken(format!("bucket {bucket} cannot be emptied"))
}
