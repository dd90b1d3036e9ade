// SPDX-License-Identifier: Apache-2.0
//! A driver with volumes in memory that misbehaves on request, for tests of the host.
//!
//! Options of the backend; without any it is an honest driver:
//!
//! | option | effect |
//! |---|---|
//! | `panic_in` | panics in that call |
//! | `block_in`, `block_ms` | holds the caller's thread for so long in that call, then answers |
//! | `hang_in` | the call's future never ends |
//! | `slow_in`, `slow_ms` | the call's future ends after so long, on a timer of the driver's tokio |
//! | `pending` | `true`: reads, writes and flushes answer through a future even where they could at once |
//! | `lose_unflushed` | `true`: the storage restarts before each flush: unflushed writes are gone, and flushes fail until the next attach |
//! | `short_reads` | `true`: reads answer one byte less than asked |
//! | `fail_in`, `fail_as` | that call fails with that kind of error, such as `Fenced` |
//! | `fences` | `true`: it claims a lock: writes, reads and flushes of an attachment that another one followed are `Fenced` |
//! | `min_block` | offsets and lengths are to be multiples of so many bytes |
//!
//! A call is `describe` (by environment, `NOVASTOR_FAULTY_DESCRIBE=panic`), `open`, `create`, `delete`, `list`, `show`,
//! `attach`, `usage`, `health`, `close`, `capabilities`, `command`, `stats`, `size`, `read`, `write`, `flush`, `detach`,
//! `drop_volume`, `drop_backend`, `future` (any pending future, when polled) or `future_drop` (when dropped).
//! The command `restart` with `{"volume": "v"}` restarts the storage of a volume then and there: it answers with the
//! number of bytes lost, such as `{"lost":512}`, and flushes fail until the next attach if there were any.
//! The command `freeze` with `{"frozen": true}` has every read, write and flush wait that begins from now on, until
//! `{"frozen": false}`; then they go on.
//! The counter `writes_finished_total` of a backend counts writes that came to their end.

mod faults;
mod store;

use std::sync::Arc;

use driver_api::{
    Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Error, ErrorKind, Health,
    Host, IoBuf, Op, OpContext, OptionSpec, OptionType, RString, RVec, Result, Stats, Usage,
    Volume, VolumeInfo, VolumeSpec, WriteFlags, ext,
};

use faults::{DropFault, Faults};
use store::{Disk, Store};

struct Faulty;

impl Driver for Faulty {
    type Backend = Room;

    fn describe() -> DriverInfo {
        if std::env::var("NOVASTOR_FAULTY_DESCRIBE").is_ok_and(|fault| fault == "panic") {
            panic!("asked to panic in describe");
        }
        let text = |name, help| OptionSpec::new(name, OptionType::TEXT, help);
        let number = |name, help| OptionSpec::new(name, OptionType::INTEGER, help);
        let flag = |name, help| OptionSpec::new(name, OptionType::BOOLEAN, help);
        DriverInfo::new("Volumes in memory that misbehave on request, for tests")
            .option(text("panic_in", "The call that panics"))
            .option(text("block_in", "The call that holds its thread"))
            .option(number("block_ms", "For how long, in milliseconds").default_json("30"))
            .option(text("hang_in", "The call whose future never ends"))
            .option(text("slow_in", "The call whose future takes time"))
            .option(number("slow_ms", "How much, in milliseconds").default_json("30"))
            .option(flag("pending", "Answer through futures").default_json("false"))
            .option(
                flag("lose_unflushed", "Lose unflushed writes before each flush")
                    .default_json("false"),
            )
            .option(flag("short_reads", "Answer a byte too few").default_json("false"))
            .option(text("fail_in", "The call that fails"))
            .option(text("fail_as", "The kind of its error"))
            .option(flag("fences", "Keep deposed attachments away").default_json("false"))
            .option(number("min_block", "The smallest block, in bytes").default_json("1"))
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Room> {
        let faults = Faults::new(config.parse()?);
        faults.enter("open");
        tracing::info!(backend = %config.name, "faulty backend opened");
        let on_drop = faults.on_drop("drop_backend");
        Ok(Room { store: Store::default(), faults, _on_drop: on_drop })
    }
}

#[derive(Clone)]
struct Room {
    store: Store,
    faults: Faults,
    _on_drop: DropFault,
}

impl Backend for Room {
    type Volume = Open;

