// SPDX-License-Identifier: Apache-2.0
//! Messages in pieces and refusals; whole negotiations are tested over a socket in `tests/nbd`.

use driver_api::{Abilities, Capabilities};

use super::*;

/// Has one export, whose size is what is in it.
struct One(u64);

impl Offer for One {
    type Export = ();

    fn list(&mut self) -> Vec<String> {
        vec!["shown".into()]
    }

    fn find(&mut self, name: &str) -> Result<()> {
        if name == "shown" {
            return Ok(());
        }
        let kind =
            if name == "secret" { ErrorKind::PERMISSION_DENIED } else { ErrorKind::NOT_FOUND };
        Err(Error::new(kind, "not for you"))
    }

    fn open(&mut self, name: &str) -> Result<Opened<()>> {
        self.find(name)?;
        Ok(Opened { export: (), name: name.into(), description: String::new() })
    }

    fn terms(&mut self, (): &()) -> Result<Terms> {
        let capabilities = Capabilities::new(Abilities::WRITE.and(Abilities::ALLOCATION_MAP));
        Ok(Terms::of(&capabilities, self.0, false))
    }
}

fn step(negotiation: &mut Negotiation<()>, input: &[u8]) -> (usize, Step<()>, Vec<u8>) {
    let mut out = Vec::new();
    let (taken, step) = negotiation.step(input, &mut One(1 << 20), &mut out);
    (taken, step, out)
}

fn greeted() -> Negotiation<()> {
    let mut negotiation = Negotiation::new(Tls::Offer);
    assert!(matches!(step(&mut negotiation, &[0, 0, 0, 3]), (4, Step::Answered, _)));
    negotiation
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The type of the last answer in `out`, which has no data.
fn refusal(out: &[u8]) -> u32 {
    u32::from_be_bytes(*out[12..].first_chunk().unwrap())
}

#[test]
fn a_message_is_taken_whole_or_not_at_all() {
    let mut negotiation = Negotiation::new(Tls::Offer);
    assert!(matches!(step(&mut negotiation, &[0, 0, 0]), (0, Step::NeedInput, _)));
    let mut negotiation = greeted();
    let mut bytes = option(999, b"data");
    for len in 0..bytes.len() {
        let (taken, next, out) = step(&mut negotiation, &bytes[..len]);
        assert!(taken == 0 && matches!(next, Step::NeedInput) && out.is_empty());
    }
    let len = bytes.len();
    bytes.extend(b"IHAVE");
    let (taken, next, out) = step(&mut negotiation, &bytes);
    assert!(taken == len && matches!(next, Step::Answered));
    assert_eq!(refusal(&out), ReplyType::ERR_UNSUP.0);
}

#[test]
fn refusals_say_why() {
    let info = |name: &[u8]| {
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend(name);
        data.extend([0, 0]);
        option(7, &data)
    };
    let cases = [
        (info(b"unknown"), ReplyType::ERR_UNKNOWN),
        (info(b"secret"), ReplyType::ERR_POLICY),
        (info(&[b'x'; 4097]), ReplyType::ERR_TOO_BIG),
        (info(b"\xff"), ReplyType::ERR_INVALID),
        (option(7, b"short"), ReplyType::ERR_INVALID),
        (option(3, b"data"), ReplyType::ERR_INVALID),
    ];
    let mut negotiation = greeted();
    for (bytes, kind) in cases {
        let (taken, next, out) = step(&mut negotiation, &bytes);
        assert!(taken == bytes.len() && matches!(next, Step::Answered));
        assert_eq!(refusal(&out), kind.0);
    }
}

#[test]
fn what_cannot_be_followed_ends_the_connection() {
    let mut strange = Negotiation::new(Tls::Offer);
    assert!(matches!(step(&mut strange, &[0, 0, 0, 4]).1, Step::Close(Closing::Nonsense(_))));
    let (_, next, out) = step(&mut greeted(), b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    assert!(matches!(next, Step::Close(Closing::Nonsense(_))));
    assert_eq!(refusal(&out), ReplyType::ERR_TOO_BIG.0);
    let (_, next, _) = step(&mut greeted(), &[7; 16]);
    assert!(matches!(next, Step::Close(Closing::Nonsense(_))));
    let (_, next, out) = step(&mut greeted(), &option(1, b"unknown"));
    assert!(matches!(next, Step::Close(Closing::NoExport(_))) && out.is_empty());
    let (_, next, out) = step(&mut greeted(), &option(2, b""));
    assert!(matches!(next, Step::Close(Closing::Aborted)));
    assert_eq!(refusal(&out), ReplyType::ACK.0);
}

/// A name, a count of bytes 32 bits wide before it.
fn counted(name: &[u8]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name);
    data
}

fn contexts(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| counted(query)));
    data
}

fn go(name: &[u8]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend([0, 0]);
    option(7, &data)
}

/// The types of all answers in `out`.
fn answers(mut out: &[u8]) -> Vec<ReplyType> {
    let mut kinds = Vec::new();
    while !out.is_empty() {
        kinds.push(ReplyType(refusal(out)));
        let len = u32::from_be_bytes(*out[16..].first_chunk().unwrap()) as usize;
        out = &out[20 + len..];
    }
    kinds
}

