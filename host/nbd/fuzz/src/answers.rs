// SPDX-License-Identifier: Apache-2.0
//! Replies as a client reads them, and whether they fit what it asked.

use std::collections::HashMap;

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const EXTENDED: u32 = 0x6e8a_278c;
const LAST: u16 = 1;

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The command's number.
    pub command: u16,
    pub offset: u64,
    pub len: u64,
}

/// What has come of one reply so far.
struct Coming {
    asked: Asked,
    /// What has come of a read: byte for byte, if it did.
    data: Vec<Option<u8>>,
    statuses: usize,
    chunks: usize,
}

/// A reply that is complete.
#[derive(Debug)]
pub struct Answer {
    pub asked: Asked,
    /// The data of a read that succeeded.
    pub data: Option<Vec<u8>>,
    pub failed: bool,
}

/// Requests that are not answered yet, by their cookies.
#[derive(Default)]
pub struct Waiting(HashMap<u64, Coming>);

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.number().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.number().map(u64::from_be_bytes)
    }
}

impl Waiting {
    /// Takes note of a request.
    pub fn ask(&mut self, cookie: u64, asked: Asked) {
        let data = if asked.command == 0 {
            vec![None; asked.len.min(1 << 20) as usize]
        } else {
            Vec::new()
        };
        let coming = Coming { asked, data, statuses: 0, chunks: 0 };
        assert!(self.0.insert(cookie, coming).is_none(), "the script repeats a cookie");
    }

    /// How many requests are not answered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a request with this cookie is not answered.
    pub fn contains(&self, cookie: u64) -> bool {
        self.0.contains_key(&cookie)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads one whole reply, or chunk of one, off the front of the server's output; `None` if that is not whole.
    /// The inner `None`: its reply is not complete. Otherwise the reply with its cookie.
    pub fn read(&mut self, output: &mut Vec<u8>) -> Option<Option<(u64, Answer)>> {
        let mut fields = Fields(output);
        let magic = fields.u32()?;
        let answer = match magic {
            SIMPLE => self.simple(&mut fields)?,
            STRUCTURED | EXTENDED => self.chunk(&mut fields, magic == EXTENDED)?,
            _ => panic!("a reply without its magic number: {magic:#x}"),
        };
        let taken = output.len() - fields.0.len();
        output.drain(..taken);
        Some(answer)
    }

    fn simple(&mut self, fields: &mut Fields<'_>) -> Option<Option<(u64, Answer)>> {
        let (error, cookie) = (fields.u32()?, fields.u64()?);
        let coming = self.0.get(&cookie).expect("a reply to nothing");
        let asked = coming.asked;
        let data = match (asked.command, error) {
            (0, 0) => Some(fields.take(asked.len as usize)?.to_vec()),
            _ => None,
        };
        self.0.remove(&cookie);
        Some(Some((cookie, Answer { asked, data, failed: error != 0 })))
    }

    fn chunk(&mut self, fields: &mut Fields<'_>, extended: bool) -> Option<Option<(u64, Answer)>> {
        let (flags, kind, cookie) = (fields.u16()?, fields.u16()?, fields.u64()?);
        let offset = if extended { Some(fields.u64()?) } else { None };
        let len = if extended { fields.u64()? } else { u64::from(fields.u32()?) };
        let mut payload = Fields(fields.take(usize::try_from(len).unwrap())?);
        let coming = self.0.get_mut(&cookie).expect("a chunk for nothing");
        assert!(offset.is_none_or(|offset| offset == coming.asked.offset));
        assert!(flags & !LAST == 0);
        coming.chunks += 1;
        let mut failed = false;
        let whole = "a chunk is shorter than its kind";
        match kind {
            0 => assert!(flags == LAST && len == 0),
            1 | 2 => {
                assert_eq!(coming.asked.command, 0);
                let at = payload.u64().expect(whole);
                let (bytes, count) = if kind == 1 {
                    (Some(payload.0), payload.0.len())
                } else {
                    (None, payload.u32().expect(whole) as usize)
                };
                assert!(count > 0, "an empty run");
                let start =
                    at.checked_sub(coming.asked.offset).expect("data before what was asked");
                for index in 0..count {
                    let place = &mut coming.data[start as usize + index];
                    assert!(place.is_none(), "a byte came twice");
                    *place = Some(bytes.map_or(0, |bytes| bytes[index]));
                }
            }
            5 | 6 => {
                assert_eq!((coming.asked.command, kind == 6), (7, extended));
                payload.u32().expect(whole);
                let count = if extended { Some(payload.u32().expect(whole)) } else { None };
                let mut entries = 0;
                while !payload.0.is_empty() {
                    let len = if extended {
                        let len = payload.u64().expect(whole);
                        payload.u64().expect(whole);
                        len
                    } else {
                        let len = payload.u32().expect(whole);
                        payload.u32().expect(whole);
                        len.into()
                    };
                    assert!(len > 0);
                    entries += 1;
                }
                assert!(entries > 0 && count.is_none_or(|count| count == entries));
                coming.statuses += 1;
            }
            0x8001 => {
                assert!(payload.u32().expect(whole) != 0, "an error without a number");
                let text = payload.u16().expect(whole);
                assert_eq!(payload.0.len(), usize::from(text));
                assert!(std::str::from_utf8(payload.0).is_ok());
                failed = true;
            }
            _ => panic!("a chunk of kind {kind}"),
        }
        if flags & LAST == 0 {
            return Some(None);
        }
        let coming = self.0.remove(&cookie)?;
        let data = (coming.asked.command == 0 && !failed).then(|| {
            let bytes: Option<Vec<u8>> = coming.data.into_iter().collect();
            bytes.expect("a read with gaps")
        });
        assert!(failed || coming.asked.command != 7 || coming.statuses > 0);
        Some(Some((cookie, Answer { asked: coming.asked, data, failed })))
    }
}
