// SPDX-License-Identifier: Apache-2.0
use abi_stable::std_types::ROption;

use super::*;
use crate::{
    ErrorKind,
    ext::{ObjectAbilities, ObjectReader, OpenedObject, SignedMethod},
    host::NoServices,
};

/// A store that panics where it is asked about the key `panic`, and says `Unavailable` to all else that reaches it.
#[derive(Default)]
struct Reached {
    no_bulk: bool,
    no_stream: bool,
}

/// How many readings were dropped.
static DROPPED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Gives its bytes one by one, and panics after the last.
struct Bytewise(std::sync::Mutex<Vec<u8>>);

impl ObjectReader for Bytewise {
    fn next(&self, _: &OpContext) -> Op<IoBuf> {
        let mut bytes = self.0.lock().expect("bytes");
        assert!(!bytes.is_empty(), "asked to panic");
        Op::ok(IoBuf::copy_from(&[bytes.remove(0)]))
    }
}

impl Drop for Bytewise {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn reached<T>(key: &str) -> Op<T> {
    assert_ne!(key, "panic", "asked to panic");
    Op::err(Error::new(ErrorKind::UNAVAILABLE, "the driver was asked"))
}

impl Objects for Reached {
    fn features(&self) -> ObjectFeatures {
        let bulk = if self.no_bulk { ObjectAbilities::NONE } else { ObjectAbilities::BULK_DELETE };
        let stream = if self.no_stream { ObjectAbilities::NONE } else { ObjectAbilities::STREAM };
        ObjectFeatures {
            abilities: bulk | stream,
            max_object: 1000,
            max_put: 10,
            max_piece: 8,
            min_part: 5,
            max_part: 400,
            max_parts: 3,
            max_page: 7,
            max_bulk_delete: 2,
            max_sign_secs: 60,
            ..ObjectFeatures::default()
        }
    }

    fn create_bucket(&self, _: &OpContext, spec: BucketSpec) -> Op<BucketInfo> {
        reached(&spec.name)
    }

    fn delete_bucket(&self, _: &OpContext, bucket: &str) -> Op<()> {
        reached(bucket)
    }

    fn buckets(&self, _: &OpContext) -> Op<RVec<BucketInfo>> {
        reached("")
    }

    fn bucket(&self, _: &OpContext, bucket: &str) -> Op<BucketInfo> {
        reached(bucket)
    }

    fn set_versioning(&self, _: &OpContext, bucket: &str, _: bool) -> Op<BucketInfo> {
        reached(bucket)
    }

    fn policy(&self, _: &OpContext, bucket: &str) -> Op<RString> {
        reached(bucket)
    }

    fn set_policy(&self, _: &OpContext, bucket: &str, _: &str) -> Op<()> {
        reached(bucket)
    }

    fn lifecycle(&self, _: &OpContext, bucket: &str) -> Op<RVec<LifecycleRule>> {
        reached(bucket)
    }

    fn set_lifecycle(
        &self,
        _: &OpContext,
        bucket: &str,
        _: RVec<LifecycleRule>,
    ) -> Op<RVec<LifecycleRule>> {
        reached(bucket)
    }

    fn list(&self, _: &OpContext, bucket: &str, _: ListQuery) -> Op<ListPage> {
        reached(bucket)
    }

    fn head(&self, _: &OpContext, object: ObjectName, _: Conditions) -> Op<ObjectInfo> {
        reached(&object.key)
    }

    fn get(
        &self,
        _: &OpContext,
        object: ObjectName,
        _: u64,
        _: u32,
        _: Conditions,
    ) -> Op<ObjectPiece> {
        reached(&object.key)
    }

    fn open_read(
        &self,
        _: &OpContext,
        object: ObjectName,
        offset: u64,
        _: u64,
        _: Conditions,
    ) -> Op<OpenedObject> {
        if object.key != "open" {
            return reached(&object.key);
        }
        let reader = Arc::new(Bytewise(std::sync::Mutex::new(b"ab".to_vec())));
        Op::ok(OpenedObject { object: ObjectInfo::default(), offset, len: 2, reader })
    }

    fn put(&self, _: &OpContext, object: ObjectName, _: IoBuf, _: PutOptions) -> Op<ObjectInfo> {
        reached(&object.key)
    }

    fn copy(
        &self,
        _: &OpContext,
        from: ObjectName,
        _: ObjectName,
        _: CopyOptions,
    ) -> Op<ObjectInfo> {
        reached(&from.key)
    }

