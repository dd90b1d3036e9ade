// SPDX-License-Identifier: Apache-2.0
//! Messages that crate `smb2` has no builder for, or only one that copies the payload; and what is in their answers.

use bytes::Bytes;
use smb2::{
    msg::{
        create::{CreateDisposition, CreateRequest, ImpersonationLevel, ShareAccess},
        query_info::{InfoType, QueryInfoRequest},
        set_info::SetInfoRequest,
        write::SMB2_WRITEFLAG_WRITE_THROUGH,
    },
    pack::{Pack, WriteCursor},
    types::{FileId, OplockLevel, flags::FileAccessMask},
};

use super::{cases, mux::Frame};
use crate::{
    error::{Fault, broken_server},
    share::{Facts, Identity, Kind, Listed},
};

/// Bytes of a message's header: offsets inside a message count from its beginning.
pub(super) const HEADER: usize = 64;
/// `FileAllInformation`.
pub(super) const ALL: u8 = 18;
/// `FileEndOfFileInformation`.
pub(super) const END_OF_FILE: u8 = 20;
/// `FileRenameInformation`.
pub(super) const RENAME: u8 = 10;
/// `FileDispositionInformation`.
pub(super) const DISPOSITION: u8 = 13;
/// `FileFsVolumeInformation`.
pub(super) const VOLUME: u8 = 1;
/// `FileFsAttributeInformation`.
pub(super) const ATTRIBUTES: u8 = 5;
/// `FileFsFullSizeInformation`.
pub(super) const SPACE: u8 = 7;

const ATTRIBUTE_DIRECTORY: u32 = 0x10;
const ATTRIBUTE_REPARSE: u32 = 0x400;
const ATTRIBUTE_DEVICE: u32 = 0x40;

/// How something is opened.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// What is wanted of it.
    pub access: u32,
    /// What others may do meanwhile.
    pub shared: u32,
    /// Whether it must be there or must not.
    pub disposition: CreateDisposition,
    /// What it has to be.
    pub options: u32,
}

/// It is no directory.
pub(super) const NON_DIRECTORY: u32 = 0x40;
/// It is a directory.
pub(super) const DIRECTORY: u32 = 0x1;
/// A link is opened itself, and not followed.
pub(super) const OPEN_REPARSE_POINT: u32 = 0x20_0000;
/// Everything may go on meanwhile.
pub(super) const SHARE_ALL: u32 =
    ShareAccess::FILE_SHARE_READ | ShareAccess::FILE_SHARE_WRITE | ShareAccess::FILE_SHARE_DELETE;

/// CREATE, which also opens.
pub(super) fn create(path: String, how: How) -> CreateRequest {
    CreateRequest {
        requested_oplock_level: OplockLevel::None,
        impersonation_level: ImpersonationLevel::Impersonation,
        desired_access: FileAccessMask::new(how.access | FileAccessMask::SYNCHRONIZE),
        file_attributes: 0,
        share_access: ShareAccess(how.shared),
        create_disposition: how.disposition,
        create_options: how.options | OPEN_REPARSE_POINT,
        name: path,
        create_contexts: Vec::new(),
    }
}

/// QUERY_INFO.
pub(super) fn query(info_type: InfoType, class: u8, file_id: FileId) -> QueryInfoRequest {
    QueryInfoRequest {
        info_type,
        file_info_class: class,
        output_buffer_length: 4096,
        additional_information: 0,
        flags: 0,
        file_id,
        input_buffer: Vec::new(),
    }
}

/// SET_INFO of a file.
pub(super) fn set(class: u8, file_id: FileId, buffer: Vec<u8>) -> SetInfoRequest {
    SetInfoRequest {
        info_type: InfoType::File,
        file_info_class: class,
        additional_information: 0,
        file_id,
        buffer,
    }
}

