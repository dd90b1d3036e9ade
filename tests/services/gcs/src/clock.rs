// SPDX-License-Identifier: Apache-2.0
//! Times: microseconds since 1970, and how the APIs write them.

use chrono::{DateTime, NaiveDateTime, Utc};

/// Now, in microseconds since 1970.
pub(crate) fn now() -> i64 {
    Utc::now().timestamp_micros()
}

/// `2026-01-31T12:00:00.123Z`, as in listings and in JSON.
pub(crate) fn rfc3339(micros: i64) -> String {
    time(micros).format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `Sat, 31 Jan 2026 12:00:00 GMT`, as in headers.
pub(crate) fn header(micros: i64) -> String {
    time(micros).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Seconds since 1970 of a time in a header.
pub(crate) fn parse_header(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc2822(text).ok().map(|time| time.timestamp())
}

/// Seconds since 1970 of `20260131T120000Z`, as in signed URLs.
pub(crate) fn parse_basic(text: &str) -> Option<i64> {
    NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ")
        .ok()
        .map(|time| time.and_utc().timestamp())
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_google_writes_them() {
        assert_eq!(rfc3339(1_769_860_800_123_456), "2026-01-31T12:00:00.123Z");
        assert_eq!(header(1_769_860_800_123_456), "Sat, 31 Jan 2026 12:00:00 GMT");
        assert_eq!(parse_header("Sat, 31 Jan 2026 12:00:00 GMT"), Some(1_769_860_800));
        assert_eq!(parse_basic("20260131T120000Z"), Some(1_769_860_800));
        assert_eq!(parse_basic("2026-01-31"), None);
    }
}
