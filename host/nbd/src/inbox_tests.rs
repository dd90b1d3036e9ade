// SPDX-License-Identifier: Apache-2.0
//! Requests come out whole, however their bytes arrive.

use super::*;
use crate::wire::Command;

const PERMISSION: Refused = Refused { errno: Errno::Perm, why: "no" };
const HEAD: usize = Headers::Simple.request_len();

fn request_bytes(command: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13, 0, 0];
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(0u64.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Receives at most `count` bytes, as a socket would hand them over.
fn receive(inbox: &mut Inbox, stream: &mut &[u8], count: usize) {
    let mut left = count.min(stream.len());
    let mut received = 0;
    for part in &mut inbox.space() {
        let len = left.min(part.len());
        part[..len].copy_from_slice(&stream[..len]);
        *stream = &stream[len..];
        received += len;
        left -= len;
    }
    inbox.received(received);
}

#[test]
fn requests_come_out_whole_in_any_pieces() {
    let lens = [0, 1, 100, 4096, 40_000, 3, 600_000, 0, 300_000, 5000, 5000];
    let mut stream = Vec::new();
    for (cookie, len) in lens.iter().enumerate() {
        stream.extend(request_bytes(1, cookie as u64, &vec![cookie as u8; *len]));
    }
    for piece in [1, 27, 28, 29, 4099, 262_144, 1 << 22] {
        let mut inbox = Inbox::new(Headers::Simple, &[]);
        let mut rest = &stream[..];
        let mut taken = 0;
        while taken < lens.len() {
            match inbox.next(|_| Admission::Take).unwrap() {
                Next::Request(request, data) => {
                    assert_eq!(request.cookie as usize, taken);
                    assert!(*data == *vec![taken as u8; lens[taken]], "in pieces of {piece}");
                    taken += 1;
                }
                _ => {
                    assert!(!rest.is_empty(), "in pieces of {piece}");
                    receive(&mut inbox, &mut rest, piece);
                }
            }
        }
        assert!(!inbox.within_request());
    }
}

#[test]
fn data_of_refused_requests_goes_by() {
    let mut stream = request_bytes(1, 1, &[1; 500_000]);
    stream.extend(request_bytes(1, 2, b"kept"));
    let mut rest = &stream[..];
    let mut inbox = Inbox::new(Headers::Simple, &[]);
    let refused = loop {
        match inbox.next(|_| Admission::Refuse(PERMISSION)).unwrap() {
            Next::Incomplete => receive(&mut inbox, &mut rest, 70_000),
            Next::Refused(request, PERMISSION) => break request,
            _ => panic!("it was refused"),
        }
    };
    assert_eq!(refused.cookie, 1);
    receive(&mut inbox, &mut rest, 70_000);
    let Next::Request(request, data) = inbox.next(|_| Admission::Take).unwrap() else {
        panic!("the next request is there");
    };
    assert_eq!((request.cookie, &data[..]), (2, &b"kept"[..]));
}

#[test]
fn a_request_that_waits_is_asked_again() {
    let mut inbox = Inbox::new(Headers::Simple, &request_bytes(0, 5, &[]));
    for _ in 0..2 {
        assert!(matches!(inbox.next(|_| Admission::Wait), Ok(Next::Waiting)));
    }
    let next = inbox.next(|request| {
        assert_eq!(request.command, Command::READ);
        Admission::Take
    });
    assert!(matches!(next, Ok(Next::Request(Request { cookie: 5, .. }, _))));
    assert!(matches!(
        Inbox::new(Headers::Simple, &[9; 28]).next(|_| Admission::Take),
        Err(BadMagic)
    ));
}

#[test]
fn large_data_is_received_in_place() {
    let mut inbox = Inbox::new(Headers::Simple, &request_bytes(1, 1, &[0; 1 << 20])[..HEAD]);
    assert!(matches!(inbox.next(|_| Admission::Take), Ok(Next::Incomplete)));
    let space = inbox.space();
    assert_eq!((space[0].len(), space[1].len()), (1 << 20, SMALL_WINDOW));
    let address = space[0].as_ptr();
    inbox.received(1 << 20);
    let Ok(Next::Request(_, data)) = inbox.next(|_| Admission::Take) else { panic!("complete") };
    assert_eq!(data.as_ptr(), address);
}

#[test]
fn room_grows_while_it_is_filled_and_shrinks_again() {
    let mut inbox = Inbox::new(Headers::Simple, &[]);
    let flood = request_bytes(0, 1, &[]).repeat(40_000);
    let mut rest = &flood[..];
    let mut rooms = Vec::new();
    while !rest.is_empty() {
        receive(&mut inbox, &mut rest, usize::MAX);
        rooms.push(inbox.buffer.len());
        while let Ok(Next::Request(..)) = inbox.next(|_| Admission::Take) {}
    }
    assert_eq!(rooms[..4], [64 << 10, 256 << 10, WINDOW, WINDOW]);
    inbox.shrink();
    assert_eq!(inbox.buffer.len(), FIRST_ROOM);
    // What lies there stays.
    let half = &request_bytes(0, 2, &[])[..20];
    receive(&mut inbox, &mut &*half, 20);
    inbox.shrink();
    receive(&mut inbox, &mut &request_bytes(0, 2, &[])[20..], 8);
    assert!(
        matches!(inbox.next(|_| Admission::Take), Ok(Next::Request(request, _)) if request.cookie == 2)
    );
}

#[test]
fn the_memory_of_data_counts_from_its_head_on() {
    let mut inbox = Inbox::new(Headers::Simple, &request_bytes(1, 1, &[7; 100_000])[..HEAD]);
    assert_eq!(inbox.body_len(), 0);
    assert!(matches!(inbox.next(|_| Admission::Take), Ok(Next::Incomplete)));
    assert_eq!(inbox.body_len(), 100_000);
    inbox.received(100_000);
    assert!(matches!(inbox.next(|_| Admission::Take), Ok(Next::Request(..))));
    assert_eq!(inbox.body_len(), 0);
}
