// SPDX-License-Identifier: Apache-2.0
//! Snapshots and clones against nfs-ganesha and Samba:
//! `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::path::{Path, PathBuf};

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec,
    ext::{Clones, Snapshots},
};
use serde_json::{Value, json};
use support::{
    CX, KIB, MIB, attach, expect,
    layers::{forget, names, roll_back, seen_by_qemu, snapshot, until_layers},
    open,
    real::{Revive, address, ganesha, ganesha4, samba, service},
    value, write,
};

/// Each protocol: its name, a backend's options, and where its files are.
fn protocols() -> Vec<(&'static str, Value, PathBuf)> {
    let export = PathBuf::from(address("export"));
    vec![
        ("NFSv3", ganesha("export"), export.clone()),
        ("NFSv4.0", ganesha4("export", &["4.0"]), export.clone()),
        ("NFSv4.1", ganesha4("export", &["4.1"]), export.clone()),
        ("NFSv4.2", ganesha4("export", &["4.2"]), export),
        ("SMB", samba("share"), address("share_path").into()),
        ("SMB, encrypted", samba("share_encrypted"), address("share_encrypted_path").into()),
    ]
}

/// The same for a backend that waits as long as a busy machine may need.
fn patient(mut options: Value) -> Value {
    options["operation_timeout_secs"] = json!(120);
    options["silence_timeout_secs"] = json!(60);
    options
}

