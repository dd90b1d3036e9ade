// SPDX-License-Identifier: Apache-2.0
//! Bytes as the protocol document has them.

use super::*;

#[test]
fn the_greeting_is_the_documents() {
    let bytes = greeting(HandshakeFlags::FIXED_NEWSTYLE.and(HandshakeFlags::NO_ZEROES));
    assert_eq!(&bytes, b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn option_heads_are_read_only_when_complete() {
    let bytes = b"IHAVEOPT\0\0\0\x07\0\0\x01\x02rest";
    for len in 0..16 {
        assert_eq!(OptionHeader::decode(&bytes[..len]), None);
    }
    let header = OptionHeader { code: OptionCode::GO, len: 258 };
    assert_eq!(OptionHeader::decode(bytes), Some(Ok(header)));
    assert_eq!(OptionHeader::decode(b"IHAVEOPS\0\0\0\x07\0\0\0\0"), Some(Err(BadMagic)));
}

#[test]
fn requests_are_read_only_when_complete() {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13, 0, 3, 0, 6];
    bytes.extend(0x1122_3344_5566_7788_u64.to_be_bytes());
    bytes.extend(4096u64.to_be_bytes());
    bytes.extend(512u32.to_be_bytes());
    for len in 0..28 {
        assert_eq!(Request::decode(&bytes[..len], Headers::Simple), None);
    }
    let request = Request {
        flags: CommandFlags::FUA.and(CommandFlags::NO_HOLE),
        command: Command::WRITE_ZEROES,
        cookie: 0x1122_3344_5566_7788,
        offset: 4096,
        len: 512,
        payload: 0,
    };
    assert_eq!(Request::decode(&bytes, Headers::Simple), Some(Ok(request)));
    bytes[7] = 1;
    let write = Request { command: Command::WRITE, payload: 512, ..request };
    assert_eq!(Request::decode(&bytes, Headers::Structured), Some(Ok(write)));
    bytes[0] = 0;
    assert_eq!(Request::decode(&bytes, Headers::Simple), Some(Err(BadMagic)));
}

#[test]
fn extended_requests_have_long_lengths() {
    let mut bytes = b"\x21\xe4\x1c\x71\0\0\0\x04".to_vec();
    bytes.extend(5u64.to_be_bytes());
    bytes.extend(4096u64.to_be_bytes());
    bytes.extend((1u64 << 40).to_be_bytes());
    for len in 0..32 {
        assert_eq!(Request::decode(&bytes[..len], Headers::Extended), None);
    }
    let request = Request {
        flags: CommandFlags::NONE,
        command: Command::TRIM,
        cookie: 5,
        offset: 4096,
        len: 1 << 40,
        payload: 0,
    };
    assert_eq!(Request::decode(&bytes, Headers::Extended), Some(Ok(request)));
    assert_eq!(Request::decode(&bytes, Headers::Structured), Some(Err(BadMagic)));
    for (flags, command, payload) in
        [(0, 1, 1 << 40), (32, 1, 1 << 40), (32, 7, 1 << 40), (0, 7, 0), (32, 2, 0)]
    {
        (bytes[5], bytes[7]) = (flags, command);
        let Some(Ok(request)) = Request::decode(&bytes, Headers::Extended) else { panic!() };
        assert_eq!(request.payload, payload, "command {command}, flags {flags}");
    }
}

#[test]
fn a_choice_of_contexts_must_add_up() {
    let data = b"\0\0\0\0\0\0\x10\0\0\0\0\x01\0\0\0\x02";
    let payload = StatusPayload { len: 4096, ids: vec![1, 2] };
    assert_eq!(StatusPayload::decode(data), Some(payload));
    assert_eq!(StatusPayload::decode(&data[..15]), None);
    assert_eq!(StatusPayload::decode(&data[..7]), None);
}

#[test]
fn requests_for_contexts_must_add_up() {
    let good = b"\0\0\0\x01a\0\0\0\x02\0\0\0\x05base:\0\0\0\0";
    let request = ContextRequest { name: b"a", queries: vec![b"base:", b""] };
    assert_eq!(ContextRequest::decode(good), Some(request));
    for len in 0..good.len() {
        assert_eq!(ContextRequest::decode(&good[..len]), None, "{len} bytes");
    }
    assert_eq!(ContextRequest::decode(b"\0\0\0\0\xff\xff\xff\xff"), None, "no such count");
    assert_eq!(ContextRequest::decode(b"\0\0\0\0\0\0\0\0x"), None, "bytes are left over");
}

#[test]
fn answers_to_options_are_the_documents() {
    let mut out = Vec::new();
    option_reply(&mut out, OptionCode::LIST, ReplyType::SERVER, &server_entry("a"));
    let head = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x03\0\0\0\x02\0\0\0\x05";
    assert_eq!(out[..20], *head);
    assert_eq!(out[20..], *b"\0\0\0\x01a");
    assert_eq!(ReplyType::ERR_UNSUP.0, 0x8000_0001);
}

#[test]
fn the_old_reply_has_its_zeros_unless_waived() {
    for (client, len) in [(ClientFlags::NONE, 134), (ClientFlags::NO_ZEROES, 10)] {
        let mut out = Vec::new();
        export_name_reply(&mut out, 1 << 20, TransmissionFlags::HAS_FLAGS, client);
        assert_eq!(out.len(), len);
        assert_eq!(out[..10], *b"\0\0\0\0\0\x10\0\0\0\x01");
    }
}

#[test]
fn info_requests_must_add_up() {
    let good = b"\0\0\0\x01a\0\x02\0\x01\0\x03";
    let request = InfoRequest { name: b"a", wanted: vec![InfoType::NAME, InfoType::BLOCK_SIZE] };
    assert_eq!(InfoRequest::decode(good), Some(request));
    for len in 0..good.len() {
        assert_eq!(InfoRequest::decode(&good[..len]), None, "{len} bytes");
    }
    assert_eq!(InfoRequest::decode(b"\0\0\0\x01a\0\0x"), None, "bytes are left over");
    assert_eq!(InfoRequest::decode(b"\xff\xff\xff\xffa\0\0"), None, "the name is longer");
}