/// What `FileRenameInformation` holds: replace what has the name.
pub(super) fn rename_to(path: &str) -> Vec<u8> {
    let name: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut buffer = vec![0; 20];
    buffer[0] = 1;
    buffer[16..20].copy_from_slice(&(name.len() as u32).to_le_bytes());
    buffer.extend(name);
    // Some servers refuse less than the structure with its padding.
    buffer.resize(buffer.len().max(24), 0);
    buffer
}

/// WRITE, without its payload, which stands behind it.
pub(super) struct Write {
    /// To which file.
    pub file: FileId,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
    /// Whether it must be durable before the answer.
    pub durable: bool,
}

impl Pack for Write {
    fn pack(&self, to: &mut WriteCursor) {
        const FIXED: u16 = 48;
        to.write_u16_le(FIXED + 1);
        to.write_u16_le(HEADER as u16 + FIXED);
        to.write_u32_le(self.len);
        to.write_u64_le(self.offset);
        to.write_u64_le(self.file.persistent);
        to.write_u64_le(self.file.volatile);
        // No channel, nothing remaining, no channel's description.
        to.write_zeros(12);
        to.write_u32_le(if self.durable { SMB2_WRITEFLAG_WRITE_THROUGH } else { 0 });
    }
}

/// Fields of an answer; what is not there is an error.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Some bytes.
    pub fn bytes(&self, at: usize, len: usize) -> Result<&'a [u8], Fault> {
        at.checked_add(len).and_then(|end| self.0.get(at..end)).ok_or_else(cut_off)
    }

    /// Two bytes.
    pub fn u16(&self, at: usize) -> Result<u16, Fault> {
        let bytes = self.bytes(at, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Four bytes.
    pub fn u32(&self, at: usize) -> Result<u32, Fault> {
        let bytes = self.bytes(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Eight bytes.
    pub fn u64(&self, at: usize) -> Result<u64, Fault> {
        Ok(u64::from(self.u32(at)?) | u64::from(self.u32(at + 4)?) << 32)
    }
}

fn cut_off() -> Fault {
    broken_server("the server's answer is cut off").into()
}

/// The file that CREATE opened.
pub(super) fn opened(frame: &Frame) -> Result<FileId, Fault> {
    let fields = Fields(&frame.body);
    Ok(FileId { persistent: fields.u64(64)?, volatile: fields.u64(72)? })
}

/// What QUERY_INFO and QUERY_DIRECTORY bring.
pub(super) fn output(frame: &Frame) -> Result<&[u8], Fault> {
    let fields = Fields(&frame.body);
    let (at, len) = (fields.u16(2)? as usize, fields.u32(4)? as usize);
    if len == 0 {
        return Ok(&[]);
    }
    fields.bytes(at.checked_sub(HEADER).ok_or_else(cut_off)?, len)
}

/// What READ brings, without copying it. More than `most` bytes are an error: nobody knows what they are.
pub(super) fn payload(frame: Frame, most: u32) -> Result<Bytes, Fault> {
    let fields = Fields(&frame.body);
    let (at, len) = (fields.bytes(2, 1)?[0] as usize, fields.u32(4)? as usize);
    let at = at.checked_sub(HEADER).ok_or_else(cut_off)?;
    fields.bytes(at, len)?;
    if len > most as usize {
        let what = format!("the server sent {len} bytes where {most} were asked for");
        return Err(broken_server(what).into());
    }
    Ok(frame.body.slice(at..at + len))
}

/// `FileAllInformation`, of a file on the volume `fsid`.
pub(super) fn facts(frame: &Frame, fsid: u64) -> Result<Facts, Fault> {
    let all = Fields(output(frame)?);
    let fileid = all.u64(64)?;
    Ok(Facts {
        kind: kind(all.u32(32)?),
        identity: Identity { fsid, fileid },
        used: all.u64(40)?,
        size: all.u64(48)?,
        links: all.u32(56)?,
    })
}

/// The path in `FileAllInformation`, as far as it is there.
pub(super) fn name_in(frame: &Frame) -> Result<String, Fault> {
    let all = output(frame)?;
    let len = Fields(all).u32(96)? as usize;
    let name = all.get(100..).unwrap_or_default();
    let units: Vec<u16> = name[..len.min(name.len())]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    Ok(String::from_utf16_lossy(&units))
}

fn kind(attributes: u32) -> Kind {
    if attributes & (ATTRIBUTE_REPARSE | ATTRIBUTE_DEVICE) != 0 {
        Kind::Irregular
    } else if attributes & ATTRIBUTE_DIRECTORY != 0 {
        Kind::Directory
    } else {
        Kind::Regular
    }
}

/// The entries of one page of `FileIdBothDirectoryInformation`.
pub(super) fn entries(page: &[u8], fsid: u64, into: &mut Vec<Listed>) -> Result<(), Fault> {
    let mut at = 0;
    while !page.is_empty() {
        let entry = Fields(page.get(at..).ok_or_else(cut_off)?);
        let name_len = entry.u32(60)? as usize;
        let units: Vec<u16> = entry
            .bytes(104, name_len)?
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect();
        let facts = Facts {
            kind: kind(entry.u32(56)?),
            identity: Identity { fsid, fileid: entry.u64(96)? },
            size: entry.u64(40)?,
            used: entry.u64(48)?,
            // It has at least the name that it is listed by.
            links: 1,
        };
        // A name that is no text is no volume's.
        if let Ok(name) = String::from_utf16(&units)
            && name != "."
            && name != ".."
        {
            into.push(Listed { name: cases::read(&name), facts: Some(facts) });
        }
        match entry.u32(0)? as usize {
            0 => break,
            next => at += next,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use smb2::{msg::write::WriteRequest, pack::Unpack as _};

    use super::*;

    #[test]
    fn a_write_is_what_the_crate_would_have_made_of_it() {
        let file = FileId { persistent: 7, volatile: 9 };
        let data = b"some bytes";
        let mut packed = WriteCursor::new();
        Write { file, offset: 5 << 33, len: data.len() as u32, durable: true }.pack(&mut packed);
        packed.write_bytes(data);
        let packed = packed.into_inner();
        let read =
            WriteRequest::unpack(&mut smb2::pack::ReadCursor::new(&packed)).expect("a write");
        assert_eq!((read.file_id, read.offset, read.flags), (file, 5 << 33, 1));
        assert_eq!(read.data, data);
        assert_eq!(usize::from(read.data_offset), HEADER + 48);
    }

    fn entry(name: &str, attributes: u32, last: bool) -> Vec<u8> {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut entry = vec![0; 104];
        entry[40..48].copy_from_slice(&11_u64.to_le_bytes());
        entry[56..60].copy_from_slice(&attributes.to_le_bytes());
        entry[60..64].copy_from_slice(&(name.len() as u32).to_le_bytes());
        entry[96..104].copy_from_slice(&77_u64.to_le_bytes());
        entry.extend(name);
        entry.resize(entry.len().next_multiple_of(8), 0);
        if !last {
            let next = (entry.len() as u32).to_le_bytes();
            entry[..4].copy_from_slice(&next);
        }
        entry
    }

    #[test]
    fn a_listing_is_read_to_its_end_and_no_further() {
        let page =
            [entry(".", 0x10, false), entry("a.raw", 0x20, false), entry("link", 0x400, true)];
        let page = page.concat();
        let mut all = Vec::new();
        entries(&page, 3, &mut all).expect("entries");
        let names: Vec<&str> = all.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a.raw", "link"]);
        let facts = all[0].facts.expect("facts");
        assert_eq!((facts.size, facts.identity.fileid, facts.kind), (11, 77, Kind::Regular));
        assert_eq!(all[1].facts.map(|facts| facts.kind), Some(Kind::Irregular));
        // Cut off anywhere, it is an error or a shorter list, and never a panic.
        for end in 0..page.len() {
            let mut some = Vec::new();
            let _ = entries(&page[..end], 3, &mut some);
        }
    }
}
