// SPDX-License-Identifier: Apache-2.0
//! A driver with buckets and objects in memory, and no volumes, for tests of the host. It is honest: conditions, marks,
//! parts and pages are kept as the contract says.
//!
//! Options of the backend, all numbers of bytes unless said otherwise; the defaults are small, so that tests reach them:
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `max_put` | 65536 | the largest write at once |
//! | `max_piece` | 16384 | the largest read at once |
//! | `min_part`, `max_part` | 1024, 65536 | the size of parts |
//! | `max_parts` | 1000 | how many there are |
//! | `max_page` | 100 | entries of a page |
//! | `checksum` | | the sum that it tells: `crc32c`, `md5`, `wrong` for one that is not right, or `wrong-whole` for `crc32c` of which only those of parts are right |
//! | `without` | | names of abilities of objects that it does not have, separated by commas |
//! | `late` | | names of abilities that it claims, and finds out not to have when an upload is begun under a condition |
//! | `defect` | | a promise that it breaks: a name in `objects.rs`, for tests of the checks |
//!
//! The command `fault` has the next calls of one name fail: `{"call":"put_part","kind":10,"times":1}` with the number of
//! an error's kind. With `"after":true` the call does its work first, and then fails. With `"wait_ms":100` it waits before
//! it begins, and does not fail. Names are `put`, `get`, `open`, `next`, `head`, `list`, `delete`, `begin_upload`,
//! `put_part` and `complete_upload`.
//! The counters `put_total`, `get_total`, `next_total`, `put_part_total` and `most_at_once` of a backend say what was
//! asked, and `readings_dropped_total` how many readings were let go.

mod faults;
mod objects;
mod reading;
mod store;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{
    Abilities, Attach, Backend, BackendConfig, BackendHandle, Capabilities, Driver, DriverInfo,
    Error, ErrorKind, Health, Host, IoBuf, Op, OpContext, OptionSpec, OptionType, RString, RVec,
    Result, Stats, Usage, Volume, VolumeInfo, VolumeSpec, WriteFlags, ext, host::NoServices,
};
use serde::Deserialize;

use faults::{Fault, Faults};
use store::Store;

/// The backend's options.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    max_put: u64,
    max_piece: u32,
    min_part: u64,
    max_part: u64,
    max_parts: u32,
    max_page: u32,
    without: String,
    checksum: String,
    #[serde(default)]
    late: String,
    #[serde(default)]
    defect: String,
}

struct Objects;

impl Driver for Objects {
    type Backend = Room;

    fn describe() -> DriverInfo {
        let number = |name, help, default| {
            OptionSpec::new(name, OptionType::INTEGER, help).default_json(default)
        };
        DriverInfo::new("Buckets and objects in memory, for tests")
            .option(number("max_put", "The largest write at once, in bytes", "65536"))
            .option(number("max_piece", "The largest read at once, in bytes", "16384"))
            .option(number("min_part", "The smallest part, in bytes", "1024"))
            .option(number("max_part", "The largest part, in bytes", "65536"))
            .option(number("max_parts", "The most parts", "1000"))
            .option(number("max_page", "The most entries of a page", "100"))
            .option(
                OptionSpec::new("without", OptionType::TEXT, "Abilities it does not have")
                    .default_json("\"\""),
            )
            .option(
                OptionSpec::new(
                    "checksum",
                    OptionType::TEXT,
                    "The sum that it tells of objects and parts",
                )
                .default_json("\"\""),
            )
            .option(
                OptionSpec::new("late", OptionType::TEXT, "Abilities it finds out not to have")
                    .default_json("\"\""),
            )
            .option(
                OptionSpec::new("defect", OptionType::TEXT, "A promise that it breaks")
                    .default_json("\"\""),
            )
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Room> {
        Ok(Room::new(config.parse()?))
    }
}

/// A backend in this process, which breaks one promise; none, if that is empty.
pub fn open(defect: &str) -> BackendHandle {
    let room = Room::new(Options {
        max_put: 1 << 18,
        max_piece: 16384,
        min_part: 1024,
        max_part: 1 << 20,
        max_parts: 100,
        max_page: 10,
        without: String::new(),
        checksum: String::new(),
        late: String::new(),
        defect: defect.to_owned(),
    });
    driver_api::export::export_backend(room, Host::new(NoServices))
}

#[derive(Clone)]
struct Room(Arc<Inner>);

struct Inner {
    options: Options,
    store: Store,
    faults: Faults,
    readings_dropped: AtomicU64,
}

impl Room {
    fn new(options: Options) -> Self {
        let store = Store::telling(&options.checksum);
        let (faults, readings_dropped) = (Faults::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { options, store, faults, readings_dropped }))
    }

    fn breaks(&self, promise: &str) -> bool {
        self.0.options.defect == promise
    }
}

/// There are no volumes.
#[derive(Clone)]
enum None {}

fn no_volumes<T>() -> Op<T> {
    Op::err(
        Error::new(ErrorKind::UNSUPPORTED, "this driver has objects, and no volumes")
            .remedy("novastor object"),
    )
}

impl Backend for Room {
    type Volume = None;

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Abilities::OBJECTS | Abilities::COMMANDS)
    }

    fn create(&self, _cx: &OpContext, _spec: VolumeSpec) -> Op<VolumeInfo> {
        no_volumes()
    }

    fn delete(&self, _cx: &OpContext, _name: &str) -> Op<()> {
        no_volumes()
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        no_volumes()
    }

    fn show(&self, _cx: &OpContext, _name: &str) -> Op<VolumeInfo> {
        no_volumes()
    }

    fn attach(&self, _cx: &OpContext, _name: &str, _attach: Attach) -> Op<None> {
        no_volumes()
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        let used = self.0.store.bytes();
        Op::ok(Usage { used, ..Usage::default() })
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        Op::ok(Health::healthy())
    }

    fn stats(&self) -> Stats {
        let dropped = self.0.readings_dropped.load(Ordering::Relaxed);
        self.0.faults.stats().counter("readings_dropped_total", dropped)
    }

    fn objects(&self) -> Option<Arc<dyn ext::Objects>> {
        Some(Arc::new(self.clone()))
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        Some(Arc::new(self.clone()))
    }
}

impl ext::Commands for Room {
    fn list(&self) -> RVec<ext::CommandSpec> {
        RVec::from(vec![ext::CommandSpec {
            name: "fault".into(),
            help: "Has the next calls of a name fail.".into(),
            example: r#"{"call":"put_part","kind":10}"#.into(),
            mutates: true,
        }])
    }

    fn run(&self, _cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        if command != "fault" {
            return Op::err(Error::new(ErrorKind::UNSUPPORTED, "the command is `fault`"));
        }
        Op::ready(match serde_json::from_str::<Fault>(arguments) {
            Ok(fault) => {
                self.0.faults.add(fault);
                Ok("{}".into())
            }
            Err(error) => Err(Error::new(ErrorKind::INVALID_ARGUMENT, error.to_string())),
        })
    }
}

impl Volume for None {
    fn size(&self) -> u64 {
        match *self {}
    }

    fn capabilities(&self) -> Capabilities {
        match *self {}
    }

    fn read(&self, _cx: &OpContext, _offset: u64, _len: u32) -> Op<IoBuf> {
        match *self {}
    }

    fn write(&self, _cx: &OpContext, _offset: u64, _data: IoBuf, _flags: WriteFlags) -> Op<()> {
        match *self {}
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        match *self {}
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        match *self {}
    }
}

driver_api::export_driver!(Objects, "objects");
