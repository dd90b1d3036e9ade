// SPDX-License-Identifier: Apache-2.0
//! A new client in place of one that left a write in doubt: what the old one has under way must not land later, and only the
//! cluster can promise that, by fencing it.
//!
//! 1. A new client connects and opens the image.
//! 2. It takes the old one's place in the register, and fences it (`succession.rs`). An entry of somebody else there, or none,
//!    means that the volume was taken over: the attachment ends as fenced, and the new client has changed nothing.
//! 3. It takes librbd's exclusive lock.
//! 4. Once no operation uses the old image any more the new one is put in its place, and the old one closed.
//!
//! What fails is tried again with yet another client, after a pause. One thread does this for an attachment; operations wait
//! without a thread. Closing the volume ends it: it looks after each step, and gives up what it has.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use driver_api::{ErrorKind, Result};

use crate::{
    attached::{Attached, Opened},
    cluster::Connection,
    ending,
    holders::{self, Entry},
    image::Image,
    perf::Perf,
    succession::{self, Identity},
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks whether anybody has the volume still.
const LOOK: Duration = Duration::from_millis(500);

/// Begins a renewal, unless there is one or nothing to renew. Waits for nothing.
pub(crate) fn begin(attached: &Arc<Attached>) {
    if !attached.begin_renewing() {
        return;
    }
    let renewed = Arc::clone(attached);
    if let Err(error) = ending::start("nova-ceph-renew", move || run(&renewed)) {
        tracing::error!(volume = attached.name, %error, "no thread to replace the volume's client with: the next flush tries again");
        attached.end_renewing();
    }
}

/// Whether nobody wants it any more: it was detached, taken over, or dropped without a detach.
fn is_over(attached: &Arc<Attached>) -> bool {
    attached.is_over() || Arc::strong_count(attached) == 1
}

/// While there is one, operations wait. It ends also where the renewal panics.
struct Renewing<'a>(&'a Attached);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.end_renewing();
    }
}

fn run(attached: &Arc<Attached>) {
    let _renewing = Renewing(attached);
    let (volume, begun) = (attached.name.as_str(), Instant::now());
    tracing::warn!(
        volume,
        "a write's outcome is not known: replacing the volume's client, and fencing the one that wrote"
    );
    let (mut clients, mut pause, mut attempts) = (Vec::new(), FIRST_PAUSE, 0_u32);
    while !is_over(attached) {
        attempts += 1;
        match attempt(attached, &mut clients) {
            Ok(Outcome::Renewed) => {
                let secs = begun.elapsed().as_secs_f64();
                tracing::info!(volume, attempts, secs, "the volume works again, with a new client");
                break;
            }
            Ok(Outcome::TakenOver) => {
                tracing::warn!(volume, "the volume was taken over meanwhile");
                attached.note_fenced();
            }
            Ok(Outcome::Unwanted) => break,
            Err(error) => {
                tracing::warn!(
                    volume,
                    attempts,
                    "the volume's client is not replaced yet: {error:#}"
                );
                sleep(attached, pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What came of an attempt that did not fail.
enum Outcome {
    Renewed,
    /// Somebody else has the register, or has had it.
    TakenOver,
    /// Nobody wants the volume any more.
    Unwanted,
}

/// Looks at the clock and at whether it is over.
fn sleep(attached: &Arc<Attached>, pause: Duration) {
    let until = Instant::now() + pause;
    while !is_over(attached) && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now()).min(LOOK);
        attached.wait_until(left, Attached::is_over);
    }
}

/// What a new client has, given up in this order if it does not come to be the volume's: the image before the connection.
pub(crate) struct Next {
    pub opened: Opened,
    pub connection: Connection,
    pub perf: Option<Perf>,
}

/// Tries it once. `clients` are those that may have had the register since the write was in doubt.
fn attempt(attached: &Arc<Attached>, clients: &mut Vec<Identity>) -> Result<Outcome> {
    let held = attached.look_at_held(|held| (Identity::of(&held.connection), held.entry.clone()));
    let Some((current, entry)) = held else { return Ok(Outcome::Unwanted) };
    if clients.is_empty() {
        clients.push(current?);
    }
    let perf = attached.perf().map(|perf| perf.next()).transpose()?;
    let connection = attached.cluster.another(perf.as_ref().map(Perf::path))?;
    let opened = match Image::open_id(&connection, &entry.image_id()?) {
        Ok(image) => Opened::new(image, &connection),
        // It was deleted, register and all.
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => return Ok(Outcome::TakenOver),
        Err(error) => return Err(error),
    };
    let next = Next { opened, connection, perf };
    if is_over(attached) {
        return Ok(Outcome::Unwanted);
    }
    let forerunners = clients.clone();
    // Noted before it can have the register: whatever comes of it is recognised at the next try.
    clients.push(Identity::of(&next.connection)?);
    let Some(entry) = succession::succeed(&next.connection, &entry, &forerunners)? else {
        return Ok(Outcome::TakenOver);
    };
    match settle_in(attached, next, entry, &forerunners)? {
        None => Ok(Outcome::Renewed),
        // The forerunners are fenced, so that the next attacher does not need to find the entry.
        Some((next, entry)) => entry.remove(&next.connection).map(|()| Outcome::Unwanted),
    }
}

/// Puts the new client in its forerunners' place, which are fenced; gives it back if nobody wants it any more.
fn settle_in(
    attached: &Arc<Attached>,
    next: Next,
    entry: Entry,
    forerunners: &[Identity],
) -> Result<Option<(Next, Entry)>> {
    let image = next.opened.image();
    holders::take_lock(&image, &attached.name, |owner| {
        forerunners.iter().any(|one| one.address == owner)
    })?;
    let size = image.size()?;
    while !attached.is_unused() && !is_over(attached) {
        attached.wait_until(LOOK, |own| own.is_unused() || own.is_over());
    }
    if is_over(attached) {
        return Ok(Some((next, entry)));
    }
    match attached.replace(next, entry) {
        Ok(before) => {
            attached.size.store(size, Ordering::Release);
            ending::on_a_thread(move || before.end_fenced());
            Ok(None)
        }
        Err(unwanted) => Ok(Some(*unwanted)),
    }
}
