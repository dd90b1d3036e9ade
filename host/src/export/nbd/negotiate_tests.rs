// SPDX-License-Identifier: Apache-2.0
//! Messages in pieces and refusals; whole negotiations are tested over a socket in `tests/nbd`.

use super::*;

/// Has no export.
struct Nothing;

impl Offer for Nothing {
    fn list(&mut self) -> Vec<String> {
        vec!["shown".into()]
    }

    fn open(&mut self, name: &str) -> Result<Export> {
        let kind =
            if name == "secret" { ErrorKind::PERMISSION_DENIED } else { ErrorKind::NOT_FOUND };
        Err(Error::new(kind, "not for you"))
    }
}

fn step(negotiation: &mut Negotiation, input: &[u8]) -> (usize, Step, Vec<u8>) {
    let mut out = Vec::new();
    let (taken, step) = negotiation.step(input, &mut Nothing, &mut out);
    (taken, step, out)
}

fn greeted() -> Negotiation {
    let mut negotiation = Negotiation::default();
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
    let mut negotiation = Negotiation::default();
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
    let mut strange = Negotiation::default();
    assert!(matches!(step(&mut strange, &[0, 0, 0, 4]).1, Step::Close(Closing::Nonsense(_))));
    let (_, next, out) = step(&mut greeted(), b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    assert!(matches!(next, Step::Close(Closing::Nonsense(_))));
    assert_eq!(refusal(&out), ReplyType::ERR_TOO_BIG.0);
    let (_, next, _) = step(&mut greeted(), &[7; 16]);
    assert!(matches!(next, Step::Close(Closing::Nonsense(_))));
    let (_, next, out) = step(&mut greeted(), &option(1, b"unknown"));
    assert!(matches!(next, Step::Close(Closing::NoExport)) && out.is_empty());
    let (_, next, out) = step(&mut greeted(), &option(2, b""));
    assert!(matches!(next, Step::Close(Closing::Aborted)));
    assert_eq!(refusal(&out), ReplyType::ACK.0);
}
