// SPDX-License-Identifier: Apache-2.0
//! A server of HTTP that misbehaves on request: it passes requests to a real one, but those that a [`Rule`] is for meet a
//! [`Fault`]. It counts what passed, and keeps the last requests, so that a failure can be understood.
//!
//! What it passes is unchanged, `Host` included, so that signatures hold. Each request has a connection of its own to the
//! server behind; who asks keeps theirs.

mod message;
mod relay;
mod rule;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

pub use rule::{Fault, Rule};

use crate::failure::{Context, Outcome};

/// Connections at a time; one more is closed at once.
const MOST_CONNECTIONS: usize = 512;
/// Requests that are remembered.
const REMEMBERED: usize = 200;

/// A rule in force, and what it has seen.
struct Armed {
    id: u64,
    rule: Rule,
    seen: u64,
    hits: u64,
    since: Option<Instant>,
}

/// What passed.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests, with those that met a fault.
    pub requests: u64,
    /// Requests that met a fault.
    pub faults: u64,
    /// Bytes of requests' bodies that went to the server behind.
    pub up: u64,
    /// Bytes of answers' bodies that went to who asked.
    pub down: u64,
}

struct Shared {
    behind: SocketAddr,
    armed: Mutex<Vec<Armed>>,
    last: Mutex<VecDeque<String>>,
    methods: Mutex<BTreeMap<String, u64>>,
    next: AtomicU64,
    now: AtomicUsize,
    connections: AtomicU64,
    requests: AtomicU64,
    faults: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The fault that a request meets: that of the first rule that is for it.
    fn fault(&self, method: &str, target: &str) -> Option<Fault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        *lock(&self.methods).entry(method.to_owned()).or_default() += 1;
        let mut armed = lock(&self.armed);
        for one in armed.iter_mut().filter(|one| one.rule.is_for(method, target)) {
            one.seen += 1;
            if one.seen <= one.rule.skipped || one.hits >= one.rule.most {
                continue;
            }
            let since = *one.since.get_or_insert_with(Instant::now);
            if one.rule.lasts.is_some_and(|lasts| since.elapsed() > lasts) {
                continue;
            }
            one.hits += 1;
            self.faults.fetch_add(1, Ordering::Relaxed);
            return Some(one.rule.fault.clone());
        }
        None
    }

    fn remember(&self, line: String) {
        let mut last = lock(&self.last);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(line);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// The server that misbehaves. It ends when it is dropped; connections that wait for something end a little later.
pub struct Faults {
    port: u16,
    shared: Arc<Shared>,
}

impl Faults {
    /// One before this server.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn before(behind: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for faults")?;
        let port = listener.local_addr().context("a port for faults")?.port();
        let shared = Arc::new(Shared {
            behind,
            armed: Mutex::default(),
            last: Mutex::default(),
            methods: Mutex::default(),
            next: AtomicU64::new(1),
            now: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &of_thread));
        Ok(Self { port, shared })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// This URL with its address in place of the one behind.
    pub fn url(&self, behind: &str) -> String {
        let place = format!("127.0.0.1:{}", self.port);
        behind.replace(&self.shared.behind.to_string(), &place)
    }

    /// Puts a rule into force, behind those that are, and gives its number.
    pub fn arm(&self, rule: Rule) -> u64 {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.armed).push(Armed { id, rule, seen: 0, hits: 0, since: None });
        id
    }

    /// How many requests met the fault of this rule; 0 once all rules are gone.
    pub fn hits(&self, id: u64) -> u64 {
        let armed = lock(&self.shared.armed);
        armed.iter().find(|one| one.id == id).map_or(0, |one| one.hits)
    }

    /// Takes all rules out of force.
    pub fn calm(&self) {
        lock(&self.shared.armed).clear();
    }

    /// What passed since the beginning.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            connections: of(&shared.connections),
            requests: of(&shared.requests),
            faults: of(&shared.faults),
            up: of(&shared.up),
            down: of(&shared.down),
        }
    }

    /// Requests of this method since the beginning.
    pub fn requests(&self, method: &str) -> u64 {
        lock(&self.shared.methods).get(method).copied().unwrap_or_default()
    }

    /// The last requests and what they were answered, a line each; `most` at most.
    pub fn last(&self, most: usize) -> String {
        let last = lock(&self.shared.last);
        let skipped = last.len().saturating_sub(most);
        last.iter().skip(skipped).map(|line| format!("    {line}\n")).collect()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if nobody listens any more, it has ended.
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_over() {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.now.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            shared.now.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that breaks is what both sides see, and nothing to be told here.
            let _ = relay::serve(client, &shared);
            shared.now.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
#[path = "faults/faults_tests.rs"]
mod tests;
