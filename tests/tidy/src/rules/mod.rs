// SPDX-License-Identifier: Apache-2.0
//! The rules, one a file, and the list that the test applies.

pub mod arrows;
pub mod banners;
pub mod layout;
pub mod length;
pub mod names;
pub mod panics;
pub mod reminders;
pub mod spdx;
pub mod unsafety;
pub mod words;

use crate::{Violation, source::Source};

/// A rule that looks at one file.
pub type FileRule = fn(&Source) -> Vec<Violation>;

/// Every rule that looks at one file.
pub const FILE_RULES: &[FileRule] = &[
    banners::no_banners,
    layout::fixed_top_level,
    length::short_files,
    names::telling_names,
    panics::no_panics,
    reminders::reminders_name_an_issue,
    spdx::licence_line,
    unsafety::unsafe_is_explained,
    words::no_workplace,
];
