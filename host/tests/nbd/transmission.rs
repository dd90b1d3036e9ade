// SPDX-License-Identifier: Apache-2.0
//! Requests and replies: order, errors, bounds, and clients that leave or talk nonsense.

use std::{io::Write, net::Shutdown, time::Duration};

use driver_api::{Abilities, Capabilities, ErrorKind};
use novastor::errors::nbd_errno;

use crate::{
    client::*,
    pattern, serving, serving_with,
    volume::{Mode, Seen, TestVolume},
};

#[test]
fn what_is_written_is_read_whatever_its_length_and_place() {
    let volume = TestVolume::new(8 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    for (offset, len) in [(0, 1), (511, 700), (4096, 4096), (9, 300_000), (1 << 20, 5 << 20)] {
        let data = pattern(len, len as u8);
        assert_eq!(client.write(offset, &data), 0);
        assert_eq!(volume.data()[offset as usize..][..len], data);
        assert_eq!(client.read(offset, len as u32), data);
    }
    assert_eq!(client.call(0, WRITE_ZEROES, 4096, 4096, &[]), 0);
    assert_eq!(client.call(0, TRIM, 1 << 20, 4096, &[]), 0);
    assert_eq!(client.call(0, FLUSH, 0, 0, &[]), 0);
    assert_eq!(client.read(4096, 4096), [0; 4096]);
    assert_eq!(client.read(1 << 20, 4096), [0; 4096]);
}

#[test]
fn requests_may_come_in_any_pieces_and_many_at_once() {
    let volume = TestVolume::new(4 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    let large = pattern(100_000, 9);
    let mut stream = Vec::new();
    for turn in 0..40u64 {
        let small = pattern(100, turn as u8);
        stream.extend(request_bytes(0, WRITE, turn * 2, turn * 100, 100, &small));
        stream.extend(request_bytes(0, WRITE, turn * 2 + 1, 1 << 20, 100_000, &large));
    }
    let mut writer = client.socket.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        // Lengths without a common factor with the requests': every seam is hit.
        let mut rest = &stream[..];
        for len in (1..).step_by(7) {
            let (piece, later) = rest.split_at(rest.len().min(len % 9973));
            writer.write_all(piece).unwrap();
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    });
    for cookie in 0..80 {
        assert_eq!(client.reply(), (cookie, 0));
    }
    sender.join().unwrap();
    for turn in 0..40 {
        assert_eq!(client.read(turn * 100, 100), pattern(100, turn as u8));
    }
    assert_eq!(client.read(1 << 20, 100_000), large);
}

#[test]
fn replies_leave_in_the_order_in_which_operations_finish() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    assert_eq!(client.write(8192, &pattern(4096, 1)), 0);
    volume.set_mode(Mode::Held);
    client.request(READ, 1, 0, 4096, &[]);
    client.request(READ, 2, 4096, 4096, &[]);
    client.request(READ, 3, 8192, 4096, &[]);
    volume.wait_held(3);
    volume.set_mode(Mode::Ready);
    client.request(WRITE, 4, 16384, 4, b"late");
    assert_eq!(client.reply(), (4, 0), "what is ready overtakes what waits");
    let order = [(8192, 3, pattern(4096, 1)), (0, 1, vec![0; 4096]), (4096, 2, vec![0; 4096])];
    for (offset, cookie, data) in order {
        let volume = volume.clone();
        std::thread::spawn(move || volume.release(offset)).join().unwrap();
        assert_eq!(client.reply(), (cookie, 0));
        assert_eq!(client.take(4096), data);
    }
}

#[test]
fn an_operation_that_always_wakes_itself_holds_nobody_up() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    volume.set_mode(Mode::Busy);
    client.request(WRITE, 1, 0, 4, b"busy");
    volume.wait_held(1);
    volume.set_mode(Mode::Ready);
    for _ in 0..100 {
        assert_eq!(client.read(4096, 16), [0; 16]);
    }
    volume.release(0);
    assert_eq!(client.reply(), (1, 0));
}

