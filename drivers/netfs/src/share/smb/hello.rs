// SPDX-License-Identifier: Apache-2.0
//! The transport of a connection, which corrects its first message.
//!
//! NEGOTIATE as crate `smb2` sends it offers every dialect and leaves the capability bit for encryption out. Some servers
//! then serve no share that demands encryption, though they agreed on a cipher. Both are put right on the way out.
//! SMB 3.1.1 derives its keys from a hash over these very bytes, so that what was sent and what came is kept for it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use smb2::{
    crypto::kdf::PreauthHasher,
    transport::{TransportReceive, TransportSend},
};

use super::socket::Socket;
use crate::counters::Figures;

/// Bytes of a message's header.
const HEADER: usize = 64;
/// Where the message's kind is in the header.
const COMMAND: usize = 12;
/// Where NEGOTIATE has the number of dialects.
const DIALECT_COUNT: usize = HEADER + 2;
/// Where it has the client's capabilities.
const CAPABILITIES: usize = HEADER + 8;
/// Where its dialects begin.
const DIALECTS: usize = HEADER + 36;
/// The capability to encrypt.
const ENCRYPTION: u8 = 0x40;

/// The first question and its answer, as they were on the wire.
#[derive(Default)]
pub(super) struct Hello {
    question: Vec<u8>,
    answer: Vec<u8>,
}

/// A connection's socket.
pub(super) struct Wire {
    socket: Arc<Socket>,
    hello: Arc<Mutex<Hello>>,
    /// The dialects that may be offered, the best first.
    dialects: Arc<[u16]>,
    figures: Arc<Figures>,
}

impl Wire {
    /// One end for sending and one for receiving.
    pub fn pair(socket: &Arc<Socket>, dialects: &[u16], figures: &Arc<Figures>) -> (Self, Self) {
        let hello = Arc::new(Mutex::default());
        let dialects: Arc<[u16]> = dialects.into();
        let end = || Self {
            socket: Arc::clone(socket),
            hello: Arc::clone(&hello),
            dialects: Arc::clone(&dialects),
            figures: Arc::clone(figures),
        };
        (end(), end())
    }

    /// What was said first.
    pub fn hello(&self) -> Arc<Mutex<Hello>> {
        Arc::clone(&self.hello)
    }
}

/// The hash over what really was on the wire.
pub(super) fn hash_of(hello: &Mutex<Hello>) -> PreauthHasher {
    let hello = hold(hello);
    let mut hasher = PreauthHasher::new();
    hasher.update(&hello.question);
    hasher.update(&hello.answer);
    hasher
}

/// What the server is asked before 3.1.1, signed, about the question that it saw; and what it has to say of its answer.
/// Somebody in between who changed either, for an older version or none of the encryption, is found out.
pub(super) fn recalled(hello: &Mutex<Hello>) -> Option<(Vec<u8>, Vec<u8>)> {
    let hello = hold(hello);
    let (asked, told) = (&hello.question, &hello.answer);
    let count = asked.get(DIALECT_COUNT..DIALECT_COUNT + 2)?;
    let dialects = 2 * usize::from(u16::from_le_bytes([count[0], count[1]]));
    let question = [
        // Capabilities and identity, whether it signs, and the versions.
        asked.get(CAPABILITIES..CAPABILITIES + 20)?,
        asked.get(HEADER + 4..HEADER + 6)?,
        count,
        asked.get(DIALECTS..DIALECTS + dialects)?,
    ];
    // The same of the server, in another order there.
    let answer = [
        told.get(HEADER + 24..HEADER + 28)?,
        told.get(HEADER + 8..HEADER + 24)?,
        told.get(HEADER + 2..HEADER + 6)?,
    ];
    Some((question.concat(), answer.concat()))
}

/// As if somebody had taken the capability to encrypt out of the question on the way.
#[cfg(test)]
pub(super) fn tamper(hello: &Mutex<Hello>) {
    hold(hello).question[CAPABILITIES] &= !ENCRYPTION;
}

fn hold(hello: &Mutex<Hello>) -> MutexGuard<'_, Hello> {
    hello.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_negotiate(message: &[u8]) -> bool {
    message.len() > DIALECTS
        && message.starts_with(b"\xfeSMB")
        && message[COMMAND..COMMAND + 2] == [0, 0]
}

/// NEGOTIATE with the capability to encrypt and with no other dialects than these.
fn corrected(message: &[u8], dialects: &[u16]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[CAPABILITIES] |= ENCRYPTION;
    let count = u16::from_le_bytes([message[DIALECT_COUNT], message[DIALECT_COUNT + 1]]);
    let Some(best) = dialects.first() else { return message };
    let all = message[DIALECTS..].chunks_exact_mut(2).take(count.into());
    for offered in all {
        if !dialects.contains(&u16::from_le_bytes([offered[0], offered[1]])) {
            // The list keeps its length, so that what comes behind it keeps its place: naming one twice is allowed.
            offered.copy_from_slice(&best.to_le_bytes());
        }
    }
    message
}

type Moving<'a, T> = Pin<Box<dyn Future<Output = smb2::Result<T>> + Send + 'a>>;

impl TransportSend for Wire {
    fn send<'this, 'data, 'both>(&'this self, data: &'data [u8]) -> Moving<'both, ()>
    where
        'this: 'both,
        'data: 'both,
        Self: 'both,
    {
        Box::pin(async move {
            self.figures.sent(data.len());
            if !is_negotiate(data) {
                return self.socket.send(data).await;
            }
            let data = corrected(data, &self.dialects);
            hold(&self.hello).question.clone_from(&data);
            self.socket.send(&data).await
        })
    }
}

impl TransportReceive for Wire {
    fn receive<'this, 'both>(&'this self) -> Moving<'both, Vec<u8>>
    where
        'this: 'both,
        Self: 'both,
    {
        Box::pin(async move {
            let data = self.socket.receive().await?;
            self.figures.received(data.len());
            let mut hello = hold(&self.hello);
            if hello.answer.is_empty() {
                hello.answer.clone_from(&data);
            }
            drop(hello);
            Ok(data)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(dialects: &[u16]) -> Vec<u8> {
        let mut message = vec![0; DIALECTS];
        message[..4].copy_from_slice(b"\xfeSMB");
        message[DIALECT_COUNT] = dialects.len() as u8;
        message.extend(dialects.iter().flat_map(|dialect| dialect.to_le_bytes()));
        message.extend([0xAA; 8]);
        message
    }

    #[test]
    fn negotiate_offers_encryption_and_what_is_allowed() {
        let message = negotiate(&[0x0202, 0x0210, 0x0300, 0x0302, 0x0311]);
        assert!(is_negotiate(&message));
        let sent = corrected(&message, &[0x0311, 0x0302]);
        assert_eq!(sent.len(), message.len());
        assert_eq!(sent[CAPABILITIES], ENCRYPTION);
        let offered = [0x0311_u16, 0x0311, 0x0311, 0x0302, 0x0311];
        let offered: Vec<u8> = offered.iter().flat_map(|dialect| dialect.to_le_bytes()).collect();
        assert_eq!(sent[DIALECTS..DIALECTS + 10], offered[..]);
        assert_eq!(sent[DIALECTS + 10..], [0xAA; 8]);
    }

    #[test]
    fn other_messages_are_none_of_its_business() {
        let mut message = negotiate(&[0x0311]);
        message[COMMAND] = 8;
        assert!(!is_negotiate(&message));
        assert!(!is_negotiate(b"\xfdSMB"));
    }
}
