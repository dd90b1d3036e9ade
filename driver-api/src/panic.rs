// SPDX-License-Identifier: Apache-2.0
//! Keeps panics on the side where they happen: they leave as errors of kind `Panic`.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{Error, ErrorKind, Result};

/// Runs `call`; a panic becomes an error.
pub(crate) fn guard<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(payload) => Err(error_of(payload)),
    }
}

/// Runs `call`; a panic becomes `fallback`, and is logged with `what`.
pub(crate) fn or_else<T>(what: &str, call: impl FnOnce() -> T, fallback: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(payload) => {
            let error = error_of(payload);
            crate::host::report_panic(what, error.message());
            fallback()
        }
    }
}

/// Runs `call`; a panic is logged with `what` and ends there.
pub(crate) fn contain(what: &str, call: impl FnOnce()) {
    or_else(what, call, || ());
}

/// The error that a panic's payload turns into.
pub(crate) fn error_of(payload: Box<dyn Any + Send>) -> Error {
    let text = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is not text".to_owned()
    };
    // A payload may panic again when dropped; forgetting it leaks a few bytes instead.
    std::mem::forget(payload);
    Error::new(ErrorKind::PANIC, format!("the driver panicked: {text}"))
        .remedy("report this to the driver's author; the backend is marked degraded")
}
