// SPDX-License-Identifier: Apache-2.0
use super::*;

#[test]
fn heap_buffers_are_aligned_zeroed_and_counted() {
    for len in [0, 1, 511, 4096, 4097, 1 << 20] {
        let mut buffer = IoBufMut::zeroed(len);
        assert!(buffer.iter().all(|&byte| byte == 0));
        if len >= IoBufMut::ALIGN {
            assert_eq!(buffer.as_ptr() as usize % IoBufMut::ALIGN, 0);
        }
        buffer.fill(7);
        let first = buffer.freeze();
        assert!(first.is_unique());
        let second = first.clone();
        assert!(!first.is_unique());
        drop(first);
        assert!(second.is_unique());
        assert!(second.iter().all(|&byte| byte == 7));
    }
}

#[test]
fn slices_share_the_owner() {
    let whole = IoBuf::copy_from(b"0123456789");
    let part = whole.slice(2, 3);
    drop(whole);
    assert_eq!(&*part, b"234");
    assert!(part.is_unique());
}

#[test]
#[should_panic(expected = "slice outside the buffer")]
fn a_slice_past_the_end_is_refused() {
    IoBuf::copy_from(b"0123").slice(3, 2);
}

#[test]
fn bytes_turn_into_buffers_and_back_without_a_copy() {
    let bytes = Bytes::from(vec![3u8; 8192]);
    let address = bytes.as_ptr();
    let buffer = IoBuf::from(bytes);
    assert_eq!(buffer.as_ptr(), address);
    let back = Bytes::from(buffer.clone());
    assert_eq!(back.as_ptr(), address);
    drop(buffer);
    assert_eq!(back[8191], 3);
}
