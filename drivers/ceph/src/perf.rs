// SPDX-License-Identifier: Apache-2.0
//! librbd's own counters, asked of each attachment's client through its admin socket, in a directory that only this
//! user may enter.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use driver_api::{Error, ErrorKind, Metric, MetricKind, RVec, Result, Stats};
use serde_json::Value;

use crate::{
    error::{internal, invalid},
    heard::Heard,
};

/// What the kernel allows the path of a socket.
const LONGEST_PATH: usize = 107;
const LARGEST_ANSWER: u32 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// The directory of the sockets of a backend's clients; removed with it.
pub(crate) struct Sockets {
    dir: PathBuf,
    next: AtomicU64,
}

/// Where sockets live: what the service manager or the session gives, or the directory for temporary files.
fn place() -> PathBuf {
    let given = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].iter().find_map(|name| {
        // systemd separates several by colons.
        let all = std::env::var(name).ok()?;
        let first = PathBuf::from(all.split(':').next()?);
        (first.is_absolute() && first.is_dir()).then_some(first)
    });
    given.unwrap_or_else(std::env::temp_dir)
}

impl Sockets {
    /// Makes the directory.
    pub fn new() -> Result<Arc<Self>> {
        Self::within(&place())
    }

    fn within(place: &Path) -> Result<Arc<Self>> {
        let refused = |error: &io::Error, dir: &Path| {
            Error::new(ErrorKind::PERMISSION_DENIED, "no place for the sockets of librbd's counters")
                .caused_by(error)
                .with("directory", dir.display())
                .remedy("have RUNTIME_DIRECTORY or TMPDIR name a directory that the host may write to, or set librbd_counters = false")
        };
        for number in 0..1000 {
            let dir = place.join(format!("novastor-ceph-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let sockets = Self { dir, next: AtomicU64::new(0) };
                    let mode = fs::metadata(&sockets.dir).map(|found| found.mode() & 0o777);
                    return match mode {
                        Ok(0o700) => Ok(Arc::new(sockets)),
                        Ok(_) => Err(refused(&io::ErrorKind::PermissionDenied.into(), place)),
                        Err(error) => Err(refused(&error, place)),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(refused(&error, place)),
            }
        }
        Err(refused(&io::ErrorKind::AlreadyExists.into(), place))
    }

    /// The path of another client's socket.
    pub fn another(self: &Arc<Self>) -> Result<Perf> {
        let path = self.dir.join(format!("{}.asok", self.next.fetch_add(1, Relaxed)));
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return Err(invalid("the path of the socket of librbd's counters is too long")
                .with("path", path.display())
                .remedy("have RUNTIME_DIRECTORY or TMPDIR name a shorter one, or set librbd_counters = false"));
        }
        Ok(Perf { path, heard: Heard::default(), sockets: Arc::clone(self) })
    }

    /// Removes the directory, at the backend's end.
    pub fn remove(&self) {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %self.dir.display(), "the sockets' directory stays behind");
            }
            _ => {}
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The counters of one client.
pub(crate) struct Perf {
    path: PathBuf,
    heard: Heard<Vec<(String, f64)>>,
    sockets: Arc<Sockets>,
}

impl Perf {
    /// The path of the socket of the client that comes after this one.
    pub fn next(&self) -> Result<Self> {
        self.sockets.another()
    }

    /// Where the client shall listen.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the client, which may take a moment.
    pub fn ask(&self) -> Result<()> {
        let answer = ask(&self.path).map_err(|error| {
            Error::new(ErrorKind::UNAVAILABLE, "librbd does not tell its counters")
                .caused_by(&error)
                .with("socket", self.path.display())
                .remedy("see that nothing removes the socket, or set librbd_counters = false")
        })?;
        let answer = serde_json::from_slice(&answer)
            .map_err(|error| internal("librbd's counters are no JSON").caused_by(&error))?;
        self.heard.note(counters(&answer));
        Ok(())
    }

    /// What was heard last.
    pub fn stats(&self, mut stats: Stats) -> Stats {
        let Some((at, counters)) = self.heard.get() else { return stats };
        for (name, value) in counters {
            let (name, kind) = (name.as_str().into(), MetricKind::COUNTER);
            stats.metrics.push(Metric { name, kind, value, labels: RVec::new() });
        }
        stats.gauge("librbd_asked_seconds_ago", at.elapsed().as_secs_f64())
    }
}

/// A command, ended by a zero; the answer's length in four bytes, most significant first; the answer.
fn ask(path: &Path) -> io::Result<Vec<u8>> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(b"{\"prefix\":\"perf dump\"}\0")?;
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len > LARGEST_ANSWER {
        return Err(io::Error::other(format!("an answer of {len} bytes")));
    }
    let mut answer = vec![0; len as usize];
    socket.read_exact(&mut answer)?;
    Ok(answer)
}

/// The image's counters, by the names of figures. Numbers count; a duration has a count and a sum in seconds.
fn counters(answer: &Value) -> Vec<(String, f64)> {
    let sections = answer.as_object().into_iter().flatten();
    let images = sections.filter(|(name, _)| name.starts_with("librbd-"));
    let all = images.flat_map(|(_, section)| section.as_object().into_iter().flatten());
    let mut found = Vec::new();
    for (name, value) in all {
        let name = format!("librbd_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        if let Some(count) = value.as_u64() {
            found.push((format!("{name}_total"), count as f64));
        } else if let (Some(count), Some(sum)) = (value["avgcount"].as_u64(), value["sum"].as_f64())
        {
            found.push((format!("{name}_seconds_count"), count as f64));
            found.push((format!("{name}_seconds_sum"), sum));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_images_own_counters_are_figures() {
        let answer = serde_json::json!({
            "objecter": { "op": 9 },
            "librbd-1053-volumes-v": {
                "rd": 3, "rd_bytes": 24576, "opened_time": 1.5,
                "rd_latency": { "avgcount": 3, "sum": 0.25, "avgtime": 0.083 },
            },
        });
        let mut found = counters(&answer);
        found.sort_by(|one, next| one.0.cmp(&next.0));
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            found,
            [
                ("librbd_rd_bytes_total", 24576.0),
                ("librbd_rd_latency_seconds_count", 3.0),
                ("librbd_rd_latency_seconds_sum", 0.25),
                ("librbd_rd_total", 3.0)
            ]
        );
    }

    #[test]
    fn sockets_live_where_nobody_else_looks_and_go() {
        let room = tempfile::tempdir().expect("a directory");
        let sockets = Sockets::within(room.path()).expect("a place");
        let second = Sockets::within(room.path()).expect("another place");
        let perf = sockets.another().expect("a path");
        let dir = perf.path().parent().expect("a directory").to_owned();
        assert_eq!(fs::metadata(&dir).expect("there").mode() & 0o777, 0o700);
        assert_ne!(second.another().expect("a path").path().parent(), Some(dir.as_path()));
        assert_eq!(perf.ask().expect_err("nobody listens").kind(), ErrorKind::UNAVAILABLE);
        drop((perf, sockets));
        assert!(!dir.exists());
        let long = room.path().join("x".repeat(90));
        fs::create_dir(&long).expect("made");
        let error = Sockets::within(&long).expect("a place").another().err().expect("too long");
        assert!(error.remedy_text().contains("TMPDIR"), "{error:#}");
        let error = Sockets::within(Path::new("/nowhere")).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::PERMISSION_DENIED);
    }
}