    fn capabilities(&self) -> Capabilities {
        self.faults.capabilities()
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.faults.op("create", self.store.create(&spec))
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        self.faults.op("delete", self.store.delete(name))
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        self.faults.op("list", Ok(self.store.list()))
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        self.faults.op("show", self.store.show(name))
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Open> {
        let disk = self.store.attach(name, &attach);
        let faults = self.faults.clone();
        let opened = disk.map(|disk| {
            let on_drop = faults.on_drop("drop_volume");
            Open { disk, faults, _on_drop: on_drop }
        });
        self.faults.op("attach", opened)
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        self.faults.op("usage", Ok(self.store.usage()))
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        self.faults.op("health", Ok(Health::healthy()))
    }

    fn stats(&self) -> Stats {
        self.faults.enter("stats");
        Stats::new().counter("writes_finished_total", self.store.writes_finished())
    }

    fn close(&self, _cx: &OpContext) -> Op<()> {
        self.faults.op("close", Ok(()))
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        Some(Arc::new(self.clone()))
    }
}

/// The argument of the command `freeze`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {
    frozen: bool,
}

/// The argument of the command `restart`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    volume: String,
}

impl ext::Commands for Room {
    fn list(&self) -> RVec<ext::CommandSpec> {
        let restart = ext::CommandSpec {
            name: "restart".into(),
            help: "Restarts the storage of a volume, which loses what is not flushed.".into(),
            example: r#"{"volume":"v"}"#.into(),
            mutates: true,
        };
        let freeze = ext::CommandSpec {
            name: "freeze".into(),
            help: "Has what touches data wait, until it is thawed.".into(),
            example: r#"{"frozen":true}"#.into(),
            mutates: true,
        };
        RVec::from(vec![restart, freeze])
    }

    fn run(&self, _cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        let answer = match command {
            "restart" => parse(arguments).and_then(|Restart { volume }| {
                Ok(format!(r#"{{"lost":{}}}"#, self.store.restart(&volume)?).into())
            }),
            "freeze" => parse(arguments).map(|Freeze { frozen }| {
                self.faults.freeze(frozen);
                format!(r#"{{"frozen":{frozen}}}"#).into()
            }),
            _ => Err(Error::new(ErrorKind::UNSUPPORTED, "the commands are `restart` and `freeze`")),
        };
        self.faults.op("command", answer)
    }
}

fn parse<T: serde::de::DeserializeOwned>(arguments: &str) -> Result<T> {
    serde_json::from_str(arguments)
        .map_err(|error| Error::new(ErrorKind::INVALID_ARGUMENT, error.to_string()))
}

#[derive(Clone)]
struct Open {
    disk: Disk,
    faults: Faults,
    _on_drop: DropFault,
}

impl Volume for Open {
    fn size(&self) -> u64 {
        self.faults.enter("size");
        self.disk.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.faults.capabilities()
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let short = u32::from(self.faults.options().short_reads);
        let mut buffer = cx.buffer(len.saturating_sub(short) as usize);
        let may = if self.faults.options().fences { self.disk.check_session() } else { Ok(()) };
        let read = may.and_then(|()| self.disk.read(offset, &mut buffer)).map(|()| buffer.freeze());
        self.faults.data_op("read", read)
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let disk = self.disk.clone();
        let fences = self.faults.options().fences;
        self.faults.data_op_then("write", move || disk.write(offset, &data, flags, fences))
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        let disk = self.disk.clone();
        let (lose, fences) = (self.faults.options().lose_unflushed, self.faults.options().fences);
        self.faults.data_op_then("flush", move || {
            if fences {
                disk.check_session()?;
            }
            disk.flush(lose)
        })
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        self.faults.op("detach", self.disk.detach())
    }

    fn stats(&self) -> Stats {
        self.faults.enter("stats");
        Stats::new()
    }

    fn incarnation(&self) -> u64 {
        self.disk.incarnation()
    }
}

driver_api::export_driver!(Faulty, "faulty");
