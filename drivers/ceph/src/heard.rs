// SPDX-License-Identifier: Apache-2.0
//! An answer that figures are made of, and when it came.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// The last answer to a question that is asked now and then.
pub(crate) struct Heard<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Heard<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Heard<T> {
    /// An answer has come.
    pub fn note(&self, answer: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), answer));
    }

    /// The last one, if any came.
    pub fn get(&self) -> Option<(Instant, T)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
