// SPDX-License-Identifier: Apache-2.0
//! Reads a shared library's ELF headers and its descriptor, without loading it.

use std::fs::File;

use driver_api::{
    Result,
    descriptor::{self, Descriptor},
};
use object::{
    Endianness,
    elf::{self, FileHeader64, Machine},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader, SectionHeader},
    },
};

use super::verify::refused;

/// The machine this host was built for, as ELF numbers it.
const MACHINE: Machine = if cfg!(target_arch = "x86_64") {
    elf::EM_X86_64
} else if cfg!(target_arch = "aarch64") {
    elf::EM_AARCH64
} else if cfg!(target_arch = "riscv64") {
    elf::EM_RISCV
} else {
    elf::EM_NONE
};

const REBUILD: &str = "build the driver on or for this machine: `cargo build --release`";
const COPY_AGAIN: &str = "copy it again, whole";

/// Refuses a file whose first bytes show that it is no library.
pub(super) fn check_magic(start: &[u8]) -> Result<()> {
    if start.is_empty() {
        return Err(refused("it is empty").remedy(COPY_AGAIN));
    }
    if !start.starts_with(&elf::ELFMAG) {
        let what = if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        {
            "it is a text file, not a shared library"
        } else {
            "it is not a shared library: it does not begin like an ELF file"
        };
        return Err(refused(what).remedy("put a driver's .so there"));
    }
    Ok(())
}

/// Checks that the library is whole and made for this machine, and reads its descriptor.
pub(super) fn descriptor_of(file: &File) -> Result<Descriptor> {
    let cache = ReadCache::new(file);
    let data = &cache;
    let len = data.len().map_err(|()| refused("its private copy cannot be read"))?;
    let ident = data.read_bytes_at(0, 20).map_err(|()| truncated("the ELF header", len))?;
    check_magic(ident)?;
    // Class and byte order decide where everything else is.
    if ident[4] != elf::ELFCLASS64.0 || ident[5] != elf::ELFDATA2LSB.0 {
        return Err(other_machine("it is not a 64-bit little-endian library".to_owned()));
    }
    let machine = Machine(u16::from_le_bytes([ident[18], ident[19]]));
    if machine != MACHINE {
        return Err(other_machine(format!(
            "it was built for {}, this host runs on {}",
            machine_name(machine),
            machine_name(MACHINE),
        )));
    }
    if u16::from_le_bytes([ident[16], ident[17]]) != elf::ET_DYN.0 {
        return Err(refused("it is an ELF file, but not a shared library")
            .remedy("build the driver with crate-type = [\"cdylib\"]"));
    }
    let header =
        FileHeader64::<Endianness>::parse(data).map_err(|_| truncated("the ELF header", len))?;
    let endian = header.endian().map_err(|error| damaged(&error))?;
    check_segments(header, endian, data, len)?;
    read_descriptor(header, endian, data, len)
}

/// Every byte that the loader will map must be in the file: a missing page is a SIGBUS inside it.
fn check_segments<'data, R: ReadRef<'data>>(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    data: R,
    len: u64,
) -> Result<()> {
    let segments =
        header.program_headers(endian, data).map_err(|_| truncated("the program headers", len))?;
    let mut loaded = 0;
    for segment in segments {
        let (offset, size) = segment.file_range(endian);
        if offset.checked_add(size).is_none_or(|end| end > len) {
            return Err(truncated("a segment", len));
        }
        if segment.p_type(endian) == elf::PT_LOAD {
            loaded += 1;
            if size > segment.p_memsz(endian) {
                return Err(refused("a segment is larger in the file than in memory")
                    .remedy("the file is damaged: build or copy it again"));
            }
        }
    }
    if loaded == 0 {
        return Err(refused("nothing in it can be loaded").remedy(COPY_AGAIN));
    }
    Ok(())
}

fn read_descriptor<'data, R: ReadRef<'data>>(
    header: &'data FileHeader64<Endianness>,
    endian: Endianness,
    data: R,
    len: u64,
) -> Result<Descriptor> {
    // The section headers come last in a file, so a copy that ends early shows here even where no segment is missing.
    let sections =
        header.sections(endian, data).map_err(|_| truncated("the section headers", len))?;
    for section in sections.iter() {
        if let Some((offset, size)) = section.file_range(endian)
            && offset.checked_add(size).is_none_or(|end| end > len)
        {
            return Err(truncated("a section", len));
        }
    }
    let (_, section) = sections
        .section_by_name(endian, descriptor::SECTION.as_bytes())
        .ok_or_else(no_descriptor)?;
    let content = section.data(endian, data).map_err(|_| truncated("the descriptor", len))?;
    Descriptor::decode(content).ok_or_else(no_descriptor)
}

fn truncated(what: &str, len: u64) -> driver_api::Error {
    refused(format!("it is truncated: {what} would lie beyond its {len} bytes")).remedy(COPY_AGAIN)
}

fn damaged(error: &object::read::Error) -> driver_api::Error {
    refused(format!("its ELF header is damaged: {error}")).remedy(COPY_AGAIN)
}

fn other_machine(why: String) -> driver_api::Error {
    refused(why).remedy(REBUILD)
}

fn no_descriptor() -> driver_api::Error {
    refused("it is a shared library, but no novastor driver: it has no descriptor")
        .remedy("export the driver with export_driver! or export_layer!, and do not strip section .novastor")
}

fn machine_name(machine: Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_RISCV => "riscv64".to_owned(),
        elf::EM_PPC64 => "ppc64".to_owned(),
        elf::EM_S390 => "s390x".to_owned(),
        elf::EM_386 => "x86 (32 bit)".to_owned(),
        elf::EM_ARM => "arm (32 bit)".to_owned(),
        Machine(other) => format!("ELF machine {other}"),
    }
}
