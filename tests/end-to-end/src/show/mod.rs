// SPDX-License-Identifier: Apache-2.0
//! The scenes: what every release must show, each with a short form for every change and a long one for a release.

mod ceph_1;
mod ceph_2;
mod ceph_3;
mod ceph_4;
mod ceph_5;
mod ceph_6;
mod distributed_1;
mod distributed_2;
mod distributed_3;
mod distributed_4;
mod distributed_5;
mod distributed_6;
mod distributed_whole_1;
mod distributed_whole_2;
mod distributed_whole_3;
mod distributed_whole_4;
mod distributed_whole_5;
mod distributed_whole_6;
mod house_1;
mod house_2;
mod house_3;
mod house_4;
mod house_5;
mod house_6;
mod house_7;
mod nbd_1;
mod nbd_2;
mod nbd_3;
mod nbd_4;
mod nbd_5;
mod netfs_1;
mod netfs_2;
mod netfs_3;
mod netfs_4;
mod netfs_5;
mod netfs_6;
mod netfs_7;
mod object_1;
mod object_2;
mod object_3;
mod object_4;
mod object_5;
mod round_trip;
mod run;
mod second_host;
mod verifying;
mod writers;

use std::{
    fmt::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tempfile::TempDir;

use crate::{
    artifacts::Artifacts,
    failure::{Context, Outcome},
    lanes::Manner,
};

pub use run::{run, run_all};

/// What all short forms together may take, some of them at the same time.
pub const TOTAL_BUDGET_SECS: u64 = 1500;

/// How much of a scene is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Quick enough for every change.
    Short,
    /// All of it.
    Long,
}

/// A scene.
pub struct Show {
    /// What `tests/show` calls it.
    pub name: &'static str,
    /// What it shows, in one sentence.
    pub title: &'static str,
    /// Whether others may play at the same time.
    pub manner: Manner,
    /// What its short form should take at most.
    pub budget_secs: u64,
    play: fn(&Stage) -> Outcome,
}

