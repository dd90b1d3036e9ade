// SPDX-License-Identifier: Apache-2.0
//! A logged-in connection with its share: every call with a deadline, and open files that are always closed.
//!
//! A connection that ended is not made anew here: it takes the whole mount with it, so that nothing of it is used again
//! without being looked at.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use smb2::{
    msg::close::CloseRequest,
    pack::{Pack, WriteCursor},
    types::{Command, FileId, TreeId, status::NtStatus},
};
use tokio::sync::watch;

use super::{
    frames::HEADER,
    mux::{Frame, Message, Mux},
    status::refused,
};
use crate::error::{Fault, internal};

/// Bytes that one credit pays for.
const CREDIT: u32 = 64 << 10;
/// How long a file that nobody wants any more may take to be closed.
const CLOSING: Duration = Duration::from_secs(30);

/// A connection, its login and its share.
pub(super) struct Link {
    mux: Mux,
    tree: TreeId,
    runtime: tokio::runtime::Handle,
    /// Files that are being closed after their last user has gone.
    closing: watch::Sender<usize>,
}

/// Credits for a payload of so many bytes.
pub(super) fn credits(bytes: u32) -> u16 {
    u16::try_from(bytes.div_ceil(CREDIT)).unwrap_or(u16::MAX).max(1)
}

/// A message's body as it is behind its header, from whose beginning the offsets in it count.
fn packed(body: &dyn Pack) -> Vec<u8> {
    let mut packed = WriteCursor::new();
    packed.write_zeros(HEADER);
    body.pack(&mut packed);
    packed.into_inner().split_off(HEADER)
}

impl Link {
    /// Takes over a connection that is logged in.
    pub fn new(mux: Mux, tree: TreeId) -> Self {
        Self {
            mux,
            tree,
            runtime: tokio::runtime::Handle::current(),
            closing: watch::Sender::new(0),
        }
    }

    /// Sends one message and waits for its answer, whatever that says.
    pub async fn call(
        &self,
        command: Command,
        body: &dyn Pack,
        credits: u16,
        until: Instant,
    ) -> Result<Frame, Fault> {
        self.call_with(command, body, Bytes::new(), credits, until).await
    }

    /// The same with a payload behind the message.
    pub async fn call_with(
        &self,
        command: Command,
        body: &dyn Pack,
        payload: Bytes,
        credits: u16,
        until: Instant,
    ) -> Result<Frame, Fault> {
        let message = self.message(command, body, payload, credits);
        let mut answers = self.mux.call(vec![message], until).await?;
        answers.pop().ok_or_else(|| internal("a call lost its answer").into())
    }

    /// Sends several messages at once, each for the file of the one before it.
    pub async fn chain(
        &self,
        messages: &[(Command, &dyn Pack)],
        until: Instant,
    ) -> Result<Vec<Frame>, Fault> {
        let messages = messages
            .iter()
            .map(|(command, body)| self.message(*command, *body, Bytes::new(), 1))
            .collect();
        self.mux.call(messages, until).await
    }

    fn message(&self, command: Command, body: &dyn Pack, payload: Bytes, charge: u16) -> Message {
        let tree = (command != Command::Echo).then_some(self.tree);
        Message { command, tree, charge, body: packed(body), payload }
    }

    /// Does something to its end, also when nobody waits for it any more: what it opens must not stay open.
    pub async fn to_the_end<T, F>(
        self: &Arc<Self>,
        until: Instant,
        work: impl FnOnce(Arc<Self>, Instant) -> F,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        self.settled(until).await?;
        // It waits longer than its caller for what the server has opened.
        let doing = self.runtime.spawn(work(Arc::clone(self), until + CLOSING));
        match tokio::time::timeout_at(until.into(), doing).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                Err(Fault::Lost { sent: true, why: format!("the call was ended: {error}").into() })
            }
            Err(_) => {
                let why = "the server did not open the file in time".into();
                Err(Fault::TimedOut { sent: true, why })
            }
        }
    }

    /// Waits until files that nobody wants any more are closed: opens exclude each other.
    pub async fn settled(&self, until: Instant) -> Result<(), Fault> {
        let mut closing = self.closing.subscribe();
        let settled = closing.wait_for(|some| *some == 0);
        match tokio::time::timeout_at(until.into(), settled).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let why = "an earlier file was not closed in time".into();
                Err(Fault::TimedOut { sent: false, why })
            }
        }
    }

    /// Ends the connection.
    pub fn end(&self) {
        self.mux.end("it was ended here");
    }

    async fn close(&self, id: FileId, until: Instant) -> Result<(), Fault> {
        let request = CloseRequest { flags: 0, file_id: id };
        let answer = self.call(Command::Close, &request, 1, until).await?;
        match answer.header.status {
            // It is closed already, which is what was wanted.
            NtStatus::SUCCESS | NtStatus::FILE_CLOSED => Ok(()),
            status => Err(refused(status, "close", "")),
        }
    }
}

/// An open file. It is closed at the latest when nobody has it any more.
pub(crate) struct Opened {
    id: FileId,
    link: Arc<Link>,
    closed: AtomicBool,
}

impl Opened {
    /// A file that the server has just opened.
    pub(super) fn new(id: FileId, link: &Arc<Link>) -> Self {
        Self { id, link: Arc::clone(link), closed: AtomicBool::new(false) }
    }

    /// The server's name for it.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// The server has closed it already.
    pub(super) fn was_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Closes it.
    pub(super) async fn close(&self, until: Instant) -> Result<(), Fault> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let closed = self.link.close(self.id, until).await;
        if matches!(closed, Err(Fault::TimedOut { sent: false, .. } | Fault::Later)) {
            self.closed.store(false, Ordering::Release);
        }
        closed
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.closed.load(Ordering::Acquire) || self.link.mux.has_ended() {
            return;
        }
        let (link, id) = (Arc::clone(&self.link), self.id);
        link.closing.send_modify(|some| *some += 1);
        self.link.runtime.spawn(async move {
            let closing = Closing(&link);
            if let Err(fault) = link.close(id, Instant::now() + CLOSING).await {
                tracing::debug!(%fault, "a file stays open until the connection ends");
            }
            drop(closing);
        });
    }
}

/// Counts one file as being closed.
struct Closing<'a>(&'a Link);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.closing.send_modify(|some| *some -= 1);
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::holes::control, *};

    #[test]
    fn offsets_count_from_the_beginning_of_the_header() {
        let body = packed(&control(1, FileId::SENTINEL, vec![7; 16], 0));
        let at = u32::from_le_bytes(*body[24..].first_chunk().expect("an offset"));
        assert_eq!(body[at as usize - HEADER..], [7; 16]);
    }
}
