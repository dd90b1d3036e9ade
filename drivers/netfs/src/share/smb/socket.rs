// SPDX-License-Identifier: Apache-2.0
//! A connection's socket: crate `smb2` has it while it logs in, and gives it back afterwards, between two messages.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, watch},
};

/// The longest message that is taken while there is no share yet.
const LONGEST: usize = 1 << 20;

/// A socket that can be taken back from whoever uses it.
pub(super) struct Socket {
    read: Mutex<Option<OwnedReadHalf>>,
    write: Mutex<Option<OwnedWriteHalf>>,
    taken: watch::Sender<bool>,
}

fn gone() -> smb2::Error {
    smb2::Error::Disconnected
}

impl Socket {
    /// Takes a socket over.
    pub fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            read: Mutex::new(Some(read)),
            write: Mutex::new(Some(write)),
            taken: watch::Sender::new(false),
        }
    }

    /// Sends one message.
    pub async fn send(&self, message: &[u8]) -> smb2::Result<()> {
        let mut write = self.write.lock().await;
        let write = write.as_mut().ok_or_else(gone)?;
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(4 + message.len());
        frame.extend(length.to_be_bytes());
        frame.extend(message);
        Ok(write.write_all(&frame).await?)
    }

    /// Waits for one message; ends when the socket is taken back, if none has begun.
    pub async fn receive(&self) -> smb2::Result<Vec<u8>> {
        let mut taken = self.taken.subscribe();
        let mut read = self.read.lock().await;
        let read = read.as_mut().ok_or_else(gone)?;
        let (mut head, mut got) = ([0; 4], 0);
        while got < head.len() {
            let back = std::pin::pin!(taken.wait_for(|taken| *taken));
            let ready = std::pin::pin!(read.readable());
            match futures_util::future::select(back, ready).await {
                futures_util::future::Either::Left(_) => return Err(gone()),
                futures_util::future::Either::Right((ready, _)) => ready?,
            }
            match read.try_read(&mut head[got..]) {
                Ok(0) => return Err(gone()),
                Ok(some) => got += some,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let length = u32::from_be_bytes(head) as usize;
        if length > LONGEST {
            let why = format!("the server sent a message of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why).into());
        }
        let mut message = vec![0; length];
        match read.read_exact(&mut message).await {
            Ok(_) => Ok(message),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(gone()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes it back; nothing that used it can use it any more.
    pub async fn take(&self) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
        self.taken.send_replace(true);
        let (mut read, mut write) = (self.read.lock().await, self.write.lock().await);
        Some((read.take()?, write.take()?))
    }
}
