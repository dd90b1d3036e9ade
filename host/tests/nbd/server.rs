// SPDX-License-Identifier: Apache-2.0
//! The server's life: its socket, its connections, its end.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use driver_api::ErrorKind;
use novastor::{
    access::Peer,
    export::nbd::{Export, ExportSource, Listener, serve},
};

use crate::{
    client::*,
    serving, serving_with, settings,
    volume::{Exports, Mode, TestVolume},
};

const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_socket_has_its_mode_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbd.sock");
    let server = serve(
        settings(),
        vec![Listener::unix(&socket, 0o640).unwrap()],
        Arc::new(Exports(vec![("disk", TestVolume::new(4096))])),
    );
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    server.unwrap().shutdown(LONG).unwrap();
    assert!(!socket.exists());
}

#[test]
fn a_socket_is_replaced_only_if_nobody_answers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbd.sock");
    let exports = || Arc::new(Exports(vec![("disk", TestVolume::new(4096))]));
    drop(UnixListener::bind(&socket).unwrap());
    let listener = || Listener::unix(&socket, 0o600);
    let server = serve(settings(), vec![listener().unwrap()], exports()).unwrap();
    let refused = listener().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IN_USE);
    assert_eq!(Client::go(&socket, "disk").read(0, 1), [0], "the first server serves on");
    server.shutdown(LONG).unwrap();
    fs::write(&socket, "a file").unwrap();
    let refused = listener().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS);
    assert_eq!(fs::read(&socket).unwrap(), b"a file");
}

#[test]
fn connections_are_counted() {
    let volume = TestVolume::new(1 << 20);
    let exports = vec![("disk", volume.clone())];
    let at = serving_with(exports, |_| {});
    let mut first = Client::go(&at.socket, "disk");
    let second = Client::go(&at.socket, "");
    drop(second);
    first.write(0, &[1; 4096]);
    first.read(0, 512);
    first.call(0, FLUSH, 0, 0, &[]);
    first.call(0, READ, 1 << 20, 1, &[]);
    let connections = at.server.connections();
    let info = connections.iter().find(|info| info.reads == 1).expect("the first client");
    assert_eq!(info.export, "disk");
    assert_eq!((info.writes, info.flushes, info.errors), (1, 1, 1));
    assert_eq!((info.bytes_read, info.bytes_written, info.in_flight), (512, 4096, 0));
}

#[test]
fn ending_an_export_answers_what_is_in_flight_and_spares_the_others() {
    let (volume, other) = (TestVolume::new(1 << 20), TestVolume::new(1 << 20));
    let at = serving_with(vec![("disk", volume.clone()), ("other", other.clone())], |_| {});
    let mut client = Client::go(&at.socket, "disk");
    let mut idle = Client::go(&at.socket, "disk");
    let mut spared = Client::go(&at.socket, "other");
    volume.set_mode(Mode::Held);
    client.request(WRITE, 1, 0, 4, b"last");
    client.request(READ, 2, 512, 512, &[]);
    volume.wait_held(2);
    let releasing = volume.clone();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| at.server.disconnect_export("disk", LONG));
        assert!(idle.is_closed());
        releasing.release_all();
        ending.join().unwrap().unwrap();
    });
    assert_eq!(client.reply(), (1, 0));
    assert_eq!(client.reply(), (2, 0));
    client.take(512);
    assert!(client.is_closed());
    assert_eq!(volume.leases(), 0, "the leases end before the call returns");
    assert_eq!(volume.dropped(), 0);
    assert_eq!(spared.write(0, b"on"), 0);
}

