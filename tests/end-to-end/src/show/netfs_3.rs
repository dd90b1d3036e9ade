// SPDX-License-Identifier: Apache-2.0
//! Under clients that verify what they write, the servers of shares are killed, hung, and their connections closed and reset:
//! no error, no wrong byte, no lost flush; neither when the servers' power is cut, and with it goes what they had in memory.
//! What cannot be healed is said: a share that became read-only, a disk that is full, a file that somebody replaced.

mod power;
mod told;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Stage, verifying};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    load::Load,
    nbd::Command,
    netfs::{Netfs, Server, WAYS, Way},
    program::until,
    random::Random,
    wire::Wire,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 32 * MIB;
/// What our own clients write: the first part of a volume.
const LEDGER: u64 = 16 * MIB;
/// What fio has.
const PART: [&str; 2] = ["--offset=16M", "--size=8M"];
/// Longer than any of the faults lasts, with the servers' grace.
const OPTIONS: &str = "operation_timeout_secs = 110\nsilence_timeout_secs = 3\n";
/// How long a server is away, in the short and in the long form.
const AWAY: Duration = Duration::from_secs(2);
const LONG_AWAY: Duration = Duration::from_secs(60);
/// Longer than the driver listens to a server that says nothing.
const HANG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to the way to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The servers are killed, and started again.
    Killed(Duration),
    /// They stand still, and go on.
    Hung,
    /// The connections are reset in the middle of a message.
    Reset,
    /// The connections are closed cleanly.
    Closed,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    let servers = Netfs::start(&stage.path("servers"))?;
    under_faults(stage, &servers, &mut random).context(format!("NOVASTOR_SEED={seed}"))?;
    told::play(stage, &servers)?;
    power::play(stage, &servers, &mut random).context(format!("NOVASTOR_SEED={seed}"))
}

/// The host, the wires to the servers, and a volume on each way.
struct Field<'s> {
    stage: &'s Stage,
    servers: &'s Netfs,
    wires: [(Server, Wire); 2],
    ways: &'s [Way],
    host: Host,
}

impl<'s> Field<'s> {
    fn new(stage: &'s Stage, servers: &'s Netfs) -> Outcome<Self> {
        // The short form has one version of each protocol.
        let ways: &[Way] = if stage.is_long() { &WAYS } else { &[Way::Nfs3, Way::Nfs41, Way::Smb] };
        let wire = |way: Way| {
            let address = format!("{}:{}", servers.address("host")?, servers.port_of(way)?);
            let address: SocketAddr = address.parse().context(address)?;
            Ok((way.server(), Wire::to(address)?))
        };
        let wires = [wire(Way::Nfs3)?, wire(Way::Smb)?];
        let mut more = servers.secrets();
        for way in ways {
            let section = servers.section(way.name(), *way, OPTIONS)?;
            let wire = wires.iter().find(|(server, _)| *server == way.server());
            let port = wire.map(|(_, wire)| wire.port()).unwrap_or_default();
            let direct = format!("port = {}\n", servers.port_of(*way)?);
            ensure(section.contains(&direct), || format!("no port in {section}"))?;
            more += &section.replace(&format!("\n{direct}"), &format!("\nport = {port}\n"));
        }
        let host = Host::start(&stage.artifacts, &more)?;
        install(&stage.artifacts.netfs()?, &host.plugins())?;
        volumes(&host, ways)?;
        Ok(Self { stage, servers, wires, ways, host })
    }

    fn strike(&self, fault: Fault, random: &mut Random) -> Outcome {
        thread::sleep(Duration::from_millis(random.within(500..1500)));
        let all = |signal| {
            let servers = [Server::Ganesha, Server::Samba];
            servers.iter().try_for_each(|server| self.servers.signal_all(*server, signal))
        };
        let connections = || self.wires.iter().map(|(_, wire)| wire.connections()).sum::<u64>();
        let before = connections();
        let said = match fault {
            Fault::Killed(away) => {
                all("KILL")?;
                thread::sleep(away);
                self.servers.again(Server::Ganesha)?;
                self.servers.again(Server::Samba)?;
                format!("the servers were killed, and were away for {} s", away.as_secs())
            }
            Fault::Hung => {
                all("STOP")?;
                thread::sleep(HANG);
                all("CONT")?;
                format!("the servers hung for {} s", HANG.as_secs())
            }
            Fault::Reset => {
                self.wires.iter().for_each(|(_, wire)| wire.reset());
                "the connections were reset in the middle of a message".to_owned()
            }
            Fault::Closed => {
                self.wires.iter().for_each(|(_, wire)| wire.close());
                "the connections were closed cleanly".to_owned()
            }
        };
        let over = Instant::now();
        until(PATIENCE, || all_serve(&self.host, self.ways))?;
        let (secs, anew) = (over.elapsed().as_secs_f64(), connections() - before);
        ensure(anew > 0, || format!("{fault:?}: nobody connected anew"))?;
        self.stage
            .tell(format!("{said}; all volumes worked {secs:.1} s later, {anew} connections anew"));
        Ok(())
    }
}

