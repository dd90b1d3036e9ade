// SPDX-License-Identifier: Apache-2.0
//! The management API: JSON over HTTP on a unix socket, under `/v1`. Handlers translate and call.
//!
//! Every request runs in a task of its own: a client that goes away does not cut an operation in two.

mod backends;
pub mod changes;
mod cluster;
mod data;
mod exports;
pub mod handover;
mod jobs;
mod metrics;
pub mod movement;
pub mod objects;
pub mod problem;
pub mod promotion;
pub mod requests;
pub mod scrubs;
pub mod types;
mod views;
mod volumes;

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use driver_api::{Error, ErrorKind, Result};
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde::de::DeserializeOwned;
use tokio::{net::UnixListener, sync::Semaphore};

use crate::{
    jobs::{Jobs, ReplicaJobs, Transfers},
    objects::Objects,
    volumes::{Boxed, Volumes},
};
use problem::Problem;
use requests::{Answer, Requests, Seen};
use types::DriverView;

/// No request body may be longer, except data of volumes and objects.
const LONGEST_BODY: usize = 1 << 20;
const REQUESTS_AT_ONCE: usize = 128;
/// Bytes that wait in a connection for the client. With the system's few, an object's bytes cost both sides many more
/// turns.
pub const SENT_AHEAD: usize = 1 << 20;
/// A request that takes longer is answered with "outcome unknown", and goes on.
const PATIENCE: Duration = Duration::from_secs(120);
/// The header by which a repeated request is known.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The header, and the trailer of a longer answer, with the token of a session: what it has written and seen.
pub const SESSION_TOKEN: &str = "novastor-token";

/// The drivers, as the API shows them.
pub trait Drivers: Send + Sync + 'static {
    /// Every file in the directory of drivers.
    fn list(&self) -> Vec<DriverView>;
    /// Looks at the directory again.
    fn rescan(&self) -> Result<()>;
}

/// The ways in for clients, as the API steers them.
pub trait Gates: Send + Sync + 'static {
    /// Where clients find an export.
    fn uri(&self, export: &str) -> String;
    /// The unix socket of NBD clients; empty if there is none.
    fn socket(&self) -> String;
    /// The addresses of NBD clients over TCP.
    fn listen(&self) -> Vec<String>;
    /// Clients of an export.
    fn connections(&self, export: &str) -> usize;
    /// Sends an export's clients away, and returns once what they had under way is done.
    fn disconnect(&self, export: &str) -> Boxed<Result<()>>;
}

/// What the API is a face of. A cheap handle.
#[derive(Clone)]
pub struct Api(Arc<Parts>, Objects);

/// The parts behind an [`Api`].
pub struct Parts {
    /// Volumes.
    pub volumes: Volumes,
    /// Jobs.
    pub jobs: Jobs,
    /// Starts jobs that move volumes.
    pub transfers: Transfers,
    /// Starts jobs on replicas, and resumes them.
    pub replicas: ReplicaJobs,
    /// Requests with a key.
    pub requests: Requests,
    /// Drivers.
    pub drivers: Box<dyn Drivers>,
    /// Ways in for clients.
    pub gates: Box<dyn Gates>,
    /// When the host started.
    pub started: std::time::Instant,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

type Answered<T> = std::result::Result<T, Problem>;

/// A JSON body, refused as a problem.
struct Json<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|error| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("the request's body: {error}"))
        })?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let value = serde_json::from_slice(text).map_err(|error| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("the request's body: {error}"))
                .remedy("send the JSON that this resource takes")
        })?;
        Ok(Self(value))
    }
}

impl Api {
    /// An API over these parts.
    pub fn new(parts: Parts) -> Self {
        let objects = Objects::new(parts.volumes.clone());
        Self(Arc::new(parts), objects)
    }

    /// Whole objects of backends, and the room for their bytes.
    pub fn objects(&self) -> &Objects {
        &self.1
    }

    /// All its resources.
    pub fn router(self) -> Router {
        let slots = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
        Router::new()
            .route("/v1/status", get(backends::status))
            .route("/v1/metrics", get(metrics::metrics))
            .merge(backends::routes())
            .merge(volumes::routes())
            .merge(changes::routes())
            .merge(cluster::routes())
            .merge(movement::routes())
            .merge(promotion::routes())
            .merge(scrubs::routes())
            .merge(exports::routes())
            .merge(jobs::routes())
            .merge(objects::routes())
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .layer(middleware::from_fn_with_state(self.clone(), once))
            .merge(data::routes())
            .merge(objects::streams())
            .layer(middleware::from_fn(move |request, next| {
                within(Arc::clone(&slots), request, next)
            }))
            .fallback(|| async {
                Problem(
                    Error::new(ErrorKind::NOT_FOUND, "there is no such resource").remedy(
                        "resources begin with /v1/status, volumes, exports, jobs, backends",
                    ),
                )
            })
            .with_state(self)
    }