#[test]
fn bad_requests_are_refused_and_the_connection_goes_on() {
    let mut capabilities = Capabilities::new(Abilities::WRITE | Abilities::DISCARD);
    capabilities.min_block = 512;
    capabilities.max_io = 1 << 20;
    let volume = TestVolume::with(4 << 20, capabilities);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    let end = 4u64 << 20;
    let too_long = vec![1; (1 << 20) + 512];
    type Case<'a> = (&'a str, u16, u16, u64, u32, &'a [u8], u32);
    let cases: [Case<'_>; 15] = [
        ("read past the end", 0, READ, end - 512, 1024, &[], EINVAL),
        ("read at an absurd offset", 0, READ, u64::MAX - 511, 512, &[], EINVAL),
        ("read of nothing", 0, READ, 0, 0, &[], EINVAL),
        ("read too long", 0, READ, 0, (1 << 20) + 512, &[], EINVAL),
        ("read between sectors", 0, READ, 1, 512, &[], EINVAL),
        ("read of a part of a sector", 0, READ, 0, 511, &[], EINVAL),
        ("write past the end", 0, WRITE, end, 512, &[1; 512], ENOSPC),
        ("write between sectors", 0, WRITE, 1, 512, &[1; 512], EINVAL),
        ("write too long", 0, WRITE, 0, too_long.len() as u32, &too_long, EINVAL),
        ("write with an unknown flag", 1 << 9, WRITE, 0, 512, &[1; 512], EINVAL),
        ("trim past the end", 0, TRIM, end, 512, &[], EINVAL),
        ("zeros, which were not offered", 0, WRITE_ZEROES, 0, 512, &[], EINVAL),
        ("an unknown command", 0, 42, 0, 512, &[], EINVAL),
        ("a structured read", 4, READ, 0, 512, &[], EINVAL),
        ("block status, which was not offered", 0, 7, 0, 512, &[], EINVAL),
    ];
    for (what, flags, command, offset, len, data, error) in cases {
        assert_eq!(client.call(flags, command, offset, len, data), error, "{what}");
    }
    assert!(volume.seen().is_empty(), "nothing of it reached the driver");
    assert_eq!(client.write(0, &[7; 512]), 0);
    assert_eq!(client.read(0, 512), [7; 512]);
    assert_eq!(client.call(0, TRIM, 0, 2 << 20, &[]), 0, "the maximum is about data only");
}

#[test]
fn a_read_only_export_refuses_changes() {
    let volume = TestVolume::new(1 << 20);
    volume.set_read_only();
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    assert_eq!(client.write(0, &pattern(200_000, 3)), EPERM);
    assert_eq!(client.call(0, TRIM, 0, 4096, &[]), EPERM);
    assert_eq!(client.call(0, WRITE_ZEROES, 0, 4096, &[]), EPERM);
    assert_eq!(client.call(0, FLUSH, 0, 0, &[]), 0);
    assert_eq!(client.read(0, 4096), [0; 4096]);
    assert_eq!(volume.seen().len(), 1);
}

#[test]
fn errors_of_the_driver_arrive_by_the_table() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    for kind in ErrorKind::ALL {
        volume.set_fail(Some(*kind));
        assert_eq!(client.write(0, b"x"), nbd_errno(*kind) as u32, "{kind}");
        assert_eq!(client.call(0, READ, 0, 4096, &[]), nbd_errno(*kind) as u32, "{kind}");
    }
    volume.set_fail(Some(ErrorKind::NO_SPACE));
    assert_eq!(client.write(0, b"x"), ENOSPC);
    volume.set_fail(Some(ErrorKind::UNSUPPORTED));
    assert_eq!(client.call(16, WRITE_ZEROES, 0, 4096, &[]), ENOTSUP, "not fast here");
    volume.set_fail(None);
    volume.set_mode(Mode::Panic);
    assert_eq!(client.write(0, b"x"), EIO);
}

