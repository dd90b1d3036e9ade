// SPDX-License-Identifier: Apache-2.0
//! What clients may take from each other: connections, operations in flight, memory.

use std::{io::Write, thread, time::Duration};

use novastor::export::nbd::Amount;

use crate::{
    client::*,
    serving_with,
    volume::{Mode, TestVolume},
};

const MIB: usize = 1 << 20;
/// Long enough for a server without bounds to do what it must not.
const A_WHILE: Duration = Duration::from_millis(100);

#[test]
fn the_oldest_that_only_connects_makes_room() {
    let exports = vec![("disk", TestVolume::new(4096))];
    let at = serving_with(exports, |settings| {
        (settings.max_negotiating, settings.max_connections) = (3, 1000);
    });
    let mut good = Client::go(&at.socket, "disk");
    let mut silent: Vec<_> = (0..3).map(|_| Client::greet(&at.socket, 3)).collect();
    for _ in 0..20 {
        drop(Client::go(&at.socket, "disk"));
        silent.push(Client::greet(&at.socket, 3));
        assert!(silent.remove(0).is_closed(), "the oldest was sent away");
    }
    for client in &mut silent[1..] {
        assert_eq!(client.ask(3, &[])[0].kind, 2, "the younger ones are still asked");
    }
    assert_eq!(good.read(0, 1), [0], "who has chosen is not among them");
}

#[test]
fn a_full_server_says_so_and_still_lists() {
    let exports = vec![("disk", TestVolume::new(4096))];
    let at = serving_with(exports, |settings| settings.max_connections = 1);
    let first = Client::go(&at.socket, "disk");
    let mut second = Client::greet(&at.socket, 3);
    assert_eq!(second.ask(3, &[]).len(), 2, "one export, and the end of the list");
    let refused = second.ask(7, &info_data("disk", &[]));
    let text = String::from_utf8_lossy(&refused[0].data);
    assert!(refused[0].kind > 1 << 31 && text.contains("max_connections"), "{text}");
    drop(first);
    loop {
        // The first one's thread needs a moment to end.
        if second.ask(7, &info_data("disk", &[])).last().unwrap().kind == 1 {
            break;
        }
    }
    assert_eq!(second.read(0, 1), [0]);
}

#[test]
fn connections_share_what_their_export_may_have_in_flight() {
    let volume = TestVolume::new(MIB);
    let at = serving_with(vec![("disk", volume.clone())], |settings| {
        settings.export = Amount { operations: 24, bytes: 64 * MIB };
    });
    volume.set_mode(Mode::Held);
    let mut first = Client::go(&at.socket, "disk");
    let mut second = Client::go(&at.socket, "disk");
    let ask_for_many = |client: &mut Client| {
        (0..30).for_each(|cookie| client.request(READ, cookie, 0, 512, &[]));
    };
    ask_for_many(&mut first);
    volume.wait_held(1 + 12);
    ask_for_many(&mut second);
    volume.wait_held(1 + 12 + 1 + 6);
    thread::sleep(A_WHILE);
    assert_eq!(volume.most_held(), 20);
    volume.set_mode(Mode::Ready);
    volume.release_all();
    for client in [&mut first, &mut second] {
        for _ in 0..30 {
            assert_eq!(client.reply().1, 0);
            client.take(512);
        }
    }
}

