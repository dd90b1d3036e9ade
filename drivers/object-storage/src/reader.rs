// SPDX-License-Identifier: Apache-2.0
//! Reading in order: one request for all, gone on with where its answer broke off, under the ETag of its beginning.
//!
//! What comes is handed on as it came, without a copy. Time that the caller takes between two calls costs a new request at
//! most: the deadline is that of each call.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, IoBuf, Op, OpContext, Result,
    ext::{Conditions, ObjectName, ObjectReader, ObjectReading, OpenedObject},
};
use object_store::client::HttpResponseBody;
use tokio::sync::Mutex;

use crate::{
    account::Account,
    call::Ask,
    error::{place, unsupported},
    get::{Answering, DAMAGED, Stop, answering, empty, find, past_end, stop_of, sum_of},
    info::Found,
    objects::ObjectsOf,
    retry::Pauses,
    sums::{self, Running, Sum},
};

/// Up to so many bytes with a sum are kept until the sum is found right, so that they can be fetched again.
const KEPT: u64 = 1 << 20;

/// Bytes a second below which an answer only drips: the rest is asked for anew, which costs a truly slow line a request now
/// and then.
const DRIP: u64 = 16 << 10;

/// An object that is being read.
struct Reader(Arc<Inner>);

struct Inner {
    account: Arc<Account>,
    object: ObjectName,
    found: Found,
    offset: u64,
    len: u64,
    /// The sum that the store told of just these bytes.
    told: Option<Sum>,
    state: Mutex<State>,
}

struct State {
    /// How many bytes came.
    at: u64,
    /// Those that are not handed out yet.
    ready: VecDeque<Bytes>,
    body: Option<HttpResponseBody>,
    /// The last request, for messages.
    ask: Ask,
    running: Option<Running>,
    pace: Pace,
    /// How often all of it had to be fetched again.
    damaged: u32,
    /// That the sum is wrong, once bytes were handed out.
    corrupted: Option<Error>,
    stopped: Stopped,
}

/// How fast the answer comes. What its taker does between two calls takes no time of it.
#[derive(Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Whether the answer drips, which is told once in each `window` of waiting.
    fn drips(&mut self, waited: Duration, came: usize, window: Duration) -> bool {
        self.waited += waited;
        self.came += came as u64;
        if self.waited < window {
            return false;
        }
        let Self { waited, came } = std::mem::take(self);
        (came as f64) < DRIP as f64 * waited.as_secs_f64()
    }
}

/// What stands in the way of going on, if anything does.
struct Stopped {
    pauses: Pauses,
    /// Why the last attempt ended, and how long the store asked to be left alone.
    last: Option<(Error, Option<Duration>)>,
    attempts: u32,
}

impl Stopped {
    fn new() -> Self {
        Self { pauses: Pauses::new(), last: None, attempts: 0 }
    }
}

/// Which bytes of which object.
struct Wanted<'a> {
    account: &'a Account,
    object: &'a ObjectName,
    from: u64,
    missing: u64,
    under: &'a Conditions,
    begun: Option<&'a Found>,
}

impl Wanted<'_> {
    /// Asks until there is an answer with these bytes, another that is final, or the deadline.
    async fn open(&self, stopped: &mut Stopped, ask: &Ask, until: Instant) -> Result<Answering> {
        let account = self.account;
        loop {
            // What stopped the attempt before counts until bytes come, whichever call they come to.
            if let Some((_, after)) = &stopped.last {
                let pause = stopped.pauses.pause(*after);
                if Instant::now() + pause >= until {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            if !account.turn(until).await {
                break;
            }
            stopped.attempts += 1;
            if stopped.attempts > 1 {
                account.traffic.retries.fetch_add(1, Relaxed);
            }
            let Self { object, from, missing, under, begun, .. } = *self;
            match answering(account, object, from, missing, under, begun, until).await {
                Ok(answer) => return Ok(answer),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again(error, after)) => stopped.last = Some((error, after)),
            }
        }
        let last = stopped.last.as_ref().map(|(error, _)| error.clone());
        Err(account.given_up(ask, None, last, stopped.attempts))
    }
}

/// Opens an object from `offset` on, for `len` bytes at most.
pub(crate) async fn open(
    account: Arc<Account>,
    object: ObjectName,
    offset: u64,
    len: u64,
    under: Conditions,
    until: Instant,
) -> Result<OpenedObject> {
    let (mut stopped, account_of) = (Stopped::new(), Arc::clone(&account));
    let ask = Ask::new("get object", http::Method::GET, &object.bucket, &object.key);
    let wanted = Wanted {
        account: &account_of,
        object: &object,
        from: offset,
        missing: len.max(1),
        under: &under,
        begun: None,
    };
    let (found, len, told, body) = match wanted.open(&mut stopped, &ask, until).await {
        Ok(Answering { found, headers, body, .. }) => {
            if found.info.etag.is_empty() {
                return Err(unsupported("without an ETag, an object is read in pieces"));
            }
            let len = len.min(found.info.size.saturating_sub(offset));
            let told = sum_of(account.kind, &found, &headers, offset, len);
            (found, len, told, Some(body))
        }
        Err(error) if empty(&error) => {
            let found = find(&account, &object, &under, until).await?;
            if found.info.size > 0 || offset > 0 {
                return Err(past_end(&object, offset, found.info.size));
            }
            (found, 0, None, None)
        }
        Err(error) => return Err(error),
    };
    let state = State {
        at: 0,
        ready: VecDeque::new(),
        body: body.filter(|_| len > 0),
        ask,
        running: told.map(|told| Running::new(told.way())),
        pace: Pace::default(),
        damaged: 0,
        corrupted: None,
        stopped: Stopped::new(),
    };
    let info = found.info.clone();
    let inner = Inner { account, object, found, offset, len, told, state: Mutex::new(state) };
    Ok(OpenedObject { object: info, offset, len, reader: Arc::new(Reader(Arc::new(inner))) })
}