/// Every scene, in the order of the releases that brought them.
pub const SHOWS: &[Show] = &[
    Show {
        name: "house-1",
        title: "In a fresh clone the README's commands work as written.",
        manner: Manner::Computes,
        budget_secs: 150,
        play: house_1::play,
    },
    Show {
        name: "house-2",
        title: "A disk image goes in and comes back byte for byte; a clone taken under load is consistent.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: house_2::play,
    },
    Show {
        name: "house-3",
        title: "After the host is killed at random moments, every flushed byte is there.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: house_3::play,
    },
    Show {
        name: "house-4",
        title: "A driver from outside the workspace is dropped into a running host, passes its check and serves.",
        manner: Manner::Computes,
        budget_secs: 90,
        play: house_4::play,
    },
    Show {
        name: "house-5",
        title: "Old and new drivers and hosts load each other; broken drivers are refused or contained.",
        manner: Manner::Computes,
        budget_secs: 130,
        play: house_5::play,
    },
    Show {
        name: "house-6",
        title: "A read through the driver boundary and a forwarding layer stay within their nanoseconds.",
        manner: Manner::Measures,
        budget_secs: 60,
        play: house_6::play,
    },
    Show {
        name: "house-7",
        title: "Twenty faulty configurations are each answered with file, key, cause and remedy.",
        manner: Manner::Waits,
        budget_secs: 30,
        play: house_7::play,
    },
    Show {
        name: "nbd-1",
        title: "Every client works over unix, TCP and TLS, strangers stay outside, and clients outlive the host.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: nbd_1::play,
    },
    Show {
        name: "nbd-2",
        title: "Every command, flag and option of the NBD protocol is done, refused properly or not offered, as a table says.",
        manner: Manner::Measures,
        budget_secs: 45,
        play: nbd_2::play,
    },
    Show {
        name: "nbd-3",
        title: "Hostile and slow clients cost their own connections; a good client keeps its throughput.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: nbd_3::play,
    },
    Show {
        name: "nbd-4",
        title: "A flush on one connection covers writes acknowledged on another, with a storage that loses the rest.",
        manner: Manner::Waits,
        budget_secs: 20,
        play: nbd_4::play,
    },
    Show {
        name: "nbd-5",
        title: "The NBD export beside nbdkit and qemu-nbd, under libnbd, fio and nbdcopy.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: nbd_5::play,
    },
    Show {
        name: "distributed-1",
        title: "The distributed core survives every simulated fault, and without any one of its protections it does not.",
        manner: Manner::Computes,
        budget_secs: 120,
        play: distributed_1::play,
    },
    Show {
        name: "distributed-2",
        title: "One node hangs and returns, another loses its bricks, and a verifying client notices nothing.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: distributed_2::play,
    },
    Show {
        name: "distributed-3",
        title: "After the host is killed at random moments, also with a node full or unable to flush, three replicas agree and have every flushed byte.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: distributed_3::play,
    },
    Show {
        name: "distributed-4",
        title: "A write parked in a frozen backend lands after its replica was replaced, or before it returns: the volume never shows it.",
        manner: Manner::Waits,
        budget_secs: 40,
        play: distributed_4::play,
    },
    Show {
        name: "distributed-5",
        title: "A brick of a stopped, fully replicated volume opens in qemu-img and is the volume; damage in it is found and repaired.",
        manner: Manner::Waits,
        budget_secs: 30,
        play: distributed_5::play,
    },
    Show {
        name: "distributed-6",
        title: "The options of a distributed backend read back from the running host; its speed beside plain volumes.",
        manner: Manner::Measures,
        budget_secs: 60,
        play: distributed_6::play,
    },
    Show {
        name: "distributed-whole-1",
        title: "The core survives the simulator with moves, snapshots, resharding and digests, and not without any of the protections that these need.",
        manner: Manner::Computes,
        budget_secs: 60,
        play: distributed_whole_1::play,
    },
    Show {
        name: "distributed-whole-2",
        title: "Nodes are killed, hung, filled, emptied and lost at random under verifying clients: no error, no wrong byte, and what was lost is replicated elsewhere; flipped bits are named, and never read.",
        manner: Manner::Waits,
        budget_secs: 170,
        play: distributed_whole_2::play,
    },
    Show {
        name: "distributed-whole-3",
        title: "An asynchronous volume keeps its bound and its sessions' promises under load, and a promotion loses exactly what it says.",
        manner: Manner::Measures,
        budget_secs: 60,
        play: distributed_whole_3::play,
    },
    Show {
        name: "distributed-whole-4",
        title: "A sixth node joins and an old one leaves under load, also across a kill: as much moves as was planned, evenly, and no byte is wrong; snapshots stay what they were.",
        manner: Manner::Waits,
        budget_secs: 150,
        play: distributed_whole_4::play,
    },
    Show {
        name: "distributed-whole-5",
        title: "With the state lost, the right volumes are made anew from their bricks, or it is said what is missing; never stale data.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: distributed_whole_5::play,
    },
    Show {
        name: "distributed-whole-6",
        title: "Placement costs no more than its nanoseconds, moves no more than it must, and is even; clients feel healing by no more than half.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: distributed_whole_6::play,
    },
    Show {
        name: "ceph-1",
        title: "The ceph driver keeps every promise of a volume, asked of it against a cluster of three OSDs.",
        manner: Manner::Waits,
        budget_secs: 110,
        play: ceph_1::play,
    },
    Show {
        name: "ceph-2",
        title: "A disk image goes into a Ceph cluster and comes back; a volume with bricks there and on disks outlives an OSD and a disk.",
        manner: Manner::Waits,
        budget_secs: 90,
        play: ceph_2::play,
    },
    Show {
        name: "ceph-3",
        title: "OSDs are killed, hung and stopped, the monitor restarted, under verifying clients: no error, no wrong byte, no lost flush; it works again after a deadline.",
        manner: Manner::Waits,
        budget_secs: 195,
        play: ceph_3::play,
    },
    Show {
        name: "ceph-4",
        title: "A second host takes volumes over, from one that serves and one that stands still: nothing of the first lands afterwards, and it says so.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: ceph_4::play,
    },
    Show {
        name: "ceph-5",
        title: "What is wrong with a cluster is said in time with cause and remedy; a full pool is no broken one; failed connections cost nothing.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: ceph_5::play,
    },
    Show {
        name: "ceph-6",
        title: "The ceph driver beside fio's rbd engine, and its NBD export beside that engine and qemu-nbd on RBD: all figures.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: ceph_6::play,
    },
    Show {
        name: "netfs-1",
        title: "The netfs driver keeps every promise of a volume on NFSv3, 4.0, 4.1, 4.2 and SMB, plain and encrypted; what it claims on each stands side by side.",
        manner: Manner::Waits,
        budget_secs: 120,
        play: netfs_1::play,
    },
    Show {
        name: "netfs-2",
        title: "A disk image goes onto a share of each protocol and comes back; an image that lies there is served as it is.",
        manner: Manner::Waits,
        budget_secs: 90,
        play: netfs_2::play,
    },
    Show {
        name: "netfs-3",
        title: "Servers of shares are killed and hung, connections closed and reset, under verifying clients: no error, no wrong byte, no lost flush; what cannot be healed is said.",
        manner: Manner::Waits,
        budget_secs: 90,
        play: netfs_3::play,
    },
    Show {
        name: "netfs-4",
        title: "A second host takes volumes on NFSv4 and SMB over from one that stands still, and on SMB from one that serves: nothing of the first lands afterwards, and it says so; NFSv3 gives nobody a second writer.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: netfs_4::play,
    },
    Show {
        name: "netfs-5",
        title: "Names that lead elsewhere and links out of a share are refused, names that differ in case alone are kept apart, and nothing on the server is touched.",
        manner: Manner::Waits,
        budget_secs: 45,
        play: netfs_5::play,
    },
    Show {
        name: "netfs-6",
        title: "A distributed volume on NFS, SMB and a local disk outlives each of them being killed and hung, under a verifying client.",
        manner: Manner::Waits,
        budget_secs: 75,
        play: netfs_6::play,
    },
    Show {
        name: "netfs-7",
        title: "The netfs driver is as fast as libnfs and smbclient, and many operations at once are worth it on a server far away.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: netfs_7::play,
    },
    Show {
        name: "object-1",
        title: "The test suite of the crate object_store passes on our Swift, and on S3, Azure and Google Cloud Storage as the driver configures them; what a server lacks is named.",
        manner: Manner::Waits,
        budget_secs: 60,
        play: object_1::play,
    },
    Show {
        name: "object-2",
        title: "On each kind of object store buckets, lifecycle rules and signed URLs do what they are for; transfers whose command and host are killed go on and end with the same bytes.",
        manner: Manner::Waits,
        budget_secs: 150,
        play: object_2::play,
    },
    Show {
        name: "object-3",
        title: "Whatever happens between the driver and an object store, the bytes are right or the error is told in time; nothing half is seen, and one of many is first.",
        manner: Manner::Waits,
        budget_secs: 130,
        play: object_3::play,
    },
    Show {
        name: "object-4",
        title: "Wrong keys, clocks, regions, names, certificates and missing buckets are told with cause and remedy, and nothing changes.",
        manner: Manner::Waits,
        budget_secs: 45,
        play: object_4::play,
    },
    Show {
        name: "object-5",
        title: "Transfers and listings of objects beside rclone, and the memory that they take.",
        manner: Manner::Measures,
        budget_secs: 90,
        play: object_5::play,
    },
];

