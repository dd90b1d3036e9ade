// SPDX-License-Identifier: Apache-2.0
//! Servers for tests, which `tests/services/object with COMMAND` starts, and a connector that makes mistakes.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use swift::{Auth, Config, ContainerUpdate, Failure, FailureKind, KeystoneIdentity, Swift};

/// What `DIR/addresses` says.
pub fn addresses() -> HashMap<String, String> {
    let directory = std::env::var("NOVASTOR_OBJECT")
        .expect("NOVASTOR_OBJECT names the directory of the servers");
    let text =
        std::fs::read_to_string(format!("{directory}/addresses")).expect("the servers' addresses");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Swift,
    Keystone,
    KeystoneApplication,
    Radosgw,
}

impl Server {
    pub fn auth(self) -> Auth {
        let addresses = addresses();
        let of = |key: &str| {
            addresses.get(key).unwrap_or_else(|| panic!("no server tells its {key}")).clone()
        };
        let version_1 = |prefix: &str| Auth::V1 {
            auth_url: of(&format!("{prefix}swift_auth")),
            user: of(&format!("{prefix}swift_user")),
            key: of(&format!("{prefix}swift_key")).as_str().into(),
        };
        let keystone = |identity| Auth::Keystone {
            auth_url: of("keystone_url"),
            identity,
            region: addresses.get("keystone_region").cloned(),
            interface: "public".to_owned(),
        };
        match self {
            Self::Swift => version_1(""),
            Self::Radosgw => version_1("radosgw_"),
            Self::Keystone => keystone(KeystoneIdentity::Password {
                user: of("keystone_user"),
                password: of("keystone_password").as_str().into(),
                user_domain: of("keystone_domain"),
                project: of("keystone_project"),
                project_domain: of("keystone_domain"),
            }),
            Self::KeystoneApplication => keystone(KeystoneIdentity::Application {
                id: of("keystone_app_id"),
                secret: of("keystone_app_secret").as_str().into(),
            }),
        }
    }

    pub fn config(self, container: &str) -> Config {
        let mut config = Config::new(self.auth(), container);
        config.retry = RetryConfig {
            max_retries: 10,
            retry_timeout: Duration::from_secs(60),
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(20),
                max_backoff: Duration::from_millis(500),
                base: 2.0,
            },
        };
        config
    }

    /// A new container of its own.
    pub async fn fresh(self, name: &str) -> Swift {
        self.fresh_with(name, |_| {}, &Faults::default()).await
    }

    pub async fn fresh_with(
        self,
        name: &str,
        change: impl FnOnce(&mut Config),
        faults: &Faults,
    ) -> Swift {
        let container = format!("{name}-{:08x}", fastrand::u32(..));
        let plain = Swift::new(self.config(&container)).unwrap();
        plain.create_container(&container, &ContainerUpdate::default()).await.unwrap();
        let mut config = self.config(&container);
        change(&mut config);
        Swift::with_connector(config, faults).unwrap()
    }
}

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// The server is not asked; this status is answered, with this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// The server does it, and this status is answered.
    StatusAfter(u16),
    /// The server does it, and the connection breaks before its answer.
    LoseAnswer,
    /// Something else happens, then the connection breaks; the server has not been asked.
    Meanwhile(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>),
    /// Nothing is ever answered.
    Hang,
    /// The answer's body breaks off behind so many bytes.
    Cut(usize),
    /// It ends there as if that were all.
    End(usize),
    /// It hangs there.
    Stall(usize),
    /// It comes one byte at a time, after such a wait each.
    Drip(Duration),
    /// This byte of it is wrong.
    Flip(usize),
    /// The first byte of the request's body is wrong.
    FlipRequest,
    /// The server is not asked; this is answered with status 200.
    Answer(String),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

pub fn meanwhile<F: Future<Output = ()> + Send + 'static>(
    f: impl Fn() -> F + Send + Sync + 'static,
) -> Fault {
    Fault::Meanwhile(Arc::new(move || Box::pin(f())))
}

#[derive(Debug)]
struct Rule {
    method: &'static str,
    part: String,
    left: usize,
    fault: Fault,
}

/// Rules for requests, and what was asked.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    asked: Arc<Mutex<Vec<(String, http::HeaderMap)>>>,
}

impl Faults {
    /// `fault` happens to the next `times` requests with `method` whose URL has `part`.
    pub fn on(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { method, part: part.to_owned(), left: times, fault });
    }

    pub fn clear(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Heads of the requests so far with `method` whose URL has `part`.
    pub fn asked(&self, method: &str, part: &str) -> Vec<http::HeaderMap> {
        let asked = self.asked.lock().unwrap();
        let wanted = |line: &str| line.starts_with(&format!("{method} ")) && line.contains(part);
        asked.iter().filter(|(line, _)| wanted(line)).map(|(_, headers)| headers.clone()).collect()
    }

    fn next(&self, request: &HttpRequest) -> Option<Fault> {
        let line = format!("{} {}", request.method(), request.uri());
        self.asked.lock().unwrap().push((line, request.headers().clone()));
        let mut rules = self.rules.lock().unwrap();
        let url = request.uri().to_string();
        let rule = rules.iter_mut().find(|rule| {
            rule.left > 0 && request.method() == rule.method && url.contains(&rule.part)
        })?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

impl HttpConnector for Faults {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Faulty { inner, faults: self.clone() }))
    }
}