#[test]
fn clients_are_told_that_their_export_ends() {
    let (volume, idle_volume) = (TestVolume::new(1 << 20), TestVolume::new(1 << 20));
    // Long enough for all that is asked below, however busy the machine.
    let farewell = Duration::from_secs(5);
    let exports = vec![("disk", volume.clone()), ("idle", idle_volume)];
    let at = serving_with(exports, |settings| settings.farewell = farewell);
    let mut client = Client::go(&at.socket, "disk");
    let mut idle = Client::go(&at.socket, "idle");
    let mut negotiating = Client::greet(&at.socket, 3);
    volume.set_mode(Mode::Held);
    client.request(WRITE, 1, 0, 4, b"last");
    volume.wait_held(1);
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| at.server.shutdown(LONG));
        while at.socket.exists() {
            std::thread::yield_now();
        }
        // The socket goes before clients are told, so that one of the first requests may still be
        // served; by a volume that holds nothing back.
        let told = std::iter::repeat_with(|| idle.call(0, FLUSH, 0, 0, &[])).take(10_000);
        assert_eq!({ told }.find(|error| *error != 0), Some(ESHUTDOWN));
        assert_eq!(negotiating.ask(3, &[])[0].kind, ERR_SHUTDOWN);
        assert_eq!(negotiating.ask(7, &info_data("disk", &[3]))[0].kind, ERR_SHUTDOWN);
        client.request(READ, 2, 0, 512, &[]);
        assert_eq!(client.reply(), (2, ESHUTDOWN), "while the write is in flight");
        volume.release_all();
        assert_eq!(client.reply(), (1, 0));
        assert!(client.is_closed() && idle.is_closed() && negotiating.is_closed());
        ending.join().unwrap().unwrap();
    });
    assert_eq!((volume.leases(), volume.data()[..4].to_vec()), (0, b"last".to_vec()));
}

/// Opens exports only when the test says so.
struct Slow {
    exports: Exports,
    opening: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl ExportSource for Slow {
    fn list(&self, peer: &Peer) -> Vec<String> {
        self.exports.list(peer)
    }

    fn default_name(&self) -> driver_api::Result<String> {
        self.exports.default_name()
    }

    fn find(&self, name: &str, peer: &Peer) -> driver_api::Result<()> {
        self.exports.find(name, peer)
    }

    fn open(&self, name: &str, peer: &Peer) -> driver_api::Result<Export> {
        self.opening.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.exports.open(name, peer)
    }
}

#[test]
fn ending_an_export_finds_who_opens_it_as_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbd.sock");
    let volume = TestVolume::new(4096);
    let (opening, opened) = channel();
    let (release, go_on) = channel();
    let source = Slow {
        exports: Exports(vec![("disk", volume.clone())]),
        opening: Mutex::new(opening),
        go_on: Mutex::new(go_on),
    };
    let listener = Listener::unix(&socket, 0o600).unwrap();
    let server = serve(settings(), vec![listener], Arc::new(source)).unwrap();
    let mut client = Client::greet(&socket, 3);
    client.send_option(7, &info_data("", &[3]));
    opened.recv().unwrap();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| server.disconnect_export("disk", LONG));
        let done = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(10));
            ending.is_finished()
        });
        assert!(!done.take(100).any(|done| done), "it is still being opened");
        release.send(()).unwrap();
        ending.join().unwrap().unwrap();
    });
    assert_eq!(volume.leases(), 0, "nobody got past the end");
}

#[test]
fn a_shutdown_that_cannot_finish_a_write_says_so_and_keeps_the_lease() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    let mut negotiating = Client::greet(&at.socket, 3);
    volume.set_mode(Mode::Held);
    client.request(WRITE, 1, 0, 4, b"slow");
    client.request(READ, 2, 512, 512, &[]);
    volume.wait_held(2);
    let refused = at.server.shutdown(Duration::from_millis(50)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TIMED_OUT);
    assert!(negotiating.is_closed());
    assert!(client.is_closed());
    assert_eq!(
        (volume.leases(), volume.dropped()),
        (1, 1),
        "the read is dropped, the write is not"
    );
    volume.release(0);
    volume.wait_no_lease();
    assert_eq!(volume.data()[..4], *b"slow");
    assert_eq!(volume.dropped(), 1);
    at.server.shutdown(LONG).unwrap();
    assert!(at.server.connections().is_empty());
}
