// SPDX-License-Identifier: Apache-2.0
//! What a connection reads from and writes to: its socket, or TLS over it.
//!
//! Plain, each call is one system call on the caller's memory. Under TLS received bytes are decrypted in batches, as many
//! as one call of the kernel gives; what is sent is copied once, into the records, where it is encrypted.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::fd::BorrowedFd,
    sync::Arc,
};

use driver_api::{Error, ErrorKind, Result};
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, recvmsg,
        sendmsg, shutdown,
    },
};
use rustls::{ServerConfig, ServerConnection, pki_types::CertificateDer};

use super::complaints::complain;

/// Encrypted bytes received at once at most.
const RAW: usize = 128 << 10;
/// Encrypted bytes that wait for the socket at most.
const UNSENT: usize = 512 << 10;
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One end of a connection, for its own thread alone.
pub struct Transport<'s> {
    socket: BorrowedFd<'s>,
    tls: Option<Box<Tls>>,
}

struct Tls {
    session: ServerConnection,
    raw: Box<[u8]>,
    /// What of `raw` the session has not taken yet.
    start: usize,
    end: usize,
    /// Decrypted bytes that the session holds.
    plain: usize,
    /// The client has said that it sends no more.
    ended: bool,
    /// The session has failed, and nothing more comes out of it.
    failed: bool,
    /// Bytes of the caller's that are encrypted, and not yet all sent.
    taken: usize,
}

/// What a handshake waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// Something to read.
    Readable,
    /// Room to write.
    Writable,
    /// Nothing: it is done.
    Done,
}

impl<'s> Transport<'s> {
    /// The socket as it is. It is in blocking mode; calls say whether they wait.
    pub fn new(socket: BorrowedFd<'s>) -> Self {
        Self { socket, tls: None }
    }

    /// Whether everything goes through TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether [`Transport::receive`] may have something that poll(2) on the socket does not see.
    pub fn has_buffered(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.plain > 0 || tls.start < tls.end)
    }

    /// Receives into the spaces in turn and gives the number of bytes, zero at the end of the input.
    ///
    /// `AGAIN` if `flags` say not to wait and nothing is there, `PROTO` if TLS failed.
    pub fn receive(
        &mut self,
        spaces: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> std::result::Result<usize, Errno> {
        let Some(tls) = &mut self.tls else {
            // Without data that is waited for there is one space, and the cheaper call does.
            if let [first, rest] = spaces
                && first.is_empty()
            {
                return Ok(recv(self.socket, &mut rest[..], flags)?.0);
            }
            let mut nothing = RecvAncillaryBuffer::default();
            return Ok(recvmsg(self.socket, spaces, &mut nothing, flags)?.bytes);
        };
        loop {
            let count = tls.take(spaces);
            if tls.session.wants_write() {
                // An answer of TLS itself, such as an alert; where there is no room now, it goes with what is sent next.
                let _ = tls.flush(self.socket);
            }
            if count > 0 || tls.ended {
                return Ok(count);
            }
            if tls.failed {
                return Err(Errno::PROTO);
            }
            if !tls.receive(self.socket, flags)? {
                tracing::debug!("a client ended its input without TLS's good-bye");
                return Ok(0);
            }
        }
    }

    /// Sends as much as there is room for and gives the number of bytes; `AGAIN` if there is none.
    ///
    /// After `AGAIN` the next call must begin with the same bytes: some may be on their way, encrypted.
    pub fn send(&mut self, slices: &[IoSlice<'_>]) -> std::result::Result<usize, Errno> {
        let Some(tls) = &mut self.tls else {
            let mut nothing = SendAncillaryBuffer::default();
            return sendmsg(self.socket, slices, &mut nothing, SEND);
        };
        if tls.failed {
            return Err(Errno::PROTO);
        }
        if tls.taken == 0 {
            tls.taken = match tls.session.writer().write_vectored(slices) {
                Ok(count) => count,
                Err(_) => return Err(Errno::PROTO),
            };
        }
        tls.flush(self.socket)?;
        Ok(std::mem::take(&mut tls.taken))
    }

    /// From here on everything goes through TLS, beginning with [`Transport::handshake`].
    pub fn start_tls(&mut self, config: Arc<ServerConfig>) -> Result<()> {
        let mut session = ServerConnection::new(config).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "TLS does not start").caused_by(&error)
        })?;
        session.set_buffer_limit(Some(UNSENT));
        self.tls = Some(Box::new(Tls {
            session,
            raw: vec![0; RAW].into_boxed_slice(),
            start: 0,
            end: 0,
            plain: 0,
            ended: false,
            failed: false,
            taken: 0,
        }));
        Ok(())
    }

    /// Goes on with the handshake as far as it goes without waiting.
    pub fn handshake(&mut self) -> Result<Handshake> {
        let Some(tls) = &mut self.tls else { return Ok(Handshake::Done) };
        let broken =
            |errno: Errno| Error::from_io("the client left in the TLS handshake", &errno.into());
        loop {
            match tls.flush(self.socket) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(Handshake::Writable),
                Err(errno) => return Err(broken(errno)),
            }
            if !tls.session.is_handshaking() {
                return Ok(Handshake::Done);
            }
            if tls.start == tls.end {
                match tls.receive(self.socket, RecvFlags::DONTWAIT) {
                    Ok(true) => {}
                    Ok(false) => return Err(broken(Errno::CONNRESET)),
                    Err(Errno::AGAIN) => return Ok(Handshake::Readable),
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(broken(errno)),
                }
            }
            if let Err(error) = tls.decrypt() {
                // The alert tells the client why, as far as TLS has words for it.
                let _ = tls.flush(self.socket);
                return Err(Error::new(ErrorKind::UNAUTHENTICATED, "the TLS handshake failed")
                    .caused_by(&error));
            }
        }
    }

    /// The certificate that the client proved to own, after the handshake.
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.as_ref()?.session.peer_certificates()?.first()
    }

    /// Ends what is sent, under TLS with its good-bye, so that the client can tell this end from a cut.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.session.send_close_notify();
            // Who does not read does not hear it.
            let _ = tls.flush(self.socket);
        }
        // It fails only where the client is gone.
        let _ = shutdown(self.socket, Shutdown::Write);
        // A socket that is closed before all was read cuts off what the client has not read yet.
        let mut rest = [0; 4096];
        for _ in 0..64 {
            match recv(self.socket, &mut rest[..], RecvFlags::DONTWAIT) {
                Ok((1.., _)) => {}
                _ => return,
            }
        }
    }
}

