// SPDX-License-Identifier: Apache-2.0
//! Objects' bytes straight into clients' files: see [`handover`].

use std::{
    fs::File,
    io,
    os::unix::{fs::FileExt, net::UnixStream},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use driver_api::{Error, ErrorKind, Result};
use hyper::upgrade::OnUpgrade;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};

use crate::{
    api::{
        Api,
        handover::{self, PROTOCOL, Report},
    },
    objects,
};

/// After so many bytes the client is told.
const TOLD_EVERY: u64 = 4 << 20;
/// A client that says or takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection whose client would hand over a file, and a place among those who write to files.
pub(super) struct Offer(OnUpgrade, OwnedSemaphorePermit);

/// The offer of a request, if it makes one and there is a place.
pub(super) struct Offered(pub(super) Option<Offer>);

impl FromRequestParts<Api> for Offered {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        api: &Api,
    ) -> std::result::Result<Self, Self::Rejection> {
        let offers = parts.headers.get(header::UPGRADE).is_some_and(|to| to == PROTOCOL);
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| offers);
        Ok(Self(upgrade.and_then(|upgrade| {
            let place = Arc::clone(&api.objects().files).try_acquire_owned().ok()?;
            Some(Offer(upgrade, place))
        })))
    }
}

impl Offer {
    /// Answers, and fills the file when it comes.
    pub(super) fn accept(self, mut said: HeaderMap, pieces: objects::Pieces, len: u64) -> Response {
        let Self(upgrade, place) = self;
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = fill(upgrade, pieces, len).await {
                tracing::warn!("a client's file that an object was to be written to: {error}");
            }
        });
        said.remove(header::CONTENT_LENGTH);
        said.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        said.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        (StatusCode::SWITCHING_PROTOCOLS, said, Body::empty()).into_response()
    }
}

async fn fill(upgrade: OnUpgrade, pieces: objects::Pieces, len: u64) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let foreign = |_| io::Error::other("the connection is no socket of this machine");
    let socket = downcast::<TokioIo<tokio::net::UnixStream>>(upgraded).map_err(foreign)?;
    let socket = socket.io.into_inner().into_std()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let runtime = Handle::current();
    let filling = tokio::task::spawn_blocking(move || {
        let (file, place) = match handover::take(&socket) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Report { done: 0, crc: 0, failed: Some(no_file(&error)) }.tell(&socket);
            }
            taken => taken?,
        };
        Filling { socket, file, place, left: len, done: 0, crc: 0 }.run(&runtime, pieces)
    });
    filling.await.map_err(io::Error::other)?
}

/// What a client is told whose file did not come: what forwards sockets to other machines forwards bytes alone.
fn no_file(error: &io::Error) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "no file came with the connection").caused_by(error)
}

/// A file that is filled, on a thread of its own: disks let their writers wait.
struct Filling {
    socket: UnixStream,
    file: File,
    place: u64,
    left: u64,
    done: u64,
    crc: u32,
}

impl Filling {
    /// Writes all that comes. Fails when the client has gone; what else fails is told to it.
    fn run(mut self, runtime: &Handle, mut pieces: objects::Pieces) -> io::Result<()> {
        let mut told = 0;
        while self.left > 0 {
            let came = runtime.block_on(pieces.next());
            if let Err(error) = self.take(came) {
                return self.report(Some(error));
            }
            if self.left > 0 && self.done - told >= TOLD_EVERY {
                told = self.done;
                self.report(None)?;
            }
        }
        self.report(None)
    }

    fn take(&mut self, came: Option<Result<bytes::Bytes>>) -> Result<()> {
        let bytes = came.unwrap_or_else(|| Err(super::streams::ended_early()))?;
        let wrong = || Error::new(ErrorKind::INTERNAL, "more bytes came than asked for");
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(wrong)?;
        self.file.write_all_at(&bytes, self.place.saturating_add(self.done)).map_err(|error| {
            Error::from_io("the file cannot be written", &error)
                .remedy("make room for it, or choose another place")
        })?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    fn report(&self, failed: Option<Error>) -> io::Result<()> {
        Report { done: self.done, crc: self.crc, failed }.tell(&self.socket)
    }
}
