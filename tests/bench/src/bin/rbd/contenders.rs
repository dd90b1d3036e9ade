// SPDX-License-Identifier: Apache-2.0
//! The contenders: one cluster, and the same load by each way to it. Each has an image of its own, made alike and written
//! once; fio's and `rbd bench`'s is one, since neither keeps it open. None has a cache.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use end_to_end::{
    artifacts::Artifacts,
    ceph::{BACKEND, Ceph, POOL},
    cpu,
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    program::{Program, Running, until},
    workspace::root,
};
use novastor_bench::{
    client::{self, Load},
    load::{Case, Sample, Span},
};
use serde_json::{Value, json};

use crate::cases::FILL;

const PATIENCE: Duration = Duration::from_secs(30);
const USER: &str = "novastor";
const DRIVERS: &str = "driver";
const EXPORTED: &str = "exported";
const PEERS: &str = "peer";
const QEMUS: &str = "qemu";

/// A way to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    /// Our driver, loaded into its client.
    Driver,
    /// fio's rbd engine.
    Fio,
    /// fio's nbd engine on our host.
    Nbd,
    /// fio's nbd engine on qemu-nbd.
    Qemu,
    /// `rbd bench`.
    RbdBench,
}

/// All of them.
pub const CONTENDERS: [Contender; 5] =
    [Contender::Driver, Contender::Fio, Contender::Nbd, Contender::Qemu, Contender::RbdBench];

impl Contender {
    /// What the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Fio => "fio's rbd engine",
            Self::Nbd => "novastor over NBD",
            Self::Qemu => "qemu-nbd on rbd",
            Self::RbdBench => "rbd bench",
        }
    }
}

/// One contender's turn at a case.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// How long.
    pub span: Span,
    /// Where random places come from.
    pub seed: u64,
    /// Operations in a second that are to be expected.
    pub rate: f64,
}

/// The cluster, and everybody on it.
pub struct Field {
    artifacts: Artifacts,
    size: u64,
    /// The cluster's configuration, without a cache, for clients.
    conf: PathBuf,
    host: Host,
    qemu: Outcome<(Running, String)>,
    // Last: its clients end first.
    ceph: Ceph,
}

impl Field {
    /// Starts all, with images of this size.
    ///
    /// # Errors
    /// When anything but qemu-nbd is missing or fails.
    pub fn start(room: &Path, size: u64) -> Outcome<Self> {
        let artifacts = Artifacts::of_this_build()?;
        let ceph = Ceph::start(&room.join("ceph"))?;
        let conf = room.join("client.conf");
        // The cluster's ends with the section of clients.
        let text = fs::read_to_string(ceph.conf()).context("the cluster's configuration")?;
        fs::write(&conf, text + "rbd_cache = false\n").context(conf.display())?;
        for image in [PEERS, QEMUS] {
            ceph.rbd(&["create", "--size", &format!("{size}B"), &format!("{POOL}/{image}")])?;
        }
        let host = ceph.host(&artifacts, "")?;
        host.cli().create_volume(EXPORTED, size, Some(BACKEND), &[])?;
        host.cli().add_export(EXPORTED)?;
        let qemu = qemu_nbd(&artifacts, room, &conf);
        let field = Self { artifacts, size, conf, host, qemu, ceph };
        for contender in field.contenders().filter(|one| *one != Contender::RbdBench) {
            field.fill(contender)?;
        }
        Ok(field)
    }

    /// Those that are there.
    pub fn contenders(&self) -> impl DoubleEndedIterator<Item = Contender> + use<> {
        let qemu = self.qemu.is_ok();
        CONTENDERS.into_iter().filter(move |one| *one != Contender::Qemu || qemu)
    }

    /// Why qemu-nbd is not there.
    pub fn without_qemu(&self) -> Option<&Failure> {
        self.qemu.as_ref().err()
    }

    /// Writes a contender's image once.
    fn fill(&self, contender: Contender) -> Outcome<Sample> {
        self.load(contender, FILL, None, 1).context(format!("fill that of {}", contender.name()))
    }

    /// Runs a load by one way. `rbd bench` has no clock: it does what takes as long at this rate.
    ///
    /// # Errors
    /// When it fails, or gives no figures.
    pub fn run(&self, contender: Contender, case: Case, turn: Turn) -> Outcome<Sample> {
        let server = match (contender, &self.qemu) {
            (Contender::Nbd, _) => Some(self.host.id()?),
            (Contender::Qemu, Ok((running, _))) => Some(running.id()),
            _ => None,
        };
        let of_server = || server.map_or(Ok(0.0), cpu::secs_of);
        let before = of_server()? + cpu::secs_of_children()?;
        let sample = match contender {
            Contender::RbdBench => self.rbd_bench(case, turn),
            _ => self.load(contender, case, Some(turn.span), turn.seed),
        }?;
        let used = of_server()? + cpu::secs_of_children()? - before;
        let warm = if contender == Contender::RbdBench { 0 } else { turn.span.warm_millis };
        let operations = sample.rate * (turn.span.millis + warm) as f64 / 1e3;
        Ok(Sample { cpu_us: used * 1e6 / operations, ..sample })
    }

