// SPDX-License-Identifier: Apache-2.0
//! The client, the load and the fio jobs against a server that is not ours: nbdkit.

use std::{path::Path, time::Duration};

use end_to_end::{
    clients,
    failure::{Context, Outcome},
    ledger,
    load::Load,
    mount::{ExportFile, Mounted},
    nbd::{Client, Command, Error},
    program::{Program, Running, until},
};
use tempfile::TempDir;

const SIZE: u64 = 16 << 20;

struct Server {
    running: Running,
    directory: TempDir,
}

impl Server {
    fn start(directory: TempDir, plugin: &[&str]) -> Outcome<Self> {
        let socket = directory.path().join("sock");
        let _ = std::fs::remove_file(&socket);
        let log = directory.path().join("log");
        let program =
            Program::new("nbdkit").args(["--foreground", "--unix"]).arg(&socket).args(plugin);
        let running = program.start(&log)?;
        let server = Self { running, directory };
        until(Duration::from_secs(20), || server.connect().map(drop))?;
        Ok(server)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("sock")
    }

    fn connect(&self) -> Outcome<Client> {
        Client::connect(&self.socket(), "").context("connect")
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket().display())
    }
}

fn file(directory: &Path) -> Outcome<String> {
    let image = directory.join("image");
    let file = std::fs::File::create(&image).context("image")?;
    file.set_len(SIZE).context("image")?;
    Ok(image.display().to_string())
}

#[test]
fn requests_in_flight_find_their_replies() {
    let server =
        Server::start(tempfile::tempdir().unwrap(), &["memory", &SIZE.to_string()]).unwrap();
    let mut client = server.connect().unwrap();
    assert_eq!(client.size(), SIZE);
    client.call(Command::Write { fua: true }, 4096, 4096, &[7; 4096]).unwrap();
    let first = client.send(Command::Read, 0, 8192, &[]).unwrap();
    let second = client.send(Command::Read, 4096, 512, &[]).unwrap();
    let replies = [client.receive().unwrap(), client.receive().unwrap()];
    for (cookie, data) in replies {
        let expected =
            if cookie == first { [vec![0; 4096], vec![7; 4096]].concat() } else { vec![7; 512] };
        assert!(cookie == first || cookie == second);
        assert_eq!(data, expected);
    }
    client.call(Command::WriteZeroes { fua: false }, 4096, 512, &[]).unwrap();
    client.call(Command::Flush, 0, 0, &[]).unwrap();
    assert_eq!(client.call(Command::Read, 4096, 513, &[]).unwrap()[511..], [0, 7]);
    assert!(matches!(client.call(Command::Read, SIZE, 512, &[]), Err(Error::Refused(_))));
}

#[test]
fn a_dead_server_is_a_lost_connection() {
    let mut server = Server::start(tempfile::tempdir().unwrap(), &["memory", "1M"]).unwrap();
    let mut client = server.connect().unwrap();
    server.running.kill9().unwrap();
    assert!(matches!(client.call(Command::Read, 0, 512, &[]), Err(Error::Lost(_))));
    assert!(matches!(Client::connect(&server.socket(), ""), Err(Error::Lost(_))));
}

#[test]
fn a_server_that_keeps_its_promises_passes_kills() {
    let directory = tempfile::tempdir().unwrap();
    let image = file(directory.path()).unwrap();
    let mut server = Server::start(directory, &["file", &image]).unwrap();
    let load = Load::new(SIZE / 512, 2, 1);
    for _ in 0..3 {
        let socket = server.socket();
        load.until_killed(&socket, "", Duration::from_millis(100), || server.running.kill9())
            .unwrap();
        let Server { directory, .. } = server;
        server = Server::start(directory, &["file", &image]).unwrap();
        load.verify(&mut server.connect().unwrap()).unwrap();
    }
    assert!(load.flushes() > 0);
}

