// SPDX-License-Identifier: Apache-2.0
//! What an export offers its client, and which requests it therefore takes.

use driver_api::{Abilities, Capabilities, WriteFlags};

use crate::{
    Errno, MAX_PAYLOAD,
    contexts::Contexts,
    wire::{Command, CommandFlags, Headers, Request, StatusPayload, TransmissionFlags},
};

/// The terms on which an export is served, fixed when it was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Size in bytes when it was opened.
    pub size: u64,
    /// What the client may use.
    pub flags: TransmissionFlags,
    /// Offsets and lengths are multiples of this.
    pub min_block: u32,
    /// Offsets and lengths should be multiples of this.
    pub preferred_block: u32,
    /// The longest read or write.
    pub max_block: u32,
    /// The volume makes a single write durable; otherwise a flush follows each FUA.
    pub native_fua: bool,
    /// The volume knows where its holes are.
    pub maps: bool,
    /// How requests and replies look.
    pub headers: Headers,
    /// What the client may ask of ranges.
    pub contexts: Contexts,
}

/// Why a request does not reach the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The reply's error.
    pub errno: Errno,
    /// A text for people, for clients that take one.
    pub why: &'static str,
}

const fn invalid(why: &'static str) -> Refused {
    Refused { errno: Errno::Inval, why }
}

type Checked = Result<(), Refused>;

impl Terms {
    /// The terms that follow from a volume's capabilities, before the client has chosen anything.
    pub fn of(capabilities: &Capabilities, size: u64, read_only: bool) -> Self {
        let mut flags = TransmissionFlags::HAS_FLAGS
            .and(TransmissionFlags::SEND_FLUSH)
            .and(TransmissionFlags::CAN_MULTI_CONN);
        if capabilities.has(Abilities::PREFETCH) {
            flags = flags.and(TransmissionFlags::SEND_CACHE);
        }
        if read_only || !capabilities.has(Abilities::WRITE) {
            flags = flags.and(TransmissionFlags::READ_ONLY);
        } else {
            flags = flags.and(TransmissionFlags::SEND_FUA);
            if capabilities.has(Abilities::DISCARD) {
                flags = flags.and(TransmissionFlags::SEND_TRIM);
            }
            if capabilities.has(Abilities::WRITE_ZEROES) {
                flags = flags.and(TransmissionFlags::SEND_WRITE_ZEROES);
                if capabilities.has(Abilities::FAST_ZERO) {
                    flags = flags.and(TransmissionFlags::SEND_FAST_ZERO);
                }
            }
        }
        let min_block = capabilities.min_block.max(1);
        let max_block = capabilities.max_io.min(MAX_PAYLOAD) / min_block * min_block;
        // The protocol wants a power of two of at least 512 here, and no more than the maximum.
        let preferred = capabilities.preferred_block.clamp(512, 32 << 20).next_power_of_two();
        Self {
            size,
            flags,
            min_block,
            preferred_block: preferred.max(min_block).min(max_block.max(min_block)),
            max_block: max_block.max(min_block),
            native_fua: capabilities.has(Abilities::FUA),
            maps: capabilities.has(Abilities::ALLOCATION_MAP),
            headers: Headers::Simple,
            contexts: Contexts::NONE,
        }
    }

    /// The terms where one connection need not see at once what another wrote: a client that spreads its requests over
    /// several would read back old data.
    pub fn for_one_connection(mut self) -> Self {
        self.flags = TransmissionFlags(self.flags.0 & !TransmissionFlags::CAN_MULTI_CONN.0);
        self
    }

