// SPDX-License-Identifier: Apache-2.0
//! Idempotent requests: the answer to a request with an `Idempotency-Key` is kept for a day, and given again when the
//! same request comes with the same key.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use driver_api::{Error, ErrorKind, Result, StateHandle};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::volumes::{Room, Stored, unix_now};

/// How long an answer is kept, in seconds.
const KEPT_SECS: u64 = 25 * 3600;
/// Answers kept at once. Beyond, new keys are refused: a kept answer is a promise.
const MOST: usize = 20_000;
/// New keys between two looks for expired ones.
const LOOK_EVERY: u64 = 256;
const LONGEST_KEY: usize = 200;
const LONGEST_ANSWER: usize = 64 << 10;

#[derive(Serialize, Deserialize, Clone, Debug)]
struct RequestRecord {
    digest: String,
    at_unix_secs: u64,
    answer: Option<Answer>,
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// What is known of a request.
#[derive(Debug)]
pub enum Seen {
    /// It was answered before.
    Answered(Answer),
    /// It is to be done now.
    Begin(Begun),
}

/// A request that is being done.
#[derive(Debug)]
pub struct Begun {
    stored: Stored<RequestRecord>,
    /// An earlier attempt was cut off by a crash: it may have done everything already.
    pub repeated: bool,
}

/// Requests with a key. A cheap handle.
#[derive(Clone)]
pub struct Requests {
    records: Room<RequestRecord>,
    under_way: Arc<Mutex<HashSet<String>>>,
    begun: Arc<AtomicU64>,
}

impl Requests {
    /// The requests of this state.
    pub fn new(state: StateHandle) -> Self {
        Self {
            records: Room::new(state, "requests/"),
            under_way: Arc::default(),
            begun: Arc::default(),
        }
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a request up and marks it as begun. After `Begin`, [`Requests::end`] must follow.
    pub async fn begin(&self, key: &str, request: &[&[u8]]) -> Result<Seen> {
        if key.is_empty() || key.len() > LONGEST_KEY {
            let why = format!("an Idempotency-Key has 1 to {LONGEST_KEY} characters");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why));
        }
        let name = hex(&Sha256::digest(key.as_bytes()));
        let mut hasher = Sha256::new();
        for part in request {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest = hex(&hasher.finalize());
        if !self.under_way().insert(name.clone()) {
            return Err(Error::new(ErrorKind::IN_USE, "the request with this key is under way")
                .remedy("wait, then repeat it with the same key"));
        }
        let begun = self.begin_marked(&name, digest).await;
        if !matches!(begun, Ok(Seen::Begin(_))) {
            self.under_way().remove(&name);
        }
        begun
    }

    async fn begin_marked(&self, name: &str, digest: String) -> Result<Seen> {
        if let Some(stored) = self.records.get(name).await? {
            if stored.record.digest != digest {
                return Err(Error::new(
                    ErrorKind::INVALID_ARGUMENT,
                    "this Idempotency-Key was used for another request",
                )
                .remedy("use a new key for each new request"));
            }
            return Ok(match stored.record.answer.clone() {
                Some(answer) => Seen::Answered(answer),
                None => Seen::Begin(Begun { stored, repeated: true }),
            });
        }
        self.make_room().await?;
        let record = RequestRecord { digest, at_unix_secs: unix_now(), answer: None };
        match self.records.create(name, record).await? {
            Some(stored) => Ok(Seen::Begin(Begun { stored, repeated: false })),
            None => Err(Error::new(ErrorKind::IN_USE, "the request with this key is under way")),
        }
    }

    async fn make_room(&self) -> Result<()> {
        if !self.begun.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        let all = self.records.list().await?;
        let old = unix_now().saturating_sub(KEPT_SECS);
        let (expired, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|stored| stored.record.at_unix_secs < old);
        for stored in &expired {
            self.records.remove(stored).await?;
        }
        if kept.len() < MOST {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::UNAVAILABLE,
            format!("{MOST} answers of the last day are kept, and there is no room for more"),
        )
        .remedy("send requests without Idempotency-Key, or wait"))
    }

    /// Keeps the answer. One that may succeed when repeated is not kept.
    pub async fn end(&self, mut begun: Begun, answer: Answer) -> Result<()> {
        self.under_way().remove(&begun.stored.name);
        if answer.status >= 500 || answer.body.len() > LONGEST_ANSWER {
            return self.records.remove(&begun.stored).await;
        }
        begun.stored.record.answer = Some(answer);
        self.records.save(&mut begun.stored).await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
