// SPDX-License-Identifier: Apache-2.0
//! Requests on their way in: cuts the received bytes into requests, and lets large data go from the socket straight
//! into a buffer of its own.

use std::io::IoSliceMut;

use driver_api::{IoBuf, IoBufMut};

use crate::{
    Errno, MAX_PAYLOAD,
    terms::Refused,
    wire::{BadMagic, Headers, Request},
};

/// Bytes received at once at most, besides data that has a buffer of its own.
const WINDOW: usize = 256 << 10;
/// Room for that at the beginning; it grows when it was full.
const FIRST_ROOM: usize = 16 << 10;
/// How much it grows then.
const GROWTH: usize = 4;
/// Data of this length is worth a system call of its own.
const LARGE: usize = 32 << 10;
/// After large data that had a buffer of its own only this much is received beyond it: what lies here must be copied.
const SMALL_WINDOW: usize = 4 << 10;

const TOO_LONG: Refused = Refused { errno: Errno::Inval, why: "more data than any request has" };

/// What to do with a request whose head has arrived.
pub enum Admission {
    /// Take it.
    Take,
    /// Answer it so; its data is thrown away.
    Refuse(Refused),
    /// Leave it for later.
    Wait,
}

/// What the received bytes hold next.
pub enum Next {
    /// A request with its data.
    Request(Request, IoBuf),
    /// A request that was refused; its data has gone by.
    Refused(Request, Refused),
    /// A request that has to wait.
    Waiting,
    /// Nothing complete.
    Incomplete,
}

/// Received bytes.
pub struct Inbox {
    headers: Headers,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    window: usize,
    body: Body,
}

/// The data that a begun request still waits for.
enum Body {
    None,
    /// It goes into a buffer, which is full up to the number.
    Fill(Request, IoBufMut, usize),
    /// So many bytes of it go nowhere.
    Skip(Request, Refused, u64),
}

impl Inbox {
    /// An inbox that begins with these bytes.
    pub fn new(headers: Headers, first: &[u8]) -> Self {
        let mut buffer = vec![0; FIRST_ROOM.max(first.len())];
        buffer[..first.len()].copy_from_slice(first);
        Self { headers, buffer, start: 0, end: first.len(), window: WINDOW, body: Body::None }
    }

    /// Where to receive into: the rest of the data that is waited for, then further requests.
    pub fn space(&mut self) -> [IoSliceMut<'_>; 2] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let body: &mut [u8] = match &mut self.body {
            Body::Fill(_, buffer, filled) => &mut buffer[*filled..],
            _ => &mut [],
        };
        let until = (self.end + self.window).min(self.buffer.len());
        [IoSliceMut::new(body), IoSliceMut::new(&mut self.buffer[self.end..until])]
    }

    /// Takes note that `count` bytes were received into [`Inbox::space`].
    pub fn received(&mut self, count: usize) {
        let mut rest = count;
        if let Body::Fill(_, buffer, filled) = &mut self.body {
            let part = rest.min(buffer.len() - *filled);
            *filled += part;
            rest -= part;
        }
        self.end += rest;
        if rest == self.window {
            self.window = WINDOW;
        }
        if self.end == self.buffer.len() && self.end < WINDOW {
            self.buffer.resize((self.end * GROWTH).min(WINDOW), 0);
        }
    }

    /// Gives back the room that it has grown by, if nothing lies there.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > FIRST_ROOM {
            (self.start, self.end) = (0, 0);
            self.buffer = vec![0; FIRST_ROOM];
        }
    }

    /// Bytes of memory that the data of a begun request takes, received or not.
    pub fn body_len(&self) -> usize {
        match &self.body {
            Body::Fill(_, buffer, _) => buffer.len(),
            _ => 0,
        }
    }

    /// Whether a request is begun whose data is not complete.
    pub fn within_request(&self) -> bool {
        !matches!(self.body, Body::None) || self.start != self.end
    }

    /// Cuts off the next request. `admit` decides about one whose head has arrived; one that waits is asked again.
    pub fn next(&mut self, admit: impl FnOnce(&Request) -> Admission) -> Result<Next, BadMagic> {
        if matches!(self.body, Body::None) {
            let request = match Request::decode(&self.buffer[self.start..self.end], self.headers) {
                None => return Ok(Next::Incomplete),
                Some(decoded) => decoded?,
            };
            let admission = match admit(&request) {
                Admission::Wait => return Ok(Next::Waiting),
                Admission::Take if request.payload > MAX_PAYLOAD.into() => {
                    Admission::Refuse(TOO_LONG)
                }
                decided => decided,
            };
            self.start += self.headers.request_len();
            let len = request.payload as usize;
            if let Admission::Refuse(refused) = admission {
                self.body = Body::Skip(request, refused, request.payload);
            } else if len == 0 {
                return Ok(Next::Request(request, IoBuf::empty()));
            } else if let Some(data) = self.buffer[self.start..self.end].get(..len) {
                let mut buffer = crate::pool::allocate(len);
                buffer.copy_from_slice(data);
                self.start += len;
                return Ok(Next::Request(request, buffer.freeze()));
            } else {
                let mut buffer = crate::pool::allocate(len);
                let here = &self.buffer[self.start..self.end];
                buffer[..here.len()].copy_from_slice(here);
                self.body = Body::Fill(request, buffer, here.len());
                self.start = self.end;
                if len >= LARGE {
                    self.window = SMALL_WINDOW;
                }
            }
        }
        match std::mem::replace(&mut self.body, Body::None) {
            Body::None => Ok(Next::Incomplete),
            Body::Fill(request, buffer, filled) if filled == buffer.len() => {
                Ok(Next::Request(request, buffer.freeze()))
            }
            Body::Skip(request, error, left) => {
                let part = left.min((self.end - self.start) as u64);
                self.start += part as usize;
                if part == left {
                    return Ok(Next::Refused(request, error));
                }
                self.body = Body::Skip(request, error, left - part);
                Ok(Next::Incomplete)
            }
            unfinished => {
                self.body = unfinished;
                Ok(Next::Incomplete)
            }
        }
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