#[test]
fn a_large_write_waits_until_there_is_memory_for_it() {
    let volume = TestVolume::new(MIB);
    let at = serving_with(vec![("disk", volume.clone())], |settings| {
        settings.export = Amount { operations: 24, bytes: MIB + MIB / 2 };
    });
    volume.set_mode(Mode::Held);
    let mut first = Client::go(&at.socket, "disk");
    first.request(WRITE, 1, 0, MIB as u32, &vec![1; MIB]);
    volume.wait_held(1);
    let mut second = Client::go(&at.socket, "disk");
    let mut small = Client::go(&at.socket, "disk");
    let mut writing = second.socket.try_clone().unwrap();
    let message = request_bytes(0, WRITE, 2, 0, MIB as u32, &vec![2; MIB]);
    let writer = thread::spawn(move || writing.write_all(&message).unwrap());
    thread::sleep(A_WHILE);
    assert!(!writer.is_finished(), "its data stays with the client");
    small.request(WRITE, 3, 8192, 512, &[3; 512]);
    volume.wait_held(2);
    volume.set_mode(Mode::Ready);
    volume.release(0);
    assert_eq!(first.reply(), (1, 0));
    assert_eq!(second.reply(), (2, 0));
    writer.join().unwrap();
    volume.release_all();
    assert_eq!(small.reply(), (3, 0));
}

#[test]
fn exports_share_what_their_backend_may_have_in_flight() {
    let (one, other) = (TestVolume::new(MIB), TestVolume::new(MIB));
    let exports = vec![("one", one.clone()), ("other", other.clone())];
    let at = serving_with(exports, |settings| {
        settings.backend = Amount { operations: 48, bytes: 64 * MIB };
    });
    one.set_mode(Mode::Held);
    other.set_mode(Mode::Held);
    let mut crowd: Vec<_> = (0..10).map(|_| Client::go(&at.socket, "one")).collect();
    for client in &mut crowd {
        (0..30).for_each(|cookie| client.request(READ, cookie, 0, 512, &[]));
    }
    // Of its half of 48 one connection after the other takes half of the rest; one each has on its own.
    one.wait_held(10 + 12);
    thread::sleep(A_WHILE);
    assert!(one.most_held() <= 10 + 24, "{}", one.most_held());
    let mut client = Client::go(&at.socket, "other");
    (0..30).for_each(|cookie| client.request(READ, cookie, 0, 512, &[]));
    other.wait_held(1 + 6);
}

#[test]
fn refusals_count_as_replies_that_are_not_sent() {
    let at = serving_with(vec![("disk", TestVolume::new(4096))], |settings| {
        settings.max_in_flight_bytes = MIB;
    });
    let client = Client::go(&at.socket, "disk");
    client.socket.set_nonblocking(true).unwrap();
    // Reads beyond the end, and nobody fetches the answers.
    let flood = request_bytes(0, READ, 9, 1 << 40, 512, &[]).repeat(1000);
    let mut taken = 0;
    while let Ok(count) = (&client.socket).write(&flood) {
        taken += count;
        thread::sleep(Duration::from_millis(2));
        assert!(taken < 4 * MIB, "the server answers what nobody fetches");
    }
    // It does not hang either.
    let mut other = Client::go(&at.socket, "disk");
    assert_eq!(other.read(0, 1), [0]);
}

#[test]
fn a_volume_that_hangs_hangs_nobody_else() {
    let (stuck, good) = (TestVolume::new(MIB), TestVolume::new(MIB));
    stuck.set_mode(Mode::Held);
    let exports = vec![("stuck", stuck.clone()), ("good", good)];
    let at = serving_with(exports, |settings| settings.max_connections = 100);
    let mut waiting: Vec<_> = (0..20).map(|_| Client::go(&at.socket, "stuck")).collect();
    for client in &mut waiting {
        (0..10).for_each(|cookie| client.request(WRITE, cookie, 0, 4096, &[1; 4096]));
    }
    stuck.wait_held(20 * 10);
    let mut good = Client::go(&at.socket, "good");
    assert_eq!(good.write(0, b"on and on"), 0);
    assert_eq!(good.call(0, FLUSH, 0, 0, &[]), 0);
    assert_eq!(good.read(0, 9), b"on and on");
    let mut asking = Client::greet(&at.socket, 3);
    assert_eq!(asking.ask(3, &[]).len(), 3);
    for name in ["good", "stuck"] {
        assert_eq!(asking.ask(6, &info_data(name, &[])).last().unwrap().kind, 1);
    }
    stuck.set_mode(Mode::Ready);
    stuck.release_all();
}
