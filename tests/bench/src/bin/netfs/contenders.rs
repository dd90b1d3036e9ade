// SPDX-License-Identifier: Apache-2.0
//! The contenders: the same servers, the same load, by each. What is read lies in the servers' memory, as does what is
//! written; files that are written are new each time.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use end_to_end::{
    artifacts::Artifacts,
    cpu,
    failure::{Context, Failure, Outcome},
    netfs::{Netfs, Way},
    program::Program,
};
use novastor_bench::{
    client::{self, Load},
    load::{Case, Sample, Span},
};

use crate::{
    cases::{Ask, DRIVER, LIBNFS, ONE_AT_A_TIME, SMBCLIENT, UNSIGNED},
    delay::Delay,
    libnfs::{self, Libnfs},
};

/// How long everything takes on its way to a server that is far away, and on its way back.
const EACH_WAY: Duration = Duration::from_millis(1);
/// The volume, whose file everybody reads.
const VOLUME: &str = "driver";
/// What others write.
const PEERS: &str = "peer";

/// The servers, and everybody who uses them.
pub struct Field {
    artifacts: Artifacts,
    room: PathBuf,
    size: u64,
    libnfs: Libnfs,
    far: Delay,
    servers: Netfs,
}

impl Field {
    /// Starts the servers, for files of this size.
    ///
    /// # Errors
    /// When anything is missing.
    pub fn start(room: &Path, size: u64) -> Outcome<Self> {
        let artifacts = Artifacts::of_this_build()?;
        let libnfs = Libnfs::load()?;
        let servers = Netfs::start(&room.join("servers"))?;
        let address = format!("{}:{}", servers.address("host")?, servers.port("nfs_port")?);
        let address: SocketAddr = address.parse().context(address)?;
        let far = Delay::before(address, EACH_WAY)?;
        Ok(Self { artifacts, room: room.to_owned(), size, libnfs, far, servers })
    }

