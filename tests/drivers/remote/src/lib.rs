// SPDX-License-Identifier: Apache-2.0
//! A driver whose volumes lie behind a server in other processes, for tests of writes that arrive late.
//!
//! | option | effect |
//! |---|---|
//! | `socket` | where the server listens |
//! | `timeout_ms` | after so long without a reply the answer is `TimedOut`; 0: it waits for ever |
//! | `fences` | `true`: the server ends the process of an earlier attachment before another one begins |
//!
//! The server, `remote-server SOCKET DIRECTORY`, is built with it. Each attachment is a connection of its own, and each
//! connection a process of the server: one of them can be frozen while the others serve.
//!
//! It is an honest driver. Unless it fences, what a request asked may happen at any time after it was given up, also after
//! another attachment took the volume: the server knows of no epochs. If it does, a host whose volume another host took
//! is told `Unavailable` instead of `Fenced`, for the server ends its process without a word.

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
    Fencing, Health, Host, IoBuf, Op, OpContext, OptionSpec, OptionType, RVec, Result, Volume,
    VolumeInfo, VolumeSpec, WriteFlags,
};
use serde::Deserialize;

use client::Connection;
use wire::{Answer, Call, Way};

/// The largest read or write, in bytes.
const LARGEST_IO: u32 = 4 << 20;

struct Remote;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    socket: PathBuf,
    #[serde(default)]
    timeout_ms: u64,
    #[serde(default)]
    fences: bool,
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
            .option(
                OptionSpec::new("fences", OptionType::BOOLEAN, "Whether earlier attachments end")
                    .default_json("false"),
            )
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Room> {
        let Options { socket, timeout_ms, fences } = config.parse()?;
        let patience = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
        Ok(Room(Arc::new(Inner { socket, patience, fences, held: Mutex::default() })))
    }
}

#[derive(Clone)]
struct Room(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    patience: Option<Duration>,
    fences: bool,
    held: Mutex<HashMap<String, Holder>>,
}

/// The last attachment of a volume; it has it while the connection is there.
struct Holder {
    epoch: u64,
    owner: String,
    connection: Weak<Connection>,
}

impl Inner {
    fn capabilities(&self) -> Capabilities {
        let abilities = Abilities::WRITE | Abilities::DISCARD | Abilities::PERSISTENT;
        let fencing = if self.fences { Fencing::EXCLUSIVE_LOCK } else { Fencing::NONE };
        Capabilities { fencing, max_io: LARGEST_IO, ..Capabilities::new(abilities) }
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::to(&self.socket, self.patience).await
    }

    /// A request that is about no attachment, on a connection of its own.
    async fn ask(&self, call: Call) -> Result<Answer> {
        Ok(self.connect().await?.call(call, &[]).await?.0)
    }

    async fn attach(self: &Arc<Self>, name: String, attach: Attach) -> Result<Attached> {
        self.prepare(&name, &attach)?;
        let connection = Arc::new(self.connect().await?);
        let way = match (self.fences, attach.force) {
            (false, _) => Way::Beside,
            (true, false) => Way::Alone,
            (true, true) => Way::TakeOver,
        };
        let open = Call::Open { name: name.clone(), way };
        let (answer, _) = connection.call(open, &[]).await?;
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

    /// Sees that an attachment may begin, and ends the one before it where the server will.
    fn prepare(&self, name: &str, attach: &Attach) -> Result<()> {
        let held = self.held();
        admit(&held, name, attach)?;
        let before = held.get(name).and_then(|holder| holder.connection.upgrade());
        if let Some(connection) = before.filter(|_| self.fences) {
            connection.depose();
        }
        Ok(())
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
        self.0.capabilities()
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
        let (room, name) = (Arc::clone(&self.0), name.to_owned());
        Op::run(async move {
            room.ask(Call::Delete { name: name.clone() }).await?;
            // Another volume of the name begins anew.
            room.held().remove(&name);
            Ok(())
        })
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
        self.room.capabilities()
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
        let closed = self.connection.call(Call::Close, &[]);
        let this = self.clone();
        Op::run(async move {
            let closed = closed.await;
            this.connection.depose();
            let mut held = this.room.held();
            // Its epoch stays known.
            if let Some(holder) = held.get_mut(&this.name).filter(|last| last.epoch == this.epoch) {
                holder.connection = Weak::new();
            }
            closed.map(drop)
        })
    }
}

driver_api::export_driver!(Remote, "remote");
