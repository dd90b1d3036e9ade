// SPDX-License-Identifier: Apache-2.0
//! What goes in comes out, in order, however little is sent at a time.

use super::*;

#[test]
fn bytes_leave_in_order_in_any_pieces() {
    for piece in [7, 16, 1000, 20_000, 1 << 20] {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        let mut sent = Vec::new();
        for turn in 0..60usize {
            let len = if turn.is_multiple_of(3) { BY_REFERENCE + turn } else { turn * 10 };
            let data = vec![turn as u8; len];
            outbox.push_with(&[turn as u8; 16], IoBuf::copy_from(&data));
            expected.extend([turn as u8; 16]);
            expected.extend(data);
            if turn.is_multiple_of(5) {
                send_up_to(&mut outbox, piece, &mut sent);
            }
        }
        while !outbox.is_empty() {
            send_up_to(&mut outbox, piece, &mut sent);
        }
        assert!(sent == expected, "in pieces of {piece}");
        assert!(outbox.bytes.is_empty() && outbox.chunks.is_empty());
    }
}

fn send_up_to(outbox: &mut Outbox, count: usize, sent: &mut Vec<u8>) {
    let (slices, used) = outbox.slices();
    let mut part = 0;
    for slice in &slices[..used] {
        let taken = slice.len().min(count - part);
        sent.extend(&slice[..taken]);
        part += taken;
    }
    let before = outbox.len();
    outbox.advance(part);
    assert_eq!(outbox.len(), before - part);
}

#[test]
fn large_data_is_not_copied() {
    let mut outbox = Outbox::default();
    let data = IoBuf::copy_from(&vec![1; BY_REFERENCE]);
    outbox.push_with(&[0; 16], data.clone());
    let (slices, used) = outbox.slices();
    assert_eq!(used, 2);
    assert_eq!(slices[1].as_ptr(), data.as_ptr());
    outbox.clear();
    assert!(outbox.is_empty() && data.is_unique());
}

#[test]
fn a_reader_that_never_catches_up_does_not_grow_the_buffer() {
    let mut outbox = Outbox::default();
    outbox.push(&[0; 4096]);
    for _ in 0..2000 {
        outbox.push(&[0; 4096]);
        outbox.advance(4096);
    }
    assert_eq!(outbox.len(), 4096);
    assert!(outbox.bytes.len() <= COMPACT_AT + 8192);
}