    /// Serves the API on a unix socket until `end`.
    pub async fn serve(
        self,
        listener: UnixListener,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let listener = listener.tap_io(|stream| {
            // Slower if refused, and nothing else.
            let _ = set_socket_send_buffer_size(stream, SENT_AHEAD);
        });
        let serving = axum::serve(listener, self.router()).with_graceful_shutdown(end);
        serving.await.map_err(|error| Error::from_io("the management API ended", &error))
    }
}

/// Opens the API's socket. A socket that nobody listens on any more is replaced.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let failed = |error: std::io::Error| {
        Error::from_io(format!("the API's socket cannot be opened: {error}"), &error)
            .with("socket", path.display())
            .remedy("choose another place: [api] socket = \"…\"")
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::new(ErrorKind::IN_USE, "another novastor serves this socket")
            .with("socket", path.display())
            .remedy("end it first, or choose another [api] socket"));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(failed)?;
    Ok(listener)
}

/// Bounds how many requests there are at once, and gives each a task that its client cannot cut off.
async fn within(slots: Arc<Semaphore>, request: Request, next: Next) -> Response {
    let Ok(slot) = slots.try_acquire_owned() else {
        let why = format!("{REQUESTS_AT_ONCE} requests are under way");
        return Problem(Error::new(ErrorKind::UNAVAILABLE, why).remedy("repeat it in a moment"))
            .into_response();
    };
    let path = request.uri().path();
    let is_data = path.ends_with("/data") || objects::takes_its_time(request.method(), path);
    let task = tokio::spawn(async move {
        let _slot = slot;
        next.run(request).await
    });
    let answer = async {
        task.await.unwrap_or_else(|panic| {
            let why = format!("the request ended in a panic: {panic}");
            Problem(Error::new(ErrorKind::INTERNAL, why)).into_response()
        })
    };
    if is_data {
        return answer.await;
    }
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        let why = "the request takes long; it goes on, its outcome is unknown";
        Problem(Error::new(ErrorKind::TIMED_OUT, why).remedy("look at the object, then repeat it"))
            .into_response()
    })
}

/// Answers a repeated request with a key as it was answered the first time.
async fn once(State(api): State<Api>, request: Request, next: Next) -> Response {
    let key = match request.headers().get(IDEMPOTENCY_KEY) {
        Some(key) if request.method() != Method::GET => key.clone(),
        _ => return next.run(request).await,
    };
    match answer_once(&api, &key, request, next).await {
        Ok(response) => response,
        Err(error) => Problem(error).into_response(),
    }
}

async fn answer_once(
    api: &Api,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response> {
    let key = key.to_str().map_err(|_| {
        Error::new(ErrorKind::INVALID_ARGUMENT, "an Idempotency-Key is printable ASCII")
    })?;
    let (head, body) = request.into_parts();
    let body = read_body(body, LONGEST_BODY).await?;
    let path = head.uri.to_string();
    let parts: [&[u8]; 3] = [head.method.as_str().as_bytes(), path.as_bytes(), &body];
    let begun = match api.requests.begin(key, &parts).await? {
        Seen::Answered(answer) => return Ok(respond(answer)),
        Seen::Begin(begun) => begun,
    };
    let deletes = head.method == Method::DELETE;
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    let status = response.status().as_u16();
    let body = read_body(response.into_body(), usize::MAX).await?;
    let mut answer = Answer { status, body: String::from_utf8_lossy(&body).into_owned() };
    if begun.repeated && deletes && status == 404 {
        // The attempt that a crash cut off had deleted it.
        answer = Answer { status: 200, body: "{}".to_owned() };
    }
    api.requests.end(begun, answer.clone()).await?;
    Ok(respond(answer))
}

async fn read_body(body: Body, most: usize) -> Result<Bytes> {
    to_bytes(body, most).await.map_err(|error| {
        Error::new(ErrorKind::INVALID_ARGUMENT, format!("the body cannot be read: {error}"))
    })
}

fn respond(answer: Answer) -> Response {
    let kind = if answer.status >= 400 { problem::PROBLEM_JSON } else { "application/json" };
    let status = axum::http::StatusCode::from_u16(answer.status);
    let status = status.unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
}
