// SPDX-License-Identifier: Apache-2.0
//! Bodies: received into files with their checksums, and sent from them.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter};

use crate::call::Call;
use crate::refusal::Refusal;
use crate::store::{Piece, Store};

const BUFFER: usize = 256 << 10;

/// A body that was received in full.
pub(crate) struct Received {
    pub(crate) piece: Arc<Piece>,
    pub(crate) crc32c: u32,
    pub(crate) md5: [u8; 16],
}

/// Receives a request's body, and compares the checksums that the request has.
pub(crate) async fn receive(store: &Store, call: &mut Call) -> Result<Received, Refusal> {
    let (mut body, path) = (call.take_body(), store.new_file());
    // Whatever fails from here on, the file goes when this does.
    let piece = Piece::unowned(path);
    let failed = |error: std::io::Error| Refusal::internal("an object's file", error);
    let mut file =
        BufWriter::with_capacity(BUFFER, File::create_new(&piece.path).await.map_err(failed)?);
    let (mut crc, mut md5, mut size) = (0, Md5::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::invalid(format!("The request's body ended early: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        crc = crc32c::crc32c_append(crc, &data);
        md5.update(&data);
        size += data.len() as u64;
        file.write_all(&data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let received = Received {
        piece: Arc::new(piece.with_size(size)),
        crc32c: crc,
        md5: md5.finalize().into(),
    };
    check(call, &received)?;
    Ok(received)
}

fn check(call: &Call, received: &Received) -> Result<(), Refusal> {
    let expect = |kind: &str, sent: &str, computed: &[u8]| {
        let computed = STANDARD.encode(computed);
        if sent == computed {
            return Ok(());
        }
        let message = format!(
            "Provided {kind} hash \"{sent}\" doesn't match calculated {kind} hash \"{computed}\"."
        );
        Err(Refusal::new(StatusCode::BAD_REQUEST, "BadDigest", "invalid", message))
    };
    if let Some(sent) = call.header("content-md5") {
        expect("MD5", sent.trim(), &received.md5)?;
    }
    for line in call.headers.get_all("x-goog-hash") {
        for sum in line.to_str().unwrap_or_default().split(',') {
            match sum.trim().split_once('=') {
                Some(("crc32c", sent)) => expect("CRC32C", sent, &received.crc32c.to_be_bytes())?,
                Some(("md5", sent)) => expect("MD5", sent, &received.md5)?,
                _ => return Err(Refusal::invalid("Invalid argument: x-goog-hash")),
            }
        }
    }
    Ok(())
}

/// Sends a part of what some files make up together.
pub(crate) fn send(pieces: &[Arc<Piece>], range: Range<u64>) -> Body {
    let mut wanted = Vec::new();
    let mut begins = 0;
    for piece in pieces {
        let ends = begins + piece.size;
        let (from, to) = (range.start.max(begins), range.end.min(ends));
        if from < to {
            wanted.push((piece.clone(), from - begins..to - begins));
        }
        begins = ends;
    }
    wanted.reverse();
    Body::from_stream(stream::try_unfold((wanted, None), next))
}

/// What is left to send: files, the next one last, and the one that is being sent.
type Left = (Vec<(Arc<Piece>, Range<u64>)>, Option<(File, u64)>);

async fn next((mut wanted, mut open): Left) -> std::io::Result<Option<(Bytes, Left)>> {
    loop {
        match open {
            Some((mut file, left)) if left > 0 => {
                let mut buffer = vec![0; BUFFER.min(usize::try_from(left).unwrap_or(BUFFER))];
                let count = file.read(&mut buffer).await?;
                if count == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                buffer.truncate(count);
                return Ok(Some((buffer.into(), (wanted, Some((file, left - count as u64))))));
            }
            _ => {
                let Some((piece, range)) = wanted.pop() else { return Ok(None) };
                open = Some((at(&piece.path, range.start).await?, range.end - range.start));
            }
        }
    }
}

async fn at(path: &Path, offset: u64) -> std::io::Result<File> {
    let mut file = File::open(path).await?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).await?;
    }
    // What tokio would read ahead is what is asked for anyway.
    file.set_max_buf_size(BUFFER);
    Ok(file)
}