#[test]
fn fua_is_the_drivers_or_a_flush() {
    let able = TestVolume::new(1 << 20);
    let plain = TestVolume::with(
        1 << 20,
        Capabilities::new(Abilities::WRITE | Abilities::WRITE_ZEROES | Abilities::DISCARD),
    );
    let at = serving_with(vec![("able", able.clone()), ("plain", plain.clone())], |_| {});
    let seen = |what, flags| Seen { what, offset: 0, flags };
    let mut client = Client::go(&at.socket, "able");
    assert_eq!(client.call(FUA, WRITE, 0, 1, b"x"), 0);
    assert_eq!(client.call(FUA | 2, WRITE_ZEROES, 0, 1, &[]), 0);
    assert_eq!(client.call(FUA, TRIM, 0, 1, &[]), 0);
    assert_eq!(
        able.seen(),
        [seen("write", 1), seen("write_zeroes", 3), seen("discard", 0), seen("flush", 0)]
    );
    let mut client = Client::go(&at.socket, "plain");
    assert_eq!(client.call(FUA, WRITE_ZEROES, 0, 1, &[]), 0);
    assert_eq!(plain.seen(), [seen("write_zeroes", 0), seen("flush", 0)]);
    // Pending, the flush starts when the write has ended, and the reply waits for both.
    plain.set_mode(Mode::Held);
    client.request_with(FUA, WRITE, 5, 0, 1, b"x");
    plain.wait_held(1);
    assert_eq!(plain.seen()[2..], [seen("write", 0)]);
    plain.release(0);
    plain.wait_held(1);
    assert_eq!(plain.seen()[2..], [seen("write", 0), seen("flush", 0)]);
    client.request(READ, 6, 4096, 1, &[]);
    plain.wait_held(2);
    plain.release(4096);
    assert_eq!(client.reply(), (6, 0), "the write is not acknowledged before its flush");
    client.take(1);
    plain.release(0);
    assert_eq!(client.reply(), (5, 0));
}

#[test]
fn writes_of_a_client_that_left_are_polled_to_their_end() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    volume.set_mode(Mode::Held);
    for turn in 0..10u64 {
        client.request(WRITE, turn, turn * 512, 512, &[turn as u8 + 1; 512]);
    }
    client.request(READ, 99, 1 << 19, 512, &[]);
    volume.wait_held(11);
    drop(client);
    // The read, which nobody waits for: the server has noticed.
    volume.wait_dropped(1);
    for turn in [3, 1, 4, 0, 5, 9, 2, 6, 8] {
        volume.release(turn * 512);
    }
    let info = &at.server.connections()[0];
    assert_eq!(info.export, "disk");
    assert_eq!(volume.leases(), 1, "a write is in flight: the attachment is kept");
    volume.release(7 * 512);
    volume.wait_no_lease();
    assert_eq!(volume.dropped(), 1, "only the read");
    for turn in 0..10 {
        assert_eq!(volume.data()[turn * 512], turn as u8 + 1);
    }
}

#[test]
fn a_client_that_says_good_bye_gets_its_replies() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut client = Client::go(&at.socket, "disk");
    volume.set_mode(Mode::Held);
    client.request(WRITE, 1, 0, 3, b"one");
    client.request(DISC, 2, 0, 0, &[]);
    client.request(WRITE, 3, 512, 5, b"three");
    volume.wait_held(1);
    client.socket.shutdown(Shutdown::Write).unwrap();
    volume.release(0);
    assert_eq!(client.reply(), (1, 0));
    assert!(client.is_closed());
    volume.wait_no_lease();
    assert_eq!(volume.seen().len(), 1, "nothing after the good-bye");
}

#[test]
fn operations_in_flight_are_bounded() {
    let volume = TestVolume::new(1 << 20);
    let at = serving_with(vec![("disk", volume.clone())], |settings| settings.max_in_flight = 4);
    let mut client = Client::go(&at.socket, "disk");
    volume.set_mode(Mode::Held);
    for turn in 0..40u64 {
        client.request(WRITE, turn, turn * 4096, 4096, &pattern(4096, turn as u8));
    }
    for turn in 0..40 {
        volume.wait_held(4.min(40 - turn as usize));
        volume.release(turn * 4096);
        assert_eq!(client.reply(), (turn, 0));
    }
    assert_eq!(volume.most_held(), 4);
}

