// SPDX-License-Identifier: Apache-2.0
//! What went wrong, for a program ([`ErrorKind`], [`Retry`]) and for an operator (message, context, remedy).

use std::fmt;

use abi_stable::{
    StableAbi,
    std_types::{RBox, RString, RVec, Tuple2},
};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is. Open-ended: a newer side may send a kind this side has no name for.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorKind(u32);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl ErrorKind {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every kind this version names.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The kind's stable name, as APIs and logs show it.
            pub fn name(self) -> &'static str {
                match self.0 { $($value => $text,)* _ => "Unknown" }
            }
        }
    };
}

kinds! {
    /// The named object does not exist.
    NOT_FOUND = 1, "NotFound";
    /// An object of that name exists with other properties.
    ALREADY_EXISTS = 2, "AlreadyExists";
    /// Somebody else holds the object.
    IN_USE = 3, "InUse";
    /// The request itself is wrong; repeating it cannot help.
    INVALID_ARGUMENT = 4, "InvalidArgument";
    /// The offset or length lies outside the volume.
    OUT_OF_RANGE = 5, "OutOfRange";
    /// The backend is full. The volume stays consistent.
    NO_SPACE = 6, "NoSpace";
    /// The storage refused the caller's rights.
    PERMISSION_DENIED = 7, "PermissionDenied";
    /// The storage refused the caller's identity.
    UNAUTHENTICATED = 8, "Unauthenticated";
    /// The storage cannot be reached now.
    UNAVAILABLE = 9, "Unavailable";
    /// No answer before the deadline. For a mutation the outcome is unknown.
    TIMED_OUT = 10, "TimedOut";
    /// Stored data failed a check.
    CORRUPTED = 11, "Corrupted";
    /// Another writer took over; this one may never write again.
    FENCED = 12, "Fenced";
    /// The driver does not have this ability.
    UNSUPPORTED = 13, "Unsupported";
    /// The driver's code panicked.
    PANIC = 14, "Panic";
    /// A defect, in the driver or in the host.
    INTERNAL = 15, "Internal";
    /// The object is not as the request's condition says; nothing was changed. Since 1.3.
    CONFLICT = 16, "Conflict";
}

impl ErrorKind {
    /// The kind with this number.
    pub const fn from_code(code: u32) -> Self {
        Self(code)
    }

    /// The kind's number.
    pub const fn code(self) -> u32 {
        self.0
    }

    /// The kind that fits an operating system error.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::NOT_FOUND,
            Io::AlreadyExists => Self::ALREADY_EXISTS,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::PERMISSION_DENIED,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Self::NO_SPACE,
            Io::TimedOut => Self::TIMED_OUT,
            Io::InvalidInput => Self::INVALID_ARGUMENT,
            Io::ResourceBusy | Io::ExecutableFileBusy => Self::IN_USE,
            Io::Unsupported => Self::UNSUPPORTED,
            Io::ConnectionRefused | Io::ConnectionReset | Io::BrokenPipe | Io::NotConnected => {
                Self::UNAVAILABLE
            }
            _ => Self::INTERNAL,
        }
    }
}

impl fmt::Debug for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the same request may succeed later.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Retry(u32);

impl Retry {
    /// The same request will fail again.
    pub const PERMANENT: Self = Self(0);
    /// The same request may succeed later.
    pub const TEMPORARY: Self = Self(1);
}

#[repr(C)]
#[derive(StableAbi, Clone)]
#[doc(hidden)]
pub struct ErrorBody {
    kind: ErrorKind,
    retry: Retry,
    operation: RString,
    message: RString,
    remedy: RString,
    context: RVec<Tuple2<RString, RString>>,
    sources: RVec<RString>,
    reserved: [usize; 4],
}

/// A failure: kind, retry class, operation, message, context, remedy and the chain of its sources.
///
/// `Display` prints operation, message and context, never the sources; `{:#}` adds sources and remedy.
#[repr(transparent)]
#[derive(StableAbi, Clone)]
pub struct Error {
    body: RBox<ErrorBody>,
}

impl Error {
    /// A failure of this kind. `message` says what failed and why, for the operator.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::UNAVAILABLE
            | ErrorKind::TIMED_OUT
            | ErrorKind::IN_USE
            | ErrorKind::NO_SPACE => Retry::TEMPORARY,
            _ => Retry::PERMANENT,
        };
        let body = ErrorBody {
            kind,
            retry,
            operation: RString::new(),
            message: message.into().into(),
            remedy: RString::new(),
            context: RVec::new(),
            sources: RVec::new(),
            reserved: [0; 4],
        };
        Self { body: RBox::new(body) }
    }

    /// Overrides the retry class that follows from the kind.
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.body.retry = retry;
        self
    }

    /// Names the operation that failed, such as `create volume`. The innermost name wins.
    pub fn during(mut self, operation: impl Into<String>) -> Self {
        if self.body.operation.is_empty() {
            self.body.operation = operation.into().into();
        }
        self
    }

    /// Adds a fact, such as `("volume", "web1")`.
    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        let pair = Tuple2(key.into().into(), value.to_string().into());
        self.body.context.push(pair);
        self
    }

    /// Says what the operator should do next.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.body.remedy = remedy.into().into();
        self
    }

    /// Keeps the texts of the error that caused this one, outermost first.
    pub fn caused_by(mut self, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(source);
        while let Some(error) = next {
            self.body.sources.push(error.to_string().into());
            next = error.source();
        }
        self
    }

    /// A failure of the operating system, with the kind that fits it.
    pub fn from_io(message: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(ErrorKind::of_io(error), message).caused_by(error)
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.body.kind
    }

    /// Whether the same request may succeed later.
    pub fn retry(&self) -> Retry {
        self.body.retry
    }

    /// The operation that failed; empty if nobody named it.
    pub fn operation(&self) -> &str {
        &self.body.operation
    }

    /// What failed and why.
    pub fn message(&self) -> &str {
        &self.body.message
    }

    /// What to do next; empty if nobody said.
    pub fn remedy_text(&self) -> &str {
        &self.body.remedy
    }

    /// The facts added by [`Error::with`].
    pub fn context(&self) -> impl Iterator<Item = (&str, &str)> {
        self.body.context.iter().map(|pair| (pair.0.as_str(), pair.1.as_str()))
    }

    /// The texts of the causes, outermost first.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.body.sources.iter().map(|text| text.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.operation().is_empty() {
            write!(f, "{}: ", self.operation())?;
        }
        f.write_str(self.message())?;
        for (index, (key, value)) in self.context().enumerate() {
            let separator = if index == 0 { " (" } else { ", " };
            write!(f, "{separator}{key}: {value}")?;
        }
        if self.context().next().is_some() {
            f.write_str(")")?;
        }
        if f.alternate() {
            for source in self.sources() {
                write!(f, ": {source}")?;
            }
            if !self.remedy_text().is_empty() {
                write!(f, "; {}", self.remedy_text())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.kind())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::of_io(&error), error.to_string())
    }
}
