// SPDX-License-Identifier: Apache-2.0
//! Compounds: several operations in one call, which the server does in order until one fails.

use bytes::Bytes;

use super::{
    attrs::Attributes,
    status::{Failed, Status},
    xdr::{Answer, Words},
};
use crate::error::{Fault, broken_server};

/// The operations that are used.
pub(super) mod op {
    pub const CLOSE: u32 = 4;
    pub const COMMIT: u32 = 5;
    pub const DELEGRETURN: u32 = 8;
    pub const GETATTR: u32 = 9;
    pub const GETFH: u32 = 10;
    pub const LOCK: u32 = 12;
    pub const LOCKU: u32 = 14;
    pub const LOOKUP: u32 = 15;
    pub const OPEN: u32 = 18;
    pub const OPEN_CONFIRM: u32 = 20;
    pub const PUTFH: u32 = 22;
    pub const PUTROOTFH: u32 = 24;
    pub const READ: u32 = 25;
    pub const READDIR: u32 = 26;
    pub const REMOVE: u32 = 28;
    pub const RENAME: u32 = 29;
    pub const RENEW: u32 = 30;
    pub const SAVEFH: u32 = 32;
    pub const SETATTR: u32 = 34;
    pub const SETCLIENTID: u32 = 35;
    pub const SETCLIENTID_CONFIRM: u32 = 36;
    pub const WRITE: u32 = 38;
    pub const EXCHANGE_ID: u32 = 42;
    pub const CREATE_SESSION: u32 = 43;
    pub const DESTROY_SESSION: u32 = 44;
    pub const SEQUENCE: u32 = 53;
    pub const DESTROY_CLIENTID: u32 = 57;
    pub const RECLAIM_COMPLETE: u32 = 58;
    pub const COPY: u32 = 60;
    pub const DEALLOCATE: u32 = 62;
    pub const SEEK: u32 = 69;
    pub const CLONE: u32 = 71;
}

/// What names an open or a lock of a file.
pub(super) type StateId = [u8; 16];

/// Operations to send.
#[derive(Default)]
pub(super) struct Compound {
    /// How many there are.
    pub count: u32,
    /// Their words.
    pub words: Words,
    /// The bytes behind the words, which belong to the last operation.
    pub payload: Bytes,
}

impl Compound {
    /// On a file or directory.
    pub fn on(handle: &[u8]) -> Self {
        let mut all = Self::default();
        all.op(op::PUTFH).opaque(handle);
        all
    }

    /// Adds an operation; its arguments are what is added to the words.
    pub fn op(&mut self, number: u32) -> &mut Words {
        self.count += 1;
        self.words.u32(number)
    }

    /// Asks for attributes.
    pub fn getattr(&mut self, which: &[u32]) {
        self.op(op::GETATTR).bits(which);
    }
}

/// What came of a compound.
pub(super) struct Reply {
    answer: Answer,
    /// Operations that are left in it.
    left: u32,
}

impl Reply {
    /// Takes the head off.
    pub fn new(bytes: Bytes) -> Result<Self, Failed> {
        let mut answer = Answer(bytes);
        let status = answer.u32()?;
        let _tag = answer.opaque()?;
        let left = answer.u32()?;
        if left == 0 && status != 0 {
            return Err(Failed::Status(Status(status)));
        }
        Ok(Self { answer, left })
    }

    /// The result of the next operation, which must be `number`.
    pub fn next(&mut self, number: u32) -> Result<&mut Answer, Failed> {
        if self.left == 0 {
            return Err(broken_server("the server did not do all that it said it did").fault());
        }
        self.left -= 1;
        let (answered, status) = (self.answer.u32()?, self.answer.u32()?);
        if answered != number {
            let what = format!("the server answered operation {answered}, not {number}");
            return Err(broken_server(what).fault());
        }
        if status != 0 {
            return Err(Failed::Status(Status(status)));
        }
        Ok(&mut self.answer)
    }

    /// A file's handle.
    pub fn handle(&mut self) -> Result<Bytes, Failed> {
        Ok(self.next(op::GETFH)?.opaque()?)
    }

    /// Attributes.
    pub fn attributes(&mut self) -> Result<Attributes, Failed> {
        Ok(Attributes::read(self.next(op::GETATTR)?)?)
    }
}

/// An error that is no status.
trait AsFailure {
    fn fault(self) -> Failed;
}

impl AsFailure for driver_api::Error {
    fn fault(self) -> Failed {
        Failed::Call(Fault::Refused(self))
    }
}