#[derive(Debug)]
struct Faulty {
    inner: HttpClient,
    faults: Faults,
}

fn broken() -> HttpError {
    HttpError::new(
        HttpErrorKind::Interrupted,
        std::io::Error::other("the connection was broken by the test"),
    )
}

fn status(code: u16, after: Option<&str>, body: String) -> HttpResponse {
    let mut answer = http::Response::builder().status(code).header("X-Trans-Id", "tx-of-the-test");
    if let Some(after) = after {
        answer = answer.header("Retry-After", after);
    }
    answer.body(body.into()).unwrap()
}

type Chunks = Vec<Result<Frame<Bytes>, HttpError>>;

/// `answer` with its body as `change` makes it, and `hang` at its end.
async fn changed(
    answer: HttpResponse,
    hang: bool,
    change: impl FnOnce(Vec<u8>) -> Chunks,
) -> HttpResponse {
    let (head, body) = answer.into_parts();
    let chunks = stream::iter(change(body.bytes().await.unwrap().to_vec()));
    let body = if hang {
        HttpResponseBody::new(StreamBody::new(futures_util::StreamExt::chain(
            chunks,
            stream::pending(),
        )))
    } else {
        HttpResponseBody::new(StreamBody::new(chunks))
    };
    http::Response::from_parts(head, body)
}

fn frame(bytes: &[u8]) -> Result<Frame<Bytes>, HttpError> {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

#[async_trait]
impl HttpService for Faulty {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let ask = |request| self.inner.execute(request);
        match self.faults.next(&request) {
            None => ask(request).await,
            Some(Fault::Status(code, after)) => {
                // Others are asking at the same time.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(status(code, after, "said the test".to_owned()))
            }
            Some(Fault::StatusAfter(code)) => {
                let answer = ask(request).await?;
                assert!(answer.status().is_success(), "{answer:?}");
                Ok(status(code, None, String::new()))
            }
            Some(Fault::LoseAnswer) => {
                let answer = ask(request).await?;
                assert!(answer.status().is_success(), "{answer:?}");
                // A server may go on while it answers.
                answer.into_body().bytes().await?;
                Err(broken())
            }
            Some(Fault::Meanwhile(happens)) => {
                happens().await;
                Err(broken())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Cut(at)) => {
                let cut = |body: Vec<u8>| vec![frame(&body[..at.min(body.len())]), Err(broken())];
                Ok(changed(ask(request).await?, false, cut).await)
            }
            Some(Fault::End(at)) => {
                Ok(changed(ask(request).await?, false, |body| vec![frame(&body[..at])]).await)
            }
            Some(Fault::Stall(at)) => {
                Ok(changed(ask(request).await?, true, |body| vec![frame(&body[..at])]).await)
            }
            Some(Fault::Drip(wait)) => {
                let (head, body) = ask(request).await?.into_parts();
                let bytes = body.bytes().await?;
                let drops = stream::unfold((bytes, 0), move |(bytes, at)| async move {
                    tokio::time::sleep(wait).await;
                    (at < bytes.len()).then(|| (frame(&bytes[at..=at]), (bytes, at + 1)))
                });
                Ok(http::Response::from_parts(head, HttpResponseBody::new(StreamBody::new(drops))))
            }
            Some(Fault::Flip(at)) => {
                let flip = |mut body: Vec<u8>| {
                    body[at] ^= 1;
                    vec![frame(&body)]
                };
                Ok(changed(ask(request).await?, false, flip).await)
            }
            Some(Fault::FlipRequest) => {
                let bytes =
                    http_body_util::BodyExt::collect(request.body_mut().clone()).await?.to_bytes();
                let mut bytes = bytes.to_vec();
                bytes[0] ^= 1;
                *request.body_mut() = bytes.into();
                ask(request).await
            }
            Some(Fault::Answer(body)) => Ok(status(200, None, body)),
        }
    }
}

/// What kind of failure of this client an error is.
pub fn kind(error: &object_store::Error) -> FailureKind {
    Failure::of(error).unwrap_or_else(|| panic!("no failure of this client: {error}")).kind()
}

/// Names of the objects in the segments container of `swift`.
pub async fn segments(swift: &Swift) -> Vec<String> {
    use futures_util::TryStreamExt;
    use object_store::ObjectStore;
    let container = swift.with_container(swift.segments_name());
    let mut names: Vec<String> = container
        .list(None)
        .map_ok(|meta| meta.location.to_string())
        .try_collect()
        .await
        .unwrap_or_default();
    names.sort();
    names
}

/// Puts `parts` as one large object.
pub async fn put_large(swift: &Swift, key: &str, parts: &[&str]) -> object_store::PutResult {
    use object_store::ObjectStoreExt;
    let mut upload = swift.put_multipart(&key.into()).await.unwrap();
    for part in parts {
        upload.put_part((*part).to_owned().into()).await.unwrap();
    }
    upload.complete().await.unwrap()
}

pub async fn text(swift: &Swift, key: &str) -> String {
    use object_store::ObjectStoreExt;
    let bytes = swift.get(&key.into()).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}
