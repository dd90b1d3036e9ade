// SPDX-License-Identifier: Apache-2.0
//! Speaks with the host over its management socket.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::oneshot};

use crate::api::{IDEMPOTENCY_KEY, SESSION_TOKEN, problem};

/// A body that is sent.
pub(super) type Sent = BoxBody<Bytes, std::io::Error>;

/// The host behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// What tells a repeated request from another one; none: it may be done as often as it comes.
    key: Option<String>,
    /// What the session that its requests belong to has written and seen; empty: nothing.
    token: Option<String>,
}

pub(super) fn whole(bytes: Vec<u8>) -> Sent {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

pub(super) fn encoded(body: &impl Serialize) -> Result<Sent> {
    let body = serde_json::to_vec(body).map_err(|error| {
        Error::new(ErrorKind::INTERNAL, "the request cannot be encoded").caused_by(&error)
    })?;
    Ok(whole(body))
}

/// One part of a resource's path, with what has a meaning of its own escaped.
pub(super) fn part(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// A connection to the host.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Sent>,
    /// Ends with what moves the connection's bytes.
    ended: oneshot::Receiver<Infallible>,
}

impl Connection {
    /// Whether there may be another request.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request; gives the answer's head, and the connection if it has not ended.
    ///
    /// A request that comes just when the connection ends lies in its queue for ever: it is told only by the end of the queue,
    /// which is held by whoever sends.
    pub(super) async fn send(
        self,
        request: Request<Sent>,
    ) -> std::result::Result<(Response<Incoming>, Option<Self>), hyper::Error> {
        let Self { mut sender, mut ended } = self;
        let mut answer = Box::pin(sender.send_request(request));
        tokio::select! {
            biased;
            answer = &mut answer => return Ok((answer?, Some(Self { sender, ended }))),
            _ = &mut ended => {}
        }
        drop(sender);
        Ok((answer.await?, None))
    }
}

impl Client {
    /// Speaks over this socket; mutations carry `key`, or a fresh one.
    pub fn new(socket: &Path, key: Option<String>) -> Result<Self> {
        let key = match key {
            Some(key) => key,
            None => fresh_key()?,
        };
        Ok(Self { socket: socket.to_owned(), key: Some(key), token: None })
    }

    /// The same, for requests of a session with this token, if it is given.
    pub(super) fn in_session(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// The client for what follows a request of the same command: a key is of one request only, and whoever repeats the
    /// command with its key repeats both.
    pub(super) fn then(&self, step: &str) -> Self {
        let key = self.key.as_ref().map(|key| format!("{key}.{step}"));
        Self { key, ..self.clone() }
    }

    /// The client for questions that are posted: each is answered anew, not with what was answered before.
    pub(super) fn asking(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// The key that its mutations carry.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// A connection of its own, for as many requests as one likes.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "run it as a user of the socket's group",
                _ => "start the host: novastor serve; or name its socket with --socket",
            };
            Error::new(ErrorKind::UNAVAILABLE, format!("no host answers: {error}"))
                .with("socket", self.socket.display())
                .remedy(remedy)
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| {
                Error::new(ErrorKind::UNAVAILABLE, "the host went away").caused_by(&error)
            })?;
        let (alive, ended) = oneshot::channel();
        tokio::spawn(async move {
            // A broken connection shows at the request, which says it better.
            let _ = connection.with_upgrades().await;
            drop::<oneshot::Sender<Infallible>>(alive);
        });
        Ok(Connection { sender, ended })
    }

    /// Sends a request and gives the answer's head; an answer that is a problem becomes an error.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Sent,
    ) -> Result<Response<Incoming>> {
        let connection = self.connect().await?;
        let changes = method != Method::GET;
        let lost = |error: hyper::Error| {
            let message = if changes {
                "the host went away; whether the request was done is unknown"
            } else {
                "the host went away"
            };
            let once =
                self.key.as_ref().map(|key| format!("; add --request-id {key} to do it once only"));
            Error::new(ErrorKind::UNAVAILABLE, message)
                .caused_by(&error)
                .remedy(format!("repeat it{}", once.unwrap_or_default()))
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "novastor")
            .header(hyper::header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if let Some(token) = &self.token {
            request = request.header(SESSION_TOKEN, token).header(hyper::header::TE, "trailers");
        }
        let request = request.body(body).map_err(|error| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("no request: {error}"))
        })?;
        let (response, _) = connection.send(request).await.map_err(lost)?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let body = response.into_body().collect().await;
        let body = body.map_err(lost)?.to_bytes();
        Err(problem::parse(status, &body))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Sent) -> Result<T> {
        Self::answer(self.send(method, path, body).await?).await
    }

    pub(super) async fn answer<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
        let body = response.into_body().collect().await.map_err(|error| {
            Error::new(ErrorKind::UNAVAILABLE, "the host's answer broke off").caused_by(&error)
        })?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "the host's answer is not understood")
                .caused_by(&error)
                .remedy("use a novastor of the host's version")
        })
    }

    /// Gets a resource.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, whole(Vec::new())).await
    }

    /// Posts to a resource.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, encoded(body)?).await
    }

    /// Puts a resource.
    pub(super) async fn set<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.ask(Method::PUT, path, encoded(body)?).await
    }

    /// Changes a part of a resource.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::PATCH, path, encoded(body)?).await
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.ask(Method::DELETE, path, whole(Vec::new())).await.map(|_: serde_json::Value| ())
    }

    /// Deletes a resource, and gives what became of it.
    pub(super) async fn remove<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::DELETE, path, whole(Vec::new())).await
    }

    /// Gets a resource that is not JSON.
    pub(super) async fn stream(&self, path: &str) -> Result<Response<Incoming>> {
        self.send(Method::GET, path, whole(Vec::new())).await
    }

    /// Puts data to a resource, and gives the session's token with the answer.
    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Sent,
    ) -> Result<(T, Option<String>)> {
        let response = self.send(Method::PUT, path, body).await?;
        let token = token_in(response.headers());
        Ok((Self::answer(response).await?, token))
    }
}

/// The session's token in the head or the trailers of an answer.
pub(super) fn token_in(headers: &HeaderMap) -> Option<String> {
    let token = headers.get(SESSION_TOKEN)?;
    token.to_str().ok().map(str::to_owned)
}

/// 32 hexadecimal digits that nobody else has.
pub(super) fn fresh_key() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Error::from_io("no random numbers", &error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod connection_tests {
    use std::time::Duration;

    use super::Client;

    /// What is asked just when a connection ends is answered with an error; hyper alone leaves one in some thousand without.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_host_that_hangs_up_is_an_error_at_once() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("api.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let client = Client::new(&socket, None).unwrap();
        for number in 0..20_000 {
            let asking = client.get::<serde_json::Value>("/v1/volumes");
            let answer = tokio::time::timeout(Duration::from_secs(10), asking).await;
            assert!(answer.unwrap_or_else(|_| panic!("request {number} hangs")).is_err());
        }
    }
}
