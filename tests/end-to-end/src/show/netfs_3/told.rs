// SPDX-License-Identifier: Apache-2.0
//! What cannot be healed is said, by cause and remedy, and costs nothing that was flushed.

use std::{fs, path::PathBuf, time::Duration};

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    nbd::{Client, Command, Error, NO_SPACE},
    netfs::{Netfs, Server, Way},
    program::until,
};

const MIB: u64 = 1 << 20;
const BLOCK: u32 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// More than the small share has.
const LARGE: u64 = 128 * MIB;

/// Each protocol once.
const WAYS: [Way; 3] = [Way::Nfs3, Way::Nfs41, Way::Smb];

struct Told<'s> {
    stage: &'s Stage,
    servers: &'s Netfs,
    host: Host,
}

pub(super) fn play(stage: &Stage, servers: &Netfs) -> Outcome {
    let mut more = servers.secrets();
    for way in WAYS {
        more += &servers.section(way.name(), way, "operation_timeout_secs = 20\n")?;
        more += &small(servers, way)?;
    }
    let host = Host::start(&stage.artifacts, &more)?;
    install(&stage.artifacts.netfs()?, &host.plugins())?;
    let mut told = Told { stage, servers, host };
    for way in WAYS {
        told.full(way).context(format!("{}: a full disk", way.name()))?;
        told.replaced(way).context(format!("{}: a replaced file", way.name()))?;
        told.read_only(way).context(format!("{}: a share that became read-only", way.name()))?;
    }
    told.host.stop()
}

/// The section of a backend on the small share.
fn small(servers: &Netfs, way: Way) -> Outcome<String> {
    let section = servers.section(&small_name(way), way, "")?;
    let share = match way {
        Way::Nfs3 => servers.address("export_small")?,
        Way::Smb | Way::SmbEncrypted => servers.address("share_small")?,
        _ => "/small".to_owned(),
    };
    let lines = section.lines().map(|line| match line.starts_with("share = ") {
        true => format!("share = \"{share}\"\n"),
        false => format!("{line}\n"),
    });
    Ok(lines.collect())
}

fn small_name(way: Way) -> String {
    format!("{}-small", way.name())
}

fn block(value: u8) -> Vec<u8> {
    vec![value; BLOCK as usize]
}

fn write(client: &mut Client, offset: u64, value: u8) -> Result<(), Error> {
    client.call(Command::Write { fua: false }, offset, BLOCK, &block(value)).map(drop)
}

fn flush(client: &mut Client) -> Result<(), Error> {
    client.call(Command::Flush, 0, 0, &[]).map(drop)
}

fn holds(client: &mut Client, offset: u64, value: u8) -> Outcome {
    let found = client.call(Command::Read, offset, BLOCK, &[]).context("read")?;
    ensure(found == block(value), || format!("at {offset} is {}, not {value}", found[0]))
}

