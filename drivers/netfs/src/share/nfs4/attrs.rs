// SPDX-License-Identifier: Apache-2.0
//! Attributes of files and of servers.

use super::xdr::Answer;
use crate::{
    error::{Fault, broken_server},
    share::{Facts, Identity, Kind},
};

const TYPE: u32 = 1;
const SIZE: u32 = 4;
const FSID: u32 = 8;
const LEASE_TIME: u32 = 10;
const RDATTR_ERROR: u32 = 11;
const CASE_INSENSITIVE: u32 = 16;
const FILEID: u32 = 20;
const MAXFILESIZE: u32 = 27;
const MAXNAME: u32 = 29;
const MAXREAD: u32 = 30;
const MAXWRITE: u32 = 31;
pub(super) const MODE: u32 = 33;
const NUMLINKS: u32 = 35;
const SPACE_AVAIL: u32 = 42;
const SPACE_TOTAL: u32 = 44;
const SPACE_USED: u32 = 45;
pub(super) const TIME_ACCESS_SET: u32 = 48;
pub(super) const TIME_MODIFY_SET: u32 = 54;
/// A file's length, where it is set.
pub(super) const SET_SIZE: u32 = SIZE;

/// What is asked of a file.
pub(super) const OF_FILE: &[u32] = &[TYPE, SIZE, FSID, FILEID, NUMLINKS, SPACE_USED];
/// What is asked of a directory's entry.
pub(super) const OF_ENTRY: &[u32] = &[TYPE, SIZE, FSID, RDATTR_ERROR, FILEID, NUMLINKS, SPACE_USED];
/// What is asked of a server.
pub(super) const OF_SERVER: &[u32] =
    &[LEASE_TIME, CASE_INSENSITIVE, MAXFILESIZE, MAXNAME, MAXREAD, MAXWRITE];
/// What is asked of a file system.
pub(super) const OF_SPACE: &[u32] = &[SPACE_AVAIL, SPACE_TOTAL];

/// What a server told; what it did not tell is zero or absent.
#[derive(Clone, Default, Debug)]
pub(super) struct Attributes {
    kind: Option<u32>,
    size: Option<u64>,
    fsid: Option<(u64, u64)>,
    fileid: Option<u64>,
    links: Option<u32>,
    used: Option<u64>,
    pub lease_secs: Option<u32>,
    pub case_insensitive: bool,
    pub max_file_size: Option<u64>,
    pub max_name: Option<u32>,
    pub max_read: Option<u64>,
    pub max_write: Option<u64>,
    pub available: Option<u64>,
    pub total: Option<u64>,
}

impl Attributes {
    /// Takes attributes off an answer.
    pub fn read(answer: &mut Answer) -> Result<Self, Fault> {
        let present = answer.bits()?;
        let mut values = Answer(answer.opaque()?);
        let mut all = Self::default();
        for number in present {
            match number {
                TYPE => all.kind = Some(values.u32()?),
                SIZE => all.size = Some(values.u64()?),
                FSID => all.fsid = Some((values.u64()?, values.u64()?)),
                LEASE_TIME => all.lease_secs = Some(values.u32()?),
                RDATTR_ERROR => drop(values.u32()?),
                CASE_INSENSITIVE => all.case_insensitive = values.bool()?,
                FILEID => all.fileid = Some(values.u64()?),
                MAXFILESIZE => all.max_file_size = Some(values.u64()?),
                MAXNAME => all.max_name = Some(values.u32()?),
                MAXREAD => all.max_read = Some(values.u64()?),
                MAXWRITE => all.max_write = Some(values.u64()?),
                NUMLINKS => all.links = Some(values.u32()?),
                SPACE_AVAIL => all.available = Some(values.u64()?),
                SPACE_TOTAL => all.total = Some(values.u64()?),
                SPACE_USED => all.used = Some(values.u64()?),
                other => {
                    let what =
                        format!("the server sent attribute {other}, which was not asked for");
                    return Err(broken_server(what).into());
                }
            }
        }
        Ok(all)
    }

    /// What they say of a file, if they say enough.
    pub fn facts(&self) -> Option<Facts> {
        let (major, minor) = self.fsid?;
        let size = self.size?;
        Some(Facts {
            kind: match self.kind? {
                1 => Kind::Regular,
                2 => Kind::Directory,
                _ => Kind::Irregular,
            },
            // NFSv3 knows one number; here it is made of both.
            identity: Identity { fsid: major.rotate_left(32) ^ minor, fileid: self.fileid? },
            size,
            used: self.used.unwrap_or(size),
            links: self.links.unwrap_or(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::xdr::Words, *};

    #[test]
    fn attributes_are_taken_in_their_order() {
        let mut values = Words::default();
        values.u32(1).u64(4096).u64(77).u64(1).u64(42).u32(2).u64(512);
        let mut words = Words::default();
        words.bits(OF_FILE).opaque(&values.0);
        let told = Attributes::read(&mut Answer(words.0.into())).expect("attributes");
        let facts = told.facts().expect("enough");
        assert_eq!(
            (facts.kind, facts.size, facts.used, facts.links),
            (Kind::Regular, 4096, 512, 2)
        );
        assert_eq!(facts.identity.fileid, 42);
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let mut words = Words::default();
        words.bits(&[2]).opaque(&[0; 4]);
        assert!(Attributes::read(&mut Answer(words.0.into())).is_err());
    }
}
