// SPDX-License-Identifier: Apache-2.0
//! A connection to the server.

use std::{
    collections::HashMap,
    future::Future,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use driver_api::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};

use crate::wire::{Answer, Call, PREFIX, Reply, Request, frame, lengths};

/// What a request brings: the answer, and bytes of a volume.
type Brought = Result<(Answer, Vec<u8>)>;

/// A connection. When it is dropped, the server still gets everything that was asked.
pub(crate) struct Connection {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    patience: Option<Duration>,
}

/// Requests without a reply.
#[derive(Default)]
struct Waiting {
    last: u64,
    lost: bool,
    deposed: bool,
    requests: HashMap<u64, oneshot::Sender<Brought>>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Why nothing comes.
    fn reason(&self) -> Error {
        match self.deposed {
            true => Error::new(ErrorKind::FENCED, "this attachment of the volume has ended"),
            false => Error::new(ErrorKind::UNAVAILABLE, "the connection to the server is lost"),
        }
    }
}

impl Connection {
    /// Connects; a reply that takes longer than `patience` is waited for no more.
    pub async fn to(socket: &Path, patience: Option<Duration>) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            Error::new(ErrorKind::UNAVAILABLE, "the server does not take connections")
                .with("socket", socket.display())
                .caused_by(&error)
        })?;
        let (read, write) = stream.into_split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(send(write, outgoing));
        tokio::spawn(receive(read, Arc::clone(&waiting)));
        Ok(Self { frames, waiting, patience })
    }

    /// Sends a request at once; the future waits for what it brings.
    pub fn call(&self, call: Call, bytes: &[u8]) -> impl Future<Output = Brought> + Send + use<> {
        let reply = self.send(call, bytes);
        let (patience, waiting) = (self.patience, Arc::clone(&self.waiting));
        async move {
            let reply = reply?;
            let brought = match patience {
                None => reply.await,
                Some(patience) => tokio::time::timeout(patience, reply).await.map_err(|_| {
                    let why = "the server does not answer; what was asked may still happen";
                    Error::new(ErrorKind::TIMED_OUT, why)
                })?,
            };
            brought.map_err(|_| lock(&waiting).reason())?
        }
    }

    /// The attachment has ended, or another one takes the volume: this one may send nothing more.
    pub fn depose(&self) {
        lock(&self.waiting).deposed = true;
    }

    fn send(&self, call: Call, bytes: &[u8]) -> Result<oneshot::Receiver<Brought>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.lost || waiting.deposed {
            return Err(waiting.reason());
        }
        waiting.last += 1;
        let id = waiting.last;
        let frame = frame(&Request { id, call }, bytes)?;
        waiting.requests.insert(id, sender);
        // Under the lock, so that the server gets requests in the order of their numbers.
        self.frames.send(frame).map_err(|_| waiting.reason())?;
        Ok(receiver)
    }
}

async fn send(mut stream: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = stream.write_all(&frame).await {
            // Whoever waits learns it from the other half.
            tracing::warn!(%error, "a request does not reach the server");
            return;
        }
    }
}

async fn receive(mut stream: OwnedReadHalf, waiting: Arc<Mutex<Waiting>>) {
    loop {
        match reply(&mut stream).await {
            Ok((id, brought)) => {
                if let Some(request) = lock(&waiting).requests.remove(&id) {
                    // Nobody waits any more for one that took too long.
                    let _ = request.send(brought);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection ended");
                let mut waiting = lock(&waiting);
                waiting.lost = true;
                waiting.requests.clear();
                return;
            }
        }
    }
}

async fn reply(stream: &mut OwnedReadHalf) -> std::io::Result<(u64, Brought)> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await?;
    let (head, bytes) = lengths(prefix);
    let (mut head, mut bytes) = (vec![0; head], vec![0; bytes]);
    stream.read_exact(&mut head).await?;
    stream.read_exact(&mut bytes).await?;
    let Reply { id, result } = serde_json::from_slice(&head)?;
    let refused = |refusal: crate::wire::Refusal| {
        Error::new(ErrorKind::from_code(refusal.kind), refusal.message)
    };
    Ok((id, result.map(|answer| (answer, bytes)).map_err(refused)))
}