/// Where a scene plays.
pub struct Stage {
    /// The built host and drivers.
    pub artifacts: Artifacts,
    /// How much is played.
    pub form: Form,
    directory: TempDir,
    since: Instant,
    audience: Audience,
}

/// Who is told what is shown.
#[derive(Clone, Default)]
enum Audience {
    /// Standard output, at once.
    #[default]
    Here,
    /// Whoever reads this later, when the scene has ended.
    Later(Arc<Mutex<String>>),
}

impl Audience {
    fn tell(&self, line: impl std::fmt::Display) {
        match self {
            Self::Here => println!("{line}"),
            Self::Later(text) => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                // A text takes everything.
                let _ = writeln!(text, "{line}");
            }
        }
    }
}

impl Stage {
    /// A stage with an empty directory.
    ///
    /// # Errors
    /// When there is no room for it.
    fn new(form: Form, audience: Audience) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("novastor-show-")
            .tempdir()
            .context("temporary directory")?;
        let artifacts = Artifacts::of_this_build()?;
        Ok(Self { artifacts, form, directory, since: Instant::now(), audience })
    }

    /// Whether all of the scene is played.
    pub fn is_long(&self) -> bool {
        self.form == Form::Long
    }

    /// A path in the scene's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Tells the audience what was shown.
    pub fn tell(&self, text: impl std::fmt::Display) {
        let secs = self.since.elapsed().as_secs_f64();
        self.audience.tell(format_args!("  {secs:>6.1} s  {text}"));
    }

    /// Shows a text of several lines.
    fn tell_all(&self, text: &str) {
        self.audience.tell(text.trim_end_matches('\n'));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{SHOWS, TOTAL_BUDGET_SECS};

    #[test]
    fn names_differ_and_budgets_are_known() {
        let names: BTreeSet<_> = SHOWS.iter().map(|show| show.name).collect();
        assert_eq!(names.len(), SHOWS.len());
        assert!(SHOWS.iter().all(|show| (1..=TOTAL_BUDGET_SECS).contains(&show.budget_secs)));
        assert!(SHOWS.iter().all(|show| show.title.ends_with('.')));
    }
}