impl Told<'_> {
    fn made(&self, volume: &str, size: u64, backend: &str) -> Outcome<Client> {
        // The driver is loaded a moment after it was installed.
        until(PATIENCE, || self.host.cli().create_volume(volume, size, Some(backend), &[]))?;
        self.host.cli().add_export(volume)?;
        self.host.connect(volume)
    }

    fn gone(&self, volume: &str) -> Outcome {
        self.host.cli().ask().args(["export", "remove", volume]).codes(&[]).run()?;
        self.host.cli().ask().args(["volume", "delete", volume]).run().map(drop)
    }

    /// The server's disk fills up: the client is told so, what it has flushed stays, and with room everything goes on.
    fn full(&self, way: Way) -> Outcome {
        let (volume, backend) = (format!("full-{}", way.name()), small_name(way));
        let mut client = self.made(&volume, LARGE, &backend)?;
        write(&mut client, 0, 1).context("write")?;
        flush(&mut client).context("flush")?;
        let hoard = PathBuf::from(self.servers.address("export_small")?).join("hoard");
        fs::write(&hoard, vec![0; 24 << 20]).context(hoard.display())?;
        let mut refused = None;
        for at in (MIB..LARGE).step_by(BLOCK as usize) {
            client.send(Command::Write { fua: false }, at, BLOCK, &block(2)).context("write")?;
            if let (_, Err(error)) = client.receive_any().context("write")? {
                refused = Some((at, error));
                break;
            }
        }
        let (at, error) = refused.ok_or_else(|| Failure::new("128 MiB went into 64"))?;
        ensure(error == NO_SPACE, || format!("the write failed with error {error}"))?;
        holds(&mut client, 0, 1)?;
        fs::remove_file(&hoard).context(hoard.display())?;
        until(PATIENCE, || {
            write(&mut client, at, 3).context("with room again")?;
            flush(&mut client).context("with room again")
        })?;
        holds(&mut client, at, 3)?;
        holds(&mut client, 0, 1)?;
        drop(client);
        self.gone(&volume)?;
        self.stage.tell(format!(
            "{}: ENOSPC after {} MiB; with room the same client went on",
            way.name(),
            at / MIB
        ));
        Ok(())
    }

    /// Somebody on the server puts another file in the volume's place: it is never written, and the client is told.
    fn replaced(&self, way: Way) -> Outcome {
        let volume = format!("replaced-{}", way.name());
        let mut client = self.made(&volume, 4 * MIB, way.name())?;
        write(&mut client, 0, 1).context("write")?;
        flush(&mut client).context("flush")?;
        let file = self.servers.files(way)?.join(format!("{volume}.raw"));
        let other = file.with_extension("other");
        fs::write(&other, vec![9; 4 << 20]).context(other.display())?;
        fs::rename(&other, &file).context(file.display())?;
        let told = write(&mut client, 0, 2).and_then(|()| flush(&mut client));
        ensure(matches!(told, Err(Error::Refused(_))), || {
            format!("a flush vouched for a file that has no name any more: {told:?}")
        })?;
        drop(client);
        let said = self.host.cli().ask().args(["export", "remove", &volume]).codes(&[]).run()?;
        let bytes = fs::read(&file).context(file.display())?;
        ensure(bytes.iter().all(|byte| *byte == 9), || {
            format!("{} was written to, which is another file", file.display())
        })?;
        self.host.cli().ask().args(["volume", "delete", &volume]).codes(&[]).run()?;
        self.stage.tell(format!(
            "{}: another file in its place was not touched: {}",
            way.name(),
            first_line(&said.stderr)
        ));
        Ok(())
    }

    /// The server's administrator takes the right to write away: writes are refused with the reason, reads go on; given
    /// back, everything goes on.
    fn read_only(&self, way: Way) -> Outcome {
        let volume = format!("closed-{}", way.name());
        let mut client = self.made(&volume, 4 * MIB, way.name())?;
        write(&mut client, 0, 1).context("write")?;
        flush(&mut client).context("flush")?;
        self.servers.set_read_only(way, true)?;
        let refused = until(PATIENCE, || {
            let told = write(&mut client, MIB, 2).and_then(|()| flush(&mut client));
            match told {
                Err(Error::Refused(why)) => Ok(why),
                told => Err(Failure::new(format!("a write to a read-only share is {told:?}"))),
            }
        });
        let read = holds(&mut client, 0, 1);
        self.servers.set_read_only(way, false)?;
        let why = refused?;
        // By SMB a writer's file is open for both; there is none without the right to write.
        let reads = match (way.server(), read) {
            (Server::Ganesha, read) => {
                read.context("reads of a read-only share")?;
                "reads went on"
            }
            (Server::Samba, read) => read.map_or("reads were, too", |()| "reads went on"),
        };
        until(PATIENCE, || {
            write(&mut client, MIB, 3).context("writable again")?;
            flush(&mut client).context("writable again")
        })?;
        holds(&mut client, MIB, 3)?;
        holds(&mut client, 0, 1)?;
        drop(client);
        self.gone(&volume)?;
        self.stage.tell(format!(
            "{}: read-only: writes were refused ({why}), {reads}; writable again, the same client went on",
            way.name()
        ));
        Ok(())
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