fn under_faults(stage: &Stage, servers: &Netfs, random: &mut Random) -> Outcome {
    let mut field = Field::new(stage, servers)?;
    let loads: Vec<Load> =
        field.ways.iter().map(|_| Load::new(LEDGER / 512, 1, random.number())).collect();
    let mut faults = vec![Fault::Killed(AWAY), Fault::Hung, Fault::Reset, Fault::Closed];
    if stage.is_long() {
        faults.extend([Fault::Killed(LONG_AWAY), Fault::Reset, Fault::Closed, Fault::Hung]);
        faults.extend([Fault::Killed(AWAY), Fault::Reset, Fault::Closed]);
    }
    let first_seed = random.within(1..1 << 20);
    let times = at_work(&field.host, field.ways, &loads, first_seed, |all_well| {
        faults.iter().try_for_each(|fault| {
            all_well()?;
            field.strike(*fault, random).context(format!("{fault:?}"))
        })
    })?;
    stage.tell(format!("fio wrote and verified its parts {times} times, without an error"));
    kept(stage, &mut field.host, field.ways, &loads)
}

/// Does something while each volume is written and verified by fio and by writers who remember what they were promised; `work`
/// can ask whether all of them are well. How often fio has verified its parts.
fn at_work(
    host: &Host,
    ways: &[Way],
    loads: &[Load],
    first_seed: u64,
    work: impl FnOnce(&dyn Fn() -> Outcome) -> Outcome,
) -> Outcome<u64> {
    let (over, socket) = (&AtomicBool::new(false), &host.nbd_socket());
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for (way, load) in ways.iter().zip(loads) {
            let uri = host.uri(way.name());
            let fio = move || verifying::client(&uri, &PART, first_seed, over);
            clients.push(scope.spawn(move || fio().context(format!("fio on {}", way.name()))));
            let until_over = || {
                while !over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            };
            let writers = move || load.during(socket, way.name(), until_over).map(|()| 0);
            clients.push(scope.spawn(move || writers().context(way.name())));
        }
        let worked = work(&|| {
            // Who has ended before it is over has failed.
            let ended = clients.iter().any(thread::ScopedJoinHandle::is_finished);
            ensure(!ended, || "a client has ended".to_owned())
        });
        over.store(true, Ordering::SeqCst);
        let mut times = 0;
        for client in clients {
            times += client.join().map_err(|_| Failure::new("a client panicked"))??;
        }
        worked.map(|()| times)
    })
}

/// What clients were promised is there for the next ones, after the host was killed.
fn kept(stage: &Stage, host: &mut Host, ways: &[Way], loads: &[Load]) -> Outcome {
    host.kill9()?;
    host.restart()?;
    for (way, load) in ways.iter().zip(loads) {
        let mut client = until(PATIENCE, || host.connect(way.name()))?;
        load.verify(&mut client).context(way.name())?;
        let flushes = load.flushes();
        stage.tell(format!("{}: {flushes} acknowledged flushes kept", way.name()));
    }
    host.stop()
}

/// Makes a volume on each way and exports it, once the driver is there.
fn volumes(host: &Host, ways: &[Way]) -> Outcome {
    for way in ways {
        let name = way.name();
        until(PATIENCE, || host.cli().create_volume(name, SIZE, Some(name), &[]))?;
        host.cli().add_export(name)?;
    }
    Ok(())
}

/// Whether every volume does something now, in a part that nobody else writes.
fn all_serve(host: &Host, ways: &[Way]) -> Outcome {
    ways.iter().try_for_each(|way| {
        let mut client = host.connect(way.name())?;
        let write = client.call(Command::Write { fua: true }, SIZE - MIB, 512, &[1; 512]);
        write.map(drop).context(way.name())
    })
}
