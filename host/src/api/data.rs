// SPDX-License-Identifier: Apache-2.0
//! `/v1/volumes/NAME/data` and `/v1/volumes/NAME/shards/SHARD/data`: bytes, streamed under one attachment.
//!
//! A request for a volume that has sessions is one: its header `Novastor-Token` says what it has seen before, and the
//! answer's what it has seen and written then. An answer longer than a piece has it as a trailer, for clients that take
//! trailers, since what is read last may be the newest.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::{Bytes, BytesMut};
use driver_api::{
    Capabilities, Error, ErrorKind, IoBuf, OpContext, Result, WriteFlags, ext::ShardInfo,
};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Answered, Api, SESSION_TOKEN, types::DataRange};
use crate::{
    plugins::{GuardedSession, GuardedVolume},
    volumes::{Access, CONTROL_TIMEOUT, Use, Volumes},
};

const PIECE: u64 = 1 << 20;
const PIECES_AHEAD: usize = 4;
/// A client that neither sends nor takes anything for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// What is still taken of a refused client, in bytes and in time.
const TAKEN: usize = 4 << 20;
const TAKING: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/volumes/{name}/data", get(read).put(write))
        .route("/v1/volumes/{name}/shards/{shard}/data", get(read_shard).put(write_shard))
}

/// A volume, or one shard of it, under an attachment.
struct Area {
    used: Use,
    shard: Option<ShardInfo>,
    /// Of a volume that has sessions.
    session: Option<GuardedSession>,
}

impl Area {
    async fn open(
        volumes: &Volumes,
        name: &str,
        shard: Option<u64>,
        access: Access,
        token: &str,
    ) -> Result<Self> {
        let Some(number) = shard else {
            let user = if access == Access::Read { "volume read" } else { "volume write" };
            let used = volumes.acquire(name, access, user).await?;
            return match used.volume().open_session(token) {
                Ok(session) => Ok(Self { used, shard: None, session }),
                Err(error) => {
                    volumes.release(used).await?;
                    Err(error)
                }
            };
        };
        let shard = volumes.shard(name, number).await?;
        let user = if access == Access::Read { "shard read" } else { "shard write" };
        let used = volumes.acquire(name, access, user).await?;
        Ok(Self { used, shard: Some(shard), session: None })
    }

    /// The volume, as the session has it if there is one.
    fn volume(&self) -> &GuardedVolume {
        match &self.session {
            Some(session) => session.volume(),
            None => self.used.volume(),
        }
    }

    /// What the session has written and seen by now.
    fn token(&self) -> Result<Option<HeaderValue>> {
        let Some(session) = &self.session else { return Ok(None) };
        let token = HeaderValue::try_from(session.token()?);
        token.map(Some).map_err(|_| {
            Error::new(ErrorKind::INTERNAL, "the driver's session token is not printable ASCII")
                .remedy("report this to the driver's author")
        })
    }

    fn size(&self) -> Result<u64> {
        match &self.shard {
            Some(shard) => Ok(shard.len),
            None => self.volume().size(),
        }
    }

    fn capabilities(&self) -> Result<Capabilities> {
        self.volume().capabilities()
    }

    async fn read(&self, offset: u64, len: u32) -> Result<IoBuf> {
        match &self.shard {
            Some(shard) => self.used.read_shard(shard.index, offset, len).await,
            None => self.volume().read(&context(), offset, len).await,
        }
    }

    async fn write(&self, offset: u64, data: IoBuf) -> Result<()> {
        match &self.shard {
            Some(shard) => self.used.write_shard(shard.index, offset, data).await,
            None => self.volume().write(&context(), offset, data, WriteFlags::NONE).await,
        }
    }

    /// What its range is inside of.
    fn what(&self) -> &'static str {
        if self.shard.is_some() { "shard" } else { "volume" }
    }
}

/// A body of pieces that a task sends.
struct Pieces(mpsc::Receiver<std::result::Result<Frame<Bytes>, Error>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Error>>> {
        self.0.poll_recv(cx)
    }
}

