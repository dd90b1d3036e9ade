// SPDX-License-Identifier: Apache-2.0
//! What a hostile client says: a valid session, most often damaged somewhere, made from a seed and a number alone.

use crate::random::{Random, mix};

const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REQUEST: u32 = 0x2560_9513;
const EXTENDED_REQUEST: u32 = 0x21e4_1c71;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_LIST_META_CONTEXT: u32 = 9;
const OPT_SET_META_CONTEXT: u32 = 10;
const OPT_EXTENDED_HEADERS: u32 = 11;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;

/// Lengths that somebody may have forgotten to think of.
const ODD_LENGTHS: [u32; 12] = [
    0,
    1,
    511,
    513,
    0xffff,
    0x1_0001,
    32 << 20,
    (32 << 20) + 1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fe00,
    0xffff_ffff,
];
/// Options in a flood.
const FLOOD: usize = 300;

/// What one client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What it says.
    pub bytes: Vec<u8>,
    /// How many bytes it says at once.
    pub step: usize,
    /// Whether it fetches answers before it has said everything.
    pub reads: bool,
    /// Whether it leaves without waiting for the answers.
    pub leaves: bool,
}

impl Session {
    /// Session `number` of the series that `seed` begins; it writes to no other export than `export`.
    pub fn new(seed: u64, number: u64, export: &str) -> Self {
        let mut random = Random::new(mix(seed ^ mix(number)));
        let mut said = valid(&mut random, export);
        // One in eight stays as it is: what is answered then must not suffer from the others.
        if !random.once_in(8) {
            for _ in 0..=random.within(0..3) {
                damage(&mut random, &mut said);
            }
        }
        let bytes = said.concat();
        let slow = random.once_in(50);
        Self {
            step: if slow { 1 + bytes.len() / 40 } else { bytes.len().max(1) },
            reads: !random.once_in(10),
            leaves: random.once_in(3),
            bytes,
        }
    }

    /// A valid session, cut after every one of its bytes: each left at once, and each waited for.
    pub fn cut_everywhere(export: &str) -> Vec<Self> {
        let mut said = vec![3_u32.to_be_bytes().to_vec(), option(OPT_STRUCTURED_REPLY, &[])];
        said.push(option(OPT_SET_META_CONTEXT, &meta_data(export, &["base:allocation"])));
        said.push(option(OPT_LIST, &[]));
        said.push(option(OPT_INFO, &info_data(export, &[3])));
        said.push(option(OPT_GO, &info_data(export, &[3])));
        said.push(request(CMD_WRITE, 0, 0, 512));
        said.push(vec![9; 512]);
        for (command, len) in [(CMD_READ, 512), (CMD_FLUSH, 0), (4, 4096), (6, 4096), (7, 4096)] {
            said.push(request(command, 0, 0, len));
        }
        said.push(request(CMD_DISC, 0, 0, 0));
        let bytes = said.concat();
        let cut = |end: usize| {
            [false, true].map(|leaves| {
                let bytes = bytes[..end].to_vec();
                Self { step: end.max(1), bytes, reads: true, leaves }
            })
        };
        (0..=bytes.len()).flat_map(cut).collect()
    }
}

/// Messages of a client that follows the protocol, more or less likely ones.
fn valid(random: &mut Random, export: &str) -> Vec<Vec<u8>> {
    let flags = if random.once_in(10) { random.within(0..8) } else { 3 };
    let mut said = vec![u32::try_from(flags).unwrap_or(3).to_be_bytes().to_vec()];
    let mut extended = false;
    for _ in 0..random.within(0..5) {
        let name = if random.once_in(5) { "nowhere" } else { export };
        said.push(match random.within(0..9) {
            0 => option(OPT_LIST, &[]),
            1 => option(OPT_INFO, &info_data(name, &[0, 1, 2, 3])),
            2 | 3 => option(OPT_STRUCTURED_REPLY, &[]),
            4 => option(OPT_LIST_META_CONTEXT, &meta_data(name, &[])),
            5 => option(OPT_SET_META_CONTEXT, &meta_data(name, &["base:allocation", "base:", ""])),
            6 => {
                extended = true;
                option(OPT_EXTENDED_HEADERS, &[])
            }
            7 => option(u32::try_from(random.within(0..20)).unwrap_or_default(), &[0; 20]),
            _ => option(OPT_ABORT, &[]),
        });
    }
    said.push(match random.within(0..8) {
        0 => option(OPT_EXPORT_NAME, export.as_bytes()),
        1 => option(OPT_GO, &info_data("", &[])),
        2 => option(OPT_GO, &info_data(export, &[9, 3, 3])),
        _ => option(OPT_GO, &info_data(export, &[3])),
    });
    for _ in 0..random.within(0..24) {
        extend_by_request(random, extended, &mut said);
    }
    said
}

