// SPDX-License-Identifier: Apache-2.0
//! A backend is frozen while clients write, so that writes sit in its socket for as long as the scene wants. Its replica
//! is replaced, or waits for it, while the clients write other data to the same sectors; then the old writes land. Nobody
//! ever reads them: not from the volume, nor from the replica itself. Storage that can end the frozen session does, and
//! keeps its replica.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, thread, time::Duration};

use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    ledger::{Ledger, SECTOR, content},
    nbd::{Client, Command},
    program::until,
    remote::{Remote, Session},
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
/// What our own client writes: the first part of the volume, in sectors. fio has the rest.
const LEDGER: u64 = 4 * MIB / 512;
/// Sectors in one read or write of everything.
const STRIDE: u64 = 1024;
/// Where writes are parked: each in a place of its own, the last one across two of the log's regions.
const PARKED: [Range<u64>; 4] = [0..8, 1021..1029, 4096..4104, 8184..8192];
const PATIENCE: Duration = Duration::from_secs(20);
/// The driver of `n3` gives replies up, so that the end of a request is never known; that of `n4` waits for them.
const GIVES_UP: &str = "timeout_ms = 700";
const OPTIONS: &str = "io_timeout_secs = 1\n";

/// What becomes of the replica whose write is parked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its session never ended, as far as anybody knows: a fresh brick takes its place before the write lands.
    Replaced,
    /// The write lands, and its end is known: the brick fetches what it missed.
    Returns,
    /// Its storage ends the frozen session, so that the write never lands: the brick fetches what it missed.
    Ended,
    /// The host dies before the write lands, and what comes after it knows nothing of the write.
    Orphaned,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let start = |node| Remote::start(&stage.artifacts, &stage.path(node));
    let (hasty, patient, strict) = (start("n3")?, start("n4")?, start("n5")?);
    let sections = [
        hasty.section("n3", GIVES_UP),
        patient.section("n4", ""),
        strict.section("n5", &format!("{GIVES_UP}\nfences = true")),
    ];
    let (nodes, more) = (stage.path("nodes"), OPTIONS.to_owned() + &sections.concat());
    let mut cluster = Cluster::start(&stage.artifacts, &nodes, 2, &["n3", "n4", "n5"], &more)?;
    install(&stage.artifacts.remote()?, &cluster.host.plugins())?;
    cluster.volume_with("on3", SIZE, &[("nodes", "n1,n2,n3")])?;
    cluster.volume_with("on4", SIZE, &[("nodes", "n1,n2,n4")])?;
    cluster.volume_with("on5", SIZE, &[("nodes", "n1,n2,n5")])?;
    for _ in 0..if stage.is_long() { 10 } else { 1 } {
        late_write(stage, &mut cluster, &hasty, "on3", "n3", Fate::Replaced).context("replaced")?;
        late_write(stage, &mut cluster, &patient, "on4", "n4", Fate::Returns).context("returns")?;
        late_write(stage, &mut cluster, &strict, "on5", "n5", Fate::Ended).context("ended")?;
        late_write(stage, &mut cluster, &hasty, "on3", "n3", Fate::Orphaned).context("orphaned")?;
    }
    cluster.host.stop()
}

fn late_write(
    stage: &Stage,
    cluster: &mut Cluster,
    storage: &Remote,
    volume: &str,
    node: &str,
    fate: Fate,
) -> Outcome {
    // A backend without fencing gets a fresh brick with each attachment.
    cluster.until_replica(volume, node, "in-sync")?;
    let brick = cluster.brick(volume, node)?;
    let bytes = File::options().read(true).open(storage.file(&brick)).context(&brick)?;
    let mut client = Verifying::connect(&cluster.host, volume)?;
    client.write_everything()?;
    let others = {
        let program = busy(&cluster.host.uri(volume));
        // It breaks off if the host dies.
        let program = if fate == Fate::Orphaned { program.codes(&[]) } else { program };
        thread::spawn(move || program.run())
    };
    thread::sleep(Duration::from_millis(300));

    let session = storage.session(&brick)?;
    session.freeze()?;
    if fate == Fate::Returns {
        // Nor does anybody open the brick anew.
        storage.freeze()?;
    }
    let late = client.send()?;
    until(PATIENCE, || sits_in_socket(&session, late))?;
    ensure(lands(&bytes, late).is_err(), || "the write is there before it was done".to_owned())?;
    let said = format!("writes of version {late} sit in the socket of {brick}");
    if fate == Fate::Orphaned {
        cluster.host.kill9()?;
        cluster.host.restart()?;
        client.reconnect(&cluster.host, volume)?;
        client.read_everything()?;
    } else {
        client.acknowledged()?;
    }
    for _ in 0..3 {
        client.send()?;
        client.acknowledged()?;
        client.read_everything()?;
    }
    if fate == Fate::Returns {
        session.thaw()?;
        until(PATIENCE, || lands(&bytes, late))?;
        storage.thaw()?;
    }
    cluster.until_replica(volume, node, "in-sync")?;
    match fate {
        Fate::Returns => {}
        Fate::Ended => ensure(session.has_ended()?, || "the session was not ended".to_owned())?,
        Fate::Replaced | Fate::Orphaned => {
            sits_in_socket(&session, late)?;
            session.thaw()?;
            until(PATIENCE, || lands(&bytes, late))?;
        }
    }
    for _ in 0..3 {
        client.read_everything().context("after the late write")?;
    }
    clients::fio_saw_no_damage(
        &others.join().map_err(|_| Failure::new("fio's thread panicked"))??,
    )?;
    let now = cluster.brick(volume, node)?;
    client.compare(&storage.file(&now)).context(format!("{now}, after the late write"))?;
    cluster.host.cli().ask().args(["volume", "verify", volume]).run()?;
    let stays = matches!(fate, Fate::Returns | Fate::Ended);
    ensure((now == brick) == stays, || format!("{node} had the brick {brick}, and has {now}"))?;
    stage.tell(match fate {
        Fate::Replaced => format!("{said}; {now} took its place; they landed and were never seen"),
        Fate::Returns => format!("{said}; they landed, then it fetched what it missed"),
        Fate::Ended => format!("{said}; its storage ended the session, it fetched what it missed"),
        Fate::Orphaned => format!("{said}; the host died, {now} took its place; they landed"),
    });
    Ok(())
}

