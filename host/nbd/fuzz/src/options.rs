// SPDX-License-Identifier: Apache-2.0
//! Options as a client makes them, and the answers as it reads them.

use arbitrary::{Result, Unstructured};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

pub const ACK: u32 = 1;

/// Names that mean something to the server, and some that do not.
const NAMES: [&str; 6] = ["", "disk", "coarse", "full", "nowhere", "d"];
const QUERIES: [&str; 6] =
    ["base:allocation", "base:", "novastor:size", "novastor:", "", "qemu:dirty-bitmap:a"];

/// The bytes of an option, likely a sound one.
pub fn option(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let code: u32 =
        if input.ratio(1, 8)? { input.arbitrary()? } else { input.int_in_range(1..=11)? };
    let data = match input.int_in_range(0..=9)? {
        0 => input.arbitrary()?,
        1..=3 => Vec::new(),
        kind => {
            let name = *input.choose(&NAMES)?;
            let mut data = Vec::new();
            if code != 1 {
                data.extend((name.len() as u32).to_be_bytes());
            }
            data.extend(name.as_bytes());
            match (kind, code) {
                (_, 1) => {}
                (_, 9 | 10) => {
                    let count = input.int_in_range(0..=4)?;
                    data.extend((count as u32).to_be_bytes());
                    for _ in 0..count {
                        let query = *input.choose(&QUERIES)?;
                        data.extend((query.len() as u32).to_be_bytes());
                        data.extend(query.as_bytes());
                    }
                }
                _ => {
                    let wanted: Vec<u16> = (0..input.int_in_range(0..=4)?)
                        .map(|_| input.int_in_range(0..=4))
                        .collect::<Result<_>>()?;
                    data.extend((wanted.len() as u16).to_be_bytes());
                    data.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
                }
            }
            data
        }
    };
    let len = if input.ratio(1, 16)? { input.arbitrary()? } else { data.len() as u32 };
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(code.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(data);
    Ok(bytes)
}

/// The code and length of the option at the front, if its head is complete and sound.
pub fn asked(input: &[u8]) -> Option<(u32, u32)> {
    let magic = u64::from_be_bytes(*input.first_chunk()?);
    let word = |at: usize| Some(u32::from_be_bytes(*input.get(at..)?.first_chunk()?));
    (magic == OPTION_MAGIC).then_some((word(8)?, word(12)?))
}

/// Cuts an answer off the front: the option that it answers, its kind, its data.
pub fn answer<'a>(output: &mut &'a [u8]) -> Option<(u32, u32, &'a [u8])> {
    let magic = u64::from_be_bytes(*output.first_chunk()?);
    let word = |at: usize| Some(u32::from_be_bytes(*output.get(at..)?.first_chunk()?));
    assert_eq!(magic, REPLY_MAGIC, "an answer without its magic number");
    let (option, kind, len) = (word(8)?, word(12)?, word(16)? as usize);
    let data = output.get(20..20 + len).expect("an answer is shorter than it says");
    *output = &output[20 + len..];
    Some((option, kind, data))
}