    /// Makes what is needed for a case.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self, ask: &Ask) -> Outcome {
        let near = Ask { far: false, ..*ask };
        let filling = Case { write: true, random: false, block: 1 << 20, depth: 8 };
        let filled = self.driver(&near, filling, None, true, 1).map(drop);
        filled.context("fill the volume")
    }

    /// Lets a contender do what is asked: for so long if everything is random, else with the whole file once.
    ///
    /// # Errors
    /// When it fails, or gives no figures.
    pub fn run(&self, contender: &str, ask: &Ask, span: Span, seed: u64) -> Outcome<Sample> {
        let used = || Ok(cpu::secs_of(std::process::id())? + cpu::secs_of_children()?);
        let (case, before) = (ask.case, used()?);
        let span = case.random.then_some(span);
        let fresh = case.write && !case.random;
        let sample = match contender {
            DRIVER => self.driver(ask, case, span, fresh, seed),
            ONE_AT_A_TIME => self.driver(ask, Case { depth: 1, ..case }, span, fresh, seed),
            LIBNFS => self.libnfs(case),
            SMBCLIENT if ask.way == Way::SmbEncrypted => self.smbclient(ask, "encrypt"),
            SMBCLIENT => self.smbclient(ask, "sign"),
            UNSIGNED => self.smbclient(ask, "off"),
            other => Err(Failure::new(format!("nobody is called {other}"))),
        }?;
        let operations = match span {
            Some(span) => sample.rate * (span.millis + span.warm_millis) as f64 / 1e3,
            None => (self.size / case.block as u64) as f64,
        };
        Ok(Sample { cpu_us: (used()? - before) * 1e6 / operations, ..sample })
    }

    fn driver(
        &self,
        ask: &Ask,
        case: Case,
        span: Option<Span>,
        fresh: bool,
        seed: u64,
    ) -> Outcome<Sample> {
        let mut options = self.servers.options(ask.way)?;
        if ask.far {
            options["port"] = self.far.port().into();
        }
        let (driver, volume) = (self.artifacts.netfs()?, VOLUME.to_owned());
        client::apart(&Load { driver, options, volume, size: self.size, case, span, fresh, seed })
    }

    fn libnfs(&self, case: Case) -> Outcome<Sample> {
        let (host, export) = (self.servers.address("host")?, self.servers.address("export")?);
        let (nfs, mount) = (self.servers.port("nfs_port")?, self.servers.port("mount_port")?);
        let url = format!("nfs://{host}{export}?version=3&nfsport={nfs}&mountport={mount}");
        let file = file(case);
        libnfs::pass(&self.libnfs, &libnfs::Place { url, file }, case, self.size)
    }

    /// smbclient keeps as much in flight as it likes, and says itself how fast it was, without its login.
    fn smbclient(&self, ask: &Ask, protection: &str) -> Outcome<Sample> {
        let (file, servers) = (file(ask.case), &self.servers);
        if ask.case.write {
            // Whoever found an old one would first give its space back.
            let path = servers.files(ask.way)?.join(&file);
            if path.exists() {
                fs::remove_file(&path).context(path.display())?;
            }
        }
        let share = servers.address(match ask.way {
            Way::SmbEncrypted => "share_encrypted",
            _ => "share",
        })?;
        let command = if ask.case.write {
            format!("put {} {file}", self.source()?.display())
        } else {
            format!("get {file} /dev/null")
        };
        let said = Program::new("smbclient")
            .args(["-s", &servers.directory().join("smb.conf").display().to_string()])
            .args(["-p", &servers.port("smb_port")?.to_string()])
            .args(["-U", &format!("{}%{}", servers.address("user")?, servers.address("password")?)])
            .arg(format!("--client-protection={protection}"))
            .arg(format!("//{}/{share}", servers.address("host")?))
            .args(["-c", &command])
            .run()?;
        let text = said.stdout + &said.stderr;
        let rate = kib_per_sec(&text).ok_or_else(|| {
            Failure::new(format!("smbclient does not say how fast it was: {text}"))
        })?;
        let rate = rate * 1024.0 / ask.case.block as f64;
        Ok(Sample { rate, latency_us: None, cpu_us: 0.0 })
    }

    /// What smbclient writes.
    fn source(&self) -> Outcome<PathBuf> {
        let path = self.room.join("source");
        if !path.exists() {
            let block: Vec<u8> = (0..1 << 20).map(|at: usize| (at * 31 % 251) as u8).collect();
            let blocks = usize::try_from(self.size >> 20).context("size")?;
            fs::write(&path, block.repeat(blocks)).context(path.display())?;
        }
        Ok(path)
    }
}

/// The file that others read, or make anew and write.
fn file(case: Case) -> String {
    if case.write { PEERS.to_owned() } else { format!("{VOLUME}.raw") }
}

/// The speed of the last transfer: `(1234.5 KiloBytes/sec)` for a file that was read, `(1234.5 kb/s)` for one that was
/// written. Both count in units of 1024 bytes.
fn kib_per_sec(said: &str) -> Option<f64> {
    let unit = said.find(" KiloBytes/sec)").or_else(|| said.find(" kb/s)"))?;
    let start = said[..unit].rfind('(')?;
    said[start + 1..unit].parse().ok().filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::kib_per_sec;

    #[test]
    fn smbclients_own_figures_are_read() {
        let got = "getting file \\driver.raw of size 536870912 as /dev/null (1023999.9 KiloBytes/sec) (average 1.0 KiloBytes/sec)";
        assert_eq!(kib_per_sec(got), Some(1_023_999.9));
        let put = "putting file /x/source as \\peer (630153.8 kb/s) (average 630153.8 kb/s)";
        assert_eq!(kib_per_sec(put), Some(630_153.8));
        assert_eq!(kib_per_sec("NT_STATUS_OBJECT_NAME_NOT_FOUND opening remote file"), None);
    }
}
