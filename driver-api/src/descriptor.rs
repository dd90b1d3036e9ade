// SPDX-License-Identifier: Apache-2.0
//! What a library says of itself before it is opened: 256 bytes in the ELF section [`SECTION`].
//!
//! The layout never changes: magic, then little-endian words, then zero-padded UTF-8.

/// The ELF section that holds the descriptor.
pub const SECTION: &str = ".novastor";
/// The entry symbol: a function without arguments that returns the [`DriverModuleRef`](crate::abi::DriverModuleRef).
pub const ENTRY_SYMBOL: &str = "novastor_driver_module";
/// The symbol of a function without arguments that returns the layout of the entry's type.
pub const LAYOUT_SYMBOL: &str = "novastor_driver_layout";
/// The first bytes of every descriptor.
pub const MAGIC: [u8; 8] = *b"NOVASTOR";
/// Bytes of a descriptor.
pub const SIZE: usize = 256;

const NAME_AT: usize = 32;
const VERSION_AT: usize = 96;
const TEXT: usize = 64;

/// Whether a library makes backends or wraps volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Role {
    /// It makes backends.
    Driver = 1,
    /// It wraps volumes.
    Layer = 2,
}

/// A descriptor, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The ABI's major version.
    pub abi_major: u32,
    /// The ABI's minor version.
    pub abi_minor: u32,
    /// Whether the library unwinds on panic; one that aborts is refused.
    pub unwinds: bool,
    /// Driver or layer.
    pub role: Role,
    /// The driver's name: what `driver = "…"` says in the configuration.
    pub name: String,
    /// The driver's own version.
    pub version: String,
}

/// Writes a descriptor at compile time.
///
/// # Panics
/// If name or version is longer than 63 bytes.
pub const fn encode(role: Role, unwinds: bool, name: &str, version: &str) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, 8, &crate::abi::MAJOR.to_le_bytes());
    put(&mut bytes, 12, &crate::abi::MINOR.to_le_bytes());
    put(&mut bytes, 16, &(unwinds as u32).to_le_bytes());
    put(&mut bytes, 20, &(role as u32).to_le_bytes());
    assert!(name.len() < TEXT && version.len() < TEXT, "a driver's name or version is too long");
    put(&mut bytes, NAME_AT, name.as_bytes());
    put(&mut bytes, VERSION_AT, version.as_bytes());
    bytes
}

const fn put(bytes: &mut [u8; SIZE], at: usize, part: &[u8]) {
    let mut index = 0;
    while index < part.len() {
        bytes[at + index] = part[index];
        index += 1;
    }
}

impl Descriptor {
    /// Reads a section's content; `None` if it is no descriptor.
    pub fn decode(section: &[u8]) -> Option<Self> {
        let bytes: &[u8; SIZE] = section.get(..SIZE)?.try_into().ok()?;
        if bytes[..8] != MAGIC {
            return None;
        }
        Some(Self {
            abi_major: word(bytes, 8),
            abi_minor: word(bytes, 12),
            unwinds: word(bytes, 16) == 1,
            role: match word(bytes, 20) {
                1 => Role::Driver,
                2 => Role::Layer,
                _ => return None,
            },
            name: text(bytes, NAME_AT)?,
            version: text(bytes, VERSION_AT)?,
        })
    }
}

fn word(bytes: &[u8; SIZE], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn text(bytes: &[u8; SIZE], at: usize) -> Option<String> {
    let field = &bytes[at..at + TEXT];
    let end = field.iter().position(|&byte| byte == 0)?;
    String::from_utf8(field[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = encode(Role::Layer, true, "cache", "1.2.3");
        let read = Descriptor::decode(&bytes).expect("a descriptor");
        assert_eq!((read.name.as_str(), read.version.as_str()), ("cache", "1.2.3"));
        assert_eq!(
            (read.abi_major, read.unwinds, read.role),
            (crate::abi::MAJOR, true, Role::Layer)
        );
    }

    #[test]
    fn anything_else_is_refused() {
        let good = encode(Role::Driver, true, "local", "1.0.0");
        assert_eq!(Descriptor::decode(&good[..SIZE - 1]), None);
        for at in [0, 20, NAME_AT] {
            let mut bad = good;
            bad[at] = 0xff;
            assert_eq!(Descriptor::decode(&bad), None, "byte {at}");
        }
    }
}