#[test]
fn a_server_that_loses_a_flushed_write_is_caught() {
    let directory = tempfile::tempdir().unwrap();
    let image = file(directory.path()).unwrap();
    let mut server = Server::start(directory, &["file", &image]).unwrap();
    let load = Load::new(SIZE / 512, 2, 1);
    let socket = server.socket();
    load.until_killed(&socket, "", Duration::from_millis(300), || server.running.kill9()).unwrap();
    let Server { directory, .. } = server;
    let image = file(directory.path()).unwrap();
    let server = Server::start(directory, &["file", &image]).unwrap();
    let failure = load.verify(&mut server.connect().unwrap()).unwrap_err().to_string();
    assert!(failure.contains("holds version 0, promised was"), "{failure}");
    let mut client = server.connect().unwrap();
    let foreign = ledger::content(1..2, 1);
    client.call(Command::Write { fua: false }, 0, 512, &foreign).unwrap();
    assert!(load.verify(&mut client).unwrap_err().to_string().contains("foreign"));
}

#[test]
fn a_server_that_survives_its_kill_is_a_failure() {
    let server =
        Server::start(tempfile::tempdir().unwrap(), &["memory", &SIZE.to_string()]).unwrap();
    let load = Load::new(SIZE / 512, 1, 1);
    let outcome = load.until_killed(&server.socket(), "", Duration::from_millis(10), || Ok(()));
    assert!(outcome.unwrap_err().to_string().contains("still answers"));
}

#[test]
fn fio_verifies_what_it_wrote() {
    let server =
        Server::start(tempfile::tempdir().unwrap(), &["memory", &SIZE.to_string()]).unwrap();
    let region = ["--rw=write", "--bs=64k", "--offset=1M", "--size=2M", "--randseed=7"];
    let write =
        || clients::fio("mark", &server.uri(), &region).args(["--do_verify=0", "--end_fsync=1"]);
    let read = || clients::fio("mark", &server.uri(), &region).arg("--verify_only");
    write().run().unwrap();
    read().run().unwrap();
    let mut client = server.connect().unwrap();
    client.call(Command::Write { fua: false }, (1 << 20) + (128 << 10), 512, &[1; 512]).unwrap();
    let said = read().codes(&[]).run().unwrap();
    assert_ne!(said.code, 0);
    assert!(clients::fio_saw_no_damage(&said).is_err());
}

#[test]
fn qemu_io_tells_a_wrong_pattern() {
    let server = Server::start(tempfile::tempdir().unwrap(), &["memory", "1M"]).unwrap();
    clients::qemu_io(&server.uri(), "write -P 0x5a 4k 8k").unwrap();
    clients::qemu_io(&server.uri(), "read -P 0x5a 4k 8k").unwrap();
    assert!(clients::qemu_io(&server.uri(), "read -P 0x5b 4k 8k").is_err());
    assert!(clients::qemu_io(&server.uri(), "read 1M 4k").is_err());
    assert_eq!(clients::nbdinfo(&server.uri()).unwrap()["export-size"], 1 << 20);
}

#[test]
fn a_filesystem_on_an_export_is_mounted_and_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    let (image, stage) = (directory.path().join("image"), tempfile::tempdir().unwrap());
    clients::ext4_empty(&image, SIZE).unwrap();
    let server = Server::start(directory, &["file", &image.display().to_string()]).unwrap();
    let mounted = Mounted::new(stage.path(), &server.uri()).unwrap();
    let file = mounted.path().join("file");
    Program::as_root("sh").args(["-c", "echo content > \"$1\"", "sh"]).arg(&file).run().unwrap();
    mounted.close().unwrap();
    assert!(!file.exists());
    let file = ExportFile::new(&stage.path().join("again"), &server.uri()).unwrap();
    clients::fsck_clean(&file.path()).unwrap();
    file.close().unwrap();
    let found = Program::new("debugfs").args(["-R", "cat /file"]).arg(&image).run().unwrap();
    assert_eq!(found.stdout, "content\n");
}
