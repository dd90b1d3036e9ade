// SPDX-License-Identifier: Apache-2.0
//! One load on one server, and what it cost.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    cpu,
    failure::{Context, Failure, Outcome, ensure},
    program::Program,
};

use crate::{
    load::{Load, read_figures},
    servers::{Server, Servers},
};

const MIB: u64 = 1 << 20;
/// Bytes of a request and of a simple reply without data.
const MESSAGES: [usize; 2] = [28, 16];

/// Who loads the servers, and how.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// The batching client.
    Libnbd {
        /// Bytes of an operation.
        block: usize,
        /// Operations in flight on each connection.
        depth: usize,
        /// Connections.
        connections: usize,
    },
    /// fio's nbd engine, 4 KiB, 32 in flight.
    Fio,
    /// nbdcopy of the whole disk.
    Nbdcopy,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The client.
    pub client: Client,
    /// Write instead of read.
    pub write: bool,
    /// How many times faster than nbdkit this shall be.
    pub target: f64,
}

const fn libnbd(block: usize, depth: usize, connections: usize) -> Client {
    Client::Libnbd { block, depth, connections }
}

/// All rows.
pub const ROWS: [Row; 12] = [
    Row { client: libnbd(4096, 32, 1), write: false, target: 2.0 },
    Row { client: libnbd(4096, 32, 1), write: true, target: 1.5 },
    Row { client: libnbd(4096, 32, 4), write: false, target: 5.0 },
    Row { client: libnbd(4096, 32, 4), write: true, target: 5.0 },
    Row { client: libnbd(4096, 1, 1), write: false, target: 0.95 },
    Row { client: libnbd(4096, 1, 1), write: true, target: 0.95 },
    Row { client: libnbd(1 << 20, 8, 1), write: false, target: 0.95 },
    Row { client: libnbd(1 << 20, 8, 1), write: true, target: 0.95 },
    Row { client: Client::Fio, write: false, target: 1.5 },
    Row { client: Client::Fio, write: true, target: 1.0 },
    Row { client: Client::Nbdcopy, write: false, target: 1.2 },
    Row { client: Client::Nbdcopy, write: true, target: 1.2 },
];

impl Row {
    /// The load, in words.
    pub fn name(&self, size: u64) -> String {
        let way = if self.write { "write" } else { "read" };
        match self.client {
            Client::Libnbd { block, depth, connections } => {
                let block = if block < 1 << 20 { "4k" } else { "1M" };
                let connections =
                    if connections > 1 { format!(" x{connections}") } else { String::new() };
                format!("libnbd {way} {block} d{depth}{connections}")
            }
            Client::Fio => format!("fio {way} 4k d32"),
            Client::Nbdcopy => format!("nbdcopy {way} {} MiB", size / MIB),
        }
    }

    /// How many cores the client can keep busy, of `cores`. None for fio, which does much besides.
    pub fn client_cores(&self, cores: usize) -> Option<usize> {
        match self.client {
            Client::Libnbd { connections, .. } => Some(connections.min(cores)),
            Client::Nbdcopy => Some(cores),
            Client::Fio => None,
        }
    }

    /// What the rates count.
    pub fn unit(&self) -> &'static str {
        match self.client {
            Client::Nbdcopy => "MiB",
            _ => "op",
        }
    }
}

/// What one load on one server gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Operations, or MiB, in a second.
    pub rate: f64,
    /// CPU microseconds of the server for each of them.
    pub cpu_us: f64,
    /// The same of the client.
    pub client_us: f64,
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Milliseconds of a load; a copy takes what it takes.
    pub millis: u64,
    /// Bytes of each disk: the first half is for the batching client, the second for fio, whose writes bear no stamps.
    pub size: u64,
}

