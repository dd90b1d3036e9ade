// SPDX-License-Identifier: Apache-2.0
//! Who has a volume attached: one at a time, with epochs that only grow.
//!
//! This keeps callers apart who ask; those who do not ask are fenced by the bricks' backends. A claim ends with its
//! process: the state belongs to one host, so whoever claimed before the machine started, or whose process is gone, has
//! nothing any more.

use std::{fs, io};

use driver_api::{Attach, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;

/// The attachment of a volume, present or last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    epoch: u64,
    owner: String,
    held: bool,
    process: Process,
}

/// A process of this machine that is never mistaken for another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Process {
    boot: String,
    id: u32,
    /// When it began, in clock ticks since the machine's start.
    began: u64,
}

impl Process {
    fn this() -> io::Result<Self> {
        let id = std::process::id();
        let began = began(id)?;
        Ok(Self { boot: boot()?, id, began })
    }

    /// Whether it still runs; what cannot be known counts as running.
    fn lives(&self) -> bool {
        match boot() {
            Ok(boot) if boot != self.boot => false,
            Ok(_) => match began(self.id) {
                Ok(began) => began == self.began,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            },
            Err(_) => true,
        }
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn began(id: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The program's name may hold spaces; what follows it starts with field 3, and the beginning is field 22.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat has no such field"))
}

/// Claims a volume for an attachment, or says who has it.
pub(crate) async fn claim(catalog: &Catalog, volume: &str, attach: &Attach) -> Result<()> {
    let process = Process::this().map_err(|error| {
        Error::from_io(format!("this process cannot tell when it began: {error}"), &error)
    })?;
    let change = |claim: Option<Claim>| {
        if let Some(claim) = &claim {
            claim.admit(volume, attach)?;
        }
        let owner = attach.owner.to_string();
        Ok(Claim { epoch: attach.epoch, owner, held: true, process: process.clone() })
    };
    catalog.change_claim(volume, change).await
}

/// Claims a volume that nobody has, for work that gives way to every attachment: its epoch stays free for the next one.
pub(crate) async fn borrow(catalog: &Catalog, volume: &str, owner: &str) -> Result<u64> {
    let process = Process::this().map_err(|error| {
        Error::from_io(format!("this process cannot tell when it began: {error}"), &error)
    })?;
    let epoch = catalog.claim(volume).await?.map_or(0, |claim| claim.epoch);
    let change = |claim: Option<Claim>| {
        if let Some(claim) = &claim {
            claim.check_free(volume)?;
            if claim.epoch != epoch {
                return Err(in_use(volume, &claim.owner));
            }
        }
        Ok(Claim { epoch, owner: owner.to_owned(), held: true, process: process.clone() })
    };
    catalog.change_claim(volume, change).await?;
    Ok(epoch)
}

/// Ends a claim, unless a later one has taken its place.
pub(crate) async fn release(catalog: &Catalog, volume: &str, epoch: u64) -> Result<()> {
    let change = |claim: Option<Claim>| match claim {
        Some(claim) if claim.epoch == epoch => Ok(Claim { held: false, ..claim }),
        Some(claim) => Ok(claim),
        None => Err(crate::error::no_volume(volume)),
    };
    catalog.change_claim(volume, change).await
}

impl Claim {
    fn admit(&self, volume: &str, attach: &Attach) -> Result<()> {
        if !attach.force {
            self.check_free(volume)?;
        }
        if self.epoch >= attach.epoch {
            return Err(Error::new(ErrorKind::FENCED, "a later attachment had the volume")
                .with("volume", volume)
                .with("epoch", attach.epoch)
                .with("latest_epoch", self.epoch));
        }
        Ok(())
    }

    /// Fails while somebody has the volume.
    pub fn check_free(&self, volume: &str) -> Result<()> {
        if self.held && self.process.lives() {
            return Err(in_use(volume, &self.owner));
        }
        Ok(())
    }
}

fn in_use(volume: &str, owner: &str) -> Error {
    Error::new(ErrorKind::IN_USE, "the volume is attached")
        .with("volume", volume)
        .with("owner", owner)
        .remedy("detach it there, or attach it by force")
}

#[cfg(test)]
mod tests {
    use driver_api::AttachMode;

    use super::*;

    #[test]
    fn a_claim_ends_with_its_process_and_its_epoch_stays() {
        let mut claim =
            Claim { epoch: 5, owner: "a".into(), held: true, process: Process::this().unwrap() };
        let attach = |epoch| Attach::new(AttachMode::EXCLUSIVE, epoch, "b");
        let kind = |claim: &Claim, attach: &Attach| claim.admit("v", attach).map_err(|e| e.kind());
        assert_eq!(kind(&claim, &attach(6)), Err(ErrorKind::IN_USE));
        assert_eq!(kind(&claim, &attach(6).force()), Ok(()));
        assert_eq!(kind(&claim, &attach(5).force()), Err(ErrorKind::FENCED));
        claim.process.began += 1;
        assert_eq!(kind(&claim, &attach(6)), Ok(()), "another process has its number now");
        claim.process = Process { boot: "before".into(), ..Process::this().unwrap() };
        assert_eq!(kind(&claim, &attach(6)), Ok(()), "the machine was started again");
        claim.process = Process::this().unwrap();
        claim.held = false;
        assert_eq!(kind(&claim, &attach(5)), Err(ErrorKind::FENCED));
        assert_eq!(kind(&claim, &attach(6)), Ok(()));
    }
}
