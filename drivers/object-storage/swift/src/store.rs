// SPDX-License-Identifier: Apache-2.0

//! Objects of one container: put, get, head, and what the traits lead to elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderMap, Method, StatusCode};
use md5::{Digest as _, Md5};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, TagSet,
};
use tokio::sync::OnceCell;

use crate::attributes::{self, MARK};
use crate::body::{Check, Reader, checks_of, content_range};
use crate::client::{Answer, Call, Client};
use crate::conditions;
use crate::config::{Config, Secret};
use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::manifest::{self, Segment};

/// Bytes beyond which a hash is worth another thread.
const HASH_ASIDE: usize = 64 << 10;
/// In the extensions of a [`GetResult`]: the object is made of others. Its ETag is not the MD5 of its content then, though it
/// looks like one.
#[derive(Clone, Copy, Debug)]
pub struct LargeObject;

/// Bytes of a large object that are worth asking for its manifest, to check them.
const WORTH_A_MANIFEST: u64 = 4 << 20;

/// One container of a Swift account. Clones share connections and tokens.
#[derive(Clone)]
pub struct Swift(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    container: String,
    segments: String,
    part_prefix: String,
    tempurl_key: RwLock<Option<Secret>>,
    /// Set once the segments container is known to exist.
    segments_ready: OnceCell<()>,
}

impl fmt::Debug for Swift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swift").field("container", &self.0.container).finish_non_exhaustive()
    }
}

impl fmt::Display for Swift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Swift({})", self.0.container)
    }
}

impl Swift {
    /// A client of `config`'s container. Nothing is sent yet.
    ///
    /// # Errors
    /// Options that no HTTP client can be made of, such as a certificate that is none.
    pub fn new(config: Config) -> Result<Self> {
        Self::with_connector(config, &ReqwestConnector::default())
    }