    fn delete(&self, _: &OpContext, object: ObjectName, _: Conditions) -> Op<()> {
        reached(&object.key)
    }

    fn delete_many(
        &self,
        _: &OpContext,
        bucket: &str,
        _: RVec<ObjectName>,
    ) -> Op<RVec<DeleteOutcome>> {
        reached(bucket)
    }

    fn tags(&self, _: &OpContext, object: ObjectName) -> Op<RVec<Tuple2<RString, RString>>> {
        reached(&object.key)
    }

    fn change(&self, _: &OpContext, object: ObjectName, _: ObjectChange) -> Op<ObjectInfo> {
        reached(&object.key)
    }

    fn begin_upload(&self, _: &OpContext, object: ObjectName, _: PutOptions) -> Op<UploadInfo> {
        reached(&object.key)
    }

    fn put_part(&self, _: &OpContext, upload: UploadInfo, _: u32, _: IoBuf) -> Op<PartInfo> {
        reached(&upload.key)
    }

    fn parts(&self, _: &OpContext, upload: UploadInfo, _: u32, _: u32) -> Op<PartPage> {
        reached(&upload.key)
    }

    fn complete_upload(
        &self,
        _: &OpContext,
        upload: UploadInfo,
        _: RVec<PartInfo>,
        _: Conditions,
    ) -> Op<ObjectInfo> {
        reached(&upload.key)
    }

    fn abort_upload(&self, _: &OpContext, upload: UploadInfo) -> Op<()> {
        reached(&upload.key)
    }

    fn uploads(&self, _: &OpContext, bucket: &str, _: UploadQuery) -> Op<UploadPage> {
        reached(bucket)
    }

