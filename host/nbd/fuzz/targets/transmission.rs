// SPDX-License-Identifier: Apache-2.0
//! Requests in any order, shape and pieces: each is answered once, with what the volume held, nothing else is
//! answered, and no more is in flight than the bounds allow.

#![no_main]

use std::collections::HashMap;

use arbitrary::{Result, Unstructured};
use driver_api::{Abilities, Capabilities};
use libfuzzer_sys::fuzz_target;
use nbd_fuzz::{
    answers::{Asked, Waiting},
    script::{self, Stream},
    volume::{Outcome, Volume},
};
use nbd_protocol::{
    MAX_PAYLOAD,
    contexts::{Context, Contexts},
    inbox::{Admission, Inbox, Next},
    replies::Replies,
    terms::Terms,
    wire::{Command, CommandFlags, Headers, Request},
};

/// What changes the terms.
const ABILITIES: [Abilities; 7] = [
    Abilities::WRITE,
    Abilities::FUA,
    Abilities::DISCARD,
    Abilities::WRITE_ZEROES,
    Abilities::FAST_ZERO,
    Abilities::PREFETCH,
    Abilities::ALLOCATION_MAP,
];
/// What a reply without data may take in the outbox.
const ANSWER: usize = 2048;

fuzz_target!(|data: &[u8]| {
    // Too short an input is no session.
    let _ = play(&mut Unstructured::new(data));
});

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let headers = *input.choose(&[Headers::Simple, Headers::Structured, Headers::Extended])?;
    let mut abilities = Abilities::NONE;
    for ability in ABILITIES {
        // Most of them, mostly: what is not offered is refused early.
        if input.ratio(7, 8)? {
            abilities = abilities.and(ability);
        }
    }
    let mut capabilities = Capabilities::new(abilities);
    capabilities.min_block = *input.choose(&[1, 512, 4096])?;
    capabilities.max_io = *input.choose(&[8192, 1 << 16, u32::MAX])?;
    let size = u64::from(capabilities.min_block) * input.int_in_range(1..=16)?;
    let mut terms = Terms::of(&capabilities, size, input.ratio(1, 8)?);
    let mut contexts = Contexts::NONE;
    for context in Context::ALL {
        if headers > Headers::Simple && context.fits(headers) && input.arbitrary()? {
            contexts.insert(context);
        }
    }
    terms.negotiated(headers, contexts);
    let bounds = (input.int_in_range(1..=6)?, *input.choose(&[1024, 1 << 14, 1 << 20])?);
    let turns: Vec<u8> =
        (0..input.int_in_range(0..=16)?).map(|_| input.arbitrary()).collect::<Result<_>>()?;
    let pieces = script::pieces(input)?;
    let (bytes, said) = if input.ratio(3, 4)? {
        let (mut bytes, mut said) = (Vec::new(), Vec::new());
        while !input.is_empty() {
            request(input, headers, size, &mut bytes, &mut said)?;
        }
        (bytes, Some(said))
    } else {
        (input.bytes(input.len())?.to_vec(), None)
    };
    let volume = Volume { terms, bytes: vec![0; size as usize] };
    let session = Session {
        headers,
        bounds,
        turns,
        turn: 0,
        volume,
        replies: Replies::new(headers),
        flight: Vec::new(),
        waiting: Waiting::default(),
        expected: HashMap::new(),
        output: Vec::new(),
        said,
        taken: 0,
    };
    session.play(Stream::new(bytes, pieces));
    Ok(())
}

/// A request as the script has it.
struct Said {
    asked: Asked,
    flags: u16,
    payload: u64,
}

/// The data of a write: each has its own.
fn pattern(cookie: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u64 ^ cookie.wrapping_mul(31)) as u8).collect()
}