    /// A client whose requests go through what `connector` makes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_connector(config: Config, connector: &dyn HttpConnector) -> Result<Self> {
        let (container, segments) = (config.container.clone(), config.segments_container());
        let inner = Inner {
            container,
            segments,
            part_prefix: config.part_prefix.clone(),
            tempurl_key: RwLock::new(config.tempurl_key.clone()),
            segments_ready: OnceCell::new(),
            client: Arc::new(Client::new(config, connector)?),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Another container of the same account, over the same connections; its segments are in `CONTAINER_segments`.
    pub fn with_container(&self, container: &str) -> Self {
        let inner = Inner {
            client: self.0.client.clone(),
            container: container.to_owned(),
            segments: format!("{container}_segments"),
            part_prefix: self.0.part_prefix.clone(),
            tempurl_key: RwLock::new(self.tempurl_key()),
            segments_ready: OnceCell::new(),
        };
        Self(Arc::new(inner))
    }

    /// The container's name.
    pub fn container_name(&self) -> &str {
        &self.0.container
    }

    /// The name of the container that holds segments of multi-part uploads.
    pub fn segments_name(&self) -> &str {
        &self.0.segments
    }

    pub(crate) fn part_prefix(&self) -> &str {
        &self.0.part_prefix
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn segments_ready(&self) -> &OnceCell<()> {
        &self.0.segments_ready
    }

    pub(crate) fn tempurl_key(&self) -> Option<Secret> {
        self.0.tempurl_key.read().map(|key| key.clone()).unwrap_or_default()
    }

    pub(crate) fn use_tempurl_key(&self, key: Secret) {
        if let Ok(mut place) = self.0.tempurl_key.write() {
            *place = Some(key);
        }
    }

    pub(crate) fn call(&self, method: Method, key: &Path) -> Call {
        Call::object(method, &self.0.container, key.as_ref())
    }

    /// The head of an object, as the newest of its replicas has it.
    pub(crate) async fn newest(&self, key: &Path) -> Result<HeaderMap, Failure> {
        let call = self.call(Method::HEAD, key).header("X-Newest", "true");
        Ok(self.client().send(&call).await?.headers)
    }

    /// As [`Self::newest`], or nothing if there is no object.
    pub(crate) async fn newest_if_any(&self, key: &Path) -> Result<Option<HeaderMap>, Failure> {
        match self.newest(key).await {
            Ok(headers) => Ok(Some(headers)),
            Err(failure) if failure.kind() == FailureKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) fn default_type(&self, key: &Path) -> &str {
        self.client()
            .config
            .client_options
            .get_content_type(key)
            .unwrap_or("application/octet-stream")
    }

    /// The headers for a new object.
    pub(crate) fn headers_for(
        &self,
        key: &Path,
        attributes: &Attributes,
        tags: &TagSet,
    ) -> Result<HeaderMap, Failure> {
        if !tags.encoded().is_empty() {
            let failure = Failure::new(
                FailureKind::Unsupported,
                format!("tagging of {key}"),
                "Swift has no tags",
            );
            return Err(failure.remedy("use metadata"));
        }
        attributes::to_headers(attributes, Some(self.default_type(key)))
            .map_err(|failure| failure.path(key.as_ref()))
    }

    /// Puts `payload`, checked by its MD5 at both ends.
    pub(crate) async fn put_checked(
        &self,
        call: Call,
        payload: PutPayload,
    ) -> Result<(String, Answer), Failure> {
        let hash = md5(&payload).await;
        let call = call.header("ETag", &hash).payload(payload);
        let answer = self.client().send(&call).await?;
        if answer.status == StatusCode::ACCEPTED {
            let cause = "the server has an object with a later time at this name, and keeps that";
            let remedy =
                "look at the object, and at the clocks of the server's nodes; then put it again";
            return Err(call.failure(FailureKind::Precondition, cause).remedy(remedy));
        }
        match attributes::header_etag(&answer.headers) {
            Some(etag) if etag == hash => Ok((hash, answer)),
            etag => {
                let cause =
                    format!("the server has stored other bytes: its MD5 is {etag:?}, not {hash}");
                Err(call
                    .failure(FailureKind::Corrupt, cause)
                    .remedy("delete the object and put it again"))
            }
        }
    }

    /// Makes sure that the server does not overwrite what it is asked to create. A gateway that speaks Swift's protocol
    /// may ignore the condition without a word: an object is created twice to see.
    ///
    /// # Errors
    /// The server ignores the condition.
    pub(crate) async fn ensure_creation(&self) -> Result<(), Failure> {
        if self.client().capabilities().await?.creates {
            return Ok(());
        }
        let honoured = self.client().creates.get_or_try_init(|| async {
            let mark = encode::mark().unwrap_or_default();
            let key = Path::from(format!(".nvs-creation-{mark}"));
            let call = self.call(Method::PUT, &key).header("If-None-Match", "*");
            self.put_checked(call.clone(), PutPayload::default()).await?;
            let again = self.put_checked(call, PutPayload::default()).await;
            self.remove_one(&self.0.container, key.as_ref()).await?;
            match again {
                Ok(_) => Ok(false),
                Err(failure) if failure.status() == Some(412) => Ok(true),
                Err(failure) => Err(failure),
            }
        });
        if *honoured.await? {
            return Ok(());
        }
        let label = format!("creating an object in {}", self.0.container);
        let cause = "the server overwrites objects which it is asked to create";
        Err(Failure::new(FailureKind::Unsupported, label, cause)
            .remedy("use its S3 interface, or another server"))
    }

    async fn create(
        &self,
        call: Call,
        key: &Path,
        payload: PutPayload,
    ) -> Result<PutResult, Failure> {
        let mark = encode::mark().map_err(|error| {
            call.failure(FailureKind::Server, format!("this system has no random numbers: {error}"))
        })?;
        self.ensure_creation().await?;
        let call = call.header("If-None-Match", "*").header(MARK, &mark);
        match self.put_checked(call, payload).await {
            Ok((etag, answer)) => Ok(put_result(etag, &answer.headers, answer.extensions)),
            Err(failure) => self.whose(key, MARK, &mark, failure).await,
        }
    }

    /// What a refused conditional write means: somebody else's object is there, or our own, written by an attempt whose
    /// answer was lost.
    pub(crate) async fn whose(
        &self,
        key: &Path,
        name: &str,
        mark: &str,
        refused: Failure,
    ) -> Result<PutResult, Failure> {
        if refused.status() != Some(412) {
            return Err(refused);
        }
        if !refused.outcome_unknown() {
            return Err(refused.kind_of(FailureKind::AlreadyExists));
        }
        let headers =
            self.newest(key).await.map_err(|_| refused.clone().kind_of(FailureKind::TimedOut))?;
        if headers.get(name).is_some_and(|value| value.as_bytes() == mark.as_bytes()) {
            let etag = attributes::header_etag(&headers).unwrap_or_default();
            return Ok(put_result(etag, &headers, Extensions::new()));
        }
        Err(refused
            .kind_of(FailureKind::TimedOut)
            .remedy("another object is there now: read it before going on"))
    }

    async fn get(&self, key: &Path, options: GetOptions) -> Result<GetResult, Failure> {
        let method = if options.head { Method::HEAD } else { Method::GET };
        let mut call = self.call(method, key).extensions(options.extensions.clone());
        if let Some(version) = &options.version {
            call = call.query("version-id", version);
        }
        // What a conditional request asked must hold for the rest of the object by its ETag alone.
        let rest = call.clone();
        call = conditions::ask(call, &options);
        if let Some(range) = &options.range {
            range
                .is_valid()
                .map_err(|error| call.failure(FailureKind::Rejected, error.to_string()))?;
            if !options.head {
                call = call.header("Range", range.to_string());
            }
        }
        let answer = self.client().send(&call).await?;
        conditions::judge(&call, &options, &answer.headers)?;
        let length: Option<u64> =
            answer.header("content-length").and_then(|text| text.parse().ok());
        let length = length.ok_or_else(|| {
            let cause = "the server does not tell the object's length";
            let remedy = "a dynamic large object of too many segments: make it a static one";
            call.failure(FailureKind::Unsupported, cause).remedy(remedy)
        })?;
        let (next, end, size) = match (&options.range, answer.status) {
            (Some(range), _) if options.head => {
                let range = range.as_range(length);
                let range = range
                    .map_err(|error| call.failure(FailureKind::Rejected, error.to_string()))?;
                (range.start, range.end, length)
            }
            (Some(_), StatusCode::PARTIAL_CONTENT) => content_range(&answer)
                .filter(|(first, end, _)| end - first == length)
                .ok_or_else(|| {
                    call.failure(
                        FailureKind::Rejected,
                        "the answer does not tell which range it is",
                    )
                })?,
            // Nothing has no ranges.
            (Some(_), _) if length == 0 => (0, 0, 0),
            // A server may answer with everything if everything was asked for.
            (Some(range), _) if range.as_range(length).ok() != Some(0..length) => {
                return Err(call.failure(FailureKind::Unsupported, "the server ignored the range"));
            }
            _ => (0, length, length),
        };
        let meta = attributes::object_meta(key, &answer.headers, size);
        let attributes = attributes::from_headers(&answer.headers);
        let mut extensions = answer.extensions.clone();
        if attributes::is_manifest(&answer.headers) {
            extensions.insert(LargeObject);
        }
        let payload = if options.head {
            futures_util::stream::empty().boxed()
        } else {
            let checks = self.checks(key, &options, &answer.headers, (next, end, size)).await;
            let etag = meta.e_tag.clone();
            let reader = Reader {
                swift: self.clone(),
                call: rest,
                etag,
                size,
                next,
                end,
                checks,
                md5: Md5::new(),
            };
            reader.stream(answer)
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range: next..end,
            attributes,
            extensions,
        })
    }
}

impl Swift {
    /// What can be checked of the bytes from `next` to `end` of an object with `head`.
    async fn checks(
        &self,
        key: &Path,
        options: &GetOptions,
        head: &HeaderMap,
        (next, end, size): (u64, u64, u64),
    ) -> VecDeque<Check> {
        let etag = attributes::header_etag(head).unwrap_or_default();
        let is_md5 = etag.len() == 32 && encode::unhex(&etag).is_some();
        if !self.client().config.verify_reads || !is_md5 || options.version.is_some() {
            return VecDeque::new();
        }
        if !attributes::is_manifest(head) {
            let whole = Segment::new(self.container_name(), key.as_ref(), &etag, size);
            return checks_of(&[whole], next, end);
        }
        if !attributes::is_large(head) || end - next < WORTH_A_MANIFEST.min(size) {
            return VecDeque::new();
        }
        // Without its manifest, or if that is another one by now, the object is read as it comes: its ETag still has to
        // stay the same, and its length is counted.
        let most = self.client().capabilities().await.map_or(0, |info| info.max_segments);
        match self.manifest(key, head).await {
            Ok(segments) if manifest::nested_etag(&segments, most) == etag => {
                checks_of(&segments, next, end)
            }
            _ => VecDeque::new(),
        }
    }
}

pub(crate) fn put_result(etag: String, headers: &HeaderMap, extensions: Extensions) -> PutResult {
    let version =
        headers.get(attributes::VERSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    PutResult { e_tag: Some(etag), version, extensions }
}

fn hash(chunks: &[Bytes]) -> String {
    let mut md5 = Md5::new();
    chunks.iter().for_each(|chunk| md5.update(chunk));
    encode::hex(&md5.finalize())
}

async fn md5(payload: &PutPayload) -> String {
    if payload.content_length() <= HASH_ASIDE {
        return hash(payload.as_ref());
    }
    let aside = payload.clone();
    match tokio::task::spawn_blocking(move || hash(aside.as_ref())).await {
        Ok(hash) => hash,
        // The runtime is shutting down: nobody waits for this any more, yet the answer stays right.
        Err(_) => hash(payload.as_ref()),
    }
}

#[async_trait]
impl ObjectStore for Swift {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let headers = self.headers_for(location, &opts.attributes, &opts.tags)?;
        let call = self.call(Method::PUT, location).headers(headers).extensions(opts.extensions);
        match opts.mode {
            PutMode::Create => Ok(self.create(call, location, payload).await?),
            PutMode::Update(_) => Err(Error::NotImplemented {
                operation: "put_opts with PutMode::Update (Swift ignores If-Match on PUT: write a new name with \
                            PutMode::Create instead)"
                    .to_owned(),
                implementer: self.to_string(),
            }),
            PutMode::Overwrite => {
                let replaced = self.replaced(location).await?;
                let (etag, answer) = self.put_checked(call, payload).await?;
                self.forget(location, replaced).await;
                Ok(put_result(etag, &answer.headers, answer.extensions))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.upload(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        Ok(self.get(location, options).await?)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.remove_all(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects(prefix, "")
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects(prefix, offset.as_ref())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.directory(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        Ok(self.copy(from, to, options).await?)
    }
}
