// SPDX-License-Identifier: Apache-2.0
//! Times as stores write them. What cannot be read is 0: the time of an object is told, not acted upon.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};

/// `2026-11-23T15:29:37.000Z`, in milliseconds since 1970. Swift's, which say no zone, are UTC.
pub(crate) fn iso_ms(text: &str) -> u64 {
    let text = text.trim();
    let ms = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.timestamp_millis(),
        Err(_) => match NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f") {
            Ok(time) => time.and_utc().timestamp_millis(),
            Err(_) => 0,
        },
    };
    u64::try_from(ms).unwrap_or(0)
}

/// `Mon, 23 Nov 2026 15:29:37 GMT`, in milliseconds since 1970.
pub(crate) fn http_ms(text: &str) -> u64 {
    let ms = DateTime::parse_from_rfc2822(text.trim()).map_or(0, |time| time.timestamp_millis());
    u64::try_from(ms).unwrap_or(0)
}

/// Milliseconds since 1970 as `2026-11-23T15:29:37Z`.
pub(crate) fn iso(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Seconds since 1970 as `20261123T152937Z`.
pub(crate) fn compact(secs: u64) -> String {
    let time = i64::try_from(secs).ok().and_then(|secs| DateTime::<Utc>::from_timestamp(secs, 0));
    time.unwrap_or_default().format("%Y%m%dT%H%M%SZ").to_string()
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_stores_are_read() {
        assert_eq!(iso_ms("2026-11-23T15:29:37.250Z"), 1_795_447_777_250);
        assert_eq!(iso_ms("2026-11-23T15:29:37.250000"), 1_795_447_777_250);
        assert_eq!(http_ms("Mon, 23 Nov 2026 15:29:37 GMT"), 1_795_447_777_000);
        assert_eq!((iso_ms("soon"), http_ms(""), iso_ms("1969-01-01T00:00:00Z")), (0, 0, 0));
        assert_eq!(iso(1_795_447_777_250), "2026-11-23T15:29:37Z");
        assert_eq!(compact(1_795_447_777), "20261123T152937Z");
    }
}
