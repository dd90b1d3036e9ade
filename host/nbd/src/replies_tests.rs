// SPDX-License-Identifier: Apache-2.0
//! Replies as the protocol document has them, in each form.

use super::*;
use crate::wire::{Command, CommandFlags};

const REQUEST: Request = Request {
    flags: CommandFlags::NONE,
    command: Command::READ,
    cookie: 2,
    offset: 4096,
    len: 8192,
    payload: 0,
};

fn sent(headers: Headers, write: impl FnOnce(&mut Replies)) -> Vec<u8> {
    let mut replies = Replies::new(headers);
    write(&mut replies);
    let (slices, count) = replies.outbox.slices();
    slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
}

fn structured(last: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x66, 0x8e, 0x33, 0xef, 0, last.into()];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(2u64.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn extended(last: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x6e, 0x8a, 0x27, 0x8c, 0, last.into()];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(2u64.to_be_bytes());
    bytes.extend(4096u64.to_be_bytes());
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn a_reply_without_data() {
    let done = |headers| sent(headers, |replies| replies.done(&REQUEST));
    assert_eq!(done(Headers::Simple), b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x02");
    assert_eq!(done(Headers::Structured), structured(true, 0, b""));
    assert_eq!(done(Headers::Extended), extended(true, 0, b""));
}

#[test]
fn an_error_has_its_text_where_there_is_room_for_one() {
    let failed = |headers| sent(headers, |replies| replies.failed(&REQUEST, Errno::NoSpc, "full"));
    assert_eq!(failed(Headers::Simple), b"\x67\x44\x66\x98\0\0\0\x1c\0\0\0\0\0\0\0\x02");
    let payload = b"\0\0\0\x1c\0\x04full";
    assert_eq!(failed(Headers::Structured), structured(true, 0x8001, payload));
    assert_eq!(failed(Headers::Extended), extended(true, 0x8001, payload));
    let long = "ä".repeat(MAX_TEXT);
    let cut = sent(Headers::Structured, |replies| replies.failed(&REQUEST, Errno::Io, &long));
    assert_eq!(cut.len(), 20 + 6 + MAX_TEXT);
}

#[test]
fn data_has_its_offset_where_replies_have_chunks() {
    let data = |headers| sent(headers, |replies| replies.data(&REQUEST, IoBuf::copy_from(b"data")));
    assert_eq!(data(Headers::Simple)[16..], *b"data");
    let payload = b"\0\0\0\0\0\0\x10\0data";
    assert_eq!(data(Headers::Structured), structured(true, 1, payload));
    assert_eq!(data(Headers::Extended), extended(true, 1, payload));
}

#[test]
fn zeros_are_told_and_not_sent() {
    let runs = [Run { zero: true, until: 8192 }, Run { zero: false, until: 12288 }];
    let data = IoBuf::copy_from(&[7; 4096]);
    let bytes = sent(Headers::Structured, |replies| replies.sparse(&REQUEST, &runs, 8192, &data));
    let mut expected = structured(false, 2, b"\0\0\0\0\0\0\x10\0\0\0\x10\0");
    let mut payload = 8192u64.to_be_bytes().to_vec();
    payload.extend([7; 4096]);
    expected.extend(structured(true, 1, &payload));
    assert!(bytes == expected);
}

#[test]
fn each_context_has_its_chunk() {
    let known = [
        (Context::Allocation, vec![Status { len: 4096, flags: 3 }, Status { len: 4096, flags: 0 }]),
        (Context::Size, vec![Status { len: 8192, flags: 1 << 40 }]),
    ];
    let bytes = sent(Headers::Structured, |replies| replies.status(&REQUEST, &known[..1]));
    let payload = b"\0\0\0\x01\0\0\x10\0\0\0\0\x03\0\0\x10\0\0\0\0\0";
    assert_eq!(bytes, structured(true, 5, payload));
    let bytes = sent(Headers::Extended, |replies| replies.status(&REQUEST, &known));
    let mut first = b"\0\0\0\x01\0\0\0\x02".to_vec();
    for number in [4096u64, 3, 4096, 0] {
        first.extend(number.to_be_bytes());
    }
    let mut second = b"\0\0\0\x02\0\0\0\x01".to_vec();
    second.extend(8192u64.to_be_bytes());
    second.extend((1u64 << 40).to_be_bytes());
    let mut expected = extended(false, 6, &first);
    expected.extend(extended(true, 6, &second));
    assert_eq!(bytes, expected);
}
