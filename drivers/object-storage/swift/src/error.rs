// SPDX-License-Identifier: Apache-2.0

//! Failures: what was asked, why it failed, and what to do next.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use object_store::Error;

/// The store's name in errors.
pub(crate) const STORE: &str = "Swift";

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The object, its container or an upload is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// A condition of the caller does not hold.
    Precondition,
    /// The object has not changed (a conditional read).
    NotModified,
    /// The user may not do this.
    PermissionDenied,
    /// The user or its token was refused.
    Unauthenticated,
    /// The server asked to slow down, or was overloaded, until the deadline.
    Busy,
    /// No answer within the deadline.
    TimedOut,
    /// No connection, or one that broke.
    Connection,
    /// The certificate of the server is not trusted.
    Untrusted,
    /// A quota or the server's space is used up.
    Full,
    /// Bytes that differ from what they should be.
    Corrupt,
    /// The server refused the request as wrong, or conflicting with its state.
    Rejected,
    /// The server cannot do this.
    Unsupported,
    /// The server answered with an error of its own.
    Server,
}

/// A failed request: the source of every [`object_store::Error`] that this crate returns.
#[derive(Debug, Clone)]
pub struct Failure(Box<Detail>);

#[derive(Debug, Clone)]
struct Detail {
    kind: FailureKind,
    request: String,
    path: String,
    status: Option<StatusCode>,
    transaction: Option<String>,
    cause: String,
    remedy: String,
    attempts: usize,
    elapsed: Duration,
    outcome_unknown: bool,
}

impl Failure {
    pub(crate) fn new(
        kind: FailureKind,
        request: impl Into<String>,
        cause: impl Into<String>,
    ) -> Self {
        Self(Box::new(Detail {
            kind,
            request: request.into(),
            path: String::new(),
            status: None,
            transaction: None,
            cause: cause.into(),
            remedy: String::new(),
            attempts: 0,
            elapsed: Duration::ZERO,
            outcome_unknown: false,
        }))
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = remedy.into();
        self
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.0.path = path.into();
        self
    }

    pub(crate) fn kind_of(mut self, kind: FailureKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn answered(mut self, status: StatusCode, transaction: Option<String>) -> Self {
        self.0.status = Some(status);
        self.0.transaction = transaction;
        self
    }

    pub(crate) fn after(mut self, attempts: usize, elapsed: Duration) -> Self {
        self.0.attempts = attempts;
        self.0.elapsed = elapsed;
        self
    }

    pub(crate) fn unknown(mut self, unknown: bool) -> Self {
        self.0.outcome_unknown = unknown;
        self
    }

    /// Why it failed.
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The status the server answered with, if it answered.
    pub fn status(&self) -> Option<u16> {
        self.0.status.map(|status| status.as_u16())
    }

    /// The server's id of the request, to be looked up in its logs.
    pub fn transaction(&self) -> Option<&str> {
        self.0.transaction.as_deref()
    }

    /// Whether the request may have been carried out, or may still be, although it failed.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// What to do next.
    pub fn advice(&self) -> &str {
        &self.0.remedy
    }

    /// The failure behind an error of this crate.
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &self.0;
        write!(f, "{} failed: {}", detail.request, detail.cause)?;
        let mut facts = Vec::new();
        facts.extend(detail.status.map(|status| format!("HTTP {}", status.as_u16())));
        facts.extend(detail.transaction.as_ref().map(|id| format!("transaction {id}")));
        if detail.attempts > 1 {
            facts.push(format!(
                "{} attempts in {:.1} s",
                detail.attempts,
                detail.elapsed.as_secs_f64()
            ));
        }
        if !facts.is_empty() {
            write!(f, " ({})", facts.join(", "))?;
        }
        if detail.outcome_unknown {
            f.write_str("; whether it was carried out is unknown")?;
        }
        if !detail.remedy.is_empty() {
            write!(f, "; {}", detail.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let path = failure.0.path.clone();
        let kind = failure.0.kind;
        let source = Box::new(failure);
        match kind {
            FailureKind::NotFound => Self::NotFound { path, source },
            FailureKind::AlreadyExists => Self::AlreadyExists { path, source },
            FailureKind::Precondition => Self::Precondition { path, source },
            FailureKind::NotModified => Self::NotModified { path, source },
            FailureKind::PermissionDenied => Self::PermissionDenied { path, source },
            FailureKind::Unauthenticated => Self::Unauthenticated { path, source },
            FailureKind::Unsupported => Self::NotSupported { source },
            _ => Self::Generic { store: STORE, source },
        }
    }
}

/// The kind and remedy of an answer with `status`.
pub(crate) fn classify(status: StatusCode) -> (FailureKind, &'static str) {
    match status.as_u16() {
        304 => (FailureKind::NotModified, ""),
        401 => (
            FailureKind::Unauthenticated,
            "check user, password (of auth v1: the key) and project, and that the clock is right",
        ),
        403 => (
            FailureKind::PermissionDenied,
            "have the user given a role on the account, or an ACL on the container",
        ),
        404 => (
            FailureKind::NotFound,
            "check the names of container and object; a container has to be created first",
        ),
        409 => (
            FailureKind::Rejected,
            "the server's state conflicts with it; look at the container and repeat",
        ),
        412 => (FailureKind::Precondition, ""),
        413 => (
            FailureKind::Full,
            "a quota is used up, or the object is larger than one may be: use a multi-part upload",
        ),
        416 => (FailureKind::Rejected, "the range begins behind the end of the object"),
        422 => (
            FailureKind::Corrupt,
            "the bytes were damaged on their way; repeat, and check the network",
        ),
        429 | 498 => {
            (FailureKind::Busy, "the server limits the rate; send less, or raise its limit")
        }
        503 => (
            FailureKind::Busy,
            "the server is overloaded or lacks nodes; look at its logs for the transaction",
        ),
        507 => (FailureKind::Full, "the server has no space left"),
        500.. => (FailureKind::Server, "look at the server's logs for the transaction"),
        _ => (FailureKind::Rejected, ""),
    }
}
