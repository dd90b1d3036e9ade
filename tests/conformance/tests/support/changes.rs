// SPDX-License-Identifier: Apache-2.0
//! What changed between pictures of a reference's volume.

use driver_api::{
    ErrorKind, Result,
    ext::{Extent, ExtentFlags},
};

use super::{
    content::{Content, PAGE},
    defect::Defect,
    store::{Disk, Store},
};

/// What is asked for.
pub struct Question<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub offset: u64,
    pub len: u64,
    pub limit: usize,
}

impl Store {
    pub fn changes(&self, disk: &Disk, question: &Question<'_>) -> Result<Vec<Extent>> {
        let Question { from, to, offset, len, limit } = *question;
        let at =
            |name: &str| if name.is_empty() { Ok(None) } else { self.find(disk, name).map(Some) };
        let (from, to) = (at(from)?, at(to)?);
        if let (Some(from), Some(to)) = (from, to)
            && from > to
            && !self.is(Defect::ChangesBackwards)
        {
            return Err(
                self.error(ErrorKind::INVALID_ARGUMENT, "the first snapshot is the later one")
            );
        }
        let (size, after) = match to {
            None => (disk.size, &disk.live),
            Some(to) => (disk.snapshots[to].size, &disk.snapshots[to].content),
        };
        let nothing = Content::default();
        let before = from.map_or(&nothing, |from| &disk.snapshots[from].content);
        if offset + len > size && !self.is(Defect::ChangesPastEnd) {
            return Err(self.error(ErrorKind::OUT_OF_RANGE, "the range is not inside"));
        }
        let since = disk.snapshots.iter().skip(from.unwrap_or(0));
        let smallest = since.map(|snapshot| snapshot.size).min().unwrap_or(u64::MAX);
        let mut list: Vec<Extent> = Vec::new();
        for page in offset / PAGE..(offset + len).div_ceil(PAGE) {
            let (was, is) = (before.0.get(&page), after.0.get(&page));
            let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
            let flags = match (was, is) {
                (was, is) if was == is => continue,
                (_, None) if self.is(Defect::ChangesMissed) => continue,
                (Some(_), None) if self.is(Defect::ChangesOfCut) && page * PAGE >= smallest => {
                    continue;
                }
                (_, None) => hole,
                _ if self.is(Defect::ChangesLie) => hole,
                _ => ExtentFlags::DATA,
            };
            let (start, end) = ((page * PAGE).max(offset), ((page + 1) * PAGE).min(offset + len));
            match list.last_mut() {
                Some(last) if last.flags == flags && last.offset + last.len == start => {
                    last.len += end - start;
                }
                _ => list.push(Extent { offset: start, len: end - start, flags }),
            }
        }
        if !self.is(Defect::ChangesUnlimited) {
            list.truncate(limit);
        }
        Ok(list)
    }
}
