// SPDX-License-Identifier: Apache-2.0
//! What a client is told before transmission.

use driver_api::{Abilities, Capabilities};

use crate::{
    client::{Client, info_data},
    serving, serving_with,
    volume::TestVolume,
};

const ERR_UNSUP: u32 = (1 << 31) + 1;
const ERR_UNKNOWN: u32 = (1 << 31) + 6;
const ERR_BLOCK_SIZE_REQD: u32 = (1 << 31) + 8;

#[test]
fn go_gives_size_flags_and_what_was_asked() {
    let at = serving(&TestVolume::new(1 << 20));
    let mut client = Client::greet(&at.socket, 3);
    let answers = client.ask(7, &info_data("disk", &[1, 2, 3]));
    let facts: Vec<_> = answers.iter().map(|answer| answer.data.clone()).collect();
    let mut export = vec![0, 0];
    export.extend((1u64 << 20).to_be_bytes());
    // flags, flush, FUA, trim, write zeroes, multi-conn, fast zero
    export.extend((1u16 | 4 | 8 | 32 | 64 | 256 | 2048).to_be_bytes());
    let sizes = [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 0x02, 0, 0, 0];
    assert_eq!(
        facts,
        [
            export,
            sizes.to_vec(),
            b"\x00\x01disk".to_vec(),
            b"\x00\x02test volume disk".to_vec(),
            vec![]
        ]
    );
    assert_eq!(client.read(0, 512), [0; 512]);
}

#[test]
fn flags_follow_the_capabilities() {
    let plain = TestVolume::with(4096, Capabilities::new(Abilities::WRITE));
    let reader = TestVolume::with(4096, Capabilities::new(Abilities::NONE));
    let made_reader = TestVolume::new(4096);
    made_reader.set_read_only();
    let exports = vec![("plain", plain), ("reader", reader), ("made-reader", made_reader)];
    let at = serving_with(exports, |_| {});
    assert_eq!(Client::go(&at.socket, "plain").flags, 1 | 4 | 8 | 256);
    assert_eq!(Client::go(&at.socket, "reader").flags, 1 | 2 | 4 | 256);
    assert_eq!(Client::go(&at.socket, "made-reader").flags, 1 | 2 | 4 | 256);
}

#[test]
fn options_are_answered_and_unknown_ones_skipped() {
    let volume = TestVolume::new(4096);
    let at = serving_with(vec![("a", volume.clone()), ("b", volume.clone())], |_| {});
    let mut client = Client::greet(&at.socket, 3);
    // PEEK_EXPORT, which was withdrawn, and two of the future, one with data.
    for (option, data) in [(4, &[][..]), (12, &[]), (999, &[7; 5000])] {
        assert_eq!(client.ask(option, data)[0].kind, ERR_UNSUP, "option {option}");
    }
    let names: Vec<_> = client.ask(3, &[]).into_iter().map(|answer| answer.data).collect();
    assert_eq!(names, [b"\0\0\0\x01a".to_vec(), b"\0\0\0\x01b".to_vec(), vec![]]);
    assert_eq!(client.ask(7, &info_data("c", &[]))[0].kind, ERR_UNKNOWN);
    assert_eq!(client.ask(6, &info_data("b", &[])).last().unwrap().kind, 1);
    assert_eq!(volume.leases(), 1, "what INFO opened waits for GO");
    assert_eq!(client.ask(7, &info_data("", &[1]))[2].data, b"\x00\x01a", "the default export");
    assert_eq!(volume.leases(), 1, "what INFO opened ended with the other choice");
    assert_eq!(client.read(0, 1), [0]);
    let mut leaving = Client::greet(&at.socket, 3);
    assert_eq!(leaving.ask(2, &[])[0].kind, 1);
    assert!(leaving.is_closed());
}

#[test]
fn the_old_way_to_choose_an_export_works() {
    let at = serving(&TestVolume::new(8192));
    for (flags, zeroes) in [(3, 0), (1, 124), (0, 124)] {
        let mut client = Client::greet(&at.socket, flags);
        client.send_option(1, b"disk");
        assert_eq!(client.take(8), 8192u64.to_be_bytes());
        client.take(2);
        assert_eq!(client.take(zeroes), vec![0; zeroes]);
        assert_eq!(client.read(0, 512), [0; 512]);
    }
    let mut client = Client::greet(&at.socket, 3);
    client.send_option(1, b"nothing");
    assert!(client.is_closed(), "this way knows no refusal");
}

#[test]
fn large_sectors_must_be_asked_for() {
    let mut capabilities = Capabilities::new(Abilities::WRITE);
    capabilities.min_block = 4096;
    let at = serving(&TestVolume::with(1 << 20, capabilities));
    let mut client = Client::greet(&at.socket, 3);
    assert_eq!(client.ask(7, &info_data("disk", &[]))[0].kind, ERR_BLOCK_SIZE_REQD);
    assert_eq!(client.ask(7, &info_data("disk", &[3])).last().unwrap().kind, 1);
}