/// Runs a row's load on a server.
///
/// # Errors
/// When the load fails, or gives no figure.
pub fn measure(row: &Row, server: &Server, servers: &Servers, extent: Extent) -> Outcome<Sample> {
    servers.settle()?;
    let before = (server.cpu_secs()?, cpu::secs_of_children()?);
    let (count, secs) = match row.client {
        Client::Libnbd { block, depth, connections } => {
            let (uri, write) = (server.uri.clone(), row.write);
            let (area, millis) = (extent.size / 2, extent.millis);
            let load = Load { uri, write, block, depth, connections, area, millis };
            let load = serde_json::to_string(&load).context("load")?;
            let itself = std::env::current_exe().context("path of this program")?;
            let said = Program::new(itself).args(["load", &load]).run()?;
            let figures = read_figures(&said.stdout)?;
            (figures.operations as f64, figures.secs)
        }
        Client::Fio => fio(row.write, server, extent)?,
        Client::Nbdcopy => nbdcopy(row.write, server, servers, extent)?,
    };
    let cpu_us = (server.cpu_secs()? - before.0) * 1e6 / count;
    let client_us = (cpu::secs_of_children()? - before.1) * 1e6 / count;
    let rate = count / secs;
    ensure(rate.is_finite() && rate > 0.0, || format!("{}: nothing was done", server.name))?;
    Ok(Sample { rate, cpu_us, client_us })
}

fn fio(write: bool, server: &Server, extent: Extent) -> Outcome<(f64, f64)> {
    let half = extent.size / 2;
    let rw = if write { "randwrite" } else { "randread" };
    let said = Program::new("fio")
        .args(["--name=bench", "--ioengine=nbd", "--bs=4k", "--iodepth=32", "--time_based"])
        .args(["--output-format=json", "--verify_state_save=0", &format!("--rw={rw}")])
        .args([format!("--offset={half}"), format!("--size={half}")])
        .args([format!("--runtime={}ms", extent.millis), format!("--uri={}", server.uri)])
        .run()?;
    // libnbd says its own first.
    let json = said.stdout.find('{').map(|start| &said.stdout[start..]);
    let json =
        json.ok_or_else(|| Failure::new(format!("fio gives no figures: {}", said.stdout)))?;
    let report: serde_json::Value = serde_json::from_str(json).context("fio's figures")?;
    let done = &report["jobs"][0][if write { "write" } else { "read" }];
    match (done["total_ios"].as_f64(), done["iops"].as_f64()) {
        (Some(count), Some(rate)) => Ok((count, count / rate)),
        _ => Err(Failure::new(format!("fio counts nothing: {json}"))),
    }
}

fn nbdcopy(write: bool, server: &Server, servers: &Servers, extent: Extent) -> Outcome<(f64, f64)> {
    let program = Program::new("nbdcopy");
    let program = if write {
        program.arg(&servers.image).arg(&server.uri)
    } else {
        program.arg(&server.uri).arg("null:")
    };
    let start = Instant::now();
    program.run()?;
    Ok(((extent.size / MIB) as f64, start.elapsed().as_secs_f64()))
}

/// Round trips in a second of two threads that exchange messages of a request's and a reply's length over a unix socket:
/// what no server can beat at depth 1 without polling.
///
/// # Errors
/// When there is no socket.
pub fn ping_pong() -> Outcome<f64> {
    const TIME: Duration = Duration::from_millis(100);
    let (mut here, mut there) = UnixStream::pair().context("socket pair")?;
    let [request, reply] = MESSAGES;
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut message = vec![0; request];
            while there.read_exact(&mut message).is_ok() {
                there.write_all(&message[..reply])?;
            }
            Ok::<_, std::io::Error>(())
        });
        let mut message = vec![0; request];
        let (start, mut turns) = (Instant::now(), 0u32);
        while start.elapsed() < TIME {
            here.write_all(&message).context("ping")?;
            here.read_exact(&mut message[..reply]).context("pong")?;
            turns += 1;
        }
        let rate = f64::from(turns) / start.elapsed().as_secs_f64();
        drop(here);
        echo.join().map_err(|_| Failure::new("the echo panicked"))?.context("pong")?;
        Ok(rate)
    })
}