/// The file of the volume's active layer.
fn active(dir: &Path, volume: &str, format: &str) -> PathBuf {
    let record = std::fs::read(dir.join(format!("{volume}.novastor"))).expect("a record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    let tree = &record["body"]["tree"];
    let overlays = tree["overlays"].as_array().cloned().unwrap_or_default();
    let found = overlays.iter().find(|overlay| overlay["id"] == tree["active"]);
    let root = format!("{volume}.{format}");
    dir.join(found.map_or(root.as_str(), |overlay| overlay["file"].as_str().expect("a name")))
}

/// The names of a volume's files on the server.
fn files(dir: &Path, volume: &str) -> Vec<String> {
    let all = std::fs::read_dir(dir).expect("listed");
    let mut names: Vec<String> = all
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("{volume}.")))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn snapshots_come_and_go_on_every_protocol() {
    for (protocol, options, dir) in protocols() {
        for format in ["raw", "qcow2"] {
            let backend = open(patient(options.clone())).await;
            let name = "snap";
            let spec = VolumeSpec::new(name, 64 * MIB).option("format", format);
            backend.create(&CX, spec).await.expect("created");
            let volume = attach(&backend, name, 1).await;
            write(&volume, 0, 1, 8 * MIB).await;
            let begun = std::time::Instant::now();
            let taken = snapshot(&volume, "one").await;
            eprintln!("{protocol} {format}: a snapshot took {:?}", begun.elapsed());
            assert_eq!((taken.method.as_str(), taken.size), ("overlay", 64 * MIB));
            write(&volume, 4 * MIB, 2, 8 * MIB).await;
            snapshot(&volume, "two").await;
            write(&volume, 0, 3, 64 * KIB).await;
            assert_eq!(names(&volume).await, ["one", "two"], "{protocol}");
            let shown = backend.show(&CX, name).await.expect("shown while it is attached");
            assert_eq!(shown.size, 64 * MIB, "{protocol}");
            volume.detach(&CX).await.expect("detached");
            let seen = seen_by_qemu(&active(&dir, name, format), false);
            let at = |mib: usize| seen[mib << 20];
            assert_eq!((at(0), at(1), at(5), at(11), at(12)), (3, 1, 2, 2, 0), "{protocol}");
            let volume = attach(&backend, name, 2).await;
            forget(&volume, "one").await;
            until_layers(&volume, 2).await;
            expect(&volume, 0, 3, 64 * KIB).await;
            expect(&volume, 4 * MIB, 2, 8 * MIB).await;
            roll_back(&volume, "two").await;
            expect(&volume, 0, 1, 4 * MIB).await;
            expect(&volume, 4 * MIB, 2, 8 * MIB).await;
            write(&volume, 20 * MIB, 5, MIB).await;
            let reader = Attach::new(AttachMode::READ_ONLY, 3, "reader");
            let other = backend.attach(&CX, name, reader).await.map(drop).expect_err("a writer");
            assert_eq!(other.kind(), ErrorKind::IN_USE, "{protocol}: {other:#}");
            forget(&volume, "two").await;
            until_layers(&volume, 1).await;
            expect(&volume, 20 * MIB, 5, MIB).await;
            volume.detach(&CX).await.expect("detached");
            let seen = seen_by_qemu(&dir.join(format!("{name}.{format}")), false);
            let at = |mib: usize| seen[mib << 20];
            assert_eq!((at(0), at(5), at(12), at(20), at(21)), (1, 2, 0, 5, 0), "{protocol}");
            let wanted = [format!("{name}.novastor"), format!("{name}.{format}")];
            assert_eq!(files(&dir, name), wanted, "{protocol}");
            backend.delete(&CX, name).await.expect("deleted");
            backend.close(&CX).await.expect("closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn clones_are_made_on_every_protocol() {
    for (protocol, options, dir) in protocols() {
        let backend = open(patient(options)).await;
        for name in ["source", "twin", "other"] {
            let _ = backend.delete(&CX, name).await;
        }
        backend.create(&CX, VolumeSpec::new("source", 64 * MIB)).await.expect("created");
        let volume = attach(&backend, "source", 1).await;
        write(&volume, MIB, 1, 20 * MIB).await;
        snapshot(&volume, "s").await;
        write(&volume, 2 * MIB, 2, MIB).await;
        let begun = std::time::Instant::now();
        let twin = VolumeSpec::new("twin", 0);
        let twin = backend.clone_volume(&CX, "source", "", twin).await.expect("cloned");
        let method = twin.labels.iter().find(|label| label.0 == "clone_method").expect("told");
        eprintln!("{protocol}: a clone by {} took {:?}", method.1, begun.elapsed());
        let other = VolumeSpec::new("other", 80 * MIB).option("format", "qcow2");
        backend.clone_volume(&CX, "source", "s", other).await.expect("cloned");
        until_layers(&volume, 2).await;
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, "source").await.expect("deleted");
        let twin = attach(&backend, "twin", 1).await;
        expect(&twin, 0, 0, MIB).await;
        expect(&twin, MIB, 1, MIB).await;
        expect(&twin, 2 * MIB, 2, MIB).await;
        expect(&twin, 3 * MIB, 1, 18 * MIB).await;
        expect(&twin, 21 * MIB, 0, MIB).await;
        twin.detach(&CX).await.expect("detached");
        let seen = seen_by_qemu(&dir.join("other.qcow2"), false);
        assert_eq!((seen.len(), seen[1 << 20], seen[2 << 20]), (80 << 20, 1, 1), "{protocol}");
        for name in ["twin", "other"] {
            backend.delete(&CX, name).await.expect("deleted");
        }
        backend.close(&CX).await.expect("closed");
    }
}

/// A file system of its own that shares blocks between files; it stands for a share that the kernel has mounted.
struct Sharing(tempfile::TempDir);

impl Sharing {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (image, at) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&at).expect("made");
        std::fs::File::create(&image).expect("made").set_len(512 << 20).expect("sized");
        let (image, at) = (image.display().to_string(), at.display().to_string());
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image]);
        run("mount", &["-o", "loop", &image, &at]);
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mount")
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        run("umount", &[&self.path().display().to_string()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = std::process::Command::new(program).args(arguments).status();
    assert!(status.expect("started").success(), "{program} {arguments:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs, and root"]
async fn a_mount_of_the_kernels_shares_blocks_or_copies_them() {
    let sharing = Sharing::mount();
    let small = PathBuf::from(address("export_small"));
    for (dir, wanted) in [(sharing.path(), "reflink"), (small, "server-copy")] {
        let share = dir.display().to_string();
        let options = json!({ "protocol": "kernel", "versions": [], "share": share });
        let backend = open(patient(options)).await;
        for format in ["raw", "qcow2"] {
            let spec = VolumeSpec::new("v", 20 * MIB).option("format", format);
            backend.create(&CX, spec).await.expect("created");
            let volume = attach(&backend, "v", 1).await;
            write(&volume, 0, 1, 8 * MIB).await;
            snapshot(&volume, "s").await;
            write(&volume, MIB, 2, MIB).await;
            for (name, of, second) in [("old", "s", 1), ("now", "", 2)] {
                let spec = VolumeSpec::new(name, 24 * MIB).option("format", format);
                let info = backend.clone_volume(&CX, "v", of, spec).await.expect("cloned");
                let method = info.labels.iter().find(|label| label.0 == "clone_method");
                assert_eq!(method.expect("told").1, wanted, "{format}");
                let clone = attach(&backend, name, 1).await;
                expect(&clone, 0, 1, MIB).await;
                expect(&clone, MIB, second, MIB).await;
                expect(&clone, 2 * MIB, 1, 6 * MIB).await;
                expect(&clone, 8 * MIB, 0, 16 * MIB).await;
                write(&clone, 0, 7, MIB).await;
                clone.detach(&CX).await.expect("detached");
                let seen = seen_by_qemu(&dir.join(format!("{name}.{format}")), false);
                assert_eq!((seen[0], seen[1 << 20], seen.len()), (7, second, 24 << 20));
                backend.delete(&CX, name).await.expect("deleted");
            }
            expect(&volume, 0, 1, MIB).await;
            expect(&volume, MIB, 2, MIB).await;
            forget(&volume, "s").await;
            until_layers(&volume, 1).await;
            volume.detach(&CX).await.expect("detached");
            backend.delete(&CX, "v").await.expect("deleted");
        }
        backend.close(&CX).await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn servers_that_are_killed_lose_no_snapshot() {
    for (protocol, options, dir) in protocols() {
        let server = if protocol.starts_with("NFS") { "ganesha" } else { "smbd" };
        if protocol.ends_with("encrypted") || protocol == "NFSv4.0" {
            continue;
        }
        let _revive = Revive(server);
        let backend = open(patient(options)).await;
        let _ = backend.delete(&CX, "killed").await;
        backend.create(&CX, VolumeSpec::new("killed", 64 * MIB)).await.expect("created");
        let volume = attach(&backend, "killed", 1).await;
        for round in 1..=6_u64 {
            write(&volume, round * MIB, round as u8, 4 * MIB).await;
            let killing = tokio::task::spawn_blocking(move || {
                service("daemon", &[server, "KILL"]);
                service("again", &[server]);
            });
            snapshot(&volume, &format!("s{round}")).await;
            if round > 2 {
                forget(&volume, &format!("s{}", round - 2)).await;
            }
            killing.await.expect("started again");
        }
        until_layers(&volume, 3).await;
        assert_eq!(names(&volume).await, ["s5", "s6"], "{protocol}");
        assert_eq!(value(&volume.stats(), "writes_in_doubt"), 0.0, "{protocol}");
        volume.detach(&CX).await.expect("detached");
        let seen = seen_by_qemu(&active(&dir, "killed", "raw"), false);
        for mib in 1..=9_usize {
            assert_eq!(seen[(mib << 20) + 5], mib.min(6) as u8, "{protocol}: MiB {mib}");
        }
        let volume = attach(&backend, "killed", 2).await;
        roll_back(&volume, "s5").await;
        expect(&volume, 6 * MIB, 5, 3 * MIB).await;
        let gone = Snapshots::delete(&volume, &CX, "s1").await.expect_err("gone long ago");
        assert_eq!(gone.kind(), ErrorKind::NOT_FOUND, "{protocol}: {gone:#}");
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, "killed").await.expect("deleted");
        assert!(files(&dir, "killed").is_empty(), "{protocol}: {:?}", files(&dir, "killed"));
        backend.close(&CX).await.expect("closed");
    }
}
