// SPDX-License-Identifier: Apache-2.0
//! The stores that `tests/services/object` started, and what tests do with all of them.
#![allow(dead_code)]

pub mod body;
pub mod played;
pub mod proxy;
pub mod script;

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use driver_api::{
    Backend, Error, ErrorKind, IoBuf, OpContext, Tuple2,
    ext::{BucketSpec, ObjectName, Objects},
};
use object_storage::{Config, ObjectBackend};
use serde_json::{Value, json};

/// What the servers' addresses say. A server that was not started fails the test.
pub struct Addresses(HashMap<String, String>);

impl Addresses {
    pub fn read() -> Self {
        let dir = std::env::var("NOVASTOR_OBJECT")
            .expect("NOVASTOR_OBJECT: run this by `tests/services/object with COMMAND`");
        let text = fs::read_to_string(format!("{dir}/addresses")).expect("the servers' addresses");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("no server has the address {key}"))
    }
}

/// The options for each store.
pub fn options(store: &str) -> Value {
    let at = Addresses::read();
    match store {
        "moto" | "moto_tls" => json!({
            "kind": "s3", "endpoint": at.get(store),
            "access_key": at.get("moto_access_key"), "secret_key": at.get("moto_secret_key"),
        }),
        "radosgw" => json!({
            "kind": "s3", "endpoint": at.get("radosgw_s3"),
            "access_key": at.get("radosgw_access_key"), "secret_key": at.get("radosgw_secret_key"),
        }),
        "radosgw_tls" => json!({
            "kind": "s3", "endpoint": at.get("radosgw_s3_tls"), "ca_file": at.get("ca"),
            "access_key": at.get("radosgw_access_key"), "secret_key": at.get("radosgw_secret_key"),
        }),
        "azurite" | "azurite_tls" => json!({
            "kind": "azure", "emulator": true, "endpoint": at.get(store),
            "account": at.get("azurite_account"), "account_key": at.get("azurite_key"),
        }),
        "gcs" | "gcs_tls" => {
            let account = store.replacen("gcs", "gcs_service_account", 1);
            json!({
                "kind": "gcs", "endpoint": at.get(store),
                "service_account": at.get(&account), "project": at.get("gcs_project"),
            })
        }
        "swift" => json!({
            "kind": "swift", "auth": "v1", "auth_url": at.get("swift_auth"),
            "user": at.get("swift_user"), "password": at.get("swift_key"), "temp_url_key": "signs",
        }),
        "keystone" => json!({
            "kind": "swift", "auth": "v3", "auth_url": at.get("keystone_url"),
            "user": at.get("keystone_user"), "password": at.get("keystone_password"),
            "project": at.get("keystone_project"), "user_domain": at.get("keystone_domain"),
            "project_domain": at.get("keystone_domain"), "temp_url_key": "signs",
        }),
        other => panic!("there is no store {other}"),
    }
}

/// A backend of these options, with others laid over them.
pub fn open(mut options: Value, more: Value) -> ObjectBackend {
    for (key, value) in more.as_object().expect("an object") {
        options[key] = value.clone();
    }
    let config: Config = serde_json::from_value(options).expect("options");
    ObjectBackend::open("test", config).expect("a backend")
}

/// A store under test.
pub struct Stage {
    pub name: String,
    pub objects: Arc<dyn Objects>,
    pub backend: ObjectBackend,
    pub bucket: String,
}

impl Stage {
    /// The store with a fresh bucket.
    pub async fn new(store: &str) -> Self {
        Self::with(store, json!({})).await
    }

    pub async fn with(store: &str, more: Value) -> Self {
        let backend = open(options(store), more);
        let objects = backend.objects().expect("objects");
        let bucket = fresh("driver");
        objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
        Self { name: store.to_owned(), objects, backend, bucket }
    }

    /// The same bucket through a proxy.
    pub fn through(&self, proxy: &proxy::Proxy, more: Value) -> Arc<dyn Objects> {
        let mut options = options(&self.name);
        options["endpoint"] = proxy.url(options["endpoint"].as_str().expect("an endpoint")).into();
        open(options, more).objects().expect("objects")
    }

    pub fn object(&self, key: &str) -> ObjectName {
        ObjectName::new(&self.bucket, key)
    }
}

/// A name that no other test has.
pub fn fresh(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = fastrand::u32(..);
    format!("{what}-{id:08x}-{}", NEXT.fetch_add(1, Relaxed))
}

pub fn cx() -> OpContext {
    OpContext::new().with_timeout(Duration::from_secs(30))
}

pub fn within(secs: u64) -> OpContext {
    OpContext::new().with_timeout(Duration::from_secs(secs))
}

pub fn buf(data: &[u8]) -> IoBuf {
    IoBuf::copy_from(data)
}

/// Bytes that do not repeat.
pub fn noise(len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut data);
    data
}

pub fn pairs(
    pairs: &[(&str, &str)],
) -> driver_api::RVec<Tuple2<driver_api::RString, driver_api::RString>> {
    pairs.iter().map(|&(key, value)| Tuple2(key.into(), value.into())).collect()
}

/// Fails unless the result is an error of this kind, which is given.
#[track_caller]
pub fn refused<T>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("it succeeded, and should have failed with {kind}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:#}");
            error
        }
    }
}