#[test]
fn bytes_in_flight_are_bounded_but_one_operation_is_let_through() {
    let volume = TestVolume::new(4 << 20);
    let exports = vec![("disk", volume.clone())];
    let at = serving_with(exports, |settings| settings.max_in_flight_bytes = 300_000);
    let mut client = Client::go(&at.socket, "disk");
    volume.set_mode(Mode::Held);
    let mut writer = client.socket.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for turn in 0..20u64 {
            let data = pattern(100_000, turn as u8);
            let bytes = request_bytes(0, WRITE, turn, turn * 100_000, 100_000, &data);
            writer.write_all(&bytes).unwrap();
        }
    });
    volume.wait_held(2);
    // Time for a server without this bound to start more; a right one does not depend on it.
    std::thread::sleep(Duration::from_millis(200));
    for turn in 0..20 {
        volume.wait_held(1);
        volume.release(turn * 100_000);
        assert_eq!(client.reply(), (turn, 0));
    }
    sender.join().unwrap();
    assert!(volume.most_held() <= 2, "{} of 100 kB in flight", volume.most_held());
    volume.set_mode(Mode::Ready);
    assert_eq!(client.write(0, &pattern(1 << 20, 0)), 0);
}

#[test]
fn a_client_that_reads_no_replies_is_not_read_from() {
    let volume = TestVolume::new(1 << 20);
    let exports = vec![("disk", volume.clone())];
    let at = serving_with(exports, |settings| settings.max_in_flight_bytes = 1 << 20);
    let mut client = Client::go(&at.socket, "disk");
    // 2000 x 64 KiB is far more than may wait in the server and the socket; the requests themselves fit in one write.
    let requests: Vec<u8> =
        (0..2000).flat_map(|cookie| request_bytes(0, READ, cookie, 0, 65536, &[])).collect();
    client.send(&requests);
    // Another client's turn shows that the server has had time to start them all, were it to.
    let mut other = Client::go(&at.socket, "disk");
    for _ in 0..200 {
        other.write(0, b"x");
    }
    let started = volume.seen().iter().filter(|seen| seen.what == "read").count();
    assert!(started < 100, "{started} reads started for a client that reads nothing");
    for cookie in 0..2000 {
        assert_eq!(client.reply(), (cookie, 0));
        client.take(65536);
    }
}

#[test]
fn nonsense_ends_the_one_connection_only() {
    let volume = TestVolume::new(1 << 20);
    let at = serving(&volume);
    let mut good = Client::go(&at.socket, "disk");
    // In place of an option.
    let mut client = Client::greet(&at.socket, 3);
    client.send(&pattern(4096, 5));
    assert!(client.is_closed());
    // Flags that were not offered.
    assert!(Client::greet(&at.socket, 0xff00).is_closed());
    // An option of 4 GiB: an answer, then the end.
    let mut client = Client::greet(&at.socket, 3);
    client.send(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    assert_eq!(client.answer(7).kind, (1 << 31) + 9);
    assert!(client.is_closed());
    // An option whose data lies about its lengths.
    let mut client = Client::greet(&at.socket, 3);
    assert_eq!(client.ask(7, b"\xff\xff\xff\xffdisk")[0].kind, (1 << 31) + 3);
    assert_eq!(client.ask(6, b"\0\0\0\x04disk\0\x09\0")[0].kind, (1 << 31) + 3);
    assert_eq!(client.ask(6, b"\0\0\0\x02\xff\xfe\0\0")[0].kind, (1 << 31) + 3);
    // In place of a request, behind a good one.
    let mut client = Client::go(&at.socket, "disk");
    let mut bytes = request_bytes(0, WRITE, 8, 0, 4, b"good");
    bytes.extend(pattern(28, 1));
    client.send(&bytes);
    assert_eq!(client.reply(), (8, 0));
    assert!(client.is_closed());
    // A write that ends in the middle: nothing of it is done.
    let mut client = Client::go(&at.socket, "disk");
    client.send(&request_bytes(0, WRITE, 8, 4096, 300_000, &[1; 1000]));
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    assert_eq!(good.read(0, 8), b"good\0\0\0\0");
    assert_eq!(good.read(4096, 1000), [0; 1000]);
    at.server.shutdown(Duration::from_secs(20)).unwrap();
}
