// SPDX-License-Identifier: Apache-2.0
//! What an export offers its client, and which requests it therefore takes.

use driver_api::{Abilities, Result, WriteFlags};

use super::{
    Export, MAX_PAYLOAD,
    wire::{Command, CommandFlags, Request, TransmissionFlags},
};
use crate::errors::NbdErrno;

/// The terms on which an export is served, fixed when it was opened.
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
}

impl Terms {
    /// The terms that follow from a volume's capabilities.
    pub fn of(export: &Export) -> Result<Self> {
        let capabilities = export.volume.capabilities()?;
        let size = export.volume.size()?;
        let mut flags = TransmissionFlags::HAS_FLAGS
            .and(TransmissionFlags::SEND_FLUSH)
            .and(TransmissionFlags::CAN_MULTI_CONN);
        if capabilities.has(Abilities::PREFETCH) {
            flags = flags.and(TransmissionFlags::SEND_CACHE);
        }
        if export.read_only || !capabilities.has(Abilities::WRITE) {
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
        Ok(Self {
            size,
            flags,
            min_block,
            preferred_block: preferred.max(min_block).min(max_block.max(min_block)),
            max_block: max_block.max(min_block),
            native_fua: capabilities.has(Abilities::FUA),
        })
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.flags.has(TransmissionFlags::READ_ONLY)
    }

    /// Whether a request may go to the volume, which has `size` bytes now.
    pub fn check(&self, request: &Request, size: u64) -> std::result::Result<(), NbdErrno> {
        let beyond = match request.command {
            Command::FLUSH => return self.check_flags(request, CommandFlags::NONE),
            Command::READ => {
                self.check_flags(request, CommandFlags::NONE)?;
                NbdErrno::Inval
            }
            Command::CACHE => {
                self.check_offered(TransmissionFlags::SEND_CACHE)?;
                self.check_flags(request, CommandFlags::NONE)?;
                NbdErrno::Inval
            }
            Command::WRITE => {
                self.check_writable()?;
                self.check_flags(request, CommandFlags::NONE)?;
                NbdErrno::NoSpc
            }
            Command::TRIM => {
                self.check_writable()?;
                self.check_offered(TransmissionFlags::SEND_TRIM)?;
                self.check_flags(request, CommandFlags::NONE)?;
                NbdErrno::Inval
            }
            Command::WRITE_ZEROES => {
                self.check_writable()?;
                self.check_offered(TransmissionFlags::SEND_WRITE_ZEROES)?;
                let mut allowed = CommandFlags::NO_HOLE;
                if self.flags.has(TransmissionFlags::SEND_FAST_ZERO) {
                    allowed = allowed.and(CommandFlags::FAST_ZERO);
                }
                self.check_flags(request, allowed)?;
                NbdErrno::NoSpc
            }
            _ => return Err(NbdErrno::Inval),
        };
        let transfers = matches!(request.command, Command::READ | Command::WRITE);
        if request.len == 0 || (transfers && request.len > self.max_block) {
            return Err(NbdErrno::Inval);
        }
        let aligned = |number: u64| number.is_multiple_of(u64::from(self.min_block));
        if !aligned(request.offset) || !aligned(u64::from(request.len)) {
            return Err(NbdErrno::Inval);
        }
        match request.offset.checked_add(u64::from(request.len)) {
            Some(end) if end <= size => Ok(()),
            _ => Err(beyond),
        }
    }

    fn check_writable(&self) -> std::result::Result<(), NbdErrno> {
        if self.read_only() { Err(NbdErrno::Perm) } else { Ok(()) }
    }

    fn check_offered(&self, flag: TransmissionFlags) -> std::result::Result<(), NbdErrno> {
        if self.flags.has(flag) { Ok(()) } else { Err(NbdErrno::Inval) }
    }

    fn check_flags(
        &self,
        request: &Request,
        allowed: CommandFlags,
    ) -> std::result::Result<(), NbdErrno> {
        // Where FUA is offered every command may carry it; where it means nothing it is ignored.
        let fua = if self.flags.has(TransmissionFlags::SEND_FUA) {
            CommandFlags::FUA
        } else {
            CommandFlags::NONE
        };
        if request.flags.within(allowed.and(fua)) { Ok(()) } else { Err(NbdErrno::Inval) }
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