fn context() -> OpContext {
    OpContext::new().with_timeout(CONTROL_TIMEOUT)
}

/// The token that a request comes with; empty: it begins a session.
fn token_of(headers: &HeaderMap) -> Result<&str> {
    let Some(token) = headers.get(SESSION_TOKEN) else { return Ok("") };
    token.to_str().map_err(|_| {
        Error::new(ErrorKind::INVALID_ARGUMENT, "a Novastor-Token is printable ASCII")
            .remedy("send one as an answer had it, or none")
    })
}

const TOKEN: HeaderName = HeaderName::from_static(SESSION_TOKEN);

fn outside(what: &str, offset: u64, length: u64, size: u64) -> Error {
    let why = format!("{length} bytes at {offset} are not inside the {what}'s {size} bytes");
    Error::new(ErrorKind::OUT_OF_RANGE, why).remedy("choose another --offset or --length")
}

async fn read(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(range): Query<DataRange>,
    headers: HeaderMap,
) -> Answered<Response> {
    read_area(api, name, None, range, token_of(&headers)?).await
}

async fn read_shard(
    State(api): State<Api>,
    Path((name, shard)): Path<(String, u64)>,
    Query(range): Query<DataRange>,
) -> Answered<Response> {
    read_area(api, name, Some(shard), range, "").await
}

async fn read_area(
    api: Api,
    name: String,
    shard: Option<u64>,
    range: DataRange,
    token: &str,
) -> Answered<Response> {
    let area = Area::open(&api.volumes, &name, shard, Access::Read, token).await?;
    // The first piece before the answer begins: most of what can fail fails here, and can still be told.
    let begun = async {
        let (at, end) = bounds(&area, range)?;
        let first = if at < end { read_piece(&area, at, end).await? } else { Bytes::new() };
        Ok::<_, Error>((at, end, first, area.token()?))
    };
    let (mut at, end, first, token) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            api.volumes.release(area.used).await?;
            return Err(error.into());
        }
    };
    let is_whole = at + first.len() as u64 >= end;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let mut response = Response::new(Body::new(Pieces(receiver)));
    match token {
        Some(token) if is_whole => drop(response.headers_mut().insert(TOKEN, token)),
        Some(_) => {
            let announced = HeaderValue::from_static(SESSION_TOKEN);
            response.headers_mut().insert(header::TRAILER, announced);
        }
        None => {}
    }
    tokio::spawn(async move {
        let mut piece = Ok(first);
        loop {
            let failed = piece.is_err();
            at += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            let sent = tokio::time::timeout(SILENCE, sender.send(piece.map(Frame::data))).await;
            if failed || !matches!(sent, Ok(Ok(()))) {
                break;
            }
            if at >= end {
                if !is_whole && let Some(last) = trailer(&area).transpose() {
                    // A client that has gone needs no token.
                    let _ = tokio::time::timeout(SILENCE, sender.send(last)).await;
                }
                break;
            }
            piece = read_piece(&area, at, end).await;
        }
        drop(area.session);
        if let Err(error) = api.volumes.release(area.used).await {
            tracing::error!(volume = %name, "{error:#}");
        }
    });
    Ok(response)
}

/// What follows the data of a session.
fn trailer(area: &Area) -> Result<Option<Frame<Bytes>>> {
    let token = area.token()?;
    Ok(token.map(|token| Frame::trailers(HeaderMap::from_iter([(TOKEN, token)]))))
}

fn bounds(area: &Area, range: DataRange) -> Result<(u64, u64)> {
    let size = area.size()?;
    let length = range.length.unwrap_or(size.saturating_sub(range.offset));
    match range.offset.checked_add(length) {
        Some(end) if end <= size => Ok((range.offset, end)),
        _ => Err(outside(area.what(), range.offset, length, size)),
    }
}