fn request(
    input: &mut Unstructured<'_>,
    headers: Headers,
    size: u64,
    bytes: &mut Vec<u8>,
    said: &mut Vec<Said>,
) -> Result<()> {
    let extended = headers == Headers::Extended;
    let cookie = said.len() as u64;
    let command: u16 =
        if input.ratio(1, 16)? { input.arbitrary()? } else { input.int_in_range(0..=7)? };
    if command == 2 {
        // A good-bye ends the script; it is tried often enough by raw bytes.
        return Ok(());
    }
    let mut flags: u16 = if input.ratio(1, 4)? { input.int_in_range(0..=63)? } else { 0 };
    let (offset, mut len): (u64, u64) = match input.int_in_range(0..=7)? {
        0 => (input.arbitrary()?, input.arbitrary()?),
        1 => (input.arbitrary()?, u64::from(input.arbitrary::<u16>()?)),
        _ => {
            let offset = input.int_in_range(0..=size / 512)? * 512;
            (offset, input.int_in_range(0..=16)? * 512)
        }
    };
    let mut data = Vec::new();
    if command == 1 {
        // More than the stream may hold: the data never ends, which the raw bytes try.
        len = len.min(1 << 17);
        data = pattern(cookie, len as usize);
    } else if extended && flags & CommandFlags::PAYLOAD_LEN.0 != 0 {
        data = (len % size.max(1)).to_be_bytes().to_vec();
        for _ in 0..input.int_in_range(0..=3)? {
            data.extend(u32::to_be_bytes(input.int_in_range(0..=3)?));
        }
        len = data.len() as u64;
    } else if !extended {
        flags &= !CommandFlags::PAYLOAD_LEN.0;
    }
    bytes.extend(if extended { 0x21e4_1c71_u32 } else { 0x2560_9513 }.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    if extended {
        bytes.extend(len.to_be_bytes());
    } else {
        len &= u64::from(u32::MAX);
        bytes.extend((len as u32).to_be_bytes());
    }
    bytes.extend(&data);
    said.push(Said { asked: Asked { command, offset, len }, flags, payload: data.len() as u64 });
    Ok(())
}

/// The server's loop, with the client at its other end.
struct Session {
    headers: Headers,
    /// Operations and bytes in flight.
    bounds: (usize, usize),
    /// What happens next where more than one thing may.
    turns: Vec<u8>,
    turn: usize,
    volume: Volume,
    replies: Replies,
    flight: Vec<(Request, Outcome)>,
    waiting: Waiting,
    /// What reads must give.
    expected: HashMap<u64, Vec<u8>>,
    output: Vec<u8>,
    said: Option<Vec<Said>>,
    taken: usize,
}

impl Session {
    fn play(mut self, mut stream: Stream) {
        let mut inbox = Inbox::new(self.headers, &[]);
        let mut open = true;
        loop {
            let stalled = open && self.start(&mut inbox, &mut open);
            assert!(inbox.body_len() <= MAX_PAYLOAD as usize);
            let idle = self.flight.is_empty() && self.replies.outbox.is_empty();
            assert!(!(stalled && idle), "a request waits for nothing");
            self.work();
            if !open || stalled {
                if idle && !open {
                    break;
                }
                continue;
            }
            if !receive(&mut inbox, &mut stream) {
                open = false;
            }
        }
        assert!(self.output.is_empty(), "half a reply");
        assert!(self.waiting.is_empty(), "{} requests without a reply", self.waiting.len());
    }

    fn next_turn(&mut self) -> u8 {
        self.turn += 1;
        self.turns.get(self.turn % self.turns.len().max(1)).copied().unwrap_or_default()
    }

    fn used(&self) -> usize {
        let of = |(request, _): &(Request, Outcome)| cost(request);
        self.flight.iter().map(of).sum::<usize>() + self.replies.outbox.len()
    }

    /// Starts what has arrived. Whether a request waits for room.
    fn start(&mut self, inbox: &mut Inbox, open: &mut bool) -> bool {
        loop {
            let (used, operations, bounds) = (self.used(), self.flight.len(), self.bounds);
            assert!(operations <= bounds.0);
            assert!(used <= bounds.1 + MAX_PAYLOAD as usize + ANSWER);
            let volume = &self.volume;
            let next = inbox.next(|request| {
                let checked = volume.terms.check(request, volume.bytes.len() as u64);
                let more = if checked.is_ok() { cost(request) } else { ANSWER };
                let full = operations >= bounds.0 || used + more > bounds.1;
                match checked {
                    _ if request.command == Command::DISC => Admission::Take,
                    _ if used > 0 && full => Admission::Wait,
                    Ok(()) => Admission::Take,
                    Err(refused) => Admission::Refuse(refused),
                }
            });
            match next {
                Ok(Next::Incomplete) => return false,
                Ok(Next::Waiting) => return true,
                Ok(Next::Request(request, _)) if request.command == Command::DISC => {
                    *open = false;
                    return false;
                }
                Ok(Next::Request(request, payload)) => {
                    assert_eq!(payload.len() as u64, request.payload);
                    if !self.is_new(&request) {
                        *open = false;
                        return false;
                    }
                    if self.said.is_some() && request.command == Command::WRITE {
                        assert_eq!(*payload, *pattern(request.cookie, payload.len()));
                    }
                    self.begin(request, &payload);
                }
                Ok(Next::Refused(request, refused)) => {
                    if !self.is_new(&request) {
                        *open = false;
                        return false;
                    }
                    self.replies.failed(&request, refused.errno, refused.why);
                }
                Err(_) => {
                    assert!(self.said.is_none(), "a sound stream was not understood");
                    *open = false;
                    return false;
                }
            }
        }
    }

    /// Takes note of a request. False if raw bytes repeat a cookie, which no client does.
    fn is_new(&mut self, request: &Request) -> bool {
        let asked = Asked { command: request.command.0, offset: request.offset, len: request.len };
        match &self.said {
            Some(said) => {
                let said = &said[self.taken];
                assert_eq!((request.cookie, asked), (self.taken as u64, said.asked));
                assert_eq!((request.flags.0, request.payload), (said.flags, said.payload));
            }
            None if self.waiting.contains(request.cookie) => return false,
            None => {}
        }
        self.taken += 1;
        self.waiting.ask(request.cookie, asked);
        true
    }

    fn begin(&mut self, request: Request, payload: &[u8]) {
        let turn = self.next_turn();
        let sparsely =
            turn & 1 == 1 && self.headers > Headers::Simple && !request.flags.has(CommandFlags::DF);
        let outcome = self.volume.serve(&request, payload, sparsely);
        if let Outcome::Data(data) | Outcome::Sparse(data) = &outcome {
            self.expected.insert(request.cookie, data.clone());
        }
        if turn & 2 == 2 {
            self.flight.push((request, outcome));
        } else {
            self.volume.reply(&mut self.replies, &request, outcome);
        }
    }

    /// An operation in flight ends, or the client fetches something.
    fn work(&mut self) {
        let turn = self.next_turn();
        if !self.flight.is_empty() && (turn & 4 == 4 || self.replies.outbox.is_empty()) {
            let index = usize::from(turn >> 3) % self.flight.len();
            let (request, outcome) = self.flight.swap_remove(index);
            self.volume.reply(&mut self.replies, &request, outcome);
        } else if !self.replies.outbox.is_empty() {
            self.fetch(if turn & 8 == 8 { usize::MAX } else { 1 + usize::from(turn) });
        }
    }

    fn fetch(&mut self, most: usize) {
        let before = self.output.len();
        let (slices, count) = self.replies.outbox.slices();
        for slice in &slices[..count] {
            let left = most - (self.output.len() - before);
            self.output.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        let fetched = self.output.len() - before;
        assert!(fetched > 0 && fetched <= self.replies.outbox.len());
        self.replies.outbox.advance(fetched);
        while let Some(answer) = self.waiting.read(&mut self.output) {
            let Some((cookie, answer)) = answer else { continue };
            let expected = self.expected.remove(&cookie);
            assert!(answer.failed || answer.data == expected, "other data than the volume held");
        }
    }
}

/// What an operation counts for.
fn cost(request: &Request) -> usize {
    match request.command {
        Command::READ | Command::WRITE => request.len as usize + ANSWER,
        _ => ANSWER,
    }
}

/// False at the end of the stream.
fn receive(inbox: &mut Inbox, stream: &mut Stream) -> bool {
    let mut received = 0;
    for part in &mut inbox.space() {
        if part.is_empty() {
            continue;
        }
        let piece = stream.receive(part.len());
        part[..piece.len()].copy_from_slice(piece);
        received += piece.len();
        if piece.len() < part.len() {
            break;
        }
    }
    inbox.received(received);
    received > 0
}