#[test]
fn contexts_need_structured_replies_and_hold_for_their_export() {
    let mut negotiation = greeted();
    let set = option(10, &contexts(b"shown", &[b"base:allocation", b"novastor:size", b"other:x"]));
    let (_, _, out) = step(&mut negotiation, &set);
    assert_eq!(answers(&out), [ReplyType::ERR_INVALID]);
    let (_, _, out) = step(&mut negotiation, &option(8, b""));
    assert_eq!(answers(&out), [ReplyType::ACK]);
    let (_, _, out) = step(&mut negotiation, &set);
    assert_eq!(answers(&out), [ReplyType::META_CONTEXT, ReplyType::ACK]);
    let (_, Step::Serve((), terms), _) = step(&mut negotiation, &go(b"shown")) else { panic!() };
    assert!(terms.contexts.has(Context::Allocation) && !terms.contexts.has(Context::Size));
    assert!(terms.flags.has(TransmissionFlags::SEND_DF));

    for (code, kind) in
        [(11, ReplyType::ACK), (11, ReplyType::ERR_INVALID), (8, ReplyType::ERR_EXT_HEADER_REQD)]
    {
        let (_, _, out) = step(&mut negotiation, &option(code, b""));
        assert_eq!(answers(&out), [kind]);
    }
    let (_, _, out) = step(&mut negotiation, &set);
    assert_eq!(answers(&out), [ReplyType::META_CONTEXT, ReplyType::META_CONTEXT, ReplyType::ACK]);
    let (_, _, out) = step(&mut negotiation, &option(10, &contexts(b"unknown", &[])));
    assert_eq!(answers(&out), [ReplyType::ERR_UNKNOWN]);
    let (_, Step::Serve((), terms), _) = step(&mut negotiation, &go(b"shown")) else { panic!() };
    assert!(terms.contexts.is_empty(), "a failed choice leaves none");
    let (_, next, _) = step(&mut negotiation, &option(1, b"shown"));
    assert!(matches!(next, Step::Close(Closing::NoExport(_))), "the old way has no long headers");
}

#[test]
fn contexts_are_listed_by_name_and_namespace() {
    let mut negotiation = greeted();
    step(&mut negotiation, &option(11, b""));
    for (queries, found) in [
        (&[][..], 2),
        (&[&b"base:"[..]], 1),
        (&[b"novastor:"], 1),
        (&[b"base:allocation"], 1),
        (&[b"base"], 0),
        (&[b"qemu:"], 0),
    ] {
        let (_, _, out) = step(&mut negotiation, &option(9, &contexts(b"shown", queries)));
        assert_eq!(answers(&out).len(), found + 1, "{queries:?}");
    }
}

#[test]
fn tls_comes_first_where_it_is_required_and_forgets_what_came_before() {
    let mut negotiation = Negotiation::new(Tls::Require);
    step(&mut negotiation, &[0, 0, 0, 3]);
    for code in [3, 6, 7, 8, 9, 10, 11, 99] {
        let (_, _, out) = step(&mut negotiation, &option(code, b""));
        assert_eq!(answers(&out), [ReplyType::ERR_TLS_REQD]);
    }
    let (_, next, _) = step(&mut negotiation, &option(1, b"shown"));
    assert!(matches!(next, Step::Close(Closing::NoExport(_))));
    let (_, next, out) = step(&mut negotiation, &option(5, b"data"));
    assert!(matches!(next, Step::Answered) && answers(&out) == [ReplyType::ERR_INVALID]);
    let (_, next, out) = step(&mut negotiation, &option(5, b""));
    assert!(matches!(next, Step::StartTls) && answers(&out) == [ReplyType::ACK]);
    let mut negotiation = negotiation.encrypted();
    let (_, _, out) = step(&mut negotiation, &option(5, b""));
    assert_eq!(answers(&out), [ReplyType::ERR_INVALID]);
    assert!(matches!(step(&mut negotiation, &go(b"shown")).1, Step::Serve(..)));

    let mut negotiation = greeted();
    step(&mut negotiation, &option(11, b""));
    let mut negotiation = negotiation.encrypted();
    let (_, _, out) = step(&mut negotiation, &option(8, b""));
    assert_eq!(answers(&out), [ReplyType::ACK], "headers are chosen anew");
    let mut negotiation = Negotiation::new(Tls::Off);
    step(&mut negotiation, &[0, 0, 0, 3]);
    let (_, _, out) = step(&mut negotiation, &option(5, b""));
    assert_eq!(answers(&out), [ReplyType::ERR_POLICY]);
}

#[test]
fn a_server_that_ends_says_so_to_every_option() {
    for tls in [Tls::Offer, Tls::Require] {
        let mut negotiation = Negotiation::new(tls);
        step(&mut negotiation, &[0, 0, 0, 3]);
        negotiation.shut_down();
        for code in [3, 5, 6, 7, 8, 9, 10, 11, 99] {
            let (_, next, out) = step(&mut negotiation, &option(code, b"\0\0\0\x05shown\0\0"));
            assert!(matches!(next, Step::Answered), "{code}");
            assert_eq!(refusal(&out), ReplyType::ERR_SHUTDOWN.0, "{code}");
        }
        let mut encrypted = negotiation.encrypted();
        assert_eq!(refusal(&step(&mut encrypted, &option(3, b"")).2), ReplyType::ERR_SHUTDOWN.0);
        let chosen = step(&mut encrypted, &option(1, b"shown")).1;
        assert!(matches!(chosen, Step::Close(Closing::NoExport(_))));
        assert!(matches!(step(&mut encrypted, &option(2, b"")).1, Step::Close(Closing::Aborted)));
    }
}

#[test]
fn go_tells_the_size_of_now_whatever_info_said() {
    let mut negotiation = greeted();
    let mut info = go(b"shown");
    info[11] = 6;
    let mut out = Vec::new();
    let (_, next) = negotiation.step(&info, &mut One(4096), &mut out);
    assert!(matches!(next, Step::Answered));
    let (_, next) = negotiation.step(&go(b"shown"), &mut One(8192), &mut out);
    assert!(matches!(next, Step::Serve((), Terms { size: 8192, .. })));
}