    /// Adds what the client has chosen.
    pub fn negotiated(&mut self, headers: Headers, contexts: Contexts) {
        (self.headers, self.contexts) = (headers, contexts);
        let by_choice = TransmissionFlags::SEND_DF.and(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        self.flags = TransmissionFlags(self.flags.0 & !by_choice.0);
        if headers >= Headers::Structured {
            self.flags = self.flags.and(TransmissionFlags::SEND_DF);
        }
        if headers == Headers::Extended && !contexts.is_empty() {
            self.flags = self.flags.and(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        }
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.flags.has(TransmissionFlags::READ_ONLY)
    }

    /// Whether a request may go to the volume, which has `size` bytes now.
    ///
    /// A `BLOCK_STATUS` with data passes with its flags alone: the range stands in the data, see
    /// [`Terms::check_range`].
    pub fn check(&self, request: &Request, size: u64) -> Checked {
        match request.command {
            Command::FLUSH => return self.check_flags(request, CommandFlags::NONE),
            Command::READ => {
                let df = self.flags.has(TransmissionFlags::SEND_DF);
                let allowed = if df { CommandFlags::DF } else { CommandFlags::NONE };
                self.check_flags(request, allowed)?;
            }
            Command::CACHE => {
                self.check_offered(TransmissionFlags::SEND_CACHE)?;
                self.check_flags(request, CommandFlags::NONE)?;
            }
            Command::WRITE => {
                self.check_writable()?;
                let extended = self.headers == Headers::Extended;
                let allowed = if extended { CommandFlags::PAYLOAD_LEN } else { CommandFlags::NONE };
                self.check_flags(request, allowed)?;
            }
            Command::TRIM => {
                self.check_writable()?;
                self.check_offered(TransmissionFlags::SEND_TRIM)?;
                self.check_flags(request, CommandFlags::NONE)?;
            }
            Command::WRITE_ZEROES => {
                self.check_writable()?;
                self.check_offered(TransmissionFlags::SEND_WRITE_ZEROES)?;
                let mut allowed = CommandFlags::NO_HOLE;
                if self.flags.has(TransmissionFlags::SEND_FAST_ZERO) {
                    allowed = allowed.and(CommandFlags::FAST_ZERO);
                }
                self.check_flags(request, allowed)?;
            }
            Command::BLOCK_STATUS => {
                if self.contexts.is_empty() {
                    return Err(invalid("no metadata context was negotiated"));
                }
                let mut allowed = CommandFlags::REQ_ONE;
                if self.flags.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD) {
                    allowed = allowed.and(CommandFlags::PAYLOAD_LEN);
                }
                self.check_flags(request, allowed)?;
                if request.flags.has(CommandFlags::PAYLOAD_LEN) {
                    let fits = request.payload <= StatusPayload::MAX_LEN;
                    return if fits { Ok(()) } else { Err(invalid("too many contexts")) };
                }
            }
            _ => return Err(invalid("the command is not known")),
        };
        let transfers = matches!(request.command, Command::READ | Command::WRITE);
        if transfers && request.len > u64::from(self.max_block) {
            return Err(invalid("longer than the largest block"));
        }
        self.check_range(request, request.len, size)
    }

    /// Whether `len` bytes at the request's offset are something to ask of a volume with `size` bytes.
    pub fn check_range(&self, request: &Request, len: u64, size: u64) -> Checked {
        if len == 0 {
            return Err(invalid("a length of zero"));
        }
        let aligned = |number: u64| number.is_multiple_of(u64::from(self.min_block));
        // What a volume knows of a range can be told of any range.
        let strict = request.command != Command::BLOCK_STATUS;
        if strict && (!aligned(request.offset) || !aligned(len)) {
            return Err(invalid("not a multiple of the smallest block"));
        }
        match request.offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => {
                let writes = matches!(request.command, Command::WRITE | Command::WRITE_ZEROES);
                let errno = if writes { Errno::NoSpc } else { Errno::Inval };
                Err(Refused { errno, why: "beyond the end of the export" })
            }
        }
    }

    fn check_writable(&self) -> Checked {
        if self.read_only() {
            return Err(Refused { errno: Errno::Perm, why: "the export is read-only" });
        }
        Ok(())
    }

    fn check_offered(&self, flag: TransmissionFlags) -> Checked {
        if self.flags.has(flag) { Ok(()) } else { Err(invalid("the command was not offered")) }
    }

    fn check_flags(&self, request: &Request, allowed: CommandFlags) -> Checked {
        // Where FUA is offered every command may carry it; where it means nothing it is ignored.
        let fua = if self.flags.has(TransmissionFlags::SEND_FUA) {
            CommandFlags::FUA
        } else {
            CommandFlags::NONE
        };
        if request.flags.within(allowed.and(fua)) {
            return Ok(());
        }
        Err(invalid("a flag that was not offered for this command"))
    }

    /// The flags for the driver, and whether a flush must follow before the reply.
    pub fn write_flags(&self, flags: CommandFlags) -> (WriteFlags, bool) {
        let mut for_driver = WriteFlags::NONE;
        let fua = flags.has(CommandFlags::FUA);
        if fua && self.native_fua {
            for_driver = for_driver.and(WriteFlags::FUA);
        }
        if flags.has(CommandFlags::NO_HOLE) {
            for_driver = for_driver.and(WriteFlags::NO_HOLE);
        }
        if flags.has(CommandFlags::FAST_ZERO) {
            for_driver = for_driver.and(WriteFlags::FAST_ONLY);
        }
        (for_driver, fua && !self.native_fua)
    }
}

#[cfg(test)]
#[path = "terms_tests.rs"]
mod tests;