impl Tls {
    /// Receives encrypted bytes; false at their end.
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        flags: RecvFlags,
    ) -> std::result::Result<bool, Errno> {
        let (count, _) = recv(socket, &mut self.raw[..], flags)?;
        (self.start, self.end) = (0, count);
        Ok(count > 0)
    }

    /// Lets the session take what was received until it has something for us.
    fn decrypt(&mut self) -> std::result::Result<(), rustls::Error> {
        while self.plain == 0 && !self.ended && self.start < self.end {
            let mut raw = &self.raw[self.start..self.end];
            let before = raw.len();
            let read = self.session.read_tls(&mut raw);
            self.start += before - raw.len();
            let state = match read {
                Ok(_) => self.session.process_new_packets(),
                Err(error) => Err(rustls::Error::General(error.to_string())),
            };
            let state = state.inspect_err(|_| {
                (self.failed, self.start) = (true, self.end);
            })?;
            self.plain = state.plaintext_bytes_to_read();
            self.ended = state.peer_has_closed();
        }
        if self.ended {
            // Nothing after the good-bye counts.
            self.start = self.end;
        }
        Ok(())
    }

    /// Moves decrypted bytes to where they are wanted.
    fn take(&mut self, spaces: &mut [IoSliceMut<'_>]) -> usize {
        let mut count = 0;
        for space in spaces {
            let mut space = &mut **space;
            while !space.is_empty() {
                if self.plain == 0
                    && !self.failed
                    && self.start < self.end
                    && let Err(error) = self.decrypt()
                {
                    complain!(%error, "a client's TLS is broken");
                }
                if self.plain == 0 {
                    return count;
                }
                let Ok(part @ 1..) = self.session.reader().read(space) else {
                    (self.failed, self.plain) = (true, 0);
                    return count;
                };
                self.plain -= part.min(self.plain);
                count += part;
                space = &mut space[part..];
            }
        }
        count
    }

    /// Sends what is encrypted.
    fn flush(&mut self, socket: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Unwaiting(socket)) {
                Ok(_) => {}
                Err(error) => {
                    return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
                }
            }
        }
        Ok(())
    }
}

/// The socket as TLS writes to it: without waiting.
struct Unwaiting<'s>(BorrowedFd<'s>);

impl Write for Unwaiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), SEND)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