    /// A load by one way; without a span everything is used once.
    fn load(
        &self,
        contender: Contender,
        case: Case,
        span: Option<Span>,
        seed: u64,
    ) -> Outcome<Sample> {
        match contender {
            Contender::Driver => self.driver(case, span, seed),
            Contender::Fio => {
                let engine = ["--ioengine=rbd".to_owned(), format!("--rbdname={PEERS}")];
                let user = [format!("--pool={POOL}"), format!("--clientname={USER}")];
                self.fio(case, span, seed, &[engine, user].concat())
            }
            Contender::Nbd => self.fio(case, span, seed, &nbd(&self.host.uri(EXPORTED))),
            Contender::Qemu => match &self.qemu {
                Ok((_, uri)) => self.fio(case, span, seed, &nbd(uri)),
                Err(failure) => Err(Failure::new(failure.to_string())),
            },
            Contender::RbdBench => Err(Failure::new("rbd bench has no clock")),
        }
    }

    fn driver(&self, case: Case, span: Option<Span>, seed: u64) -> Outcome<Sample> {
        client::apart(&Load {
            driver: self.artifacts.ceph()?,
            options: json!({ "conf_file": self.conf, "user": USER, "pool": POOL }),
            volume: DRIVERS.to_owned(),
            size: self.size,
            case,
            span,
            fresh: span.is_none(),
            seed,
        })
    }

    fn fio(&self, case: Case, span: Option<Span>, seed: u64, way: &[String]) -> Outcome<Sample> {
        let order = if case.random { "rand" } else { "" };
        let mut program = Program::new("fio")
            .env("CEPH_CONF", &self.conf)
            .args(["--name=load", "--output-format=json", "--verify_state_save=0"])
            .args(["--norandommap", "--scramble_buffers=0", &format!("--randseed={seed}")])
            .args([format!("--size={}", self.size), format!("--rw={order}{}", case.way())])
            .args([format!("--bs={}", case.block), format!("--iodepth={}", case.depth)])
            .args(way);
        if let Some(Span { warm_millis, millis }) = span {
            program = program.args(["--time_based", &format!("--runtime={millis}ms")]);
            program = program.arg(format!("--ramp_time={warm_millis}ms"));
        }
        let said = program.limit_secs(120).run()?;
        // The libraries say their own first.
        let json = said.stdout.find('{').map(|start| &said.stdout[start..]);
        let json =
            json.ok_or_else(|| Failure::new(format!("fio gives no figures: {}", said.stdout)))?;
        let report: Value = serde_json::from_str(json).context("fio's figures")?;
        let job = &report["jobs"][0];
        ensure(job["error"] == 0, || format!("fio failed: {}", job["error"]))?;
        let done = &job[case.way()];
        let percentile = |part: &str| Some(done["clat_ns"]["percentile"][part].as_f64()? / 1e3);
        match (done["iops"].as_f64(), percentile("50.000000"), percentile("99.000000")) {
            (Some(rate), Some(half), Some(most)) if rate > 0.0 => {
                Ok(Sample { rate, latency_us: Some([half, most]), cpu_us: 0.0 })
            }
            _ => Err(Failure::new(format!("fio counts nothing: {done}"))),
        }
    }

    fn rbd_bench(&self, case: Case, turn: Turn) -> Outcome<Sample> {
        let operations = turn.rate * turn.span.millis as f64 / 1e3;
        let operations = operations.max(case.depth as f64) as u64;
        let order = if case.random { "rand" } else { "seq" };
        let said = Program::new("rbd")
            .arg("-c")
            .arg(&self.conf)
            .args(["--id", USER, "bench", "--io-pattern", order, "--io-type", case.way()])
            .args(["--io-threads", &case.depth.to_string(), "--io-size", &case.block.to_string()])
            .args(["--io-total", &(operations * case.block as u64).to_string()])
            .arg(format!("{POOL}/{PEERS}"))
            .run()?;
        let rate = said.stdout.rsplit_once("ops/sec:").map_or("", |(_, rest)| rest);
        let rate = rate.split_whitespace().next().unwrap_or_default();
        let rate = rate.parse().context(format!("rbd bench says {:?}", said.stdout))?;
        Ok(Sample { rate, latency_us: None, cpu_us: 0.0 })
    }

    /// Ends the host as an operator would; the rest ends by itself.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn end(mut self) -> Outcome {
        self.host.stop()?;
        self.ceph.until_well()
    }
}

fn nbd(uri: &str) -> [String; 2] {
    ["--ioengine=nbd".to_owned(), format!("--uri={uri}")]
}

fn qemu_nbd(artifacts: &Artifacts, room: &Path, conf: &Path) -> Outcome<(Running, String)> {
    let directory = artifacts.target().join("qemu-rbd");
    Program::new(root().join("tests/services/qemu-rbd")).arg(&directory).limit_secs(300).run()?;
    let socket = room.join("qemu.sock");
    let image = format!("rbd:{POOL}/{QEMUS}:id={USER}:conf={}", conf.display());
    let mut running = Program::new(directory.join("qemu-nbd"))
        .args(["--persistent", "--shared=8", "--format=raw", "--cache=none", "--export-name="])
        .arg("--socket")
        .arg(&socket)
        .arg(image)
        .start(&socket.with_extension("log"))?;
    until(PATIENCE, || {
        running.still_runs()?;
        UnixStream::connect(&socket).map(drop).context("connect")
    })
    .map_err(|failure| Failure::new(format!("{failure}\n{}", running.said())))?;
    Ok((running, format!("nbd+unix:///?socket={}", socket.display())))
}
