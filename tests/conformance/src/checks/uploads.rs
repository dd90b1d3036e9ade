// SPDX-License-Identifier: Apache-2.0
//! Objects that are written in parts.

use driver_api::{
    ErrorKind, IoBuf, RVec,
    ext::{Conditions, ObjectAbilities, PartInfo, PutOptions, UploadInfo, UploadQuery},
};

use crate::{
    case::Case,
    objects::Bucket,
    volume::{Checked, ensure, not_claimed, refusal, success},
};

impl Bucket<'_> {
    async fn begin(&self, key: &str) -> Checked<UploadInfo> {
        let options = PutOptions { content_type: "text/x-test".into(), ..PutOptions::default() };
        let beginning = self.objects().begin_upload(&self.case.cx(), self.named(key), options);
        self.case.done("begin upload", beginning).await
    }

    async fn part(&self, upload: &UploadInfo, number: u32, data: &[u8]) -> Checked<PartInfo> {
        let data = IoBuf::copy_from(data);
        let putting = self.objects().put_part(&self.case.cx(), upload.clone(), number, data);
        let part = self.case.done("put part", putting).await?;
        ensure(part.number == number, || format!("part {number} became part {}", part.number))?;
        Ok(part)
    }

    async fn complete(
        &self,
        upload: &UploadInfo,
        parts: &[PartInfo],
        conditions: Conditions,
    ) -> Checked<Result<driver_api::ext::ObjectInfo, driver_api::Error>> {
        let parts = RVec::from(parts.to_vec());
        let objects = self.objects();
        let completing =
            objects.complete_upload(&self.case.cx(), upload.clone(), parts, conditions);
        self.case.answer("complete upload", completing).await
    }

    /// Data of a part that is not the last.
    fn long(&self) -> Vec<u8> {
        self.case.random().bytes(self.features.min_part.max(1000))
    }
}

pub(super) async fn parts(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    let upload = bucket.begin("a/b").await?;
    let (first, last) = (bucket.long(), case.random().bytes(777));
    let second = bucket.part(&upload, 5, &last).await?;
    bucket.part(&upload, 2, b"replaced").await?;
    let one = bucket.part(&upload, 2, &first).await?;
    let seen = bucket.all("").await?;
    ensure(seen.is_empty(), || "an upload is seen as an object before its completion".to_owned())?;
    let listing = bucket.objects().parts(&case.cx(), upload.clone(), 0, 10);
    let listed = case.done("parts", listing).await?;
    let told: Vec<_> = listed.parts.iter().map(|part| (part.number, part.size)).collect();
    let expected = [(2, first.len() as u64), (5, last.len() as u64)];
    ensure(told == expected && !listed.more, || {
        format!("parts {expected:?} are listed as {told:?}")
    })?;
    let parts = [one, second];
    let done =
        success("complete upload", bucket.complete(&upload, &parts, Conditions::default()).await?)?;
    let whole = [first, last].concat();
    ensure(done.size == whole.len() as u64, || format!("the object has {} bytes", done.size))?;
    bucket.expect("a/b", &whole, "after its upload was completed").await?;
    let again = bucket.complete(&upload, &parts, Conditions::default()).await?;
    success("the repeated completion", again)?;
    bucket.expect("a/b", &whole, "after a repeated completion").await
}

pub(super) async fn given_up(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    bucket.put("k", b"before").await?;
    let upload = bucket.begin("k").await?;
    bucket.part(&upload, 1, b"data").await?;
    let listed = async || {
        let query = UploadQuery { limit: 10, ..UploadQuery::default() };
        let listing = bucket.objects().uploads(&case.cx(), bucket.name(), query);
        Ok(case.done("uploads", listing).await?.uploads)
    };
    let lists = bucket.has(ObjectAbilities::LIST_UPLOADS);
    if lists {
        let found = listed().await?;
        ensure(found.len() == 1 && found[0].key == "k" && found[0].id == upload.id, || {
            format!("one upload is listed as {found:?}")
        })?;
    }
    for what in ["abort upload", "the repeated abort"] {
        let aborting = bucket.objects().abort_upload(&case.cx(), upload.clone());
        case.done(what, aborting).await?;
    }
    if lists {
        let found = listed().await?;
        ensure(found.is_empty(), || format!("after it was given up there is {found:?}"))?;
    }
    bucket.expect("k", b"before", "after an upload over it was given up").await
}

pub(super) async fn conditions(case: &Case<'_>) -> Checked {
    let bucket = Bucket::new(case).await?;
    if !bucket.has(ObjectAbilities::CREATE_ONLY) {
        return not_claimed("create-only");
    }
    let upload = bucket.begin("k").await?;
    let part = bucket.part(&upload, 1, b"late").await?;
    bucket.put("k", b"first").await?;
    let late = bucket.complete(&upload, &[part], Conditions::create_only()).await?;
    refusal("a create-only completion over an object", late, &[ErrorKind::ALREADY_EXISTS])?;
    bucket.expect("k", b"first", "after a refused completion").await
}
