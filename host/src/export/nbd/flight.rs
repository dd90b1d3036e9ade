// SPDX-License-Identifier: Apache-2.0
//! Operations in flight: each starts inline; one that is not ready gets a slot, and is polled when its slot is woken.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use driver_api::IoBuf;
use nbd_protocol::{
    terms::{Refused, Terms},
    wire::{Command, Request},
};

use super::{
    operation::{Begun, EXTENTS, Operations, Outcome, Running},
    wakes::Wakes,
};
use crate::plugins::GuardedVolume;

/// What the answer to a [`Command::BLOCK_STATUS`] may take: all the extents that a driver is asked for.
const STATUS_LEN: usize = EXTENTS as usize * 24;

/// The operations of one connection that wait for the driver.
pub struct Flight {
    operations: Operations,
    wakes: Arc<Wakes>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    bytes: usize,
}

struct Slot {
    waker: Waker,
    operation: Option<(Request, Running)>,
}

impl Flight {
    /// Nothing in flight. `wakes` has a bit for every slot that will be used.
    pub fn new(volume: GuardedVolume, terms: Terms, wakes: Arc<Wakes>) -> Self {
        let operations = Operations::new(volume, terms);
        Self { operations, wakes, slots: Vec::new(), free: Vec::new(), bytes: 0 }
    }

    /// Operations in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of data that belong to the operations in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request may go to the volume as it is now.
    pub fn check(&self, request: &Request) -> Result<(), Refused> {
        self.operations.check(request)
    }

    /// Starts a checked request. `None`: it is in flight now.
    pub fn start(&mut self, request: Request, data: IoBuf) -> Option<Outcome> {
        match self.operations.begin(&request, data) {
            Begun::Done(outcome) => Some(outcome),
            Begun::Waits(running) => self.keep(request, running),
        }
    }

    fn keep(&mut self, request: Request, running: Running) -> Option<Outcome> {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            self.slots.push(Slot { waker: self.wakes.waker(index), operation: None });
            index
        });
        self.bytes += data_len(&request);
        self.slots[index].operation = Some((request, running));
        // A future wakes nobody before its first poll.
        self.poll_slot(index).map(|(_, outcome)| outcome)
    }

    /// Polls every operation that was woken, once.
    pub fn poll_woken(&mut self, mut finished: impl FnMut(Request, Outcome)) {
        let wakes = Arc::clone(&self.wakes);
        wakes.take(|index| {
            if let Some((request, outcome)) = self.poll_slot(index) {
                finished(request, outcome);
            }
        });
    }

    fn poll_slot(&mut self, index: usize) -> Option<(Request, Outcome)> {
        // A late waker of an earlier operation may name a slot that is free again.
        let slot = self.slots.get_mut(index)?;
        let (request, running) = slot.operation.as_mut()?;
        let request = *request;
        let mut task = Context::from_waker(&slot.waker);
        match self.operations.poll(&request, running, &mut task) {
            Poll::Pending => None,
            Poll::Ready(outcome) => {
                self.release(index, &request);
                Some((request, outcome))
            }
        }
    }

    /// Drops the operations in flight that change nothing: nobody waits for them. Changes of the volume stay.
    pub fn drop_reads(&mut self) {
        for index in 0..self.slots.len() {
            if let Some((request, running)) = &self.slots[index].operation
                && !matches!(running, Running::Change(_) | Running::ThenFlush(_))
            {
                let request = *request;
                self.release(index, &request);
            }
        }
    }

    fn release(&mut self, index: usize, request: &Request) {
        self.slots[index].operation = None;
        self.free.push(index);
        self.bytes -= data_len(request);
    }
}

/// Bytes of data that a request moves, in either direction.
pub fn data_len(request: &Request) -> usize {
    match request.command {
        // Neither is longer than MAX_PAYLOAD once it was checked.
        Command::READ | Command::WRITE => request.len as usize,
        Command::BLOCK_STATUS => STATUS_LEN,
        _ => 0,
    }
}