    fn sign(&self, _: &OpContext, request: SignRequest) -> Op<SignedUrl> {
        reached(&request.object.key)
    }
}

fn store() -> ObjectsHandle {
    export_objects(Arc::new(Reached::default()), Host::new(NoServices))
}

fn cx() -> OpContext {
    OpContext::new()
}

fn kind<T: std::fmt::Debug>(op: Op<T>) -> ErrorKind {
    let Op::Ready(answer) = op else { panic!("it is ready") };
    answer.into_result().expect_err("nothing succeeds here").kind()
}

fn refused<T: std::fmt::Debug>(op: Op<T>) {
    assert_eq!(kind(op), ErrorKind::INVALID_ARGUMENT);
}

fn asked<T: std::fmt::Debug>(op: Op<T>) {
    assert_eq!(kind(op), ErrorKind::UNAVAILABLE, "the driver decides");
}

fn name(key: &str) -> ObjectName {
    ObjectName::new("b", key)
}

fn upload() -> UploadInfo {
    UploadInfo { bucket: "b".into(), key: "k".into(), id: "u".into(), ..UploadInfo::default() }
}

fn part(number: u32, size: u64) -> PartInfo {
    PartInfo { number, size, ..PartInfo::default() }
}

fn pair(name: &str) -> Tuple2<RString, RString> {
    Tuple2(name.into(), "v".into())
}

#[test]
fn names_are_there_and_fit() {
    let store = store();
    refused(store.create_bucket(&cx(), BucketSpec::new("")));
    asked(store.create_bucket(&cx(), BucketSpec::new("b")));
    refused(store.delete_bucket(&cx(), ""));
    refused(store.bucket(&cx(), ""));
    refused(store.policy(&cx(), ""));
    refused(store.head(&cx(), name(""), Conditions::default()));
    refused(store.head(&cx(), ObjectName::new("", "k"), Conditions::default()));
    refused(store.head(&cx(), name(&"k".repeat(1025)), Conditions::default()));
    asked(store.head(&cx(), name(&"k".repeat(1024)), Conditions::default()));
    refused(store.tags(&cx(), name("")));
    refused(store.abort_upload(&cx(), UploadInfo { id: "".into(), ..upload() }));
    asked(store.abort_upload(&cx(), upload()));
}

#[test]
fn reads_and_writes_fit_the_store() {
    let store = store();
    let always = Conditions::default;
    asked(store.get(&cx(), name("k"), 0, 8, always()));
    refused(store.get(&cx(), name("k"), 0, 9, always()));
    refused(store.get(&cx(), name("k"), u64::MAX, 1, always()));
    let put = |len, options| store.put(&cx(), name("k"), IoBuf::copy_from(&vec![0; len]), options);
    asked(put(10, PutOptions::default()));
    refused(put(11, PutOptions::default()));
    let of_version = ObjectName { version: "1".into(), ..name("k") };
    refused(store.put(&cx(), of_version, IoBuf::empty(), PutOptions::default()));
    for mark in ["xyz", &"0".repeat(33)] {
        refused(put(1, PutOptions { mark: mark.into(), ..PutOptions::default() }));
    }
    asked(put(1, PutOptions { mark: "00ffAA".into(), ..PutOptions::default() }));
    let tags = RVec::from(vec![pair("a"), pair("a")]);
    refused(put(1, PutOptions { tags, ..PutOptions::default() }));
    let metadata = RVec::from(vec![pair("")]);
    refused(put(1, PutOptions { metadata, ..PutOptions::default() }));
}

#[test]
fn conditions_that_no_write_can_have_are_refused() {
    let store = store();
    let timed = Conditions { if_modified_since: 1, ..Conditions::default() };
    let both = Conditions { if_match: "e".into(), ..Conditions::create_only() };
    let newer = Conditions { reserved: [0, 1], ..Conditions::default() };
    asked(store.head(&cx(), name("k"), timed.clone()));
    refused(store.head(&cx(), name("k"), newer.clone()));
    for conditions in [timed, both, newer] {
        refused(store.delete(&cx(), name("k"), conditions.clone()));
        let options = PutOptions { conditions: conditions.clone(), ..PutOptions::default() };
        refused(store.put(&cx(), name("k"), IoBuf::empty(), options));
        let options = PutOptions { conditions: conditions.clone(), ..PutOptions::default() };
        refused(store.begin_upload(&cx(), name("k"), options));
        let parts = RVec::from(vec![part(1, 1)]);
        refused(store.complete_upload(&cx(), upload(), parts, conditions.clone()));
        let options = CopyOptions { target: conditions, ..CopyOptions::default() };
        refused(store.copy(&cx(), name("k"), name("l"), options));
    }
    let conditions = Conditions::create_only();
    asked(store.put(
        &cx(),
        name("k"),
        IoBuf::empty(),
        PutOptions { conditions: conditions.clone(), ..PutOptions::default() },
    ));
    let options = PutOptions { conditions, ..PutOptions::default() };
    asked(store.begin_upload(&cx(), name("k"), options));
    let reserved = ObjectChange { reserved: [1, 0, 0, 0], ..ObjectChange::default() };
    refused(store.change(&cx(), name("k"), reserved));
    let tags = ROption::RSome(RVec::from(vec![pair("a"), pair("a")]));
    refused(store.change(&cx(), name("k"), ObjectChange { tags, ..ObjectChange::default() }));
}

#[test]
fn pages_have_a_size_and_one_beginning() {
    let store = store();
    let list = |query: ListQuery| store.list(&cx(), "b", query);
    for limit in [0, 8] {
        refused(list(ListQuery { limit, ..ListQuery::default() }));
        refused(store.uploads(&cx(), "b", UploadQuery { limit, ..UploadQuery::default() }));
    }
    asked(list(ListQuery { limit: 7, after: "a".into(), ..ListQuery::default() }));
    asked(list(ListQuery { limit: 7, page: "p".into(), ..ListQuery::default() }));
    let both = ListQuery { limit: 7, page: "p".into(), after: "a".into(), ..ListQuery::default() };
    refused(list(both));
    refused(store.parts(&cx(), upload(), 0, 0));
}

#[test]
fn many_are_deleted_in_one_bucket_and_where_the_store_can() {
    let store = store();
    let many = |names: &[ObjectName]| store.delete_many(&cx(), "b", RVec::from(names.to_vec()));
    asked(many(&[name("k"), name("l")]));
    refused(many(&[name("k"), name("l"), name("m")]));
    refused(many(&[ObjectName::new("c", "k")]));
    asked(many(&[ObjectName::new("", "k")]));
    let store = export_objects(
        Arc::new(Reached { no_bulk: true, ..Reached::default() }),
        Host::new(NoServices),
    );
    let one = RVec::from(vec![name("k")]);
    assert_eq!(kind(store.delete_many(&cx(), "b", one)), ErrorKind::UNSUPPORTED);
}

#[test]
fn parts_have_numbers_and_sizes() {
    let store = store();
    let put =
        |number, len| store.put_part(&cx(), upload(), number, IoBuf::copy_from(&vec![0; len]));
    refused(put(0, 1));
    refused(put(4, 1));
    refused(put(1, 401));
    asked(put(3, 400));
    let complete = |parts: &[PartInfo]| {
        store.complete_upload(&cx(), upload(), RVec::from(parts.to_vec()), Conditions::default())
    };
    refused(complete(&[]));
    refused(complete(&[part(2, 5), part(1, 5)]));
    refused(complete(&[part(1, 5), part(1, 5)]));
    refused(complete(&[part(1, 4), part(2, 5)]));
    refused(complete(&[part(1, 500), part(2, 501)]));
    refused(complete(&[part(1, u64::MAX), part(2, 1)]));
    asked(complete(&[part(1, 5), part(3, 1)]));
}

#[test]
fn rules_do_something_and_urls_expire() {
    let store = store();
    let set = |rules: &[LifecycleRule]| store.set_lifecycle(&cx(), "b", RVec::from(rules.to_vec()));
    let rule = LifecycleRule { id: "r".into(), expire_days: 1, ..LifecycleRule::default() };
    asked(set(&[]));
    asked(set(std::slice::from_ref(&rule)));
    refused(set(&[rule.clone(), rule.clone()]));
    refused(set(&[LifecycleRule { expire_days: 0, ..rule.clone() }]));
    refused(set(&[LifecycleRule { transition_days: 1, ..rule.clone() }]));
    refused(set(&[LifecycleRule { transition_class: "cold".into(), ..rule }]));
    let ask = |request: SignRequest| store.sign(&cx(), request);
    let get = SignRequest { object: name("k"), expire_secs: 60, ..SignRequest::default() };
    asked(ask(get.clone()));
    refused(ask(SignRequest { expire_secs: 0, ..get.clone() }));
    refused(ask(SignRequest { expire_secs: 61, ..get.clone() }));
    refused(ask(SignRequest { part: 1, ..get.clone() }));
    let part = SignRequest { method: SignedMethod::PUT_PART, ..get };
    refused(ask(SignRequest { part: 1, ..part.clone() }));
    refused(ask(SignRequest { upload: "u".into(), ..part.clone() }));
    asked(ask(SignRequest { upload: "u".into(), part: 1, ..part }));
}

#[test]
fn a_panic_is_an_error() {
    let store = store();
    assert_eq!(kind(store.head(&cx(), name("panic"), Conditions::default())), ErrorKind::PANIC);
}

#[test]
fn what_is_opened_has_bytes_and_is_let_go_with_its_last_holder() {
    let store = store();
    let open = |key: &str, offset, len| {
        store.open_read(&cx(), name(key), offset, len, Conditions::default())
    };
    refused(open("k", 0, 0));
    refused(open("", 0, 1));
    let newer = Conditions { reserved: [0, 1], ..Conditions::default() };
    refused(store.open_read(&cx(), name("k"), 0, 1, newer));
    asked(open("k", u64::MAX, u64::MAX));
    assert_eq!(kind(open("panic", 0, 1)), ErrorKind::PANIC);
    let ready = |op: Op<_>| match op {
        Op::Ready(answer) => answer.into_result(),
        Op::Pending(_) => panic!("it is ready"),
    };
    let Op::Ready(opened) = open("open", 7, u64::MAX) else { panic!("it is ready") };
    let opened = opened.into_result().expect("a reading");
    assert_eq!((opened.offset, opened.len), (7, 2));
    let shared = opened.reader.clone();
    for expected in [b"a", b"b"] {
        assert_eq!(&*ready(shared.next(&cx())).expect("a byte"), expected);
    }
    let failed = ready(opened.reader.next(&cx())).expect_err("it panics");
    assert_eq!(failed.kind(), ErrorKind::PANIC);
    drop(opened);
    assert_eq!(DROPPED.load(std::sync::atomic::Ordering::Relaxed), 0, "somebody has it still");
    drop(shared);
    assert_eq!(DROPPED.load(std::sync::atomic::Ordering::Relaxed), 1);
    let store = export_objects(
        Arc::new(Reached { no_stream: true, ..Reached::default() }),
        Host::new(NoServices),
    );
    let opening = store.open_read(&cx(), name("k"), 0, 1, Conditions::default());
    assert_eq!(kind(opening), ErrorKind::UNSUPPORTED);
}
