// SPDX-License-Identifier: Apache-2.0
//! Which requests meet which fault.

use std::{fmt, sync::Arc, time::Duration};

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// It is read, goes nowhere, and is answered with this status, and `Retry-After` with so many seconds.
    Answer {
        /// The status.
        status: u16,
        /// Seconds of `Retry-After`.
        retry_after: Option<u32>,
    },
    /// It goes on after this time.
    Delay(Duration),
    /// It is read and never answered; the connection stays.
    BlackHole,
    /// So many bytes of its body go on, then nothing goes either way; the connections stay.
    HalfOpen {
        /// Bytes of the request's body.
        after: u64,
    },
    /// So many bytes of its body go on, then both connections are reset.
    Reset {
        /// Bytes of the request's body.
        after: u64,
    },
    /// It goes on and is answered, but the answer is lost: the connection ends.
    LoseAnswer,
    /// It goes on and is answered, but who asked is told this status.
    FalseStatus(u16),
    /// The answer ends after so many bytes of its body, with the connection.
    Truncate {
        /// Bytes of the answer's body.
        after: u64,
    },
    /// The answer stands still after so many bytes of its body; the connection stays.
    Stall {
        /// Bytes of the answer's body.
        after: u64,
    },
    /// One byte of the answer's body is another one.
    Corrupt {
        /// The place of that byte.
        at: u64,
    },
    /// The answer's body comes so many bytes at a time, with so much time between them.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// The time between them.
        every: Duration,
    },
    /// It is read and goes nowhere; this is done meanwhile, then it is answered with 500.
    Meanwhile(Arc<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Fault {
    /// It, in words.
    pub fn name(&self) -> String {
        match self {
            Self::Answer { status, .. } => format!("{status}"),
            Self::Delay(time) => format!("{} ms late", time.as_millis()),
            Self::BlackHole => "black hole".to_owned(),
            Self::HalfOpen { after } => format!("half-open after {after}"),
            Self::Reset { after } => format!("reset after {after}"),
            Self::LoseAnswer => "lost answer".to_owned(),
            Self::FalseStatus(status) => format!("false {status}"),
            Self::Truncate { after } => format!("truncated after {after}"),
            Self::Stall { after } => format!("stalled after {after}"),
            Self::Corrupt { at } => format!("corrupted at {at}"),
            Self::Drip { bytes, .. } => format!("{bytes} bytes at a time"),
            Self::Meanwhile(_) => "500 meanwhile".to_owned(),
        }
    }
}

/// Which requests meet a fault: without more words, all of them.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) fault: Fault,
    methods: &'static [&'static str],
    with: Vec<String>,
    without: Vec<String>,
    pub(super) skipped: u64,
    pub(super) most: u64,
    pub(super) lasts: Option<Duration>,
}

impl Rule {
    /// All requests meet this.
    pub fn new(fault: Fault) -> Self {
        let (with, without) = (Vec::new(), Vec::new());
        Self { fault, methods: &[], with, without, skipped: 0, most: u64::MAX, lasts: None }
    }

    /// Only those of these methods.
    pub fn methods(mut self, methods: &'static [&'static str]) -> Self {
        self.methods = methods;
        self
    }

    /// Only those whose path or query has this text.
    pub fn with(mut self, text: impl Into<String>) -> Self {
        self.with.push(text.into());
        self
    }

    /// Only those whose path and query do not have this text.
    pub fn without(mut self, text: impl Into<String>) -> Self {
        self.without.push(text.into());
        self
    }

    /// Not the first ones.
    pub fn skip(mut self, first: u64) -> Self {
        self.skipped = first;
        self
    }

    /// At most so many.
    pub fn times(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// Only for so long after the first one.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasts = Some(time);
        self
    }

    pub(super) fn is_for(&self, method: &str, target: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(&method))
            && self.with.iter().all(|text| target.contains(text))
            && !self.without.iter().any(|text| target.contains(text))
    }
}