impl ObjectReader for Reader {
    fn next(&self, cx: &OpContext) -> Op<IoBuf> {
        let inner = Arc::clone(&self.0);
        let objects = ObjectsOf(Arc::clone(&inner.account));
        objects.run("read object", cx, |_, until| async move { inner.next(until).await })
    }
}

impl Inner {
    /// The next bytes. Dropped at any point, it has lost none.
    async fn next(&self, until: Instant) -> Result<IoBuf> {
        let mut state = self.state.lock().await;
        loop {
            if let Some(error) = &state.corrupted {
                return Err(error.clone());
            }
            if (!self.keeps() || state.at == self.len)
                && let Some(bytes) = state.ready.pop_front()
            {
                return Ok(IoBuf::from(bytes));
            }
            if state.at == self.len {
                return Ok(IoBuf::empty());
            }
            self.more(&mut state, until).await?;
        }
    }

    /// Whether nothing is handed out before the sum of all is found right.
    fn keeps(&self) -> bool {
        self.told.is_some() && self.len <= KEPT
    }

    /// Waits for bytes, or learns that none come any more on this connection.
    async fn more(&self, state: &mut State, until: Instant) -> Result<()> {
        let Some(body) = state.body.as_mut() else { return self.go_on(state, until).await };
        let asked = Instant::now();
        let stop = match self.account.more(body, until).await {
            Ok(Some(bytes)) => {
                let window = self.account.config.request_timeout();
                let drips = state.pace.drips(asked.elapsed(), bytes.len(), window);
                self.take(state, bytes, until).await?;
                if drips {
                    tracing::debug!(
                        key = &*self.object.key,
                        "an answer drips: the rest is asked for anew"
                    );
                    state.body = None;
                }
                return Ok(());
            }
            Ok(None) => {
                let why = format!("the answer ended after {} of {} bytes", state.at, self.len);
                let error = Error::new(ErrorKind::UNAVAILABLE, why)
                    .remedy("look at the server and the network");
                Stop::Again(place(error, &self.account, &state.ask), None)
            }
            Err(fault) => stop_of(&self.account, &state.ask, fault),
        };
        state.body = None;
        match stop {
            Stop::Again(error, after) => state.stopped.last = Some((error, after)),
            Stop::Final(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks for what is missing, of the same object.
    async fn go_on(&self, state: &mut State, until: Instant) -> Result<()> {
        let wanted = Wanted {
            account: &self.account,
            object: &self.object,
            from: self.offset + state.at,
            missing: self.len - state.at,
            under: &Conditions::default(),
            begun: Some(&self.found),
        };
        // The attempts that a message tells of are those since the last bytes.
        state.stopped.attempts = state.stopped.attempts.max(1);
        match wanted.open(&mut state.stopped, &state.ask, until).await {
            Ok(Answering { ask, found, body, .. }) if found.info.size == self.found.info.size => {
                (state.ask, state.body, state.pace) = (ask, Some(body), Pace::default());
                Ok(())
            }
            Ok(_) => Err(self.replaced()),
            Err(error) if empty(&error) => Err(self.replaced()),
            Err(error) => Err(error),
        }
    }

    /// Takes what came: its place, and its share of the sum.
    async fn take(&self, state: &mut State, mut bytes: Bytes, until: Instant) -> Result<()> {
        let room = self.len - state.at;
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(());
        }
        state.at += bytes.len() as u64;
        state.stopped = Stopped::new();
        if let Some(running) = &mut state.running {
            running.add(&bytes);
        }
        while !bytes.is_empty() {
            let some = bytes.split_to(bytes.len().min(ObjectReading::MOST));
            state.ready.push_back(some);
        }
        if state.at < self.len {
            return Ok(());
        }
        if let (Some(told), Some(running)) = (self.told, &state.running)
            && running.sum() != told
        {
            let made = running.sum();
            return self.damaged(state, told, made);
        }
        // Read to its end, so that the connection can be used again.
        if let Some(body) = &mut state.body {
            let soon = until.min(Instant::now() + Duration::from_millis(50));
            let _ = self.account.more(body, soon).await;
            state.body = None;
        }
        Ok(())
    }

    /// What came is not what the store has. It is fetched again, if nothing of it was handed out.
    fn damaged(&self, state: &mut State, told: Sum, made: Sum) -> Result<()> {
        let why = "what arrived is not what the store has";
        let error = sums::damaged(why, &told.told(), &made.told());
        let error = place(error, &self.account, &state.ask);
        state.damaged += 1;
        (state.body, state.running) = (None, Some(Running::new(told.way())));
        state.ready.clear();
        if !self.keeps() || state.damaged == DAMAGED {
            state.corrupted = Some(error.clone());
            return Err(error);
        }
        state.at = 0;
        state.stopped.last = Some((error, None));
        Ok(())
    }

    fn replaced(&self) -> Error {
        Error::new(ErrorKind::CONFLICT, "the object was replaced while it was read")
            .with("object", &self.object.key)
            .with("etag", &self.found.info.etag)
            .remedy("read it again from its beginning")
    }
}
