// SPDX-License-Identifier: Apache-2.0
//! Sizes in bytes as people write them.

use driver_api::{Error, ErrorKind, Result};

const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// The bytes of `"4096"`, `"64MiB"`, `"1.5 GiB"`, `"2T"` or `"10GB"`.
///
/// `K M G T P E`, alone or with `iB`, are powers of 1024; with `B` they are powers of 1000. A fraction of a byte is dropped.
pub fn parse_size(text: &str) -> Result<u64> {
    parse(text).ok_or_else(|| {
        Error::new(ErrorKind::INVALID_ARGUMENT, "this is not a size in bytes")
            .with("size", text.escape_debug())
            .remedy("write a number with a unit below 16 EiB, such as 512, 64MiB or 1.5TiB")
    })
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit = unit_bytes(unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // More digits than a fraction of an EiB can need would overflow below.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole = whole.parse::<u128>().ok()?.checked_mul(unit)?;
    let scale = 10_u128.pow(fraction.len() as u32);
    let fraction = fraction.parse::<u128>().ok()? * unit / scale;
    u64::try_from(whole.checked_add(fraction)?).ok()
}

fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let Some(prefix) = unit.chars().next() else { return Some(1) };
    if unit == "b" {
        return Some(1);
    }
    let power = "kmgtpe".find(prefix)? as u32 + 1;
    match &unit[1..] {
        "" | "ib" => Some(1024_u128.pow(power)),
        "b" => Some(1000_u128.pow(power)),
        _ => None,
    }
}

/// `bytes` for people: with the largest binary unit that leaves at least one, and two digits where it does not fit.
pub fn format_size(bytes: u64) -> String {
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let unit = BINARY[power];
    let (whole, rest) = (bytes >> (10 * power), bytes & ((1 << (10 * power)) - 1));
    if rest == 0 {
        return format!("{whole} {unit}");
    }
    let hundredths = (u128::from(rest) * 100) >> (10 * power);
    let text = format!("{whole}.{hundredths:02}");
    format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        let gib = 1 << 30;
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1.5GiB", gib + gib / 2),
            (" 2T ", 2 << 40),
            ("10GB", 10_000_000_000),
            ("0.5K", 512),
            ("1.1K", 1126),
            ("15EiB", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "-1",
            "GiB",
            "1.",
            ".5G",
            "1..5G",
            "1.5.5G",
            "1XiB",
            "1GiBs",
            "1 G B",
            "16EiB",
            "٣",
            "1e3",
            "18446744073709551616",
            "99999999999999999999999999999999999999999999",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_short_and_read_back() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((1 << 40) + 1, "1 TiB"),
            (u64::MAX, "15.99 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
            let back = parse_size(text).unwrap();
            assert!(back <= bytes && bytes - back <= bytes / 64, "{text}");
        }
    }
}