/// A client that writes the second half of the volume for some seconds, and verifies.
fn busy(uri: &str) -> crate::program::Program {
    clients::fio("others", uri, &["--rw=randwrite", "--bs=4k", "--offset=8M", "--size=8M"]).args([
        "--rate_iops=400",
        "--iodepth=8",
        "--fsync=32",
        "--verify_backlog=64",
    ])
}

/// Looks whether the server's process stands still with the parked writes in its socket.
fn sits_in_socket(session: &Session, version: u64) -> Outcome {
    ensure(session.is_frozen()?, || "the session goes on".to_owned())?;
    let parked = session.parked()?;
    let sits = |sectors: Range<u64>| {
        let data = content(sectors, version);
        parked.windows(data.len()).any(|window| window == data)
    };
    ensure(PARKED.into_iter().all(sits), || {
        format!("the writes of version {version} are not among the {} bytes", parked.len())
    })
}

/// Looks whether the parked writes are in a brick.
fn lands(brick: &File, version: u64) -> Outcome {
    for sectors in PARKED {
        let expected = content(sectors.clone(), version);
        let mut data = vec![0; expected.len()];
        brick.read_exact_at(&mut data, offset(&sectors)).context("old brick")?;
        ensure(data == expected, || {
            format!("version {version} is not at sector {}", sectors.start)
        })?;
    }
    Ok(())
}

fn offset(sectors: &Range<u64>) -> u64 {
    sectors.start * u64::from(SECTOR)
}

fn len(sectors: &Range<u64>) -> Outcome<u32> {
    Ok(u32::try_from(sectors.end - sectors.start).context("length")? * SECTOR)
}

/// A client that knows what every sector has to be.
struct Verifying {
    client: Client,
    ledger: Ledger,
    /// What it sent last.
    version: u64,
}

impl Verifying {
    fn connect(host: &Host, volume: &str) -> Outcome<Self> {
        let mut ledger = Ledger::new(0..LEDGER);
        // Whatever is there; `write_everything` comes first.
        let version = ledger.next_version();
        Ok(Self { client: host.connect(volume)?, ledger, version })
    }

    fn reconnect(&mut self, host: &Host, volume: &str) -> Outcome {
        self.client = host.connect(volume)?;
        Ok(())
    }

    fn write_everything(&mut self) -> Outcome {
        self.version = self.ledger.next_version();
        for first in (0..LEDGER).step_by(STRIDE as usize) {
            self.write(first..first + STRIDE)?;
            self.client.receive().context("write")?;
            self.ledger.settled(first..first + STRIDE);
        }
        Ok(())
    }

    /// Sends a new version to all of [`PARKED`], and gives it.
    fn send(&mut self) -> Outcome<u64> {
        self.version = self.ledger.next_version();
        PARKED.into_iter().try_for_each(|sectors| self.write(sectors))?;
        Ok(self.version)
    }

    fn write(&mut self, sectors: Range<u64>) -> Outcome {
        self.ledger.written(sectors.clone(), self.version);
        let data = content(sectors.clone(), self.version);
        let command = Command::Write { fua: true };
        self.client.send(command, offset(&sectors), len(&sectors)?, &data).context("send").map(drop)
    }

    /// Waits for the replies: no reader may see anything older from now on.
    fn acknowledged(&mut self) -> Outcome {
        for _ in PARKED {
            self.client.receive().context("write while a replica hangs")?;
        }
        PARKED.into_iter().for_each(|sectors| self.ledger.settled(sectors));
        Ok(())
    }

    fn read_everything(&mut self) -> Outcome {
        for first in (0..LEDGER).step_by(STRIDE as usize) {
            let sectors = first..first + STRIDE;
            let data = self.client.call(Command::Read, offset(&sectors), len(&sectors)?, &[]);
            self.ledger.observed(first, &data.context("read")?).context("read")?;
        }
        Ok(())
    }

    /// Looks into a brick, which has the volume's bytes.
    fn compare(&mut self, brick: &std::path::Path) -> Outcome {
        let mut data = vec![0; usize::try_from(LEDGER * u64::from(SECTOR)).context("length")?];
        let file = File::open(brick).context(brick.display())?;
        file.read_exact_at(&mut data, 0).context(brick.display())?;
        self.ledger.observed(0, &data).context("the replica")
    }
}
