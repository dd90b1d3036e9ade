// SPDX-License-Identifier: Apache-2.0
//! What client and server say to each other: frames of a head in JSON, and bytes of a volume.
//!
//! ```text
//!   length of the head, u32 LE | length of the bytes, u32 LE | head | bytes
//! ```

use serde::{Deserialize, Serialize};

/// Bytes before the head.
pub(crate) const PREFIX: usize = 8;

/// A request; the bytes are what a write writes.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Request {
    /// The client's number of it.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// What a client asks for.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) enum Call {
    Create {
        name: String,
        size: u64,
    },
    Delete {
        name: String,
    },
    List,
    Show {
        name: String,
    },
    /// What follows on this connection is about this volume.
    Open {
        name: String,
        way: Way,
    },
    /// What is written is durable, and the volume is not open any more.
    Close,
    Read {
        offset: u64,
        len: u32,
    },
    Write {
        offset: u64,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    Flush,
}

/// How a volume is opened.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub(crate) enum Way {
    /// Beside whoever has it.
    Beside,
    /// Unless somebody has it.
    Alone,
    /// Alone: nothing that others asked happens any more.
    TakeOver,
}

/// The reply to a request; the bytes are what a read read.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Reply {
    /// The request's number.
    pub id: u64,
    /// What became of it.
    pub result: Result<Answer, Refusal>,
}

/// What the server did.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) enum Answer {
    Done,
    Volume(Volume),
    Volumes(Vec<Volume>),
}

/// A volume.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Volume {
    pub name: String,
    pub size: u64,
    pub used: u64,
}

/// Why the server did not do it.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Refusal {
    /// The number of the error's kind.
    pub kind: u32,
    pub message: String,
}

/// A frame.
pub(crate) fn frame(head: &impl Serialize, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    let mut frame = Vec::with_capacity(PREFIX + head.len() + bytes.len());
    for len in [head.len(), bytes.len()] {
        let len = u32::try_from(len).map_err(std::io::Error::other)?;
        frame.extend(len.to_le_bytes());
    }
    frame.extend(head);
    frame.extend(bytes);
    Ok(frame)
}

/// The lengths of the head and of the bytes that follow this prefix.
pub(crate) fn lengths(prefix: [u8; PREFIX]) -> (usize, usize) {
    let [a, b, c, d, e, f, g, h] = prefix;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize)
}
