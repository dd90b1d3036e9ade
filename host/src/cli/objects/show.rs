// SPDX-License-Identifier: Apache-2.0
//! Buckets, objects and what belongs to them, for people.

use std::io::Write;

use crate::{
    api::objects::types::{BucketView, ObjectTags, ObjectView, RuleView, UploadView},
    cli::show::{Row, size},
};

/// A moment for people, in UTC: 2026-11-23 15:30:07.
pub(in crate::cli) fn moment(ms: u64) -> String {
    let secs = ms / 1000;
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    // Days of eras of 400 years that begin with a March: the day that is not in each year is the last one.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn maybe(ms: Option<u64>) -> String {
    ms.map(moment).unwrap_or_default()
}

/// A name without what a terminal would take for a command.
pub(in crate::cli) fn printable(name: &str) -> String {
    if !name.contains(char::is_control) {
        return name.to_owned();
    }
    name.chars()
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect()
}

/// The first line of a listing.
pub(super) fn title(versions: bool) -> String {
    let version = if versions { "  VERSION                         " } else { "" };
    format!("{:>15}  {:<19}{version}  KEY", "SIZE", "MODIFIED")
}

/// A line of a listing.
pub(super) fn line(
    out: &mut impl Write,
    object: &ObjectView,
    versions: bool,
) -> std::io::Result<()> {
    match object.deleted {
        true => write!(out, "{:>15}", "deleted")?,
        false => write!(out, "{:>15}", object.size)?,
    }
    write!(out, "  {:<19}", maybe(object.modified_ms))?;
    if versions {
        write!(out, "  {:<32}", object.version.as_deref().unwrap_or("-"))?;
    }
    writeln!(out, "  {}", printable(&object.key))
}

/// The line of a common prefix.
pub(super) fn prefix_line(
    out: &mut impl Write,
    prefix: &str,
    versions: bool,
) -> std::io::Result<()> {
    let version = if versions { 34 } else { 0 };
    writeln!(out, "{:>15}  {:<19}{:version$}  {}", "-", "", "", printable(prefix))
}

impl Row for BucketView {
    const HEAD: &'static [&'static str] = &["name", "region", "versioning", "created"];

    fn cells(&self) -> Vec<String> {
        let versioning = if self.versioning == "unknown" { "" } else { &self.versioning };
        vec![
            printable(&self.name),
            self.region.clone().unwrap_or_default(),
            versioning.to_owned(),
            maybe(self.created_ms),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.push(("objects", self.objects.map(|count| count.to_string()).unwrap_or_default()));
        card.push(("size", self.bytes.map(size).unwrap_or_default()));
        card
    }
}

impl Row for ObjectView {
    const HEAD: &'static [&'static str] = &["key", "size", "modified", "version"];

    fn cells(&self) -> Vec<String> {
        vec![
            printable(&self.key),
            size(self.size),
            maybe(self.modified_ms),
            self.version.clone().unwrap_or_default(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        card.extend([
            ("bytes", self.size.to_string()),
            ("etag", text(&self.etag)),
            ("checksum", text(&self.checksum)),
            ("content type", text(&self.content_type)),
            ("storage class", text(&self.storage_class)),
            ("expires", maybe(self.expires_ms)),
        ]);
        let metadata = self.metadata.iter();
        card.extend(
            metadata.map(|(name, value)| ("metadata", printable(&format!("{name}={value}")))),
        );
        if !self.latest {
            card.push(("latest", "no".to_owned()));
        }
        card
    }
}

impl Row for UploadView {
    const HEAD: &'static [&'static str] = &["started", "key", "id"];

    fn cells(&self) -> Vec<String> {
        vec![maybe(self.started_ms), printable(&self.key), self.id.clone()]
    }
}

impl Row for RuleView {
    const HEAD: &'static [&'static str] = &["id", "enabled", "prefix", "does"];

    fn cells(&self) -> Vec<String> {
        let mut does = Vec::new();
        if let Some(days) = self.expire_days {
            does.push(format!("objects go after {days} days"));
        }
        if let Some(days) = self.expire_noncurrent_days {
            does.push(format!("old versions go after {days} days"));
        }
        if let Some(days) = self.abort_upload_days {
            does.push(format!("unfinished uploads go after {days} days"));
        }
        if let (Some(days), Some(class)) = (self.transition_days, &self.transition_class) {
            does.push(format!("objects move to {class} after {days} days"));
        }
        let enabled = if self.enabled { "yes" } else { "no" };
        vec![self.id.clone(), enabled.to_owned(), printable(&self.prefix), does.join("; ")]
    }
}

impl Row for ObjectTags {
    const HEAD: &'static [&'static str] = &["tags"];

    fn cells(&self) -> Vec<String> {
        let tags = self.tags.iter().map(|(name, value)| printable(&format!("{name}={value}")));
        vec![tags.collect::<Vec<_>>().join(" ")]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let tags = self.tags.iter();
        tags.map(|(name, value)| ("tag", printable(&format!("{name}={value}")))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (secs, wanted) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_795_447_807, "2026-11-23 15:30:07"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(moment(secs * 1000), wanted);
        }
    }

    #[test]
    fn names_do_not_command_the_terminal() {
        assert_eq!(printable("a/ü b"), "a/ü b");
        assert_eq!(printable("a\x1b[2J\nb"), "a\\u{1b}[2J\\nb");
    }
}