/// The next bytes from `at`; where the volume wants whole blocks, they are read and cut.
async fn read_piece(area: &Area, at: u64, end: u64) -> Result<Bytes> {
    let capabilities = area.capabilities()?;
    let block = u64::from(capabilities.min_block.max(1));
    let most = PIECE.min(u64::from(capabilities.max_io.max(1)));
    let start = at - at % block;
    let stop = end.min(start + most).next_multiple_of(block).min(start + most);
    let data = area.read(start, (stop - start) as u32).await?;
    let skip = (at - start) as usize;
    let len = (end.min(stop) - at) as usize;
    Ok(data.slice(skip, len).into())
}

async fn write(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(range): Query<DataRange>,
    headers: HeaderMap,
    body: Body,
) -> Answered<Response> {
    write_area(api, name, None, range.offset, token_of(&headers)?, body).await
}

async fn write_shard(
    State(api): State<Api>,
    Path((name, shard)): Path<(String, u64)>,
    Query(range): Query<DataRange>,
    body: Body,
) -> Answered<Response> {
    write_area(api, name, Some(shard), range.offset, "", body).await
}

async fn write_area(
    api: Api,
    name: String,
    shard: Option<u64>,
    offset: u64,
    token: &str,
    mut body: Body,
) -> Answered<Response> {
    let area = match Area::open(&api.volumes, &name, shard, Access::Write, token).await {
        Ok(area) => area,
        Err(error) => {
            take_rest(&mut body).await;
            return Err(error.into());
        }
    };
    let written = write_all(&area, offset, &mut body).await;
    if written.is_err() {
        take_rest(&mut body).await;
    }
    let flushed = area.volume().flush(&context()).await;
    let token = area.token();
    drop(area.session);
    let released = api.volumes.release(area.used).await;
    let count = written?;
    flushed?;
    released?;
    let mut response = axum::Json(count).into_response();
    if let Some(token) = token? {
        response.headers_mut().insert(TOKEN, token);
    }
    Ok(response)
}

/// Takes what a client still sends that is to be refused: a connection that closes with unread data loses the refusal.
async fn take_rest(body: &mut Body) {
    let taking = async {
        let mut taken = 0;
        while taken < TAKEN
            && let Some(Ok(frame)) = body.frame().await
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Who sends on for longer may lose the text of the refusal, not the refusal.
    let _ = tokio::time::timeout(TAKING, taking).await;
}

async fn write_all(area: &Area, offset: u64, body: &mut Body) -> Result<u64> {
    let capabilities = area.capabilities()?;
    let size = area.size()?;
    let block = u64::from(capabilities.min_block.max(1));
    if !offset.is_multiple_of(block) {
        let why = format!("the offset is not a multiple of the volume's block, {block} bytes");
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy("choose another --offset"));
    }
    let most = PIECE.min(u64::from(capabilities.max_io.max(1))) as usize;
    let most = most - most % block as usize;
    let (mut pending, mut at) = (BytesMut::new(), offset);
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| {
            Error::new(ErrorKind::TIMED_OUT, "the client sends nothing any more")
                .with("written bytes", at - offset)
        })?;
        let ended = frame.is_none();
        if let Some(frame) = frame {
            let frame = frame.map_err(|error| {
                Error::new(ErrorKind::UNAVAILABLE, format!("the client's data ended: {error}"))
                    .with("written bytes", at - offset)
            })?;
            if let Ok(data) = frame.into_data() {
                pending.extend_from_slice(&data);
            }
        }
        if at + pending.len() as u64 > size {
            let length = at - offset + pending.len() as u64;
            return Err(outside(area.what(), offset, length, size));
        }
        while pending.len() >= most || (ended && !pending.is_empty()) {
            let len = pending.len().min(most);
            if !(len as u64).is_multiple_of(block) {
                let why =
                    format!("the data is not a multiple of the volume's block, {block} bytes");
                return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                    .with("written bytes", at - offset)
                    .remedy("pad the data"));
            }
            let data = IoBuf::from(pending.split_to(len).freeze());
            area.write(at, data).await?;
            at += len as u64;
        }
        if ended {
            return Ok(at - offset);
        }
    }
}
