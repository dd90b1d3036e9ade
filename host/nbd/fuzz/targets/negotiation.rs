// SPDX-License-Identifier: Apache-2.0
//! Options in any order and shape: every one that is whole gets answers of its own with one end, nothing is opened
//! twice at once, and what is chosen is what transmission begins with.

#![no_main]

use std::{cell::Cell, rc::Rc};

use arbitrary::{Result, Unstructured};
use driver_api::{Abilities, Capabilities, Error, ErrorKind};
use libfuzzer_sys::fuzz_target;
use nbd_fuzz::{options, script};
use nbd_protocol::{
    negotiate::{MAX_OPTION_LEN, Negotiation, Offer, Opened, Step, Tls},
    terms::Terms,
    wire::Headers,
};

/// What an answer to one option may take: a list of exports, or all facts with a name of 4096 bytes.
const MOST_OUTPUT: usize = 16 << 10;

fuzz_target!(|data: &[u8]| {
    // Too short an input is no session.
    let _ = play(&mut Unstructured::new(data));
});

/// An open export; the source counts them.
struct Lease {
    open: Rc<Cell<usize>>,
    min_block: u32,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

struct Source {
    open: Rc<Cell<usize>>,
}

impl Offer for Source {
    type Export = Lease;

    fn list(&mut self) -> Vec<String> {
        ["disk", "coarse", "full"].map(str::to_owned).to_vec()
    }

    fn find(&mut self, name: &str) -> driver_api::Result<()> {
        if ["", "disk", "coarse", "full"].contains(&name) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NOT_FOUND, "no such export"))
    }

    fn open(&mut self, name: &str) -> driver_api::Result<Opened<Lease>> {
        self.find(name)?;
        if name == "full" {
            return Err(Error::new(ErrorKind::NO_SPACE, "there are as many as allowed"));
        }
        assert_eq!(self.open.get(), 0, "an export is opened while another is open");
        self.open.set(1);
        let min_block = if name == "coarse" { 4096 } else { 1 };
        let export = Lease { open: Rc::clone(&self.open), min_block };
        Ok(Opened { export, name: name.to_owned(), description: "text".to_owned() })
    }

    fn terms(&mut self, export: &Lease) -> driver_api::Result<Terms> {
        let mut capabilities = Capabilities::new(Abilities::WRITE);
        capabilities.min_block = export.min_block;
        Ok(Terms::of(&capabilities, 1 << 20, false))
    }
}

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let tls = *input.choose(&[Tls::Off, Tls::Off, Tls::Offer, Tls::Require, Tls::On])?;
    let pieces = script::pieces(input)?;
    let bytes = if input.arbitrary()? {
        let flags: u32 = if input.ratio(1, 16)? { input.arbitrary()? } else { 3 };
        let mut bytes = flags.to_be_bytes().to_vec();
        while !input.is_empty() {
            bytes.extend(options::option(input)?);
        }
        bytes
    } else {
        input.bytes(input.len())?.to_vec()
    };
    converse(tls, script::Stream::new(bytes, pieces));
    Ok(())
}

/// The server's loop, held to the protocol at every step.
fn converse(tls: Tls, mut stream: script::Stream) {
    let open = Rc::new(Cell::new(0));
    let mut source = Source { open: Rc::clone(&open) };
    let mut negotiation = Negotiation::new(tls);
    let (mut greeted, mut headers) = (false, Headers::Simple);
    let mut input = Vec::new();
    loop {
        let mut out = Vec::new();
        let (taken, step) = negotiation.step(&input, &mut source, &mut out);
        assert!(taken <= input.len() && out.len() <= MOST_OUTPUT);
        let asked = if greeted { options::asked(&input) } else { None };
        match step {
            Step::NeedInput => {
                assert_eq!((taken, out.len()), (0, 0), "nothing is taken of what is not whole");
                assert!(input.len() < 16 + MAX_OPTION_LEN as usize, "no option is that long");
                let piece = stream.receive(1024);
                if piece.is_empty() {
                    break;
                }
                input.extend_from_slice(piece);
                continue;
            }
            Step::Answered if !greeted => {
                assert_eq!((taken, out.len()), (4, 0));
                greeted = true;
            }
            Step::Answered | Step::StartTls => {
                let (code, len) = asked.expect("no option was asked");
                assert_eq!(taken, 16 + len as usize);
                let acknowledged = check_answers(&out, code);
                match code {
                    _ if !acknowledged => {}
                    8 => headers = headers.max(Headers::Structured),
                    11 => headers = Headers::Extended,
                    _ => {}
                }
                if matches!(step, Step::StartTls) {
                    assert!(code == 5 && acknowledged && tls != Tls::Off && tls != Tls::On);
                    negotiation = negotiation.encrypted();
                    headers = Headers::Simple;
                } else {
                    assert!(code != 7 || !acknowledged, "GO is acknowledged and nothing served");
                }
            }
            Step::Serve(lease, terms) => {
                let (code, _) = asked.expect("no option was asked");
                match code {
                    7 => assert!(check_answers(&out, code)),
                    _ => assert!(code == 1 && (out.len() == 10 || out.len() == 134)),
                }
                assert_eq!(terms.headers, headers, "as it was acknowledged");
                assert!(terms.contexts.is_empty() || headers > Headers::Simple);
                assert_eq!(open.get(), 1);
                drop(lease);
                break;
            }
            Step::Close(_) => break,
        }
        input.drain(..taken);
    }
    drop(negotiation);
    assert_eq!(open.get(), 0, "an export stays open");
}

/// Whether the option was acknowledged. All answers are to it, and only the last one ends it.
fn check_answers(mut out: &[u8], code: u32) -> bool {
    let mut ended = None;
    while !out.is_empty() {
        let (option, kind, _) = options::answer(&mut out).expect("half an answer");
        assert_eq!((option, ended), (code, None), "an answer to something else, or after the end");
        if kind == options::ACK || kind >= 1 << 31 {
            ended = Some(kind == options::ACK);
        }
    }
    ended.expect("answers without an end")
}
