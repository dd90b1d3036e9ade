// SPDX-License-Identifier: Apache-2.0
//! What a client sends, taken in pieces of chosen sizes.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;

use super::SILENCE;

/// What is still taken of a refused client, in bytes and in time.
const TAKEN: usize = 4 << 20;
const TAKING: Duration = Duration::from_secs(2);

/// A request's body.
pub struct Incoming {
    body: Body,
    /// What came with the end of the piece before.
    rest: Bytes,
    ended: bool,
    taken: u64,
}

impl Incoming {
    /// The body, of which nothing was taken.
    pub fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new(), ended: false, taken: 0 }
    }

    /// Bytes that were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes `len` bytes into one buffer, fewer where the body ends.
    pub async fn take(&mut self, len: usize) -> Result<Bytes> {
        let mut piece = BytesMut::with_capacity(len);
        while piece.len() < len && self.more().await? {
            let wanted = self.rest.len().min(len - piece.len());
            piece.extend_from_slice(&self.rest.split_to(wanted));
        }
        self.taken += piece.len() as u64;
        Ok(piece.freeze())
    }

    /// Whether there is more; waits until that is known.
    pub async fn more(&mut self) -> Result<bool> {
        while self.rest.is_empty() && !self.ended {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let why = "the client sends nothing any more; nothing was written";
                Error::new(ErrorKind::UNAVAILABLE, why).with("taken bytes", self.taken)
            })?;
            match frame {
                None => self.ended = true,
                Some(Err(error)) => {
                    let why = format!("the client's data ended: {error}; nothing was written");
                    return Err(
                        Error::new(ErrorKind::UNAVAILABLE, why).with("taken bytes", self.taken)
                    );
                }
                // Trailers say nothing here.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        Ok(!self.rest.is_empty())
    }

    /// Takes what a client still sends that is to be refused: a connection that closes with unread data loses the refusal.
    pub async fn drain(&mut self) {
        let taking = async {
            let mut taken = 0;
            while !self.ended
                && taken < TAKEN
                && let Some(Ok(frame)) = self.body.frame().await
            {
                taken += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Who sends on for longer may lose the text of the refusal, not the refusal.
        let _ = tokio::time::timeout(TAKING, taking).await;
    }
}
