// SPDX-License-Identifier: Apache-2.0
//! What a scrub found, and how far it is.

use crate::{
    BrickId, DecodeError, Digest, NodeId, Slot,
    codec::{Reader, Writer},
};

/// Findings that are kept; of more only the number is.
pub(crate) const MOST_FINDINGS: usize = 1024;

/// How the bad replicas were told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The others have the digest of what was there at rest.
    Digest,
    /// There is no digest, and more than half of at least three replicas hold the same.
    Majority,
    /// They differ, and nothing tells which is right.
    Undecided,
    /// All hold the same, and it is not what was there at rest.
    Everywhere,
    /// They cannot be read, and others can.
    Unreadable,
}

/// What became of the bad replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repaired {
    /// Nothing: nobody asked for it, or nothing tells what is right.
    Left,
    /// It is being done.
    UnderWay,
    /// They got what a good replica has, and read it back.
    Verified,
    /// They do not read what was written to them, or it could not be written.
    Failed,
    /// They got it; what they hold was changed before it could be read back.
    Unverified,
}

/// A replica that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// Its slot.
    pub slot: Slot,
    /// Its brick.
    pub brick: BrickId,
    /// Its node.
    pub node: NodeId,
    /// What it held.
    pub digest: Digest,
    /// Whether it is bad, or may be.
    pub is_bad: bool,
}

/// A range whose replicas are not what they must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// How the bad replicas were told.
    pub verdict: Verdict,
    /// What became of them.
    pub mending: Repaired,
    /// All that were looked at.
    pub replicas: Vec<Judged>,
}

impl Finding {
    /// The bad replicas.
    pub fn bad(&self) -> impl Iterator<Item = &Judged> {
        self.replicas.iter().filter(|replica| replica.is_bad)
    }
}

/// A scrub, under way or the last one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScrubStatus {
    /// When it was asked for, on the caller's clock, in milliseconds since 1970.
    pub started: u64,
    /// Whether bad replicas are mended.
    pub repairs: bool,
    /// Whether it has come to its end.
    pub is_over: bool,
    /// Units that were looked at, or given up, of all; see `units`.
    pub cursor: u32,
    /// Units of the volume.
    pub units: u32,
    /// Units whose replicas were compared.
    pub compared: u64,
    /// Units that could not be looked at: they were written again and again, or a replica was not in sync.
    pub passed_over: u64,
    /// Units that have a digest.
    pub digested: u32,
    /// What was found, as many as are kept.
    pub findings: Vec<Finding>,
    /// How many were found.
    pub found: u64,
}

pub(crate) fn write_status(writer: &mut Writer, status: Option<&ScrubStatus>) {
    writer.u8(u8::from(status.is_some()));
    let Some(status) = status else { return };
    writer.u64(status.started);
    writer.u8(u8::from(status.repairs));
    writer.u8(u8::from(status.is_over));
    writer.u32(status.cursor);
    writer.u32(status.units);
    writer.u64(status.compared);
    writer.u64(status.passed_over);
    writer.u64(status.found);
    writer.len(status.findings.len());
    for finding in &status.findings {
        writer.u64(finding.offset);
        writer.u64(finding.len);
        writer.u8(match finding.verdict {
            Verdict::Digest => 0,
            Verdict::Majority => 1,
            Verdict::Undecided => 2,
            Verdict::Everywhere => 3,
            Verdict::Unreadable => 4,
        });
        writer.u8(match finding.mending {
            Repaired::Left => 0,
            Repaired::UnderWay | Repaired::Unverified => 1,
            Repaired::Verified => 2,
            Repaired::Failed => 3,
        });
        writer.len(finding.replicas.len());
        for replica in &finding.replicas {
            writer.u8(replica.slot.0);
            writer.u32(replica.brick.0);
            writer.u32(replica.node.0);
            writer.raw(&replica.digest);
            writer.u8(u8::from(replica.is_bad));
        }
    }
}

pub(crate) fn read_status(reader: &mut Reader<'_>) -> Result<Option<ScrubStatus>, DecodeError> {
    if reader.u8()? == 0 {
        return Ok(None);
    }
    let mut status = ScrubStatus {
        started: reader.u64()?,
        repairs: reader.u8()? != 0,
        is_over: reader.u8()? != 0,
        cursor: reader.u32()?,
        units: reader.u32()?,
        compared: reader.u64()?,
        passed_over: reader.u64()?,
        found: reader.u64()?,
        ..ScrubStatus::default()
    };
    for _ in 0..reader.count(22)? {
        let (offset, len) = (reader.u64()?, reader.u64()?);
        let verdict = match reader.u8()? {
            0 => Verdict::Digest,
            1 => Verdict::Majority,
            2 => Verdict::Undecided,
            3 => Verdict::Everywhere,
            4 => Verdict::Unreadable,
            _ => return Err(DecodeError::Malformed),
        };
        let mending = match reader.u8()? {
            0 => Repaired::Left,
            1 => Repaired::Unverified,
            2 => Repaired::Verified,
            3 => Repaired::Failed,
            _ => return Err(DecodeError::Malformed),
        };
        let mut replicas = Vec::new();
        for _ in 0..reader.count(26)? {
            replicas.push(Judged {
                slot: Slot(reader.u8()?),
                brick: BrickId(reader.u32()?),
                node: NodeId(reader.u32()?),
                digest: reader.raw()?,
                is_bad: reader.u8()? != 0,
            });
        }
        status.findings.push(Finding { offset, len, verdict, mending, replicas });
    }
    Ok(Some(status))
}
