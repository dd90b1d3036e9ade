// SPDX-License-Identifier: Apache-2.0
//! What is asked of the contenders, and what shall come of it.

use end_to_end::netfs::Way;
use novastor_bench::{load::Case, table::Limit};

/// The driver.
pub const DRIVER: &str = "driver";
/// The driver, asked for one thing after the other.
pub const ONE_AT_A_TIME: &str = "one at a time";
/// libnfs.
pub const LIBNFS: &str = "libnfs";
/// smbclient, with the protection that the driver has: signed, or encrypted.
pub const SMBCLIENT: &str = "smbclient";
/// smbclient as it comes, which signs nothing where the server does not demand it.
pub const UNSIGNED: &str = "smbclient unsigned";

/// A load by one of the protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The protocol.
    pub way: Way,
    /// The server is far away.
    pub far: bool,
    /// The load.
    pub case: Case,
}

const MIB: usize = 1 << 20;

const fn sequential(way: Way, write: bool) -> Ask {
    Ask { way, far: false, case: Case { write, random: false, block: MIB, depth: 8 } }
}

const fn far(way: Way, write: bool) -> Ask {
    Ask { way, far: true, case: Case { write, random: true, block: 4 << 10, depth: 32 } }
}

/// All of them.
pub const CASES: [Ask; 10] = [
    sequential(Way::Nfs3, true),
    sequential(Way::Nfs3, false),
    sequential(Way::Smb, true),
    sequential(Way::Smb, false),
    sequential(Way::SmbEncrypted, true),
    sequential(Way::SmbEncrypted, false),
    far(Way::Nfs3, true),
    far(Way::Nfs3, false),
    far(Way::Nfs40, true),
    far(Way::Nfs40, false),
];

/// All limits.
pub const LIMITS: &[Limit] = &[
    Limit { who: DRIVER, of: LIBNFS, target: 0.9, least: 0.4 },
    Limit { who: DRIVER, of: SMBCLIENT, target: 0.9, least: 0.4 },
    Limit { who: DRIVER, of: ONE_AT_A_TIME, target: 20.0, least: 6.0 },
];

impl Ask {
    /// It, in words.
    pub fn name(&self) -> String {
        let server = if self.far { ", 2 ms away" } else { "" };
        format!("{}{server}: {}", self.way.name(), self.case.name())
    }

    /// Who is asked, in the order of the table.
    pub fn contenders(&self) -> &'static [&'static str] {
        match (self.far, self.way) {
            (true, _) => &[DRIVER, ONE_AT_A_TIME],
            (false, Way::Smb) => &[DRIVER, SMBCLIENT, UNSIGNED],
            (false, Way::SmbEncrypted) => &[DRIVER, SMBCLIENT],
            (false, _) => &[DRIVER, LIBNFS],
        }
    }
}
