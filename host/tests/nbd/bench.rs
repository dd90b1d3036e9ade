// SPDX-License-Identifier: Apache-2.0
//! The server beside its peers, in one run:
//! `cargo test --release -p novastor --test nbd bench -- --ignored --nocapture`

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{serving, volume::TestVolume};

const SIZE: usize = 256 << 20;

/// A peer, ended when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn peer(command: &mut Command, socket: &Path) -> Peer {
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let peer = Peer(child);
    let limit = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < limit, "the peer does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    peer
}

/// Round trips per second of one byte between two threads: what any server at depth 1 is measured against.
fn ping_pong() -> f64 {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() {
            there.write_all(&byte).unwrap();
        }
    });
    let start = Instant::now();
    let turns = 20_000;
    for _ in 0..turns {
        here.write_all(&[1]).unwrap();
        here.read_exact(&mut [0]).unwrap();
    }
    let rate = f64::from(turns) / start.elapsed().as_secs_f64();
    drop(here);
    echo.join().unwrap();
    rate
}

/// Operations per second that fio's nbd engine gets.
fn fio(uri: &str, rw: &str, block: &str, depth: u32) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("fio")
        .args(["--name=bench", "--ioengine=nbd", "--time_based", "--runtime=3", "--size=256M"])
        .args(["--output-format=json", &format!("--aux-path={}", directory.path().display())])
        .args([&format!("--uri={uri}"), &format!("--rw={rw}"), &format!("--bs={block}")])
        .arg(format!("--iodepth={depth}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let json = &text[text.find('{').unwrap()..];
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    let job = &report["jobs"][0];
    job["read"]["iops"].as_f64().unwrap() + job["write"]["iops"].as_f64().unwrap()
}

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn beside_nbdkit_and_qemu_nbd() {
    let ours = serving(&TestVolume::new(SIZE).without_log());
    let directory = tempfile::tempdir().unwrap();
    let kit = directory.path().join("kit.sock");
    let mut command = Command::new("nbdkit");
    let _kit = peer(command.arg("-f").arg("-U").arg(&kit).args(["memory", "256M"]), &kit);
    let (qemu, image) = (directory.path().join("qemu.sock"), directory.path().join("image"));
    fs::File::create(&image).unwrap().set_len(SIZE as u64).unwrap();
    let mut command = Command::new("qemu-nbd");
    command.args(["-t", "-e", "4", "-f", "raw", "-x", "", "-k"]).arg(&qemu).arg(&image);
    let _qemu = peer(&mut command, &qemu);
    let uri = |name: &str, socket: &Path| format!("nbd+unix:///{name}?socket={}", socket.display());
    let servers = [
        ("ours", uri("disk", &ours.socket)),
        ("nbdkit", uri("", &kit)),
        ("qemu-nbd", uri("", &qemu)),
    ];
    for (_, uri) in &servers {
        fio(uri, "write", "1M", 8);
    }
    println!("ping-pong {:.0}/s", ping_pong());
    for (rw, block, depth) in [
        ("randread", "4k", 1),
        ("randread", "4k", 32),
        ("randwrite", "4k", 32),
        ("read", "1M", 8),
        ("write", "1M", 8),
    ] {
        let rates: Vec<_> = servers.iter().map(|(_, uri)| fio(uri, rw, block, depth)).collect();
        print!("{rw:>9} {block} depth {depth:>2}:");
        for ((name, _), rate) in servers.iter().zip(&rates) {
            print!("  {name} {rate:.0}/s ({:.2}x)", rate / rates[1]);
        }
        println!();
    }
}
