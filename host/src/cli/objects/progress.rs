// SPDX-License-Identifier: Apache-2.0
//! What people see of a transfer while it goes on.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{cli::Output, config::format_size};

/// A transfer's progress bar, with rate and time left.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    moved: AtomicU64,
}

impl Progress {
    /// The bar of a transfer of so many bytes, if that is known. It is hidden from programs.
    pub(super) fn new(output: Output, total: Option<u64>) -> Self {
        let bar = match (output == Output::Json || !std::io::stderr().is_terminal(), total) {
            (true, _) => ProgressBar::hidden(),
            (false, Some(total)) => ProgressBar::new(total),
            (false, None) => ProgressBar::no_length(),
        };
        let look = match total {
            Some(_) => "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes}, {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now(), moved: AtomicU64::new(0) }
    }

    /// Bytes were moved.
    pub(super) fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// Bytes that were moved have to be moved again.
    pub(super) fn lost(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    /// Bytes were there already, from an earlier attempt.
    pub(super) fn found(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.bar.reset_eta();
    }

    /// Says something beside the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("novastor: {text}"));
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// What was moved in which time, in words.
    pub(super) fn sum(&self) -> String {
        let (bytes, took) = (self.moved.load(Ordering::Relaxed), self.begun.elapsed());
        let rate = bytes as f64 / took.max(Duration::from_millis(1)).as_secs_f64();
        format!(
            "{} in {:.1} s, {}/s",
            format_size(bytes),
            took.as_secs_f64(),
            format_size(rate as u64)
        )
    }

    pub(super) fn bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}