fn extend_by_request(random: &mut Random, extended: bool, said: &mut Vec<Vec<u8>>) {
    let command = match random.within(0..12) {
        0..=3 => CMD_READ,
        4..=6 => CMD_WRITE,
        7 => CMD_FLUSH,
        8 => u16::try_from(random.within(4..8)).unwrap_or_default(),
        9 => u16::try_from(random.number() & 0xffff).unwrap_or_default(),
        10 if random.once_in(4) => CMD_DISC,
        _ => 7,
    };
    let flags = if random.once_in(4) { random.number() as u16 & 0x3f } else { 0 };
    let len = match random.within(0..20) {
        0 => ODD_LENGTHS[random.within(0..ODD_LENGTHS.len() as u64) as usize],
        1 => random.within(1..200_000) as u32,
        _ => 512 * random.within(1..9) as u32,
    };
    let offset = match random.within(0..12) {
        0 => random.number(),
        1 => random.within(0..1 << 27),
        _ => 512 * random.within(0..16_000),
    };
    let make = if extended { extended_request } else { request };
    said.push(make(command, flags, offset, len));
    if command == CMD_WRITE {
        // Of what is announced as enormous only the beginning comes.
        said.push(vec![0x5a; len.min(256 << 10) as usize]);
    }
}

fn damage(random: &mut Random, said: &mut Vec<Vec<u8>>) {
    let at = random.within(0..said.len() as u64) as usize;
    let within = |random: &mut Random, message: &[u8]| {
        random.within(0..message.len().max(1) as u64) as usize
    };
    match random.within(0..10) {
        0 => {
            said.truncate(at + 1);
            let end = within(random, &said[at]);
            said[at].truncate(end);
        }
        1 | 2 => {
            let place = within(random, &said[at]);
            let value = random.number() as u8;
            if let Some(byte) = said[at].get_mut(place) {
                *byte = value;
            }
        }
        3 => {
            // In options and requests alike a length is among these words.
            let place = 4 * random.within(0..8) as usize;
            let odd = ODD_LENGTHS[random.within(0..ODD_LENGTHS.len() as u64) as usize];
            if let Some(word) = said[at].get_mut(place..place + 4) {
                word.copy_from_slice(&odd.to_be_bytes());
            }
        }
        4 => said.insert(at, garbage(random)),
        5 => *said = vec![garbage(random), garbage(random)],
        6 => {
            said.remove(at);
            if said.is_empty() {
                said.push(garbage(random));
            }
        }
        7 => {
            let again = said[at].clone();
            said.insert(at, again);
        }
        8 => said.swap(at, 0),
        _ => {
            let code = u32::try_from(random.within(0..16)).unwrap_or_default();
            let flood = option(code, &garbage(random)[..8]).repeat(FLOOD);
            said.insert(1.min(said.len()), flood);
        }
    }
}

fn garbage(random: &mut Random) -> Vec<u8> {
    (0..8 + random.within(0..400)).map(|_| random.number() as u8).collect()
}

/// The bytes of an option.
pub fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The data of `INFO` and `GO`.
pub fn info_data(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = text(name);
    data.extend(u16::try_from(wanted.len()).unwrap_or(u16::MAX).to_be_bytes());
    data.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = text(name);
    data.extend(u32::try_from(queries.len()).unwrap_or(u32::MAX).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| text(query)));
    data
}

fn text(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// The head of a request.
pub fn request(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = REQUEST.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(0xc00c_1e00_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

fn extended_request(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = EXTENDED_REQUEST.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(0xc00c_1e00_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(u64::from(len).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::Session;

    #[test]
    fn a_seed_and_a_number_give_their_session() {
        let sessions = |seed| (0..200).map(|n| Session::new(seed, n, "disk")).collect::<Vec<_>>();
        assert_eq!(sessions(1), sessions(1));
        assert_ne!(sessions(1), sessions(2));
        // Some are whole, and the others differ.
        let distinct: std::collections::BTreeSet<_> =
            sessions(1).into_iter().map(|session| session.bytes).collect();
        assert!(distinct.len() > 190);
    }

    #[test]
    fn every_cut_is_made_once_with_each_ending() {
        let cuts = Session::cut_everywhere("disk");
        let longest = cuts.last().map_or(0, |session| session.bytes.len());
        assert_eq!(cuts.len(), 2 * (longest + 1));
        assert!(longest > 800, "{longest}");
    }
}
