// SPDX-License-Identifier: Apache-2.0
//! A driver whose volumes lie behind a server in other processes, for tests of writes that arrive late.
//!
//! | option | effect |
//! |---|---|
//! | `socket` | where the server listens |
//! | `timeout_ms` | after so long without a reply the answer is `TimedOut`; 0: it waits for ever |
//!
//! The server, `remote-server SOCKET DIRECTORY`, is built with it. Each attachment is a connection of its own, and each
//! connection a process of the server: one of them can be frozen while the others serve.
//!
//! It is an honest driver without fencing. What a request asked may happen at any time after it was given up, also after
//! another attachment took the volume: the server knows of no epochs.

mod client;
mod wire;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use driver_api::{
    Abilities, Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Error, ErrorKind,
    Health, Host, IoBuf, Op, OpContext, OptionSpec, OptionType, RVec, Result, Volume, VolumeInfo,
    VolumeSpec, WriteFlags,
};
use serde::Deserialize;

use client::Connection;
use wire::{Answer, Call};

/// The largest read or write, in bytes.
const LARGEST_IO: u32 = 4 << 20;

struct Remote;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    socket: PathBuf,
    #[serde(default)]
    timeout_ms: u64,
}

impl Driver for Remote {
    type Backend = Room;

    fn describe() -> DriverInfo {
        DriverInfo::new("Volumes behind a server in other processes, for tests")
            .option(OptionSpec::new("socket", OptionType::TEXT, "Where the server listens"))
            .option(
                OptionSpec::new("timeout_ms", OptionType::INTEGER, "How long a reply may take")
                    .default_json("0"),
            )
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Room> {
        let Options { socket, timeout_ms } = config.parse()?;
        let patience = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
        Ok(Room(Arc::new(Inner { socket, patience, held: Mutex::default() })))
    }
}

#[derive(Clone)]
struct Room(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    patience: Option<Duration>,
    held: Mutex<HashMap<String, Holder>>,
}

/// The last attachment of a volume; it has it while the connection is there.
struct Holder {
    epoch: u64,
    owner: String,
    connection: Weak<Connection>,
}

const fn capabilities() -> Capabilities {
    let abilities = Abilities::WRITE.and(Abilities::DISCARD).and(Abilities::PERSISTENT);
    Capabilities { max_io: LARGEST_IO, ..Capabilities::new(abilities) }
}

impl Inner {
    async fn connect(&self) -> Result<Connection> {
        Connection::to(&self.socket, self.patience).await
    }

    /// A request that is about no attachment, on a connection of its own.
    async fn ask(&self, call: Call) -> Result<Answer> {
        Ok(self.connect().await?.call(call, &[]).await?.0)
    }

    async fn attach(self: &Arc<Self>, name: String, attach: Attach) -> Result<Attached> {
        self.check_free(&name, &attach)?;
        let connection = Arc::new(self.connect().await?);
        let (answer, _) = connection.call(Call::Open { name: name.clone() }, &[]).await?;
        let size = info(answer)?.size;
        let mut held = self.held();
        // Another attachment may have come first.
        admit(&held, &name, &attach)?;
        let holder = Holder {
            epoch: attach.epoch,
            owner: attach.owner.to_string(),
            connection: Arc::downgrade(&connection),
        };
        held.insert(name.clone(), holder);
        drop(held);
        Ok(Attached { room: Arc::clone(self), name, epoch: attach.epoch, size, connection })
    }

    fn check_free(&self, name: &str, attach: &Attach) -> Result<()> {
        admit(&self.held(), name, attach)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn admit(held: &HashMap<String, Holder>, name: &str, attach: &Attach) -> Result<()> {
    let Some(holder) = held.get(name) else { return Ok(()) };
    if !attach.force {
        holder.check_free()?;
    }
    if holder.epoch >= attach.epoch {
        return Err(Error::new(ErrorKind::FENCED, "a later attachment had the volume"));
    }
    Ok(())
}

impl Holder {
    fn check_free(&self) -> Result<()> {
        if self.connection.strong_count() == 0 {
            return Ok(());
        }
        let why = format!("the volume is attached by {}", self.owner);
        Err(Error::new(ErrorKind::IN_USE, why))
    }
}

fn info(answer: Answer) -> Result<VolumeInfo> {
    match answer {
        Answer::Volume(volume) => Ok(VolumeInfo::new(&volume.name, volume.size, volume.used)),
        _ => Err(nonsense()),
    }
}

fn nonsense() -> Error {
    Error::new(ErrorKind::INTERNAL, "the server answered something else than it was asked")
}

impl Backend for Room {
    type Volume = Attached;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        let room = Arc::clone(&self.0);
        let call = Call::Create { name: spec.name.to_string(), size: spec.size };
        Op::run(async move { info(room.ask(call).await?) })
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let unused = self.0.held().get(name).map_or(Ok(()), Holder::check_free);
        if let Err(error) = unused {
            return Op::err(error);
        }
        let (room, call) = (Arc::clone(&self.0), Call::Delete { name: name.to_owned() });
        Op::run(async move { room.ask(call).await.map(drop) })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        let room = Arc::clone(&self.0);
        Op::run(async move {
            let Answer::Volumes(volumes) = room.ask(Call::List).await? else {
                return Err(nonsense());
            };
            volumes.into_iter().map(|volume| info(Answer::Volume(volume))).collect()
        })
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let (room, call) = (Arc::clone(&self.0), Call::Show { name: name.to_owned() });
        Op::run(async move { info(room.ask(call).await?) })
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Attached> {
        let (room, name) = (Arc::clone(&self.0), name.to_owned());
        Op::run(async move { room.attach(name, attach).await })
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        let room = Arc::clone(&self.0);
        Op::run(async move { room.ask(Call::List).await.map(|_| Health::healthy()) })
    }
}

#[derive(Clone)]
struct Attached {
    room: Arc<Inner>,
    name: String,
    epoch: u64,
    size: u64,
    connection: Arc<Connection>,
}

impl Attached {
    fn change(&self, call: Call, bytes: &[u8]) -> Op<()> {
        let change = self.connection.call(call, bytes);
        Op::run(async move { change.await.map(drop) })
    }
}

impl Volume for Attached {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let mut buffer = cx.buffer(len as usize);
        let read = self.connection.call(Call::Read { offset, len }, &[]);
        Op::run(async move {
            let (_, bytes) = read.await?;
            if bytes.len() != buffer.len() {
                return Err(nonsense());
            }
            buffer.copy_from_slice(&bytes);
            Ok(buffer.freeze())
        })
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, _flags: WriteFlags) -> Op<()> {
        self.change(Call::Write { offset }, &data)
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        self.change(Call::Flush, &[])
    }

    fn discard(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.change(Call::Discard { offset, len }, &[])
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        let flushed = self.connection.call(Call::Flush, &[]);
        let this = self.clone();
        Op::run(async move {
            let flushed = flushed.await;
            let mut held = this.room.held();
            // Its epoch stays known.
            if let Some(holder) = held.get_mut(&this.name).filter(|last| last.epoch == this.epoch) {
                holder.connection = Weak::new();
            }
            flushed.map(drop)
        })
    }
}

driver_api::export_driver!(Remote, "remote");
